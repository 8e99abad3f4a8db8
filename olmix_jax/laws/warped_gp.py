"""The default law: a Gaussian process on warped weights that learns, per task, which domains matter.

log(f_i(p) − c_i) = offset_i + scale_i · g_i(z),  z_j = log(1 + p_j/τ_i) / log(1 + 1/τ_i),  g_i drawn from the kernel

    k(z, z') = a Σ_j w_j z_j z'_j + b (1 + √3 d) exp(−√3 d),  d² = ℓ Σ_j w_j (z_j − z'_j)²

Every run is measured with noise s² (s²/ω_k for a run of weight ω_k). So a task is a log-linear law in warped weights,
plus a smooth residual. Per task, θ = log (w_1…w_M, a, b, ℓ, s², τ) maximises the marginal likelihood times a normal
prior. Nothing is tuned by hand or by cross-validation. If no run samples a domain, its w keeps the prior's value, that
of an average domain. The log-linear law lacks the warp: the first percent of a domain is worth more than the last
(docs/log.md has the figures).

The floor c_i is FLOOR times the least BPB of the runs, or 0 with fewer than FLOOR_RUNS runs. Without it benefits of
many domains add up for ever, and the law promises too much at its own optimum.

A task with a measurement ≤ 0, which is not a BPB, is modelled without logarithm and floor.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from olmix_jax.laws import curves, gp_learning, inputs, per_task, warped_kernel
from olmix_jax.laws.curves import CurvedParams, scale_of
from olmix_jax.laws.law import Fit, Law
from olmix_jax.utils import rng

# Largest number of runs that θ is learnt from, drawn at random. The law is then conditioned on every run.
LEARNT_ON = 256
# Number of cosines in a sampled function.
WAVES = 64
# Floor of a task's BPB as a share of the least BPB of its runs, and the number of runs from which it is used. With
# fewer runs the data prefer no floor, slightly (docs/log.md).
FLOOR, FLOOR_RUNS = 0.7, 9


class Params(NamedTuple):
    """A posterior over functions. Resamples or samples, if any, are leading axes.

    Attributes:
      ratios_KM: the runs' mixtures.
      weight_K: ω.
      theta_NP: log (w_1…w_M, a, b, ℓ, s², τ), P = M + 5.
      target_NK: the runs' standardised measurements y.
      alpha_NK: (kernel + noise)⁻¹ y, so that g(z) = Σ_k α_k k(z, z_k).
      offset_N: mean of the log BPB.
      scale_N: standard deviation of the log BPB.
      logged_N: 1, or 0 for a task that is modelled without the logarithm.
      frequency_FM: frequencies of the F cosines of a function sampled from the prior [1/d]. The mean has F = 0.
      phase_F: phases of the cosines.
      wave_NF: weights of the cosines per task.
      slope_NM: weights of the sampled linear part; zeros for the mean.
      floor_N: c, the BPB that no mixture reaches.
    """

    ratios_KM: np.ndarray
    weight_K: np.ndarray
    theta_NP: np.ndarray
    target_NK: np.ndarray
    alpha_NK: np.ndarray
    offset_N: np.ndarray
    scale_N: np.ndarray
    logged_N: np.ndarray
    frequency_FM: np.ndarray
    phase_F: np.ndarray
    wave_NF: np.ndarray
    slope_NM: np.ndarray
    floor_N: np.ndarray


def parameters(domains: int) -> int:
    """Return 3: a fit needs more runs than that. The prior determines what the runs do not."""
    del domains
    return 3


def predict(params: Params | CurvedParams, ratios_KM):
    """Return bpb_KN [BPB]: floor + exp of the posterior mean of log(f − c) (the median) or of a sample. Pure JAX."""

    p, curve_scale = params, scale_of(params)

    def one(theta_P, alpha_K, offset, scale, logged, wave_F, slope_M, curve_MQ):
        # The curves' weights include what the runs say of them.
        plain_P = theta_P if curve_scale is None else theta_P[1:]
        g_K = warped_kernel.kernel(plain_P, ratios_KM, p.ratios_KM) @ alpha_K
        drawn = p.frequency_FM, p.phase_F, wave_F, slope_M, curve_scale, curve_MQ
        g_K = g_K + warped_kernel.drawn(theta_P, ratios_KM, *drawn)
        return warped_kernel.unlogged(offset + scale * g_K, logged)

    curve_NMQ = p.curve_NMQ if isinstance(p, CurvedParams) else None
    tasks = p.theta_NP, p.alpha_NK, p.offset_N, p.scale_N, p.logged_N, p.wave_NF, p.slope_NM, curve_NMQ
    bpb_KN = jax.vmap(one, out_axes=1)(*jax.tree.map(jnp.asarray, tasks))
    return bpb_KN + p.floor_N[None, :]


def spread(params: Params | CurvedParams, ratios_KM):
    """Return the standard deviation of a new run's measurement, noise included, std_KN [BPB]. Pure JAX."""

    def one(task):
        theta_P, target_K, offset, scale, logged = task
        runs_KM, weight_K, curve_scale = params.ratios_KM, params.weight_K, scale_of(params)
        factor_KK, alpha_K = warped_kernel.conditioned(theta_P, runs_KM, target_K, weight_K, curve_scale)
        cross_QK = warped_kernel.kernel(theta_P, ratios_KM, runs_KM, curve_scale)
        cross_QK = cross_QK * warped_kernel.active(weight_K)[None, :]
        half_KQ = jax.scipy.linalg.solve_triangular(factor_KK, cross_QK.T, lower=True)
        variance_Q = warped_kernel.variance(theta_P, ratios_KM, curve_scale) - (half_KQ**2).sum(axis=0)
        variance_Q = variance_Q + jnp.exp(theta_P[-2])
        bpb_Q = warped_kernel.unlogged(offset + scale * (cross_QK @ alpha_K), logged)
        return scale * jnp.sqrt(jnp.maximum(variance_Q, 0.0)) * jnp.where(logged > 0, bpb_Q, 1.0)

    tasks = params.theta_NP, params.target_NK, params.offset_N, params.scale_N, params.logged_N
    # A loop over tasks, because two batched solves at a time can deadlock (docs/log.md).
    return jax.lax.map(one, tuple(map(jnp.asarray, tasks))).T


