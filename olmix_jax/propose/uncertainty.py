"""How sure a proposal is, from samples of the law (bootstrap refits, or draws from its posterior)."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from olmix_jax.laws import cpu, evaluate_each
from olmix_jax.propose.proposal import Gain, by_name
from olmix_jax.solver import minimise
from olmix_jax.solver.problem import Problem

# Shares of the samples below the low and the high end of an interval.
LOW, HIGH = 0.05, 0.95
# A gain of less probability deserves a warning.
SURE = 0.9
# Samples that the mixture is solved for again, and iterations for each.
RESOLVED, ITERATIONS = 16, 100


@dataclasses.dataclass(frozen=True)
class ErrorBars:
    """What samples of the law add to a proposal: warnings, and the proposal's fields of the same names."""

    warnings: tuple[str, ...]
    gain: Gain | None = None
    predicted_low: dict[str, float] | None = None
    predicted_high: dict[str, float] | None = None
    weights_std: dict[str, float] | None = None
    weights_low: dict[str, float] | None = None
    weights_high: dict[str, float] | None = None
    no_weight_intervals: str | None = None


def error_bars(problem: Problem, samples, weights_M, natural_M, tasks: Sequence[str]) -> ErrorBars:
    """Return the predicted gain and predictions per task with intervals over samples of the law.

    ``gain`` is Σ_i w_i (f_i(natural) − f_i(proposed)) [BPB], the law's part of the objective, over samples: its mean,
    5 and 95 % quantiles, and the share of samples in which it is positive. ``predicted_low`` and ``predicted_high``
    are the quantiles of f_i(proposed). Samples that predict nothing finite are left out.
    """
    bpb_RCN = evaluate_each(problem.law, samples, np.stack([weights_M, natural_M]))
    finite_R = np.isfinite(bpb_RCN).all(axis=(1, 2))
    if not finite_R.any():
        return ErrorBars(("no error bars: no sample of the law predicts a finite BPB",))
    bpb_RCN = bpb_RCN[finite_R]
    gain_R = (bpb_RCN[:, 1] - bpb_RCN[:, 0]) @ problem.weights
    low, high = np.quantile(gain_R, [LOW, HIGH])
    low_N, high_N = np.quantile(bpb_RCN[:, 0], [LOW, HIGH], axis=0)
    probability = float((gain_R > 0).mean())
    unsure = (
        f"the law is not sure of the gain: lower than natural in {100 * probability:.0f} % of {len(gain_R)} samples"
    )
    return ErrorBars(
        warnings=(unsure,) if probability < SURE else (),
        gain=Gain(float(gain_R.mean()), float(low), float(high), probability, len(gain_R)),
        predicted_low=by_name(tasks, low_N),
        predicted_high=by_name(tasks, high_N),
    )


def own_optima(problem: Problem, samples, weights_M) -> np.ndarray:
    """ratios_RM: the mixture that each of RESOLVED samples of the law leads to, from the proposal on.

    They are as far apart as the law is unsure of the weights. Samples that lead nowhere finite are left out.
    """
    objective, entropic = problem.objective, problem.kl_weight > 0
    chosen, found = min(len(jax.tree.leaves(samples)[0]), RESOLVED), []
    with cpu.float64():
        for r in range(chosen):
            params = jax.tree.map(lambda x, r=r: np.asarray(x)[r], samples)
            sampled = dataclasses.replace(objective, params=params)
            end = minimise.compiled(sampled, problem.bounds, ITERATIONS, weights_M, entropic=entropic)
            found.append(np.asarray(end.weights_M))
    return np.array([p_M for p_M in found if np.isfinite(p_M).all()] or [weights_M])
