"""The log-linear law f_i(p) = c_i + exp(A_iᵀ p) with c_i > 0 (METHOD §2, step 3; paper, Algorithm 1).

Per task, with runs k of weight ω_k (1 unless resampled), the fit is the published objective exactly:

    min over (log c, A) of  Σ_k ω_k · huber_δ(c + exp(Aᵀ p_k) − y_k),   δ = 0.02 BPB,

where huber_δ(r) = r²/2 for |r| ≤ δ and δ(|r| − δ/2) beyond. There is no penalty; log c and A are bounded by REACH_DOWN
and REACH_UP. The minimiser is :mod:`olmix_jax.laws.descent`, over θ = (log c, A).
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from olmix_jax.laws import descent, inputs, regression
from olmix_jax.laws.law import Fit, Law
from olmix_jax.utils import rng

DELTA = 0.02
# Bounds of log c and of A around the log of the task's mean BPB. If very few runs contain a domain, the objective has
# minima at A = ±∞. e^5 = 150 times the mean exceeds the BPB of any model, so held-out predictions stay finite.
REACH_DOWN, REACH_UP = 100.0, 5.0
# Lower bound of A at the start of a refit, around the same log. Far below it the slope vanishes, and A cannot rise.
NEAR_DOWN = 12.0


class Params(NamedTuple):
    """log c_i [log BPB] and A_i. Resamples, if any, are leading axes."""

    log_c_N: np.ndarray
    coef_NM: np.ndarray


def predict(params: Params, ratios_KM):
    """Return bpb_KN = c_N + exp(ratios_KM coef_NMᵀ) [BPB]. Pure JAX, differentiable."""
    return jnp.exp(params.log_c_N)[None, :] + jnp.exp(ratios_KM @ params.coef_NM.T)


def parameters(domains: int) -> int:
    """Return the number of free parameters per task: log c and A."""
    return domains + 1


def describe(params: Params, task: int, domains: tuple[str, ...]) -> dict:
    """Return one task's parameters by name: ``constant`` c [BPB] and ``coefficients`` A by domain."""
    coefficients = dict(zip(domains, np.asarray(params.coef_NM[task]).tolist(), strict=True))
    return {"constant": float(np.exp(params.log_c_N[task])), "coefficients": coefficients}


def fit(ratios_KM, bpb_KN, *, starts: int = 16, seed: int = 0, tasks=None, weight_K=None) -> Fit:
    """Fit every task to all runs.

    Nothing determines the coefficients of a domain that no run samples. Each is set to the mean of A_iᵀ p over the
    runs, so that the domain alone does as well as the (geometric) average run.

    Args:
      ratios_KM: mixtures, rows on the simplex.
      bpb_KN: measured BPB, finite.
      starts: starting points per task; the best minimum is kept.
      seed: of the random starting points.
      tasks: names for messages; column numbers by default.
      weight_K: ω, weights of the runs; ones by default.

    Returns:
      A Fit. ``loss_N`` is the Huber objective at the minimum, summed over runs [BPB²].

    Raises:
      UserError: a value is not finite, a loss is negative, the shapes disagree, or no start of a task ended at a finite
        loss.
    """
    options = {"starts": starts, "seed": seed, "tasks": tasks, "weight_K": weight_K}
    return regression.fit(_solve, "log_linear", ratios_KM, bpb_KN, **options)


def fit_weighted(
    ratios_KM, bpb_KN, weight_RK, *, starts: int = 16, seed: int = 0, tasks=None, near: Params | None = None
) -> Params:
    """Fit every task R times with run weights ω: 0 or 1 for folds, counts for a bootstrap. Compiles one program.

    A domain counts as unsampled in a resample if no run of positive weight contains it.

    Args:
      ratios_KM: mixtures, rows on the simplex.
      bpb_KN: measured BPB, finite.
      weight_RK: ω ≥ 0, weights of the runs in each resample.
      starts: starting points per task and resample, without ``near``.
      seed: of the random starting points.
      tasks: names for messages; column numbers by default.
      near: parameters of the fit to all runs. Every resample then starts there only, and takes at most
        ``descent.NEAR_STEPS`` steps. It ends at the minimum next to the full fit's, which may not be its lowest.

    Returns:
      Params with a leading axis R.

    Raises:
      UserError: as for :func:`fit`.
    """
    options = {"starts": starts, "seed": seed, "tasks": tasks, "near": near}
    return regression.fit_weighted(_solve, "log_linear", ratios_KM, bpb_KN, weight_RK, **options)


