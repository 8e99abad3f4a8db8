"""The log-linear law f_i(p) = c_i + exp(A_iᵀ p) with c_i > 0 (METHOD §2, step 3; paper, Algorithm 1).

Per task, with rows k of weight ω_k (1 unless resampled), the published objective exactly:

    min over (log c, A) of  Σ_k ω_k · huber_δ(c + exp(Aᵀ p_k) − y_k),   δ = 0.02 BPB,

where huber_δ(r) = r²/2 for |r| ≤ δ and δ(|r| − δ/2) beyond. There is no penalty, only the limits
REACH_DOWN and REACH_UP. The descent is :mod:`olmix_jax.laws.descent`, over θ = (log c, A).
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from olmix_jax.laws import descent, inputs
from olmix_jax.laws.law import Fit, Law
from olmix_jax.utils import rng

DELTA = 0.02
# Limits of log c and of A around the log of the task's mean BPB. Where a domain is in very few runs the objective has
# minima at A = ±∞; e^5 = 150 times the mean is beyond the BPB of any model, and held-out predictions stay finite.
REACH_DOWN, REACH_UP = 100.0, 5.0
# Where a refit may start: far below its run's share a coefficient has no slope to come back by.
NEAR_DOWN = 12.0


class Params(NamedTuple):
    """log c_i [log BPB] and A_i; leading axes are resamples, where there are any."""

    log_c_N: np.ndarray
    coef_NM: np.ndarray


def predict(params: Params, ratios_KM):
    """BPB of each task for each mixture, bpb_KN = c_N + exp(ratios_KM coef_NMᵀ). Pure JAX, differentiable."""
    return jnp.exp(params.log_c_N)[None, :] + jnp.exp(ratios_KM @ params.coef_NM.T)


def parameters(domains: int) -> int:
    """Free parameters per task: log c and A."""
    return domains + 1


def describe(params: Params, task: int, domains: tuple[str, ...]) -> dict:
    """One task's parameters by name: ``constant`` c [BPB] and ``coefficients`` A per domain."""
    coefficients = dict(zip(domains, np.asarray(params.coef_NM[task]).tolist(), strict=True))
    return {"constant": float(np.exp(params.log_c_N[task])), "coefficients": coefficients}


def fit(ratios_KM, bpb_KN, *, starts: int = 16, seed: int = 0, tasks=None, weight_K=None) -> Fit:
    """Fits every task on all runs.

    Args:
      ratios_KM: mixtures, rows on the simplex.
      bpb_KN: measured BPB, finite.
      starts: starting points per task; the best end point is kept.
      seed: of the starting points that are random.
      tasks: names for messages; column numbers without it.
      weight_K: ω, run weights; ones without it.

    Raises:
      UserError: a value is not finite, the shapes disagree, or no start of a task ended at a finite loss.
    """
    ratios_KM, bpb_KN, weight_RK = inputs.check(ratios_KM, bpb_KN, inputs.one_row(weight_K), tasks)
    params, found = _fit(ratios_KM, bpb_KN, weight_RK, starts, seed, tasks)
    one = Params(params.log_c_N[0], params.coef_NM[0])
    return Fit(one, found.loss_RN[0], inputs.unseen(ratios_KM), int(found.steps_RN.max()))


def fit_weighted(
    ratios_KM, bpb_KN, weight_RK, *, starts: int = 16, seed: int = 0, tasks=None, near: Params | None = None
) -> Params:
    """Fits every task R times, with row weights ω: 0/1 for folds, counts for a bootstrap. One program of fixed shape.

    A domain without a row of positive weight counts as unseen in that resample. Arguments and errors as for
    :func:`fit`; returns ``Params`` with a leading R axis.

    With ``near``, the parameters of the fit on all runs, every resample is refined from there alone, in at most
    ``descent.NEAR_STEPS`` steps: the minimum next to the full fit's, which may not be the resample's least.
    """
    return _fit(*inputs.check(ratios_KM, bpb_KN, weight_RK, tasks), starts, seed, tasks, near)[0]


