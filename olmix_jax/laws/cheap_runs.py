"""What cheap runs bring to a law of real ones: the field ``cheap`` of ``fit.json``."""

import jax
import numpy as np

from olmix_jax.laws import floored_gp, quality, two_fidelity
from olmix_jax.laws.cheap_result import CheapRuns
from olmix_jax.laws.law import evaluate_each
from olmix_jax.swarm.table import SwarmTable

# Further cheap runs whose worth is compared with that of one real run.
MORE_CHEAP = 10
# Samples of the law behind variances.
SAMPLES = 64


def measure(
    params: two_fidelity.Params, table: SwarmTable, held_out: quality.Quality, *, folds: int, seed: int
) -> CheapRuns:
    """Return what the cheap runs of a table bring.

    Args:
      params: the fit to all runs.
      table: the swarm.
      held_out: cross-validation of the law, on real runs.
      folds, seed: those of ``held_out``. The law of the real runs alone is judged on the same folds.
    """
    assert table.cheap is not None
    alone = quality.cross_validate(
        floored_gp.LAW,
        table.ratios_KM,
        table.bpb_KN,
        folds=folds,
        seed=seed,
        tasks=table.tasks,
        inherited=table.inherited,
    )
    real_worth, cheap_worth = worth(params, table, seed)
    return CheapRuns(
        runs=len(table.cheap.runs),
        used=two_fidelity.predicts_real(params),
        slope=float(params.shared),
        slope_error=float(params.shared_error),
        rmse_cv=float(held_out.rmse_N.mean()),
        rmse_cv_alone=float(alone.rmse_N.mean()),
        spearman_cv=float(held_out.spearman_N.mean()),
        spearman_cv_alone=float(alone.spearman_N.mean()),
        real_worth=real_worth,
        cheap_worth=cheap_worth,
    )


def worth(params: two_fidelity.Params, table: SwarmTable, seed: int) -> tuple[float, float]:
    """Return by what share one more real run, and MORE_CHEAP cheap ones, would lower the variance of predicted effects.

    An effect is the difference between the BPB of a run's mixture and that of the base mixture, averaged over tasks.
    Its variance has a part of the cheap runs' law and a part of the real runs, the slopes and g. Each part is taken to
    fall as one over its number of runs.
    """
    assert table.cheap is not None
    base_M = table.natural_M if table.natural_M is not None else table.ratios_KM.mean(axis=0)
    asked_CM = np.concatenate([base_M[None], table.ratios_KM, table.cheap.ratios_JM])
    drawn = two_fidelity.sample(params, SAMPLES, seed)
    mean = jax.tree.map(lambda x: np.broadcast_to(x, (SAMPLES, *np.shape(x))), params.cheap)

    def variance(samples: two_fidelity.Params) -> float:
        bpb_SC = evaluate_each(two_fidelity.LAW, samples, asked_CM) @ (table.sizes_N / table.sizes_N.sum())
        return float((bpb_SC[:, 1:] - bpb_SC[:, :1]).var(axis=0).mean())

    total, real = variance(drawn), variance(drawn._replace(cheap=mean))
    share = min(real / total, 1.0) if total > 0 else 1.0
    return share / (len(table.runs) + 1), (1 - share) * MORE_CHEAP / (len(table.cheap.runs) + MORE_CHEAP)