def describe(params: Params | CurvedParams, task: int, domains: tuple[str, ...]) -> dict:
    """Return one task's θ by name.

    ``relevance`` is w by domain, ``linear`` a, ``rough`` b, ``inverse_length`` ℓ, ``noise`` s² (as a share of the
    variance of log(f − c)), ``warp`` τ (the weight up to which a domain's effect is linear), and ``floor`` c [BPB].
    ``curves`` is v.
    """
    theta_P = np.exp(np.asarray(params.theta_NP[task]))
    if isinstance(params, CurvedParams):
        plain = Params(*params[: len(Params._fields)])._replace(theta_NP=params.theta_NP[:, 1:])
        return {"curves": float(theta_P[0])} | describe(plain, task, domains)
    names = "linear", "rough", "inverse_length", "noise", "warp"
    relevance = dict(zip(domains, theta_P[: len(domains)].tolist(), strict=True))
    shared = dict(zip(names, theta_P[len(domains) :].tolist(), strict=True))
    return {"relevance": relevance, **shared, "floor": float(params.floor_N[task])}


def fit(ratios_KM, bpb_KN, *, starts: int = 1, seed: int = 0, tasks=None, weight_K=None, with_curves=False) -> Fit:
    """Fit every task to all runs.

    Args:
      ratios_KM: mixtures, rows on the simplex.
      bpb_KN: measured BPB, finite.
      starts: no effect. One descent, from the prior's mean, finds the maximum that more starts find.
      seed: of the choice of runs that θ is learnt from, if there are more than LEARNT_ON.
      tasks: names for messages; column numbers by default.
      weight_K: ω, weights of the runs; ones by default.
      with_curves: whether the kernel is that of :mod:`~olmix_jax.laws.exposure`.

    Returns:
      A Fit. ``loss_N`` is −log (marginal likelihood × prior) of the standardised measurements, up to a constant.
      ``promised_N`` exceeds TOLERANCE only where STEPS were not enough.

    Raises:
      UserError: a value is not finite, or the shapes disagree.
    """
    ratios_KM, bpb_KN, weight_RK = inputs.check(ratios_KM, bpb_KN, inputs.one_row(weight_K), tasks)
    params, loss_RN, promised_RN = _fit(ratios_KM, bpb_KN, weight_RK, seed, None, with_curves)
    return Fit(jax.tree.map(lambda x: x[0], params), loss_RN[0], inputs.unseen(ratios_KM), promised_N=promised_RN[0])


