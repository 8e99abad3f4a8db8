"""The AutoScale law f_i(p) = c_i + Σ_j (R(A_ij + p_j))^(−α_ij) (METHOD §2; arXiv 2407.20177, summed over domains).

Per task, over runs k of weight ω_k, the fit minimises squares, as in the released comparison, not Huber's loss:

    min over 0 ≤ c ≤ least BPB, A ≥ 1e-12, α ≥ 0 of  ½ Σ_k ω_k (f(p_k) − y_k)²

R is a constant, the tokens of the paper's target run. It is part of the law: a term has no scale parameter, so R^(−α)
ties its height to its steepness. A different R gives a different family.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from olmix_jax.laws import descent, inputs, regression
from olmix_jax.laws.law import Fit, Law

# R: the paper's scenario (METHOD §3).
TOKENS = 1e12
_LOG_TOKENS = float(np.log(TOKENS))
# Bounds of A, in units of the whole mixture. Above 1e3 a term is constant over the simplex.
LEAST, MOST = 1e-12, 1e3
# Upper bound of α. With A = 1 such a term is below e^−250 for every weight, so it is 0.
STEEPEST = 10.0


class Params(NamedTuple):
    """c_i [BPB], A_ij [shares of R tokens] and α_ij. Resamples, if any, are leading axes."""

    constant_N: np.ndarray
    offset_NM: np.ndarray
    power_NM: np.ndarray


def predict(params: Params, ratios_KM):
    """Return bpb_KN [BPB]. Convex in the mixture; values and slopes are finite on the simplex."""
    log_KNM = jnp.log(params.offset_NM[None] + ratios_KM[:, None, :]) + _LOG_TOKENS
    return params.constant_N[None, :] + jnp.exp(-params.power_NM[None] * log_KNM).sum(axis=2)


def parameters(domains: int) -> int:
    """Return the number of free parameters per task: c, A and α."""
    return 2 * domains + 1


def describe(params: Params, task: int, domains: tuple[str, ...]) -> dict:
    """Return one task's ``constant`` c [BPB], and its ``offsets`` A and ``powers`` α by domain."""
    constant, offset_M, power_M = (np.asarray(x[task]).tolist() for x in params)
    offsets, powers = (dict(zip(domains, values, strict=True)) for values in (offset_M, power_M))
    return {"constant": constant, "offsets": offsets, "powers": powers}


def fit(ratios_KM, bpb_KN, *, starts: int = 16, seed: int = 0, tasks=None, weight_K=None) -> Fit:
    """Fit every task to all runs. Arguments and errors as for :func:`olmix_jax.laws.log_linear.fit`.

    ``loss_N`` is half the sum of squares [BPB²]. A domain that no run samples gets no term: A = 1 and α = 10, which is
    0 to rounding. No start is random, so ``seed`` has no effect.
    """
    options = {"starts": starts, "seed": seed, "tasks": tasks, "weight_K": weight_K}
    return regression.fit(_solve, "autoscale", ratios_KM, bpb_KN, **options)


def fit_weighted(
    ratios_KM, bpb_KN, weight_RK, *, starts: int = 16, seed: int = 0, tasks=None, near: Params | None = None
) -> Params:
    """Fit every task R times, as :func:`olmix_jax.laws.log_linear.fit_weighted`."""
    options = {"starts": starts, "seed": seed, "tasks": tasks, "near": near}
    return regression.fit_weighted(_solve, "autoscale", ratios_KM, bpb_KN, weight_RK, **options)


def _solve(ratios_KM, bpb_KN, weight_RK, starts: int, seed: int, tasks, near: Params | None):
    """Minimise over θ = (c, ln A, α)."""
    del seed

    def begin(weight_K, _):
        return _starts(ratios_KM, bpb_KN, weight_K, starts)

    near_NP = None
    if near is not None:
        near_NP = np.concatenate([near.constant_N[:, None], np.log(near.offset_NM), near.power_NM], axis=1)
    minima = descent.minimise(OBJECTIVE, ratios_KM, bpb_KN, weight_RK, tasks, begin, near_NP)
    c_RN1, log_offset_RNM, power_RNM = np.split(minima.theta_RNP, [1, 1 + ratios_KM.shape[1]], axis=2)
    return Params(c_RN1[..., 0], np.exp(log_offset_RNM), power_RNM), minima


