"""Code shared by the laws that :mod:`olmix_jax.laws.descent` fits: one fit, R refits, and the scales of starts."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from olmix_jax.laws import descent, inputs
from olmix_jax.laws.law import Fit

# (ratios_KM, bpb_KN, weight_RK, starts, seed, tasks, near) → Params with a leading axis R, and their losses and steps.
Solve = Callable[..., tuple[Any, descent.Minima]]


def fit(solve: Solve, name: str, ratios_KM, bpb_KN, *, starts: int, seed: int, tasks, weight_K) -> Fit:
    """Fit every task to all runs by ``solve``; see :func:`olmix_jax.laws.log_linear.fit` for arguments and errors."""
    ratios_KM, bpb_KN, weight_RK = inputs.check(ratios_KM, bpb_KN, inputs.one_row(weight_K), tasks)
    inputs.refuse_negative_losses(bpb_KN, tasks, name)
    params, minima = solve(ratios_KM, bpb_KN, weight_RK, starts, seed, tasks, None)
    first = jax.tree.map(lambda x: x[0], params)
    return Fit(first, minima.loss_RN[0], inputs.unseen(ratios_KM), steps=int(minima.steps_RN.max()))


def fit_weighted(solve: Solve, name: str, ratios_KM, bpb_KN, weight_RK, *, starts: int, seed: int, tasks, near) -> Any:
    """Fit every task R times by ``solve``; see :func:`olmix_jax.laws.log_linear.fit_weighted`."""
    ratios_KM, bpb_KN, weight_RK = inputs.check(ratios_KM, bpb_KN, weight_RK, tasks)
    inputs.refuse_negative_losses(bpb_KN, tasks, name)
    return solve(ratios_KM, bpb_KN, weight_RK, starts, seed, tasks, near)[0]


def weighted_mean(bpb_KN: np.ndarray, weight_K: np.ndarray) -> np.ndarray:
    """Return each task's weighted mean over runs, mean_N. Overflow raises no warning."""
    with np.errstate(all="ignore"):
        return weight_K @ bpb_KN / max(weight_K.sum(), 1e-300)


def least(bpb_KN: np.ndarray, weight_K: np.ndarray, floor: float) -> np.ndarray:
    """Return each task's least BPB over runs of positive weight, at least ``floor``; 1 if there is no such run."""
    least_N = np.where(weight_K[:, None] > 0, bpb_KN, np.inf).min(axis=0)
    return np.where(np.isfinite(least_N), np.maximum(least_N, floor), 1.0)