def fit_weighted(
    ratios_KM, bpb_KN, weight_RK, *, starts: int = 1, seed: int = 0, tasks=None, near=None, with_curves=False
) -> Params | CurvedParams:
    """Fit every task R times with run weights ω. Weight 0 leaves a run out exactly; ω divides the run's noise by ω.

    Arguments and errors as for :func:`fit`. With ``near``, the Params of the fit to all runs, its θ is kept and only
    the linear algebra is repeated. Returns Params with a leading axis R.
    """
    ratios_KM, bpb_KN, weight_RK = inputs.check(ratios_KM, bpb_KN, weight_RK, tasks)
    return _fit(ratios_KM, bpb_KN, weight_RK, seed, near, with_curves)[0]


def sample(params: Params | CurvedParams, number: int, seed: int = 0) -> Params | CurvedParams:
    """Draw ``number`` functions from the posterior, as Params with that leading axis.

    A draw is a function from the prior (a linear part and WAVES random cosines), corrected at the runs by Matheron's
    rule: g = g_prior + k(z, Z)(K + noise)⁻¹(y − g_prior(Z) − ε). Draws of different tasks have the correlation of the
    tasks' standardised leave-one-out residuals, because a run's noise is shared by its tasks. So the average over tasks
    has the right uncertainty.
    """
    runs, domains, tasks = *params.ratios_KM.shape, len(params.theta_NP)
    draw = rng.generator(seed, "warped_gp.sample")
    # The Matérn 3/2 kernel is the characteristic function of Student's t with 3 degrees of freedom.
    heavy_SF1 = np.sqrt(3 / draw.chisquare(3, size=(number, WAVES, 1)))
    frequency_SFM = heavy_SF1 * draw.normal(size=(number, WAVES, domains))
    phase_SF = 2 * np.pi * draw.random(size=(number, WAVES))
    error_NK = _one(warped_kernel.left_out, params)[1][:, params.weight_K > 0]
    knots = params.curve_NMQ.shape[2] if isinstance(params, CurvedParams) else 0
    normal = draw.normal(size=(number, tasks, WAVES + domains + runs + domains * knots))
    normal_NSX = np.einsum("nm,smx->nsx", _root(error_NK), normal)
    alpha, wave, slope, curve = (
        x.swapaxes(0, 1) for x in _one(warped_kernel.corrected, params, normal_NSX, frequency_SFM, phase_SF)
    )
    wide = jax.tree.map(lambda x: np.broadcast_to(x, (number, *np.shape(x))), params)
    wide = wide._replace(alpha_NK=alpha, wave_NF=wave, slope_NM=slope, frequency_FM=frequency_SFM, phase_F=phase_SF)
    return wide._replace(curve_NMQ=curve) if isinstance(wide, CurvedParams) else wide


def leave_one_out(params: Params | CurvedParams) -> np.ndarray:
    """Predict each run by all others, predicted_KN [BPB], in closed form. θ, offset and scale are those of all runs."""
    error_NK, _ = _one(warped_kernel.left_out, params)
    log_NK = params.offset_N[:, None] + params.scale_N[:, None] * (params.target_NK - error_NK)
    bpb_NK = np.where(params.logged_N[:, None] > 0, np.exp(np.where(params.logged_N[:, None] > 0, log_NK, 0)), log_NK)
    return bpb_NK.T + params.floor_N[None, :]


def _root(error_NK) -> np.ndarray:
    """Return a root of the tasks' correlation matrix, C = root rootᵀ, from standardised errors.

    C is shrunk by 5 %, so that it is positive definite even with more tasks than runs.
    """
    correlation_NN = error_NK @ error_NK.T
    size_N = np.sqrt(np.maximum(np.diag(correlation_NN), 1e-300))
    correlation_NN = 0.95 * correlation_NN / size_N[:, None] / size_N[None, :]
    np.fill_diagonal(correlation_NN, 1.0)
    return np.linalg.cholesky(correlation_NN)


def _one(function, params: Params | CurvedParams, *extra_and_shared):
    """Run ``function`` for every task of one law. Runs and weights are shared; targets and θ are per task."""
    extra, shared = extra_and_shared[:1], extra_and_shared[1:]
    runs = params.ratios_KM, params.weight_K, scale_of(params), *shared
    return per_task.once(function, runs, params.target_NK, params.theta_NP, *extra)


