"""Build the :class:`~olmix_jax.laws.fit_result.FitResult` of a fit from its predictions."""

from typing import Any

import numpy as np

from olmix_jax.laws import intervals
from olmix_jax.laws.fit_result import AverageFit, CoverageCurve, FitResult, LearningCurve, Sampled, TaskFit
from olmix_jax.laws.law import Fit, Law, evaluate
from olmix_jax.laws.quality import Quality
from olmix_jax.laws.scores import Scores, score
from olmix_jax.swarm.table import SwarmTable

# Share of the base mixture that goes to one domain in an effect.
EFFECT_STEP = 0.1
# Levels of the coverage curve.
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def summarise(
    law: Law,
    table: SwarmTable,
    fit: Fit,
    held_out: Quality,
    left_out_KN: np.ndarray | None,
    curve: LearningCurve | None,
    *,
    folds: int,
    digest: str,
) -> FitResult:
    """Return the FitResult of a fit.

    Args:
      law: the family.
      table: the swarm.
      fit: the fit to all runs.
      held_out: its cross-validation.
      left_out_KN: leave-one-out predictions [BPB]; None for laws with expensive refits.
      curve: its learning curve; None if it could not be measured.
      folds: folds of the cross-validation.
      digest: identifies the parameters.
    """
    in_sample = score(evaluate(law, fit.params, law.rows(table.ratios_KM, table.lengths)), table.bpb_KN)
    left_out = None if left_out_KN is None else score(left_out_KN, table.bpb_KN)
    base_M, effect_MN = effects(law, fit.params, table)
    base = "natural mixture" if table.natural_M is not None else "average run's mixture"
    predicted_KN = held_out.predicted_KN

    def by_task(bpb_KN: np.ndarray) -> dict[str, tuple[float, ...]]:
        return {task: tuple(bpb_K) for task, bpb_K in zip(table.tasks, bpb_KN.T.tolist())}

    return FitResult(
        tasks=_tasks(law, table, fit, held_out, in_sample, left_out, effect_MN),
        spearman_cv_mean=float(held_out.spearman_N.mean()),
        spearman_of_mean_cv=held_out.spearman_of_mean,
        r2_cv_mean=float(held_out.r2_N.mean()),
        rmse_cv_mean=float(held_out.rmse_N.mean()),
        coverage_cv_mean=float(held_out.coverage_N.mean()),
        spearman_in_sample_mean=float(in_sample.spearman_N.mean()),
        level=intervals.LEVEL,
        effect=f"change in BPB when a tenth of the {base} is replaced by the domain",
        base=dict(zip(table.domains, base_M.tolist())),
        runs=table.runs,
        measured=by_task(table.bpb_KN),
        predicted_cv=by_task(predicted_KN),
        low_cv=by_task(predicted_KN - held_out.reach_KN),
        high_cv=by_task(predicted_KN + held_out.reach_KN),
        average=_average(held_out, table.bpb_KN),
        coverage_curve=_coverage_curve(held_out, table.bpb_KN),
        unseen=tuple(table.domains[j] for j in fit.unseen),
        barely_sampled={name: Sampled(c.runs, c.max) for name, c in table.barely_sampled().items()},
        law=law.name,
        folds=folds,
        fold=tuple(held_out.fold_K.tolist()),
        digest=digest,
        learning_curve=curve,
        spearman_loo_mean=None if left_out is None else float(left_out.spearman_N.mean()),
        spearman_of_mean_loo=None if left_out is None else left_out.spearman_of_mean,
    )


def _tasks(
    law: Law,
    table: SwarmTable,
    fit: Fit,
    held_out: Quality,
    in_sample: Scores,
    left_out: Scores | None,
    effect_MN: np.ndarray,
) -> dict[str, TaskFit]:
    return {
        task: TaskFit(
            loss=float(fit.loss_N[i]),
            spearman_cv=float(held_out.spearman_N[i]),
            r2_cv=float(held_out.r2_N[i]),
            rmse_cv=float(held_out.rmse_N[i]),
            coverage_cv=float(held_out.coverage_N[i]),
            stretch=float(held_out.stretch_N[i]),
            spearman_in_sample=float(in_sample.spearman_N[i]),
            rmse_in_sample=float(in_sample.rmse_N[i]),
            parameters=law.describe(fit.params, i, table.domains),
            effects=dict(zip(table.domains, effect_MN[:, i].tolist())),
            spearman_loo=None if left_out is None else float(left_out.spearman_N[i]),
            rmse_loo=None if left_out is None else float(left_out.rmse_N[i]),
        )
        for i, task in enumerate(table.tasks)
    }


def effects(law: Law, params: Any, table: SwarmTable) -> tuple[np.ndarray, np.ndarray]:
    """Return (base_M, effect_MN): a mixture, and the change in BPB when EFFECT_STEP of it is replaced by each domain.

    The mixture is natural, or the average run's if natural is unknown.
    """
    base_M = table.natural_M if table.natural_M is not None else table.ratios_KM.mean(axis=0)
    changed_MM = (1 - EFFECT_STEP) * base_M[None, :] + EFFECT_STEP * np.eye(len(base_M))
    asked_CM = np.concatenate([base_M[None, :], changed_MM])
    # Pad to the number of runs, for which the program is compiled already.
    padded_CM = np.concatenate([asked_CM, np.tile(base_M, (max(0, len(table.runs) - len(asked_CM)), 1))])
    bpb_CN = evaluate(law, params, padded_CM)[: len(asked_CM)]
    return base_M, bpb_CN[1:] - bpb_CN[:1]


def _average(held_out: Quality, bpb_KN: np.ndarray) -> AverageFit:
    """Return held-out predictions of the average over tasks. Their intervals are calibrated on averages."""
    predicted_K1, bpb_K1 = held_out.predicted_KN.mean(axis=1)[:, None], bpb_KN.mean(axis=1)[:, None]
    spread_K1 = held_out.spread_KN.mean(axis=1)[:, None]
    reach_K1 = intervals.reach(predicted_K1, bpb_K1, spread_K1, held_out.fold_K)
    return AverageFit(
        measured=tuple(bpb_K1[:, 0].tolist()),
        predicted_cv=tuple(predicted_K1[:, 0].tolist()),
        low_cv=tuple((predicted_K1 - reach_K1)[:, 0].tolist()),
        high_cv=tuple((predicted_K1 + reach_K1)[:, 0].tolist()),
        coverage_cv=float((np.abs(predicted_K1 - bpb_K1) <= reach_K1).mean()),
    )


def _coverage_curve(held_out: Quality, bpb_KN: np.ndarray) -> CoverageCurve:
    """Return the held-out coverage of intervals of each level in LEVELS."""
    covered = []
    for level in LEVELS:
        reach_KN = intervals.reach(held_out.predicted_KN, bpb_KN, held_out.spread_KN, held_out.fold_K, level)
        covered.append(float((np.abs(held_out.predicted_KN - bpb_KN) <= reach_KN).mean()))
    return CoverageCurve(LEVELS, tuple(covered))
