"""How held-out quality grows with the number of runs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.optimize

from olmix_jax.laws.fit_result import CurvePoint, LearningCurve
from olmix_jax.laws.law import Law, evaluate_each
from olmix_jax.laws.quality import Quality, joined, mixtures
from olmix_jax.laws.scores import Scores, score
from olmix_jax.swarm.lengths import Lengths
from olmix_jax.swarm.table import Inherited
from olmix_jax.utils import rng

# Sizes of the random subsets, as shares of the runs, and the least number of runs in one.
SHARES, LEAST_RUNS = (0.4, 0.6), 3
# Extra runs whose benefit is predicted.
MORE_RUNS = 10


def measure(
    law: Law,
    ratios_KM: Any,
    bpb_KN: Any,
    held_out: Quality,
    *,
    repeats: int = 2,
    seed: int = 0,
    starts: int = 16,
    tasks: tuple[str, ...] | None = None,
    inherited: Inherited | None = None,
    lengths: Lengths | None = None,
    begin: Any = None,
) -> LearningCurve:
    """Fit ``law`` to random subsets of the runs, and score each fit on the runs that it left out.

    Quality at all runs and at MORE_RUNS more is extrapolated by RMSE² = a + b/k and 1 − Spearman = a + b/k over k runs,
    with a, b ≥ 0: a floor that more runs cannot lower, and an error that falls like a variance. A power law without
    the floor predicted several times the gain of ten more runs (docs/log.md).

    Args:
      law: the family, such as ``log_linear.LAW``.
      ratios_KM: mixtures.
      bpb_KN: measured BPB.
      held_out: result of :func:`olmix_jax.laws.quality.cross_validate`; its folds are the curve's last point.
      repeats: random subsets of each size.
      seed: of the subsets and of the fits' starts.
      starts: starting points per task and subset.
      tasks: names for messages.
      inherited: earlier runs, which all fits include.
      lengths: the runs' lengths, if they differ.
      begin: Params of the fit to all runs, to start from.
    """
    ratios_KM, bpb_KN = np.asarray(ratios_KM, np.float64), np.asarray(bpb_KN, np.float64)
    runs, draw = len(ratios_KM), rng.generator(seed, "quality.learning_curve")
    sizes = sorted({max(LEAST_RUNS, round(share * runs)) for share in SHARES})
    subsets = [(size, _subset(ratios_KM, size, draw)) for size in sizes for _ in range(repeats)]
    weight_RK = np.stack([in_K for _, in_K in subsets]).astype(np.float64)
    options = {"starts": starts, "seed": seed, "tasks": tasks, "begin": begin, **law.reads(lengths)}
    params = law.refit(*joined(ratios_KM, bpb_KN, weight_RK, inherited), **options)
    predicted_RKN = evaluate_each(law, params, law.rows(ratios_KM, lengths))
    scored: dict[int, list[Scores]] = {size: [] for size in sizes}
    for (size, in_K), predicted_KN in zip(subsets, predicted_RKN):
        scored[size].append(score(predicted_KN[~in_K], bpb_KN[~in_K]))
    folds = np.unique(held_out.fold_K)
    last = round(runs * (1 - 1 / len(folds)))
    # Spearman needs three runs or more in a fold.
    if last > sizes[-1] and runs - last > 2:
        in_folds = (held_out.fold_K == fold for fold in folds)
        scored[last] = [score(held_out.predicted_KN[in_K], bpb_KN[in_K]) for in_K in in_folds]
    return _curve(scored, runs, repeats)


def _curve(scored: dict[int, list[Scores]], runs: int, repeats: int) -> LearningCurve:
    """Average the scores of each size, and extrapolate from ``runs`` runs."""
    sizes = list(scored)
    spearman = [[s.spearman_N.mean() for s in same_size] for same_size in scored.values()]
    rmse = [float(np.mean([s.rmse_N.mean() for s in same_size])) for same_size in scored.values()]
    of_mean = [float(np.mean([s.spearman_of_mean for s in same_size])) for same_size in scored.values()]
    shortfall, square = [1 - float(np.mean(s)) for s in spearman], np.square(rmse).tolist()

    def point(k: int) -> CurvePoint:
        return CurvePoint(k, 1 - extrapolate(sizes, shortfall, k), float(np.sqrt(extrapolate(sizes, square, k))))

    return LearningCurve(
        runs=tuple(sizes),
        spearman_mean=tuple(float(np.mean(s)) for s in spearman),
        spearman_mean_error=tuple(_standard_error(s) for s in spearman),
        spearman_of_mean=tuple(of_mean),
        rmse_mean=tuple(rmse),
        repeats=repeats,
        now=point(runs),
        next=point(runs + MORE_RUNS),
    )


def _standard_error(values: list[float]) -> float:
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def _subset(ratios_KM: np.ndarray, size: int, draw: np.random.Generator) -> np.ndarray:
    """Draw mixtures that together have ``size`` runs, or a few more if mixtures repeat; return in_K, a mask of runs."""
    which_K = mixtures(ratios_KM)
    rank_K = draw.permutation(which_K.max() + 1)[which_K]
    in_K = rank_K <= np.sort(rank_K)[size - 1]
    # At least one mixture must be left to score the fit on.
    return in_K & (rank_K < rank_K.max())


def extrapolate(sizes: Sequence[int], values: Sequence[float], size: int) -> float:
    """Return the value at ``size`` of a + b/k with a, b ≥ 0, fitted by least squares."""
    inverse_C2 = np.stack([np.ones(len(sizes)), 1 / np.asarray(sizes, np.float64)], axis=1)
    coefficients, _ = scipy.optimize.nnls(inverse_C2, np.asarray(values, np.float64))
    return float(coefficients @ [1.0, 1 / size])