def _starts(ratios_KM, bpb_KN, weight_K, starts: int):
    """Return starts_NSP, low_NP and high_NP.

    c starts between 0 and the least BPB, A between 1e-4 and 1, and equal terms make up the rest of the mean BPB.
    """
    (tasks, domains), seen_M = (bpb_KN.shape[1], ratios_KM.shape[1]), inputs.seen(ratios_KM, weight_K[None])[0]
    least_N = regression.least(bpb_KN, weight_K, floor=0.0)
    mean_N = regression.weighted_mean(bpb_KN, weight_K)
    share_S = (np.arange(starts) + 0.5) / starts
    c_NS = least_N[:, None] * share_S
    # The order of A is permuted, so that A and c do not rise together over the starts.
    log_offset_S = np.log(np.geomspace(1e-4, 1.0, starts))[np.argsort(np.arange(starts) * 5 % starts, kind="stable")]
    term_NS = np.maximum(mean_N[:, None] - c_NS, 1e-6) / max(seen_M.sum(), 1)
    power_NS = np.clip(-np.log(term_NS) / (_LOG_TOKENS + log_offset_S), 1e-3, STEEPEST)
    wide = tasks, starts, domains
    log_offset_NSM = np.broadcast_to(log_offset_S[None, :, None], wide)
    starts_NSP = np.concatenate([c_NS[..., None], log_offset_NSM, np.broadcast_to(power_NS[..., None], wide)], axis=2)
    shape = tasks, domains
    offset_low_NM = np.broadcast_to(np.where(seen_M, np.log(LEAST), 0.0), shape)
    offset_high_NM = np.broadcast_to(np.where(seen_M, np.log(MOST), 0.0), shape)
    power_low_NM, power_high_NM = np.broadcast_to(np.where(seen_M, 0, STEEPEST), shape), np.full(shape, STEEPEST)
    low_NP = np.concatenate([0 * least_N[:, None], offset_low_NM, power_low_NM], axis=1)
    return starts_NSP, low_NP, np.concatenate([least_N[:, None], offset_high_NM, power_high_NM], axis=1)


def _terms(ratios_KM, theta_P):
    """Return the log of R(A + p), the terms, and θ's parts ln A and α."""
    log_offset_M, power_M = jnp.split(theta_P[1:], 2)
    log_KM = jnp.log(jnp.exp(log_offset_M)[None, :] + ratios_KM) + _LOG_TOKENS
    return log_KM, jnp.exp(-power_M[None, :] * log_KM), log_offset_M, power_M


def _residual(ratios_KM, theta_P, bpb_K):
    return theta_P[0] + _terms(ratios_KM, theta_P)[1].sum(axis=1) - bpb_K


def _jacobian(ratios_KM, theta_P):
    log_KM, term_KM, log_offset_M, power_M = _terms(ratios_KM, theta_P)
    share_KM = jnp.exp(log_offset_M[None, :] + _LOG_TOKENS - log_KM)
    slopes = -power_M[None, :] * share_KM * term_KM, -log_KM * term_KM
    return jnp.concatenate([jnp.ones_like(term_KM[:, :1]), *slopes], axis=1)


# On the published swarm, three times as many steps lower the loss by only another 0.5 %.
OBJECTIVE = descent.least_squares(_residual, _jacobian, max_steps=100)

LAW = Law(
    name="autoscale",
    Params=Params,
    fit=fit,
    fit_weighted=fit_weighted,
    predict=predict,
    parameters=parameters,
    describe=describe,
    differentiable=True,
    convex=True,
)
