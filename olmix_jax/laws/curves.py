"""One curve per domain: how a task's score moves with the exposure to this domain alone.

A curve h is an integrated sum of hats in the warped exposure u, and 0 at the typical run:

    u_j = log(1 + p_j/t_j) / log(1 + T_j/t_j),   h(u) = Σ_q β_q (φ_q(u) − φ_q(u(t_j))),   β_q ~ N(0, 1),
    φ_q(u) = √δ · S((u − qδ)/δ),   S(x) = ½ + c − c|c|/2 with c = min(max(x, −1), 1),   δ = 1/KNOTS,

t_j being the mean and T_j the largest weight of domain j in the runs, so u is 0 without the domain and at most 1 in the
runs. S rises from 0 to 1 with a hat as its slope, so h is quadratic between knots and its slope is continuous, as the
solver needs. Such a curve can rise, saturate, and fall again where the domain repeats too often. Its prior variance
grows with the distance from the typical run, as that of a random walk, also beyond the runs up to u = LAST.

The exposure to a domain is its epochs e_j = p_j R/N_j, with R tokens in a run and N_j unique ones. As long as R/N_j is
the same for all runs, u does not depend on it, and a run is read as its mixture. Runs with their own lengths and pools
are read as rows [p_M | N_M | R] (:mod:`olmix_jax.swarm.lengths`). Then u is a function of e_j, with t and T in epochs,
and a trend is added: a multiple of (log R − mean) / standard deviation over the runs, of prior variance 1. A mixture
without lengths is read at those of the target.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from olmix_jax.swarm.lengths import Lengths, pairs

# Knots per unit of u, and the last knot.
KNOTS, LAST = 8, 2
# Features of a curve.
FEATURES = KNOTS * LAST + 1
# Least standard deviation of log R in the trend, that of runs of two lengths of which one is twice the other.
LEAST_LEVEL = 0.35


class Scale(NamedTuple):
    """What a domain's exposure is measured by. Resamples, if any, are leading axes.

    Attributes:
      typical_M: t, mean weight in the runs.
      largest_M: T, largest weight in the runs.
    """

    typical_M: Any
    largest_M: Any


class LengthScale(NamedTuple):
    """The same for runs with their own lengths and pools; t and T are epochs.

    Attributes:
      target_X: unique tokens of each domain and training tokens [N_M | R] that a mixture without lengths is read at.
      level_2: mean and standard deviation of log R in the runs.
    """

    typical_M: Any
    largest_M: Any
    target_X: Any
    level_2: Any


class CurvedParams(NamedTuple):
    """Params of :mod:`~olmix_jax.laws.exposure`: those of ``warped_gp``, where θ begins with log v, and more.

    Attributes:
      typical_M, largest_M: of :class:`Scale`.
      curve_NMQ: weights of the curves of the mean or of a sampled function.
      target_X, level_2: of :class:`LengthScale`; None if the runs' lengths are alike.
      trend_N: weight of the trend in log R.
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
    typical_M: np.ndarray
    largest_M: np.ndarray
    curve_NMQ: np.ndarray
    target_X: Any = None
    level_2: Any = None
    trend_N: Any = None


def scale_of(params) -> Scale | LengthScale | None:
    """Return what curves measure exposures by; None without curves."""
    if not isinstance(params, CurvedParams):
        return None
    if params.target_X is None:
        return Scale(params.typical_M, params.largest_M)
    return LengthScale(params.typical_M, params.largest_M, params.target_X, params.level_2)


def scale(ratios_KM, weight_RK, lengths: Lengths | None = None) -> Scale | LengthScale:
    """Return the scale of the runs of positive weight, with leading axis R. A domain without runs has t = T = 1.

    The target is the median of the lengths and pools.
    """
    if lengths is None:
        return _scale_of_exposures(ratios_KM, weight_RK)
    exposure_KM = ratios_KM * lengths.tokens_K[:, None] / lengths.unique_KM
    present_R = [weight_K > 0 for weight_K in weight_RK]
    target_RX = np.stack([np.median(pairs(lengths)[present_K], axis=0) for present_K in present_R])
    logs = [np.log(lengths.tokens_K[present_K]) for present_K in present_R]
    level_R2 = np.array([(log_K.mean(), max(log_K.std(), LEAST_LEVEL)) for log_K in logs])
    return LengthScale(*_scale_of_exposures(exposure_KM, weight_RK), target_RX, level_R2)