def _fit(ratios_KM, bpb_KN, weight_RK, starts: int, seed: int, tasks, near: Params | None = None):
    inputs.refuse_negative_losses(bpb_KN, tasks, "log_linear")
    noise_SM = rng.generator(seed, "log_linear.starts").normal(size=(starts, ratios_KM.shape[1]))

    def begin(weight_K):
        with np.errstate(all="ignore"):
            scale_N1 = np.log(np.maximum(weight_K @ bpb_KN / max(weight_K.sum(), 1e-300), 1e-6))[:, None]
            low_NP, high_NP = (np.repeat(scale_N1 + r, 1 + ratios_KM.shape[1], 1) for r in (-REACH_DOWN, REACH_UP))
            return _starts(ratios_KM, bpb_KN, weight_K, noise_SM), low_NP, high_NP

    near_NP = None
    if near is not None:
        coef_NM = np.maximum(near.coef_NM, np.log(np.maximum(bpb_KN.mean(axis=0), 1e-6))[:, None] - NEAR_DOWN)
        near_NP = np.concatenate([np.asarray(near.log_c_N)[:, None], coef_NM], axis=1)
    upper = np.triu_indices(ratios_KM.shape[1])
    features = ratios_KM, ratios_KM[:, upper[0]] * ratios_KM[:, upper[1]]
    found = descent.fit(REGRESSION, features, bpb_KN, weight_RK, tasks, begin, near_NP)
    log_c_RN, coef_RNM = found.theta_RNP[..., 0], found.theta_RNP[..., 1:]
    # Rounding in the solves must not move what no row determines, so the prior is written in at the end.
    mean_RM = weight_RK @ ratios_KM / np.maximum(weight_RK.sum(axis=1, keepdims=True), 1e-300)
    prior_RN = np.einsum("rm,rnm->rn", mean_RM, coef_RNM)
    coef_RNM = np.where(inputs.seen(ratios_KM, weight_RK)[:, None, :], coef_RNM, prior_RN[..., None])
    return Params(log_c_RN, coef_RNM), found


def _starts(ratios_KM, bpb_KN, weight_K, noise_SM):
    """starts_NSP: c at fractions of the least BPB, and A from ridge regression of log(y − c); every second A jittered.

    The published starts are log c in [−2, 1.5] × random A. For a given c the law is a generalised linear model, so A
    is better solved for than drawn; c above the least BPB cannot be right, so the grid ends there, in whatever units.
    """
    starts, domains = noise_SM.shape
    least_N = np.where(weight_K[:, None] > 0, bpb_KN, np.inf).min(axis=0)
    least_N = np.where(np.isfinite(least_N), np.maximum(least_N, 1e-6), 1.0)
    c_NS = least_N[:, None] * (np.arange(starts) + 0.5) / starts
    target_NSK = np.log(np.maximum(bpb_KN.T[:, None, :] - c_NS[:, :, None], 1e-3 * least_N[:, None, None]))
    gram_MM = (ratios_KM * weight_K[:, None]).T @ ratios_KM
    ridge = 1e-3 * np.trace(gram_MM) / domains + 1e-12
    # Ridge toward equal coefficients: Σ_j p_j = 1, so the mean is an intercept that the penalty leaves alone.
    mean_NS1 = (target_NSK @ weight_K)[..., None] / max(weight_K.sum(), 1e-300)
    right_NSM = ((target_NSK - mean_NS1) * weight_K) @ ratios_KM
    coef_NSM = right_NSM @ np.linalg.inv(gram_MM + ridge * np.eye(domains)) + mean_NS1
    coef_NSM = coef_NSM + (np.arange(starts) % 2)[:, None] * noise_SM
    return np.concatenate([np.log(c_NS)[..., None], coef_NSM], axis=2)


def _terms(ratios_KM, theta_P, bpb_K):
    c, e_K = jnp.exp(theta_P[0]), jnp.exp(ratios_KM @ theta_P[1:])
    return c, e_K, c + e_K - bpb_K


def _loss(features, theta_P, bpb_K, weight_K):
    return descent.huber(_terms(features[0], theta_P, bpb_K)[2], weight_K, DELTA)[0]


def _derivatives(features, theta_P, bpb_K, weight_K):
    """As the descent wants them. Σ_k h_k p_k p_kᵀ is, for all lanes, one product with the runs' packed outer_KQ."""
    ratios_KM, outer_KQ = features
    c, e_K, residual_K = _terms(ratios_KM, theta_P, bpb_K)
    loss, psi_K, curve_K = descent.huber(residual_K, weight_K, DELTA)
    gradient_P = jnp.concatenate([c * psi_K.sum()[None], (psi_K * e_K) @ ratios_KM])
    block_Q = (curve_K * e_K**2) @ outer_KQ
    cross_M = c * ((curve_K * e_K) @ ratios_KM)
    corner = (c**2 * curve_K.sum())[None, None]
    return loss, gradient_P, jnp.block([[corner, cross_M[None, :]], [cross_M[:, None], block_Q[_unpack(len(cross_M))]]])


def _unpack(domains: int) -> np.ndarray:
    """index_MM of a symmetric matrix's entries in its packed upper triangle."""
    index_MM = np.zeros((domains, domains), np.int32)
    upper = np.triu_indices(domains)
    index_MM[upper] = np.arange(len(upper[0]))
    return np.maximum(index_MM, index_MM.T)


REGRESSION = descent.Regression(_loss, _derivatives, max_steps=300)

LAW = Law(
    name="log_linear",
    Params=Params,
    fit=fit,
    fit_weighted=fit_weighted,
    predict=predict,
    parameters=parameters,
    describe=describe,
    differentiable=True,
    convex=True,
)
