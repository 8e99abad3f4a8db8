"""The joint posterior of a law of two fidelities, given its slopes: what runs of either kind tell about real runs.

In units of scale_i of g_i, log f_i(p) = u(p) + β(p) h(p) + e(p) δ up to constants, with independent Gaussian parts:

    u   the process of g, which only real runs show
    h   the process of the cheap runs' law; β(p) = ρ_i ∂m_i/∂h / scale_i
    δ   the standardised error of the slope; e(p) = std(ρ_i) (m_i(p) − m̄_i) / scale_i

All runs measure a u + β h + e δ with noise: a real run with a = 1, and a cheap run h alone, (a, β, e) = (0, 1, 0).
This is the autoregressive model of two codes (Kennedy and O'Hagan 2000). h is conditioned on the cheap runs, and then
u and h jointly on the real ones. δ is not, because the error of a slope is that of a fit to these runs. β is the slope
at the prediction, and is constant for tasks whose cheap law has no floor. ``two_fidelity.spread`` takes m
for exact where it conditions u on the real runs, so the two agree only far from real runs.

Additional dim letters: X runs that may be trained, Q reference mixtures, D cheap runs that may be trained.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from olmix_jax.laws import per_task, two_fidelity, warped_gp, warped_kernel
from olmix_jax.laws.law import evaluate


class Covariances(NamedTuple):
    """A law's posterior covariances, each task in units of its spread.

    Attributes:
      variance_NC: variance at the candidates.
      cross_NCQ: covariance between candidates and reference mixtures.
      variance_NQ: variance at the reference mixtures.
      column: c → covariance between all candidates and candidate c, NC.
      noise_NC: variance of the noise of a run at each candidate.
    """

    variance_NC: np.ndarray
    cross_NCQ: np.ndarray
    variance_NQ: np.ndarray
    column: Callable[[int], np.ndarray]
    noise_NC: np.ndarray


class Points(NamedTuple):
    """Mixtures, and the factors of u, h and δ in what is measured there: a, β and e."""

    ratios_XM: np.ndarray
    own_X: np.ndarray
    shape_NX: np.ndarray
    error_NX: np.ndarray

    def at(self, x: int) -> "Points":
        """Return one point."""
        return Points(self.ratios_XM[[x]], self.own_X[[x]], self.shape_NX[:, [x]], self.error_NX[:, [x]])


def covariances(params: two_fidelity.Params, real_CM, cheap_DM, reference_QM) -> Covariances:
    """Return the covariances between runs that may be trained, first real and then cheap ones, and the real law.

    Args:
      params: of a fit with cheap runs, without leading axes.
      real_CM, cheap_DM: mixtures of the runs that may be trained, of each kind.
      reference_QM: mixtures of which the covariances of log f are returned.
    """
    assert params.cheap is not None
    asked, reference, runs = _asked(params, real_CM, cheap_DM), _real(params, reference_QM), params.own
    thetas = runs.theta_NP, params.cheap.theta_NP
    data = runs.ratios_KM, runs.weight_K, params.cheap.ratios_KM, params.cheap.weight_K
    shared = *data, asked.ratios_XM, asked.own_X, reference.ratios_XM, reference.own_X
    real = _real(params, runs.ratios_KM)
    factors = real.shape_NX, asked.shape_NX, reference.shape_NX, asked.error_NX, reference.error_NX
    half_NJX, seen_NKX, variance_NX, cross_NXQ, variance_NQ = per_task.once(_conditioned, shared, *thetas, *factors)

    def column(x: int) -> np.ndarray:
        one = asked.at(x)
        at = asked.ratios_XM, one.ratios_XM
        own_NX, shape_NX = per_task.once(_kernels, at, *thetas)
        shape_NX = shape_NX - np.einsum("njx,nj->nx", half_NJX, half_NJX[:, :, x])
        prior_NX = asked.own_X * one.own_X * own_NX + asked.shape_NX * one.shape_NX * shape_NX
        return prior_NX + asked.error_NX * one.error_NX - np.einsum("nkx,nk->nx", seen_NKX, seen_NKX[:, :, x])

    noise_2N1 = [np.exp(theta_NP[:, -2:-1]) + warped_kernel.JITTER for theta_NP in thetas]
    noise_NX = np.where(asked.own_X > 0, *noise_2N1)
    return Covariances(variance_NX, cross_NXQ, variance_NQ, column, noise_NX)


def _asked(params: two_fidelity.Params, real_CM, cheap_DM) -> Points:
    """Return what real and cheap runs measure."""
    real, cheap_DM = _real(params, real_CM), np.asarray(cheap_DM, np.float64)
    cheap_ND = np.ones((len(real.shape_NX), len(cheap_DM)))
    return Points(
        np.concatenate([real.ratios_XM, cheap_DM]),
        np.concatenate([real.own_X, np.zeros(len(cheap_DM))]),
        np.concatenate([real.shape_NX, cheap_ND], axis=1),
        np.concatenate([real.error_NX, 0 * cheap_ND], axis=1),
    )


def _real(params: two_fidelity.Params, ratios_XM) -> Points:
    """Return what real runs measure."""
    ratios_XM, cheap = np.asarray(ratios_XM, np.float64), params.cheap
    assert cheap is not None
    used_N = np.asarray(params.slope_N) != 0
    bpb_NX = np.where(used_N[:, None], evaluate(warped_gp.LAW, cheap, ratios_XM).T, 1.0)
    steep_NX = cheap.scale_N[:, None] * (1 - cheap.floor_N[:, None] / bpb_NX)
    unsure_N = np.hypot(params.common_error_N, params.own_error_N)
    unit_N1, centre_N = params.own.scale_N[:, None], np.where(used_N, params.centre_N, 0.0)
    return Points(
        ratios_XM,
        np.ones(len(ratios_XM)),
        params.slope_N[:, None] * steep_NX / unit_N1,
        unsure_N[:, None] * (np.log(bpb_NX) - centre_N[:, None]) / unit_N1,
    )


def _conditioned(shared, own_P, cheap_P, run_K, shape_X, shape_Q, error_X, error_Q):
    """Return one task's L⁻¹k_h(J, X), F⁻¹Cov(K, X), Var(X), Cov(X, Q) and Var(Q); L and F are of the runs."""
    runs_KM, weight_K, cheap_JM, weight_J, asked_XM, own_X, reference_QM, own_Q = shared
    factor_JJ, _ = warped_kernel.conditioned(cheap_P, cheap_JM, jnp.zeros(len(weight_J)), weight_J)

    def half(at_XM):
        cross_JX = warped_kernel.kernel(cheap_P, cheap_JM, at_XM) * warped_kernel.active(weight_J)[:, None]
        return jax.scipy.linalg.solve_triangular(factor_JJ, cross_JX, lower=True)

    def given_cheap(one, other):
        """Return the covariance of a u + β h once the cheap runs are known."""
        (one_XM, a_X, b_X, half_JX), (other_YM, a_Y, b_Y, half_JY) = one, other
        own_XY, shape_XY = _both_kernels(own_P, cheap_P, one_XM, other_YM)
        shape_XY = shape_XY - half_JX.T @ half_JY
        return a_X[:, None] * a_Y[None, :] * own_XY + b_X[:, None] * b_Y[None, :] * shape_XY

    run = runs_KM, jnp.ones(len(weight_K)), run_K, half(runs_KM)
    asked, reference = (asked_XM, own_X, shape_X, half(asked_XM)), (reference_QM, own_Q, shape_Q, half(reference_QM))
    factor_KK = jnp.linalg.cholesky(warped_kernel.noisy(own_P, given_cheap(run, run), weight_K))

    def seen(one):
        cross_KX = given_cheap(run, one) * warped_kernel.active(weight_K)[:, None]
        return jax.scipy.linalg.solve_triangular(factor_KK, cross_KX, lower=True)

    def variance(one, seen_KX, error_X):
        at_XM, a_X, b_X, half_JX = one
        shape_X = warped_kernel.variance(cheap_P, at_XM) - (half_JX**2).sum(axis=0)
        own_X = warped_kernel.variance(own_P, at_XM)
        return a_X**2 * own_X + b_X**2 * shape_X + error_X**2 - (seen_KX**2).sum(axis=0)

    seen_KX, seen_KQ = seen(asked), seen(reference)
    cross_XQ = given_cheap(asked, reference) + error_X[:, None] * error_Q[None, :] - seen_KX.T @ seen_KQ
    variance_X, variance_Q = variance(asked, seen_KX, error_X), variance(reference, seen_KQ, error_Q)
    return asked[-1], seen_KX, variance_X, cross_XQ, variance_Q


def _both_kernels(own_P, cheap_P, one_XM, other_YM):
    return tuple(warped_kernel.kernel(theta_P, one_XM, other_YM) for theta_P in (own_P, cheap_P))


def _kernels(shared, own_P, cheap_P):
    """Return one task's prior covariances of u and of h between all points and one of them."""
    return tuple(of_X1[:, 0] for of_X1 in _both_kernels(own_P, cheap_P, *shared))