def _solve(ratios_KM, bpb_KN, weight_RK, starts: int, seed: int, tasks, near: Params | None):
    noise_SM = rng.generator(seed, "log_linear.starts").normal(size=(starts, ratios_KM.shape[1]))

    def begin(weight_K):
        mean_N = regression.weighted_mean(bpb_KN, weight_K)
        with np.errstate(all="ignore"):
            scale_N1 = np.log(np.maximum(mean_N, 1e-6))[:, None]
            low_NP, high_NP = (np.repeat(scale_N1 + r, 1 + ratios_KM.shape[1], 1) for r in (-REACH_DOWN, REACH_UP))
            return _starts(ratios_KM, bpb_KN, weight_K, noise_SM), low_NP, high_NP

    near_NP = None
    if near is not None:
        coef_NM = np.maximum(near.coef_NM, np.log(np.maximum(bpb_KN.mean(axis=0), 1e-6))[:, None] - NEAR_DOWN)
        near_NP = np.concatenate([np.asarray(near.log_c_N)[:, None], coef_NM], axis=1)
    upper = np.triu_indices(ratios_KM.shape[1])
    features = ratios_KM, ratios_KM[:, upper[0]] * ratios_KM[:, upper[1]]
    minima = descent.minimise(OBJECTIVE, features, bpb_KN, weight_RK, tasks, begin, near_NP)
    log_c_RN, coef_RNM = minima.theta_RNP[..., 0], minima.theta_RNP[..., 1:]
    # Coefficients of unsampled domains drift by rounding in the solves, so they are set at the end.
    mean_RM = weight_RK @ ratios_KM / np.maximum(weight_RK.sum(axis=1, keepdims=True), 1e-300)
    prior_RN = np.einsum("rm,rnm->rn", mean_RM, coef_RNM)
    coef_RNM = np.where(inputs.seen(ratios_KM, weight_RK)[:, None, :], coef_RNM, prior_RN[..., None])
    return Params(log_c_RN, coef_RNM), minima


def _starts(ratios_KM, bpb_KN, weight_K, noise_SM):
    """Return starts_NSP: c at fractions of the least BPB, and A from ridge regression of log(y − c).

    Every second A is jittered by ``noise_SM``. The published starts are log c in [−2, 1.5] × random A. For a given c
    the law is a generalised linear model, so solving for A is better than drawing it. c cannot exceed the least BPB, so
    the grid ends there, whatever the units.
    """
    starts, domains = noise_SM.shape
    least_N = regression.least(bpb_KN, weight_K, floor=1e-6)
    c_NS = least_N[:, None] * (np.arange(starts) + 0.5) / starts
    target_NSK = np.log(np.maximum(bpb_KN.T[:, None, :] - c_NS[:, :, None], 1e-3 * least_N[:, None, None]))
    gram_MM = (ratios_KM * weight_K[:, None]).T @ ratios_KM
    ridge = 1e-3 * np.trace(gram_MM) / domains + 1e-12
    # The ridge pulls towards equal coefficients. As Σ_j p_j = 1, their mean is an intercept without penalty.
    mean_NS1 = (target_NSK @ weight_K)[..., None] / max(weight_K.sum(), 1e-300)
    right_NSM = ((target_NSK - mean_NS1) * weight_K) @ ratios_KM
    coef_NSM = right_NSM @ np.linalg.inv(gram_MM + ridge * np.eye(domains)) + mean_NS1
    coef_NSM = coef_NSM + (np.arange(starts) % 2)[:, None] * noise_SM
    return np.concatenate([np.log(c_NS)[..., None], coef_NSM], axis=2)


def _terms(ratios_KM, theta_P, bpb_K):
    """Return c, exp(Aᵀ p) and the residuals."""
    c, e_K = jnp.exp(theta_P[0]), jnp.exp(ratios_KM @ theta_P[1:])
    return c, e_K, c + e_K - bpb_K


def _loss(features, theta_P, bpb_K, weight_K):
    return descent.huber(_terms(features[0], theta_P, bpb_K)[2], weight_K, DELTA)[0]


def _derivatives(features, theta_P, bpb_K, weight_K):
    """Return loss, gradient and curvature, as :class:`descent.Objective` asks.

    With outer_KQ, the packed p_k p_kᵀ of all runs, Σ_k h_k p_k p_kᵀ is one matrix product for all lanes.
    """
    ratios_KM, outer_KQ = features
    c, e_K, residual_K = _terms(ratios_KM, theta_P, bpb_K)
    loss, psi_K, curve_K = descent.huber(residual_K, weight_K, DELTA)
    gradient_P = jnp.concatenate([c * psi_K.sum()[None], (psi_K * e_K) @ ratios_KM])
    block_Q = (curve_K * e_K**2) @ outer_KQ
    cross_M = c * ((curve_K * e_K) @ ratios_KM)
    corner = (c**2 * curve_K.sum())[None, None]
    return loss, gradient_P, jnp.block([[corner, cross_M[None, :]], [cross_M[:, None], block_Q[_unpack(len(cross_M))]]])


def _unpack(domains: int) -> np.ndarray:
    """Return index_MM: where each entry of a symmetric matrix is in its packed upper triangle."""
    index_MM = np.zeros((domains, domains), np.int32)
    upper = np.triu_indices(domains)
    index_MM[upper] = np.arange(len(upper[0]))
    return np.maximum(index_MM, index_MM.T)


OBJECTIVE = descent.Objective(_loss, _derivatives, max_steps=300)

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
