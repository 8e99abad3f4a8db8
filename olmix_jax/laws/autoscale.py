"""The AutoScale law f_i(p) = c_i + Σ_j (R(A_ij + p_j))^(−α_ij) (METHOD §2; arXiv 2407.20177, summed over domains).

Per task, over runs k of weight ω_k, as in the released comparison, squares without Huber's δ:

    min over 0 ≤ c ≤ least BPB, A ≥ 1e-12, α ≥ 0 of  ½ Σ_k ω_k (f(p_k) − y_k)²

R is a constant here, the tokens of the paper's target run. It is part of the law: a term's height and its steepness are
tied by it, R^(−α), so another R is another family (a term has no size of its own).
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from olmix_jax.laws import descent, inputs
from olmix_jax.laws.law import Fit, Law

# R: the paper's scenario (METHOD §3).
TOKENS = 1e12
_LOG_TOKENS = float(np.log(TOKENS))
# Limits of A, in shares of the run. From a thousand runs' worth on, a term is a constant.
LEAST, MOST = 1e-12, 1e3
# Limit of α: such a term, e^−250 at any weight, is none at all.
STEEPEST = 10.0


class Params(NamedTuple):
    """c_i [BPB], A_ij [shares of R tokens] and α_ij; leading axes are resamples, where there are any."""

    constant_N: np.ndarray
    offset_NM: np.ndarray
    power_NM: np.ndarray


def predict(params: Params, ratios_KM):
    """bpb_KN [BPB]; convex in the mixture, finite with its slopes everywhere on the simplex."""
    log_KNM = jnp.log(params.offset_NM[None] + ratios_KM[:, None, :]) + _LOG_TOKENS
    return params.constant_N[None, :] + jnp.exp(-params.power_NM[None] * log_KNM).sum(axis=2)


def parameters(domains: int) -> int:
    """Free parameters per task: c, A and α."""
    return 2 * domains + 1


def describe(params: Params, task: int, domains: tuple[str, ...]) -> dict:
    """One task's ``constant`` c [BPB], and ``offsets`` A and ``powers`` α per domain."""
    constant, offset_M, power_M = (np.asarray(x[task]).tolist() for x in params)
    by_name = dict(zip(domains, offset_M, strict=True)), dict(zip(domains, power_M, strict=True))
    return {"constant": constant, "offsets": by_name[0], "powers": by_name[1]}


def fit(ratios_KM, bpb_KN, *, starts: int = 16, seed: int = 0, tasks=None, weight_K=None) -> Fit:
    """Fits every task on all runs. Arguments and errors as for :func:`olmix_jax.laws.log_linear.fit`; no start is
    random, so ``seed`` changes nothing."""
    ratios_KM, bpb_KN, weight_RK = inputs.check(ratios_KM, bpb_KN, inputs.one_row(weight_K), tasks)
    params, found = _fit(ratios_KM, bpb_KN, weight_RK, starts, tasks)
    one = Params(*(x[0] for x in params))
    return Fit(one, found.loss_RN[0], inputs.unseen(ratios_KM), int(found.steps_RN.max()))


def fit_weighted(
    ratios_KM, bpb_KN, weight_RK, *, starts: int = 16, seed: int = 0, tasks=None, near: Params | None = None
) -> Params:
    """Fits every task R times, as :func:`olmix_jax.laws.log_linear.fit_weighted`."""
    return _fit(*inputs.check(ratios_KM, bpb_KN, weight_RK, tasks), starts, tasks, near)[0]


def _fit(ratios_KM, bpb_KN, weight_RK, starts: int, tasks, near: Params | None = None):
    """θ = (c, ln A, α)."""
    inputs.refuse_negative_losses(bpb_KN, tasks, "autoscale")

    def begin(weight_K):
        return _starts(ratios_KM, bpb_KN, weight_K, starts)

    near_NP = None
    if near is not None:
        near_NP = np.concatenate([near.constant_N[:, None], np.log(near.offset_NM), near.power_NM], axis=1)
    found = descent.fit(REGRESSION, ratios_KM, bpb_KN, weight_RK, tasks, begin, near_NP)
    c_RN1, log_offset_RNM, power_RNM = np.split(found.theta_RNP, [1, 1 + ratios_KM.shape[1]], axis=2)
    return Params(c_RN1[..., 0], np.exp(log_offset_RNM), power_RNM), found


def _starts(ratios_KM, bpb_KN, weight_K, starts: int):
    """starts_NSP with c from 0 to the least BPB, A from 1e-4 to 1 and terms that share the rest equally; and limits."""
    (tasks, domains), seen_M = (bpb_KN.shape[1], ratios_KM.shape[1]), inputs.seen(ratios_KM, weight_K[None])[0]
    least_N = np.where(weight_K[:, None] > 0, bpb_KN, np.inf).min(axis=0)
    least_N = np.where(np.isfinite(least_N), np.maximum(least_N, 0.0), 1.0)
    with np.errstate(all="ignore"):
        mean_N = weight_K @ bpb_KN / max(weight_K.sum(), 1e-300)
    share_S = (np.arange(starts) + 0.5) / starts
    c_NS = least_N[:, None] * share_S
    # Neighbouring starts differ in A: the two run through their ranges out of step.
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
    """The log of R(A + p), the terms, and θ's parts."""
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


# Three times as many lower the loss by another 0.5 % on the published swarm.
REGRESSION = descent.least_squares(_residual, _jacobian, max_steps=100)

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
