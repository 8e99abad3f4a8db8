"""One curve per domain: how a task's score moves with the exposure to this domain alone.

A curve h is an integrated sum of hats in the warped exposure u, and 0 at the typical run:

    u_j = log(1 + p_j/t_j) / log(1 + T_j/t_j),   h(u) = Σ_q β_q (φ_q(u) − φ_q(u(t_j))),   β_q ~ N(0, 1),
    φ_q(u) = √δ · S((u − qδ)/δ),   S(x) = ½ + c − c|c|/2 with c = min(max(x, −1), 1),   δ = 1/KNOTS,

t_j being the mean and T_j the largest weight of domain j in the runs, so u is 0 without the domain and at most 1 in the
runs. S rises from 0 to 1 with a hat as its slope, so h is quadratic between knots and its slope is continuous, as the
solver needs. Such a curve can rise, saturate, and fall again where the domain repeats too often. Its prior variance
grows with the distance from the typical run, as that of a random walk, also beyond the runs up to u = LAST.

The weight p_j stands for the exposure: with R tokens in a run and N_j unique ones, the epochs are p_j R/N_j, and u does
not depend on the factor R/N_j as long as it is the same for all runs.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

# Knots per unit of u, and the last knot.
KNOTS, LAST = 8, 2


class Scale(NamedTuple):
    """What a domain's exposure is measured by. Resamples, if any, are leading axes.

    Attributes:
      typical_M: t, mean weight in the runs.
      largest_M: T, largest weight in the runs.
    """

    typical_M: Any
    largest_M: Any


class CurvedParams(NamedTuple):
    """Params of :mod:`~olmix_jax.laws.exposure`: those of ``warped_gp``, where θ begins with log v, and more.

    Attributes:
      typical_M, largest_M: of :class:`Scale`.
      curve_NMQ: weights of the curves of the mean or of a sampled function.
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


def scale_of(params) -> Scale | None:
    """Return what curves measure exposures by; None without curves."""
    return Scale(params.typical_M, params.largest_M) if isinstance(params, CurvedParams) else None


def scale(ratios_KM, weight_RK) -> Scale:
    """Return the scale of the runs of positive weight, with leading axis R. A domain without runs has t = T = 1."""
    present_RK1 = (weight_RK > 0)[:, :, None]
    ratios_RKM = np.where(present_RK1, ratios_KM[None], 0.0)
    typical_RM = ratios_RKM.sum(axis=1) / np.maximum(present_RK1.sum(axis=1), 1)
    largest_RM = ratios_RKM.max(axis=1)
    sampled_RM = typical_RM > 0
    return Scale(np.where(sampled_RM, typical_RM, 1.0), np.where(sampled_RM, largest_RM, 1.0))


def features(scale: Scale, ratios_KM):
    """Return φ of every mixture and domain, minus φ of the typical run, KMQ. Pure JAX."""
    unit_M = jnp.log1p(scale.largest_M / scale.typical_M)
    exposure_KM = jnp.log1p(ratios_KM / scale.typical_M[None, :]) / unit_M[None, :]
    return _ramps(exposure_KM) - _ramps(jnp.log(2.0) / unit_M)[None]


def _ramps(exposure):
    knot_Q = jnp.arange(KNOTS * LAST + 1.0)
    c = jnp.clip(KNOTS * exposure[..., None] - knot_Q.reshape((1,) * exposure.ndim + (-1,)), -1.0, 1.0)
    return (0.5 + c - 0.5 * c * jnp.abs(c)) / KNOTS**0.5
