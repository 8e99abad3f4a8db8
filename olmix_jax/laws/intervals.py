"""Prediction intervals: a law's own spread, stretched until it covers held-out runs (split conformal prediction)."""

from typing import Any

import numpy as np

from olmix_jax.laws.law import Law, evaluate_spread

# Nominal coverage of an interval: the share of new runs that it should hold.
LEVEL = 0.9


def scale(law: Law, params: Any, ratios_KM: np.ndarray, tasks: int) -> np.ndarray:
    """Return the law's spread, std_KN [BPB], or ones without: then a task's intervals have one width."""
    std_KN = evaluate_spread(law, params, ratios_KM)
    return np.ones((len(ratios_KM), tasks)) if std_KN is None else std_KN


def stretch(predicted_KN, bpb_KN, spread_KN, among_K=slice(None), level: float = LEVEL) -> np.ndarray:
    """Return how many spreads an interval must reach to hold ``level`` of the errors, stretch_N.

    With n errors in units of their spread, that is the ⌈(n + 1)·level⌉-th smallest, or the largest if n is too small.

    Args:
      predicted_KN: held-out predictions.
      bpb_KN: measurements.
      spread_KN: standard deviation of each measurement, up to a factor.
      among_K: the runs to use, as a mask.
      level: nominal coverage.
    """
    error_KN = np.sort(np.abs(predicted_KN - bpb_KN)[among_K] / np.maximum(spread_KN[among_K], 1e-300), axis=0)
    return error_KN[min(int(np.ceil((len(error_KN) + 1) * level)), len(error_KN)) - 1]


def reach(predicted_KN, bpb_KN, spread_KN, fold_K, level: float = LEVEL) -> np.ndarray:
    """Return the half-width of each run's interval, reach_KN [BPB].

    The runs of a fold get the stretch of all other folds, so their coverage is held-out too.
    """
    reach_KN = np.empty_like(spread_KN)
    for fold in np.unique(fold_K):
        in_fold_K = fold_K == fold
        stretch_N = stretch(predicted_KN, bpb_KN, spread_KN, ~in_fold_K, level)
        reach_KN[in_fold_K] = stretch_N * spread_KN[in_fold_K]
    return reach_KN
