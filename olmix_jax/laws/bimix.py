"""The BiMix law f_i(p) = Σ_j A_ij (p_j + ε)^(−α_ij) with A, α ≥ 0 (METHOD §2; arXiv 2405.14908, summed over domains).

Per task, over runs k of weight ω_k, as in the released comparison, squares without Huber's δ:

    min over A, α ≥ 0 of  ½ Σ_k ω_k (f(p_k) − y_k)²

A weight of 0 would make a term infinite. The released code raises weights to at least ε = 1e-12; here ε is added, which
differs by 1e-12 of the weight, and keeps f convex and its slope finite and of the right sign down to p_j = 0.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from olmix_jax.laws import descent, inputs
from olmix_jax.laws.law import Fit, Law

FLOOR = 1e-12
# Limits: a term is at most e^5 = 150 times the task's mean BPB in any run, and α at most 10.
REACH, STEEPEST = np.exp(5.0), 10.0


class Params(NamedTuple):
    """A_ij [BPB] and α_ij; leading axes are resamples, where there are any."""

    scale_NM: np.ndarray
    power_NM: np.ndarray


def predict(params: Params, ratios_KM):
    """bpb_KN [BPB]; convex in the mixture, its slopes finite everywhere on the simplex (to 1e12 at p_j = 0)."""
    log_KM = jnp.log(ratios_KM + FLOOR)
    return (params.scale_NM[None] * jnp.exp(-params.power_NM[None] * log_KM[:, None, :])).sum(axis=2)


def parameters(domains: int) -> int:
    """Free parameters per task: A and α."""
    return 2 * domains


def describe(params: Params, task: int, domains: tuple[str, ...]) -> dict:
    """One task's ``scales`` A [BPB] and ``powers`` α per domain."""
    scale_M, power_M = (np.asarray(x[task]).tolist() for x in params)
    return {"scales": dict(zip(domains, scale_M, strict=True)), "powers": dict(zip(domains, power_M, strict=True))}


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
    """θ = (B, α) with B_j = A_j·l_j^(−α_j), the term at the least weight l_j + ε of any run: it is of the size of y."""
    inputs.refuse_negative_losses(bpb_KN, tasks, "bimix")
    log_KM = np.log(ratios_KM + FLOOR)
    least_M = log_KM.min(axis=0)
    span_KM = log_KM - least_M
    seen_RM = inputs.seen(ratios_KM, weight_RK)

    def begin(weight_K):
        seen_M = inputs.seen(ratios_KM, weight_K[None])[0]
        return _starts(span_KM, bpb_KN, weight_K, seen_M, starts)

    near_NP = None
    if near is not None:
        near_NP = np.concatenate([near.scale_NM * np.exp(-near.power_NM * least_M), near.power_NM], axis=1)
    found = descent.fit(REGRESSION, span_KM, bpb_KN, weight_RK, tasks, begin, near_NP)
    first_RNM, power_RNM = np.split(found.theta_RNP, 2, axis=2)
    # A term without size has any power; 0 says so.
    power_RNM = np.where(seen_RM[:, None] & (first_RNM > 0), power_RNM, 0.0)
    return Params(first_RNM * np.exp(power_RNM * least_M), power_RNM), found


def _starts(span_KM, bpb_KN, weight_K, seen_M, starts: int):
    """starts_NSP with equal terms, and powers by which a term falls e^0.1 to e^10-fold over the runs; and limits."""
    tasks, domains = bpb_KN.shape[1], len(seen_M)
    with np.errstate(all="ignore"):
        mean_N = weight_K @ np.abs(bpb_KN) / max(weight_K.sum(), 1e-300)
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


# Three times as many lower the loss by another 0.05 % on the published swarm.
REGRESSION = descent.least_squares(_residual, _jacobian, max_steps=100)

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
