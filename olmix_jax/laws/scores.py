"""Scores of predictions against measurements (METHOD §5; Spearman as in the paper's Figures 3 to 6)."""

import dataclasses

import numpy as np
import scipy.stats

from olmix_jax.laws import intervals
from olmix_jax.laws.fit_result import SwarmScores, TaskScores
from olmix_jax.laws.fitted import FittedLaw
from olmix_jax.swarm.table import SwarmTable
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """Agreement of predictions and measurements over runs.

    Attributes:
      spearman_N: rank correlation per task; 0 where either is constant.
      r2_N: 1 − Σ(y − ŷ)² / Σ(y − ȳ)² per task; 0 where y is constant.
      rmse_N: root mean squared error per task [BPB].
      spearman_of_mean: rank correlation of the averages over tasks.
    """

    spearman_N: np.ndarray
    r2_N: np.ndarray
    rmse_N: np.ndarray
    spearman_of_mean: float


def score(predicted_KN: np.ndarray, bpb_KN: np.ndarray) -> Scores:
    """Score predictions. The scores are held-out only if the predictions are."""
    squared_N = ((predicted_KN - bpb_KN) ** 2).sum(axis=0)
    total_N = ((bpb_KN - bpb_KN.mean(axis=0)[None, :]) ** 2).sum(axis=0)
    varies_N = np.ptp(bpb_KN, axis=0) > 0
    r2_N = np.where(varies_N, 1 - squared_N / np.where(varies_N, total_N, 1), 0.0)
    mean_K1 = predicted_KN.mean(axis=1, keepdims=True), bpb_KN.mean(axis=1, keepdims=True)
    rmse_N = np.sqrt(squared_N / len(bpb_KN))
    return Scores(spearman(predicted_KN, bpb_KN), r2_N, rmse_N, float(spearman(*mean_K1)[0]))


def spearman(a_KN: np.ndarray, b_KN: np.ndarray) -> np.ndarray:
    """Return the rank correlation of each column. Ties share their mean rank; a constant column gives 0."""

    def centred_ranks(x_KN):
        return scipy.stats.rankdata(x_KN, axis=0) - (len(x_KN) + 1) / 2

    a_KN, b_KN = centred_ranks(np.asarray(a_KN)), centred_ranks(np.asarray(b_KN))
    norm_N = np.sqrt((a_KN**2).sum(axis=0) * (b_KN**2).sum(axis=0))
    return np.where(norm_N > 0, (a_KN * b_KN).sum(axis=0) / np.where(norm_N > 0, norm_N, 1), 0.0)


def check_columns(table: SwarmTable, other: SwarmTable) -> None:
    """Raise an error unless a held-out swarm has the domains and the tasks of the fitted one.

    Raises:
      UserError: one swarm lacks a domain or task of the other.
    """
    unmatched = sorted(set(table.domains) ^ set(other.domains)) or [t for t in table.tasks if t not in other.tasks]
    if unmatched:
        raise UserError(
            f"only one of the held-out and the fitted swarm has {', '.join(unmatched[:5])}; make their columns agree"
        )


def score_swarm(fitted: FittedLaw, table: SwarmTable, other: SwarmTable, stretch_N: np.ndarray) -> SwarmScores:
    """Score a law on a held-out swarm. Domains and tasks are matched by name.

    Args:
      fitted: the law.
      table: the swarm that it was fitted to.
      other: the held-out swarm. It must have the same domains and at least the same tasks.
      stretch_N: half-width of the intervals in spreads, from :func:`olmix_jax.laws.quality.cross_validate`.

    Raises:
      UserError: one swarm lacks a domain or task of the other.
    """
    check_columns(table, other)
    ratios_KM = other.ratios_KM[:, [other.domains.index(name) for name in table.domains]]
    bpb_KN = other.bpb_KN[:, [other.tasks.index(name) for name in table.tasks]]
    fitted_runs = {(p_M.tobytes(), y_N.tobytes()) for p_M, y_N in zip(table.ratios_KM, table.bpb_KN)}
    shared = sum((p_M.tobytes(), y_N.tobytes()) in fitted_runs for p_M, y_N in zip(ratios_KM, bpb_KN))
    if shared:
        log.warning(
            "fit: %d of %d held-out runs are also among the fitted runs; scores are too optimistic", shared, len(bpb_KN)
        )
    predicted_KN = fitted.predict(ratios_KM)
    scores = score(predicted_KN, bpb_KN)
    reach_KN = stretch_N * intervals.scale(fitted.law, fitted.params, ratios_KM, len(table.tasks))
    covered_N = (np.abs(predicted_KN - bpb_KN) <= reach_KN).mean(axis=0)
    columns = (x.tolist() for x in (scores.spearman_N, scores.r2_N, scores.rmse_N, covered_N))
    return SwarmScores(
        runs=len(other.runs),
        runs_also_fitted=shared,
        spearman_task_mean=float(scores.spearman_N.mean()),
        spearman_of_mean=scores.spearman_of_mean,
        coverage=float(covered_N.mean()),
        tasks={task: TaskScores(*values) for task, *values in zip(table.tasks, *columns, strict=True)},
    )