def _scale_of_exposures(exposure_KM, weight_RK) -> Scale:
    present_RK1 = (weight_RK > 0)[:, :, None]
    exposure_RKM = np.where(present_RK1, exposure_KM[None], 0.0)
    typical_RM = exposure_RKM.sum(axis=1) / np.maximum(present_RK1.sum(axis=1), 1)
    largest_RM = exposure_RKM.max(axis=1)
    sampled_RM = typical_RM > 0
    return Scale(np.where(sampled_RM, typical_RM, 1.0), np.where(sampled_RM, largest_RM, 1.0))


def features(scale: Scale | LengthScale, rows_KX):
    """Return φ of every mixture and domain, minus φ of the typical run, KMQ. Pure JAX."""
    exposure_KM = rows_KX
    if isinstance(scale, LengthScale):
        ratios_KM, unique_KM, tokens_K = read(scale, rows_KX)
        exposure_KM = ratios_KM * tokens_K[:, None] / unique_KM
    unit_M = jnp.log1p(scale.largest_M / scale.typical_M)
    warped_KM = jnp.log1p(exposure_KM / scale.typical_M[None, :]) / unit_M[None, :]
    return _ramps(warped_KM) - _ramps(jnp.log(2.0) / unit_M)[None]


def flat_features(scale: Scale | LengthScale, rows_KX):
    """Return the features of all curves and, last, that of the trend, if the runs' lengths differ: KF."""
    curve_KF = features(scale, rows_KX).reshape(len(rows_KX), -1)
    if not isinstance(scale, LengthScale):
        return curve_KF
    *_, tokens_K = read(scale, rows_KX)
    trend_K = (jnp.log(tokens_K) - scale.level_2[0]) / scale.level_2[1]
    return jnp.concatenate([curve_KF, trend_K[:, None]], axis=1)


def number(scale: Scale | LengthScale | None, domains: int) -> int:
    """Return the number of flat features."""
    return 0 if scale is None else domains * FEATURES + isinstance(scale, LengthScale)


def flat_weights(params: CurvedParams):
    """Return the weights of the flat features of each task, NF."""
    curve_NF = params.curve_NMQ.reshape(len(params.curve_NMQ), -1)
    return curve_NF if params.trend_N is None else jnp.concatenate([curve_NF, params.trend_N[:, None]], axis=1)


def with_weights(params: CurvedParams, weight_F) -> CurvedParams:
    """Return Params with the weights of the flat features; leading axes are those of the tasks."""
    domains = params.typical_M.shape[-1]
    curves_of, trend = weight_F, None
    if params.target_X is not None:
        curves_of, trend = weight_F[..., :-1], weight_F[..., -1]
    return params._replace(curve_NMQ=curves_of.reshape(*weight_F.shape[:-1], domains, -1), trend_N=trend)


def read(scale: LengthScale, rows_KX):
    """Return the mixtures, unique tokens and training tokens of rows, or of mixtures at the target."""
    domains = scale.typical_M.shape[0]
    ratios_KM, lengths_KX = rows_KX[:, :domains], rows_KX[:, domains:]
    if not lengths_KX.shape[1]:
        lengths_KX = jnp.broadcast_to(scale.target_X, (len(rows_KX), domains + 1))
    return ratios_KM, lengths_KX[:, :domains], lengths_KX[:, domains]


def _ramps(exposure):
    knot_Q = jnp.arange(KNOTS * LAST + 1.0)
    c = jnp.clip(KNOTS * exposure[..., None] - knot_Q.reshape((1,) * exposure.ndim + (-1,)), -1.0, 1.0)
    return (0.5 + c - 0.5 * c * jnp.abs(c)) / KNOTS**0.5
