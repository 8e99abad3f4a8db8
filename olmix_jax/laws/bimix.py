"""The BiMix law f_i(p) = Σ_j A_ij (p_j + ε)^(−α_ij) with A, α ≥ 0 (METHOD §2; arXiv 2405.14908, summed over domains).

Per task, over runs k of weight ω_k, the fit minimises squares, as in the released comparison, not Huber's loss:

    min over A, α ≥ 0 of  ½ Σ_k ω_k (f(p_k) − y_k)²

At a weight of 0 a term would be infinite. The released code raises weights to at least ε = 1e-12. Here ε is added: that
differs by at most 1e-12 of weight, and keeps f convex and its slope finite and of the right sign down to p_j = 0.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from olmix_jax.laws import descent, inputs, regression
from olmix_jax.laws.law import Fit, Law

# ε.
FLOOR = 1e-12
# Bounds: in every run a term is at most e^5 = 150 times the task's mean BPB, and α is at most 10.
REACH, STEEPEST = np.exp(5.0), 10.0


class Params(NamedTuple):
    """A_ij [BPB] and α_ij. Resamples, if any, are leading axes."""

    scale_NM: np.ndarray
    power_NM: np.ndarray


def predict(params: Params, ratios_KM):
    """Return bpb_KN [BPB]. Convex in the mixture; slopes are finite on the simplex (up to 1e12 at p_j = 0)."""
    log_KM = jnp.log(ratios_KM + FLOOR)
    return (params.scale_NM[None] * jnp.exp(-params.power_NM[None] * log_KM[:, None, :])).sum(axis=2)


def parameters(domains: int) -> int:
    """Return the number of free parameters per task: A and α."""
    return 2 * domains


def describe(params: Params, task: int, domains: tuple[str, ...]) -> dict:
    """Return one task's ``scales`` A [BPB] and ``powers`` α by domain."""
    scale_M, power_M = (np.asarray(x[task]).tolist() for x in params)
    return {"scales": dict(zip(domains, scale_M, strict=True)), "powers": dict(zip(domains, power_M, strict=True))}


def fit(ratios_KM, bpb_KN, *, starts: int = 16, seed: int = 0, tasks=None, weight_K=None) -> Fit:
    """Fit every task to all runs. Arguments and errors as for :func:`olmix_jax.laws.log_linear.fit`.

    ``loss_N`` is half the sum of squares [BPB²]. A domain that no run samples gets no term, A = α = 0. No start is
    random, so ``seed`` has no effect.
    """
    options = {"starts": starts, "seed": seed, "tasks": tasks, "weight_K": weight_K}
    return regression.fit(_solve, "bimix", ratios_KM, bpb_KN, **options)


def fit_weighted(
    ratios_KM, bpb_KN, weight_RK, *, starts: int = 16, seed: int = 0, tasks=None, near: Params | None = None
) -> Params:
    """Fit every task R times, as :func:`olmix_jax.laws.log_linear.fit_weighted`."""
    options = {"starts": starts, "seed": seed, "tasks": tasks, "near": near}
    return regression.fit_weighted(_solve, "bimix", ratios_KM, bpb_KN, weight_RK, **options)


def _solve(ratios_KM, bpb_KN, weight_RK, starts: int, seed: int, tasks, near: Params | None):
    """Minimise over θ = (B, α), where B_j = A_j·l_j^(−α_j) is the term at l_j, the least weight of any run, plus ε.

    B has the size of y, whatever α.
    """
    del seed
    log_KM = np.log(ratios_KM + FLOOR)
    least_M = log_KM.min(axis=0)
    span_KM = log_KM - least_M
    seen_RM = inputs.seen(ratios_KM, weight_RK)

    def begin(weight_K, _):
        seen_M = inputs.seen(ratios_KM, weight_K[None])[0]
        return _starts(span_KM, bpb_KN, weight_K, seen_M, starts)

    near_NP = None
    if near is not None:
        near_NP = np.concatenate([near.scale_NM * np.exp(-near.power_NM * least_M), near.power_NM], axis=1)
    minima = descent.minimise(OBJECTIVE, span_KM, bpb_KN, weight_RK, tasks, begin, near_NP)
    first_RNM, power_RNM = np.split(minima.theta_RNP, 2, axis=2)
    # The power of a term with A = 0 is arbitrary; it is set to 0.
    power_RNM = np.where(seen_RM[:, None] & (first_RNM > 0), power_RNM, 0.0)
    return Params(first_RNM * np.exp(power_RNM * least_M), power_RNM), minima


def _starts(span_KM, bpb_KN, weight_K, seen_M, starts: int):
    """Return starts_NSP, low_NP and high_NP. Terms start equal; over the runs they fall by factors of e^0.1 to e^10."""
    tasks, domains = bpb_KN.shape[1], len(seen_M)
    mean_N = regression.weighted_mean(np.abs(bpb_KN), weight_K)
    fall_S1 = np.geomspace(0.1, 10.0, starts)[:, None]
    power_SM = np.clip(fall_S1 / np.maximum(span_KM.max(axis=0), 1e-3), 0, STEEPEST)
    first_NSM = np.ones((1, starts, domains)) * (mean_N / max(seen_M.sum(), 1))[:, None, None]
    starts_NSP = np.concatenate([first_NSM, np.broadcast_to(power_SM, first_NSM.shape)], axis=2)
    high_NM = np.broadcast_to(seen_M, (tasks, domains))
    high_NP = np.concatenate([high_NM * np.minimum(REACH * mean_N, 1e300)[:, None], high_NM * STEEPEST], axis=1)
    return starts_NSP, np.zeros_like(high_NP), high_NP


def _residual(span_KM, theta_P, bpb_K):
    first_M, power_M = jnp.split(theta_P, 2)
    return jnp.exp(-power_M[None, :] * span_KM) @ first_M - bpb_K


def _jacobian(span_KM, theta_P):
    first_M, power_M = jnp.split(theta_P, 2)
    shape_KM = jnp.exp(-power_M[None, :] * span_KM)
    return jnp.concatenate([shape_KM, -first_M[None, :] * span_KM * shape_KM], axis=1)


# On the published swarm, three times as many steps lower the loss by only another 0.05 %.
OBJECTIVE = descent.least_squares(_residual, _jacobian, max_steps=100)

LAW = Law(
    name="bimix",
    Params=Params,
    fit=fit,
    fit_weighted=fit_weighted,
    predict=predict,
    parameters=parameters,
    describe=describe,
    differentiable=True,
    convex=True,
)
