"""The log-linear law f_i(p) = c_i + exp(A_iᵀ p) with c_i > 0 (METHOD §2, step 3; paper, Algorithm 1).

Per task, with runs k of weight ω_k (1 unless resampled), the fit is the published objective exactly:

    min over (log c, A) of  Σ_k ω_k · huber_δ(c + exp(Aᵀ p_k) − y_k),   δ = 0.02 BPB,

where huber_δ(r) = r²/2 for |r| ≤ δ and δ(|r| − δ/2) beyond. There is no penalty, and no bound that changes a run's
prediction (REACH). The minimiser is :mod:`olmix_jax.laws.descent`, over θ = (log c, A).

A domain that never exceeds 1 % of a mixture can need a coefficient of ±1000, and exp overflows at a mixture of that
domain alone. So above t_i, the largest exponent A_iᵀ p_k of the runs, exp continues as its tangent:

    f_i(p) = c_i + g(A_iᵀ p),   g(x) = e^x for x ≤ t_i,  e^(t_i)·(1 + x − t_i) beyond.

The law is the published one for all mixtures that it predicts to be no worse than the worst run; beyond, it is lower
and finite. It stays convex, because g is convex and increasing. No convex continuation with this slope at t_i is lower.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from olmix_jax.laws import descent, inputs, regression
from olmix_jax.laws.law import Fit, Law
from olmix_jax.utils import rng

DELTA = 0.02
# Share of the positive part of the second-order terms of exp in the curvature; see _derivatives.
BEND = 0.1
# Bounds, around the log of the task's mean BPB: of log c, and of A_j times the domain's least positive weight. They
# change no prediction of a run, as e^−100 is 0 to rounding. Without them A_j falls to −∞ if c alone fits best.
REACH = 100.0
# The same below, for A at the start of a refit. Far below it the slope vanishes, and A cannot rise.
NEAR_REACH = 12.0
# Standard deviation of A_j at the start, in units of 1 / (root mean square of the domain's weight).
JITTER = 0.3
# Whoever asks for at most this many starts wants speed: no further rounds of starts are run.
FEW = 4


class Params(NamedTuple):
    """Parameters of the law. Resamples, if any, are leading axes.

    Attributes:
      log_c_N: log c_i [log BPB].
      coef_NM: A_i.
      top_N: t_i, the exponent above which exp continues as its tangent; None for never.
    """

    log_c_N: np.ndarray
    coef_NM: np.ndarray
    top_N: np.ndarray | None = None


def predict(params: Params, ratios_KM):
    """Return bpb_KN = c_N + g(ratios_KM coef_NMᵀ) [BPB]. Pure JAX, differentiable, convex in the mixture."""
    return jnp.exp(params.log_c_N)[None, :] + rise(params, ratios_KM)


def rise(params: Params, ratios_KM):
    """Return rise_KN = g(ratios_KM coef_NMᵀ) [BPB], the prediction above c. Pure JAX."""
    exponent_KN = ratios_KM @ params.coef_NM.T
    if params.top_N is None:
        return jnp.exp(exponent_KN)
    below_KN = jnp.minimum(exponent_KN, params.top_N[None, :])
    return jnp.exp(below_KN) * (1 + exponent_KN - below_KN)


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
    generator, domains = rng.generator(seed, "log_linear.starts"), ratios_KM.shape[1]
    noise_ESM = generator.normal(size=(descent.ROUNDS, starts, domains))
    least_M = np.maximum(np.where(ratios_KM > 0, ratios_KM, 1.0).min(axis=0), 1e-12)
    reach_P = np.concatenate([[REACH], REACH / least_M])

    def begin(weight_K, number):
        mean_N = regression.weighted_mean(bpb_KN, weight_K)
        with np.errstate(all="ignore"):
            log_mean_N1 = np.log(np.maximum(mean_N, 1e-6))[:, None]
            starts_NSP = _starts(ratios_KM, bpb_KN, weight_K, noise_ESM[number])
        return starts_NSP, log_mean_N1 - reach_P, log_mean_N1 + reach_P

    near_NP = None
    if near is not None:
        log_mean_N1 = np.log(np.maximum(bpb_KN.mean(axis=0), 1e-6))[:, None]
        coef_NM = np.maximum(near.coef_NM, log_mean_N1 - NEAR_REACH / least_M)
        near_NP = np.concatenate([np.asarray(near.log_c_N)[:, None], coef_NM], axis=1)
    upper = np.triu_indices(domains)
    features = ratios_KM, ratios_KM[:, upper[0]] * ratios_KM[:, upper[1]]
    rounds = descent.ROUNDS if near is None and starts > FEW else 1
    minima = descent.minimise(OBJECTIVE, features, bpb_KN, weight_RK, tasks, begin, near_NP, rounds)
    log_c_RN, coef_RNM = minima.theta_RNP[..., 0], minima.theta_RNP[..., 1:]
    # Coefficients of unsampled domains drift by rounding in the solves, so they are set at the end.
    mean_RM = weight_RK @ ratios_KM / np.maximum(weight_RK.sum(axis=1, keepdims=True), 1e-300)
    prior_RN = np.einsum("rm,rnm->rn", mean_RM, coef_RNM)
    coef_RNM = np.where(inputs.seen(ratios_KM, weight_RK)[:, None, :], coef_RNM, prior_RN[..., None])
    # A resample without runs, of which nothing is asked, gets the exponents of all.
    in_RK = (weight_RK > 0) | ~(weight_RK > 0).any(axis=1, keepdims=True)
    top_RN = np.where(in_RK[:, None, :], coef_RNM @ ratios_KM.T, -np.inf).max(axis=2)
    return Params(log_c_RN, coef_RNM, top_RN), minima


def _starts(ratios_KM, bpb_KN, weight_K, noise_SM):
    """Return starts_NSP: c at fractions of the least BPB, and random A around the constant law.

    The published starts are log c in [−2, 1.5] × random A. c cannot exceed the least BPB, so the grid ends there,
    whatever the units. A_j is drawn in units of the domain's weights, so that rare domains start with as much effect as
    common ones. Starts from regressions of log(y − c), without noise, end in fewer minima.
    """
    starts = len(noise_SM)
    least_N = regression.least(bpb_KN, weight_K, floor=1e-6)
    c_NS = least_N[:, None] * (np.arange(starts) + 0.5) / starts
    rest_NS = np.maximum(regression.weighted_mean(bpb_KN, weight_K)[:, None] - c_NS, 1e-3 * least_N[:, None])
    size_M = np.sqrt(weight_K @ ratios_KM**2 / max(weight_K.sum(), 1e-300))
    noise_SM = JITTER * noise_SM / np.where(size_M > 0, size_M, 1.0)
    return np.concatenate([np.log(c_NS)[..., None], np.log(rest_NS)[..., None] + noise_SM], axis=2)


def _terms(ratios_KM, theta_P, bpb_K):
    """Return c, exp(Aᵀ p) and the residuals."""
    c, e_K = jnp.exp(theta_P[0]), jnp.exp(ratios_KM @ theta_P[1:])
    return c, e_K, c + e_K - bpb_K


def _loss(features, theta_P, bpb_K, weight_K):
    return descent.huber(_terms(features[0], theta_P, bpb_K)[2], weight_K, DELTA)[0]


def _derivatives(features, theta_P, bpb_K, weight_K):
    """Return loss, gradient and curvature, as :class:`descent.Objective` asks.

    In x = Aᵀ p the loss has the second derivative huber''·e^(2x) + ψ·e^x. Gauss–Newton leaves out the second term.
    Where it is positive, the run is predicted too high, and BEND of it keeps steps from overshooting. That saves up to
    half of the steps where domains are rare; all of it costs more steps on other swarms (docs/log.md).

    With outer_KQ, the packed p_k p_kᵀ of all runs, Σ_k h_k p_k p_kᵀ is one matrix product for all lanes.
    """
    ratios_KM, outer_KQ = features
    c, e_K, residual_K = _terms(ratios_KM, theta_P, bpb_K)
    loss, psi_K, curve_K = descent.huber(residual_K, weight_K, DELTA)
    gradient_P = jnp.concatenate([c * psi_K.sum()[None], (psi_K * e_K) @ ratios_KM])
    block_Q = (curve_K * e_K**2 + BEND * jnp.maximum(psi_K * e_K, 0.0)) @ outer_KQ
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
    rise=rise,
)