def _fit(ratios_KM, bpb_KN, weight_RK, seed: int, near: Params | CurvedParams | None, with_curves: bool):
    """Return Params with a leading axis R, loss_RN and promised_RN."""
    resamples, runs = weight_RK.shape
    scale = curves.scale(ratios_KM, weight_RK) if with_curves else None
    if near is not None:
        theta_RNP = np.broadcast_to(near.theta_NP, (resamples, *near.theta_NP.shape))
        floor_RN = np.broadcast_to(near.floor_N, (resamples, *near.floor_N.shape))
        floor_RN = gp_learning.below_all_runs(floor_RN, bpb_KN, weight_RK)
        loss_RN = promised_RN = np.zeros((resamples, bpb_KN.shape[1]))
    else:
        chosen_RH = _chosen(weight_RK, seed)
        learnt_from = ratios_KM[chosen_RH], np.take_along_axis(weight_RK, chosen_RH, axis=1), scale
        theta_RNP, floor_RN, loss_RN, promised_RN = _learnt(bpb_KN, weight_RK, chosen_RH, learnt_from)
    target_RNK, offset_RN, scale_RN, logged_N = gp_learning.standardised(bpb_KN, weight_RK, floor_RN)
    wide_RKM = np.broadcast_to(ratios_KM, (resamples, *ratios_KM.shape))
    conditioned_on = wide_RKM, weight_RK, scale
    alpha_RNK, curve_RNMQ = per_task.mapped(gp_learning.condition, (target_RNK, theta_RNP), conditioned_on)
    tasks, domains = theta_RNP.shape[1], ratios_KM.shape[1]
    params = Params(
        wide_RKM,
        weight_RK,
        theta_RNP,
        target_RNK,
        alpha_RNK,
        offset_RN,
        scale_RN,
        np.broadcast_to(logged_N, offset_RN.shape),
        np.zeros((resamples, 0, domains)),
        np.zeros((resamples, 0)),
        np.zeros((resamples, tasks, 0)),
        np.zeros((resamples, tasks, domains)),
        floor_RN,
    )
    if scale is None:
        return params, loss_RN, promised_RN
    return CurvedParams(*params, *scale, curve_NMQ=curve_RNMQ), loss_RN, promised_RN


def _learnt(bpb_KN, weight_RK, chosen_RH, learnt_from):
    """Return theta_RNP, floor_RN, loss_RN and promised_RN, learnt from the chosen runs."""
    least_RN, logged_N = gp_learning.least_of(bpb_KN, weight_RK), (bpb_KN > 0).all(axis=0) * 1.0
    if learnt_from[-1] is None:
        enough_R1 = (weight_RK > 0).sum(axis=1, keepdims=True) >= FLOOR_RUNS
        floor_RN = FLOOR * np.where(enough_R1 & (logged_N > 0), least_RN, 0.0)
        target_RNK, *_ = gp_learning.standardised(bpb_KN, weight_RK, floor_RN)
        learnt_RNH = np.take_along_axis(target_RNK, chosen_RH[:, None, :], axis=2)
        theta_RNP, loss_RN, promised_RN = per_task.mapped(gp_learning.learn, (learnt_RNH,), learnt_from)
        return theta_RNP, floor_RN, loss_RN, promised_RN
    bpb_RNH = bpb_KN.T[:, chosen_RH].swapaxes(0, 1)
    logged_RN = np.broadcast_to(logged_N, bpb_RNH.shape[:2])
    return per_task.mapped(gp_learning.learn_with_floor, (bpb_RNH, logged_RN, least_RN), learnt_from)


def _chosen(weight_RK, seed: int) -> np.ndarray:
    """Choose LEARNT_ON runs per resample, chosen_RH: of positive weight first, then of weight 0."""
    order_K = rng.generator(seed, "warped_gp.learnt_on").permutation(weight_RK.shape[1])
    first_RK = np.argsort(weight_RK[:, order_K] <= 0, axis=1, kind="stable")
    return np.sort(order_K[first_RK][:, :LEARNT_ON], axis=1)


LAW = Law(
    name="warped_gp",
    Params=Params,
    fit=fit,
    fit_weighted=fit_weighted,
    predict=predict,
    parameters=parameters,
    describe=describe,
    differentiable=True,
    spread=spread,
    sample=sample,
    leave_one_out=leave_one_out,
)
