"""The posterior of the Gaussian processes of warped weights: predictions and samples."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from olmix_jax.laws import curves, per_task, warped_kernel
from olmix_jax.laws.curves import CurvedParams, flat_weights, scale_of
from olmix_jax.utils import rng

# Number of cosines in a sampled function.
WAVES = 64
# Numbers of runs in prepared parameters are multiples of this, or all runs.
SHAPES = 64
# Tasks are predicted one after another, which bounds memory, if a table of all of them has more numbers than this.
TABLE = 4_000_000


class Params(NamedTuple):
    """A posterior over functions. Resamples or samples, if any, are leading axes.

    Attributes:
      ratios_KM: the runs' mixtures, or rows with lengths (:mod:`olmix_jax.swarm.lengths`).
      weight_K: ω.
      theta_NP: log (w_1…w_M, a, b, ℓ, s², τ), P = M + 5.
      target_NK: the runs' standardised measurements y.
      alpha_NK: (kernel + noise)⁻¹ y, so that g(z) = Σ_k α_k k(z, z_k).
      offset_N: mean of log(f − c).
      scale_N: standard deviation of log(f − c).
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


class Prepared(NamedTuple):
    """A posterior for many predictions: its runs in warped weights, which take 8·N·K·M bytes.

    Attributes:
      params: of the runs that have weight, and of a few others.
      runs: :class:`~olmix_jax.laws.warped_kernel.Points` per task, z_NKM and square_NK.
    """

    params: Params | CurvedParams
    runs: warped_kernel.Points


def predict(params: Params | CurvedParams | Prepared, ratios_KM):
    """Return bpb_KN [BPB]: floor + exp of the posterior mean of log(f − c) (the median) or of a sample. Pure JAX."""

    p, prepared_runs = params if isinstance(params, Prepared) else (params, None)
    curve_scale = scale_of(p)

    def one(theta_P, alpha_K, offset, scale, logged, wave_F, slope_M, feature_F, runs):
        # The curves' weights include what the runs say of them.
        plain_P = warped_kernel.plain(theta_P, curve_scale)
        runs = _runs((p.ratios_KM, None, curve_scale), theta_P) if runs is None else runs
        asked = _runs((ratios_KM, None, curve_scale), theta_P)
        g_K = warped_kernel.between(plain_P, asked, runs) @ alpha_K
        drawn = p.frequency_FM, p.phase_F, wave_F, slope_M, curve_scale, feature_F
        g_K = g_K + warped_kernel.drawn(theta_P, ratios_KM, *drawn)
        return warped_kernel.unlogged(offset + scale * g_K, logged)

    weights_NF = flat_weights(p) if isinstance(p, CurvedParams) else None
    tasks = p.theta_NP, p.alpha_NK, p.offset_N, p.scale_N, p.logged_N, p.wave_NF, p.slope_NM, weights_NF, prepared_runs
    tasks = jax.tree.map(jnp.asarray, tasks)
    if p.alpha_NK.size * max(len(ratios_KM), 0 if prepared_runs else p.slope_NM.shape[1]) > TABLE:
        bpb_KN = jax.lax.map(lambda task: one(*task), tasks).T
    else:
        bpb_KN = jax.vmap(one, out_axes=1)(*tasks)
    return bpb_KN + p.floor_N[None, :]


def measured(params: Params) -> np.ndarray:
    """Return the measurements of the runs that the posterior is of, bpb_KN [BPB]."""
    value_KN = params.offset_N + params.scale_N * np.asarray(params.target_NK).T
    return params.floor_N + np.where(params.logged_N > 0, np.exp(np.where(params.logged_N > 0, value_KN, 0)), value_KN)


def prepare(params: Params | CurvedParams) -> Prepared:
    """Return ``params`` for many predictions. Most runs of weight 0, of which α is 0, are left out."""
    out_K = np.asarray(params.weight_K) <= 0
    # Refits to other runs have shapes in common, and so compiled programs.
    number = -(-int((~out_K).sum()) // SHAPES) * SHAPES
    kept_H = np.sort(np.argsort(out_K, kind="stable")[:number])
    params = params._replace(
        ratios_KM=np.asarray(params.ratios_KM)[kept_H],
        weight_K=np.asarray(params.weight_K)[kept_H],
        target_NK=np.asarray(params.target_NK)[:, kept_H],
        alpha_NK=np.asarray(params.alpha_NK)[:, kept_H],
    )
    if not len(params.phase_F):
        # Cosines of weight 0, so that the mean has the shapes of samples.
        tasks, domains = params.slope_NM.shape
        waves = {"frequency_FM": np.zeros((WAVES, domains)), "wave_NF": np.zeros((tasks, WAVES))}
        params = params._replace(phase_F=np.zeros(WAVES), **waves)
    return Prepared(params, warped_kernel.Points(*per_task.once(_runs, _shared(params), params.theta_NP)))


def _runs(shared, theta_P) -> warped_kernel.Points:
    ratios_KM, _, scale = shared
    return warped_kernel.points(warped_kernel.plain(theta_P, scale), warped_kernel.weights(theta_P, ratios_KM, scale))


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


def sample(params: Params | CurvedParams, number: int, seed: int = 0) -> Params | CurvedParams:
    """Draw ``number`` functions from the posterior, as Params with that leading axis.

    A draw is a function from the prior (a linear part and WAVES random cosines), corrected at the runs by Matheron's
    rule: g = g_prior + k(z, Z)(K + noise)⁻¹(y − g_prior(Z) − ε). Draws of different tasks have the correlation of the
    tasks' standardised leave-one-out residuals, because a run's noise is shared by its tasks. So the average over tasks
    has the right uncertainty.
    """
    runs, (tasks, domains) = len(params.ratios_KM), params.slope_NM.shape
    draw = rng.generator(seed, "warped_gp.sample")
    # The Matérn 3/2 kernel is the characteristic function of Student's t with 3 degrees of freedom.
    heavy_SF1 = np.sqrt(3 / draw.chisquare(3, size=(number, WAVES, 1)))
    frequency_SFM = heavy_SF1 * draw.normal(size=(number, WAVES, domains))
    phase_SF = 2 * np.pi * draw.random(size=(number, WAVES))
    error_NK = _one(warped_kernel.left_out, params)[1][:, params.weight_K > 0]
    features = curves.number(scale_of(params), domains)
    root_NN = _root(error_NK)
    normal_NSX = np.empty((tasks, number, WAVES + domains + runs + features))
    # Sample by sample, because these numbers can take most of the memory.
    for s in range(number):
        normal_NSX[:, s] = root_NN @ draw.normal(size=(tasks, normal_NSX.shape[2]))
    alpha, wave, slope, feature_SNF = (
        x.swapaxes(0, 1) for x in _one(warped_kernel.corrected, params, normal_NSX, frequency_SFM, phase_SF)
    )
    wide = jax.tree.map(lambda x: np.broadcast_to(x, (number, *np.shape(x))), params)
    wide = wide._replace(alpha_NK=alpha, wave_NF=wave, slope_NM=slope, frequency_FM=frequency_SFM, phase_F=phase_SF)
    return curves.with_weights(wide, feature_SNF) if isinstance(wide, CurvedParams) else wide


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
    return per_task.once(function, (*_shared(params), *shared), params.target_NK, params.theta_NP, *extra)


def _shared(params: Params | CurvedParams):
    return params.ratios_KM, params.weight_K, scale_of(params)
