"""The kernel of :mod:`~olmix_jax.laws.warped_gp` and the linear algebra of one task. Pure JAX, in float64.

With a ``scale``, the kernel is that of :mod:`~olmix_jax.laws.exposure`: it has a curve per domain, and θ begins with
the log of their variance v. Its mixtures may be rows with lengths (:mod:`~olmix_jax.laws.curves`); ρ comes second in θ
then, and the kernel without curves reads p_j (R/R̄)^ρ in place of p_j.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from olmix_jax.laws import curves
from olmix_jax.laws.curves import LengthScale, Scale

# Prior of θ: mean and standard deviation of log w_j (RELEVANCE) and of log (a, b, ℓ, s², τ) (SHARED).
RELEVANCE = 0.0, 1.5
SHARED = (0.0, -1.0, 0.0, -2.0, -3.5), (3.0, 3.0, 1.5, 1.5, 1.5)
# The same of log v.
CURVES = -2.0, 2.0
# The same of ρ: benefits follow weights at 0, and tokens of the domain at 1.
TOKENS = 0.5, 0.5
# Added to the diagonal, so that rounding cannot make the kernel matrix indefinite.
JITTER = 1e-8


class Points(NamedTuple):
    """Mixtures as the kernel of one task sees them.

    Attributes:
      z_KM: warped weights.
      square_K: |z|², weighted by w.
    """

    z_KM: Any
    square_K: Any


def points(theta_P, ratios_KM) -> Points:
    """Return mixtures in warped weights, which is most of the work of a kernel between many runs and few mixtures."""
    relevance_M, (*_, warp) = split(theta_P)
    z_KM = _warped(ratios_KM, warp)
    return Points(z_KM, z_KM**2 @ relevance_M)


def kernel(theta_P, one_KM, other_QM, scale: Scale | LengthScale | None = None):
    """Return the kernel k between mixtures, k_KQ."""
    if scale is None:
        return between(theta_P, points(theta_P, one_KM), points(theta_P, other_QM))
    one_KF, other_QF = (curves.flat_features(scale, ratios_KM) for ratios_KM in (one_KM, other_QM))
    variance_F = _feature_variances(theta_P, scale)
    plain_P, one_KM, other_QM = (
        plain(theta_P, scale),
        weights(theta_P, one_KM, scale),
        weights(theta_P, other_QM, scale),
    )
    return kernel(plain_P, one_KM, other_QM) + (one_KF * variance_F[None, :]) @ other_QF.T


def plain(theta_P, scale: Scale | LengthScale | None):
    """Return θ of the kernel without curves."""
    return theta_P if scale is None else theta_P[2 if isinstance(scale, LengthScale) else 1 :]


def weights(theta_P, rows_KX, scale: Scale | LengthScale | None):
    """Return what the kernel without curves reads of rows: p_j, or p_j (R/R̄)^ρ if the runs differ in length."""
    if not isinstance(scale, LengthScale):
        return rows_KX
    ratios_KM, _, tokens_K = curves.read(scale, rows_KX)
    return ratios_KM * jnp.exp(theta_P[1] * (jnp.log(tokens_K) - scale.level_2[0]))[:, None]


def _feature_variances(theta_P, scale: Scale | LengthScale):
    """Return the prior variance of the weights of the flat features: v·w_j at the knots of domain j, 1 of the trend."""
    relevance_M, _ = split(plain(theta_P, scale))
    number = curves.number(scale, len(relevance_M))
    variance_F = jnp.repeat(jnp.exp(theta_P[0]) * relevance_M, curves.FEATURES)
    return jnp.append(variance_F, jnp.ones(number - len(variance_F)))


def between(theta_P, one: Points, other: Points):
    """Return the kernel k between points, without curves, k_KQ."""
    return _sum(theta_P, _parts(theta_P, one, other))


def _parts(theta_P, one: Points, other: Points):
    """Return ⟨z, z'⟩, D², d and e^−d, K × Q each. Inner product and distance are weighted by w."""
    relevance_M, (_, _, length, _, _) = split(theta_P)
    inner_KQ = (one.z_KM * relevance_M[None, :]) @ other.z_KM.T
    far_KQ = one.square_K[:, None] + other.square_K[None, :] - 2 * inner_KQ
    # Rounding makes distances of 0 slightly negative, and the slope of a root is infinite at 0.
    d_KQ = jnp.sqrt(3 * length * jnp.maximum(far_KQ, 0.0) + 1e-12)
    return inner_KQ, far_KQ, d_KQ, jnp.exp(-d_KQ)


def _sum(theta_P, parts):
    _, (linear, rough, _, _, _) = split(theta_P)
    inner_KQ, _, d_KQ, decay_KQ = parts
    return linear * inner_KQ + rough * (1 + d_KQ) * decay_KQ


def variance(theta_P, ratios_KM, scale: Scale | LengthScale | None = None):
    """Return the prior variance k(z, z) of each mixture."""
    if scale is not None:
        feature_KF, variance_F = curves.flat_features(scale, ratios_KM), _feature_variances(theta_P, scale)
        plain_variance_K = variance(plain(theta_P, scale), weights(theta_P, ratios_KM, scale))
        return plain_variance_K + feature_KF**2 @ variance_F
    relevance_M, (linear, rough, _, _, warp) = split(theta_P)
    return linear * (_warped(ratios_KM, warp) ** 2 @ relevance_M) + rough


def drawn(theta_P, ratios_KM, frequency_FM, phase_F, wave_F, slope_M, scale=None, feature_F=None):
    """Return a function from the prior at mixtures: slope·z + Σ_f wave_f cos(ω_f·√(ℓw) z + phase_f) + Σ_j h_j.

    ``feature_F`` are the weights of the flat features.
    """
    if scale is not None:
        curves_K = curves.flat_features(scale, ratios_KM) @ feature_F
        plain_P, ratios_KM = plain(theta_P, scale), weights(theta_P, ratios_KM, scale)
        return drawn(plain_P, ratios_KM, frequency_FM, phase_F, wave_F, slope_M) + curves_K
    relevance_M, (_, _, length, _, warp) = split(theta_P)
    z_KM, scale_M = _warped(ratios_KM, warp), jnp.sqrt(length * relevance_M)
    return z_KM @ slope_M + jnp.cos((z_KM * scale_M[None, :]) @ frequency_FM.T + phase_F[None, :]) @ wave_F


def split(theta_P):
    """Return w_M, and (a, b, ℓ, s², τ) as an array."""
    e_P = jnp.exp(theta_P)
    return e_P[:-5], e_P[-5:]


def _warped(ratios_KM, warp):
    """Return z = log(1 + p/τ) / log(1 + 1/τ)."""
    return jnp.log1p(ratios_KM / warp) / jnp.log1p(1 / warp)


def _warped_slope(ratios_KM, warp):
    """Return ∂z/∂log τ."""
    bend_KM = ratios_KM / (ratios_KM + warp)
    return (_warped(ratios_KM, warp) / (1 + warp) - bend_KM) / jnp.log1p(1 / warp)


def unlogged(value, logged):
    """Undo the logarithm of a task that has one."""
    return jnp.where(logged > 0, jnp.exp(jnp.where(logged > 0, value, 0.0)), value)


def active(weight_K):
    """Return 1 for runs of positive weight, else 0."""
    return (weight_K > 0).astype(weight_K.dtype)


def noisy(theta_P, kernel_KK, weight_K):
    """Add the runs' noise to their kernel. A run of weight 0 becomes a row of the identity, which has no effect."""
    active_K = active(weight_K)
    noise_K = jnp.exp(theta_P[-2]) / jnp.where(weight_K > 0, weight_K, 1.0) + JITTER
    return kernel_KK * active_K[:, None] * active_K[None, :] + jnp.diag(jnp.where(weight_K > 0, noise_K, 1.0))


def conditioned(theta_P, ratios_KM, target_K, weight_K, scale: Scale | LengthScale | None = None):
    """Return the Cholesky factor of kernel and noise, and alpha_K."""
    factor_KK = jnp.linalg.cholesky(noisy(theta_P, kernel(theta_P, ratios_KM, ratios_KM, scale), weight_K))
    return factor_KK, jax.scipy.linalg.cho_solve((factor_KK, True), target_K)


def prior(domains: int, with_curves: bool = False, with_lengths: bool = False):
    """Return the mean and standard deviation of θ's prior."""
    mean_P, std_P = (jnp.concatenate([jnp.full(domains, r), jnp.array(s)]) for r, s in zip(RELEVANCE, SHARED))
    if not with_curves:
        return mean_P, std_P
    first = (CURVES, TOKENS) if with_lengths else (CURVES,)
    return tuple(jnp.append(jnp.array(ends), x_P) for ends, x_P in zip(zip(*first), (mean_P, std_P)))


def negative_log_posterior(theta_P, ratios_KM, target_K, weight_K, scale: Scale | LengthScale | None = None):
    """Return −log (marginal likelihood × prior) of one task, and its gradient."""
    return with_alpha(theta_P, ratios_KM, target_K, weight_K, scale)[:2]


def with_alpha(theta_P, ratios_KM, target_K, weight_K, scale: Scale | LengthScale | None = None):
    """Return :func:`negative_log_posterior` and α, which is its gradient by the target."""
    active_K, plain_P, weights_KM = active(weight_K), plain(theta_P, scale), weights(theta_P, ratios_KM, scale)
    mean_P, std_P = prior(weights_KM.shape[1], scale is not None, isinstance(scale, LengthScale))
    runs = points(plain_P, weights_KM)
    parts = _parts(plain_P, runs, runs)
    kernel_KK = _sum(plain_P, parts)
    if scale is not None:
        feature_KF, variance_F = curves.flat_features(scale, ratios_KM), _feature_variances(theta_P, scale)
        kernel_KK = kernel_KK + (feature_KF * variance_F[None, :]) @ feature_KF.T
    factor_KK = jnp.linalg.cholesky(noisy(theta_P, kernel_KK, weight_K))
    inverse_KK = jax.scipy.linalg.cho_solve((factor_KK, True), jnp.eye(len(target_K)))
    alpha_K = inverse_KK @ target_K
    # ∂/∂C of ½ yᵀC⁻¹y + ½ log|C| is ½(C⁻¹ − ααᵀ).
    slope_KK = 0.5 * (inverse_KK - jnp.outer(alpha_K, alpha_K))
    noise_K = active_K * jnp.exp(theta_P[-2]) / jnp.where(weight_K > 0, weight_K, 1.0)
    kernel_slope_KK = slope_KK * active_K[:, None] * active_K[None, :]
    gradient_P, weights_slope_KM = _kernel_gradient(plain_P, weights_KM, parts, kernel_slope_KK)
    if scale is not None:
        # ∂/∂log of v·w_j, summed over the knots of a domain. The variance of the trend is fixed.
        slope_F, domains = variance_F * (feature_KF * (kernel_slope_KK @ feature_KF)).sum(axis=0), weights_KM.shape[1]
        slope_M = slope_F[: domains * curves.FEATURES].reshape(domains, -1).sum(axis=1)
        gradient_P = gradient_P.at[: len(slope_M)].add(slope_M)
        if isinstance(scale, LengthScale):
            *_, tokens_K = curves.read(scale, ratios_KM)
            longer_K = jnp.log(tokens_K) - scale.level_2[0]
            gradient_P = jnp.append(longer_K @ (weights_slope_KM * weights_KM).sum(axis=1), gradient_P)
        gradient_P = jnp.append(slope_M.sum(), gradient_P)
    gradient_P = gradient_P.at[-2].add(jnp.diag(slope_KK) @ noise_K)
    off_P = (theta_P - mean_P) / std_P
    value = 0.5 * (target_K @ alpha_K) + jnp.log(jnp.diag(factor_KK)).sum() + 0.5 * (off_P @ off_P)
    return value, gradient_P + off_P / std_P, alpha_K


def _kernel_gradient(theta_P, ratios_KM, parts, slope_KK):
    """Return Σ_kq slope_kq ∂k(z_k, z_q)/∂θ for the kernel between the runs, without noise, and the same for ∂/∂p.

    Derived by hand, because it takes most of the time of a fit.

    With D² = Σ_j w_j (z_j − z'_j)² and d = √(3ℓ) D, ∂[b(1 + d)e^−d]/∂D² = −(3/2) ℓ b e^−d: no singularity at 0.
    """
    relevance_M, (linear, rough, length, _, warp) = split(theta_P)
    inner_KK, far_KK, d_KK, decay_KK = parts
    z_KM = _warped(ratios_KM, warp)
    far_slope_KK = (-1.5 * length * rough) * slope_KK * decay_KK
    inner_slope_KK = linear * slope_KK - 2 * far_slope_KK
    # As D² = |z|² + |z'|² − 2⟨z, z'⟩, the derivatives of D² are those of inner products and squared norms.
    half_KM = inner_slope_KK @ z_KM + 2 * far_slope_KK.sum(axis=1)[:, None] * z_KM
    relevance_slope_M = relevance_M * (half_KM * z_KM).sum(axis=0)
    z_slope_KM = 2 * relevance_M[None, :] * half_KM
    tail_K = jnp.stack(
        [
            linear * (slope_KK * inner_KK).sum(),
            rough * (slope_KK * (1 + d_KK) * decay_KK).sum(),
            (far_slope_KK * far_KK).sum(),
            0.0,
            (z_slope_KM * _warped_slope(ratios_KM, warp)).sum(),
        ]
    )
    ratios_slope_KM = z_slope_KM / ((ratios_KM + warp) * jnp.log1p(1 / warp))
    return jnp.concatenate([relevance_slope_M, tail_K]), ratios_slope_KM


def left_out(shared, target_K, theta_P):
    """Return each run's error when predicted by all others, in standardised BPB and in standard deviations.

    θ is kept (Rasmussen and Williams 2006, §5.4.2).
    """
    ratios_KM, weight_K, scale = shared
    factor_KK, alpha_K = conditioned(theta_P, ratios_KM, target_K, weight_K, scale)
    half_KK = jax.scipy.linalg.solve_triangular(factor_KK, jnp.eye(len(target_K)), lower=True)
    precision_K = (half_KK**2).sum(axis=0)
    return alpha_K / precision_K, alpha_K / jnp.sqrt(precision_K)


def corrected(shared, target_K, theta_P, normal_SX):
    """Return alpha_SK, wave_SF, slope_SM and the weights of the features of S draws of one task, by Matheron's rule."""
    ratios_KM, weight_K, scale, frequency_SFM, phase_SF = shared
    factor_KK, _ = conditioned(theta_P, ratios_KM, target_K, weight_K, scale)
    runs, waves = len(ratios_KM), phase_SF.shape[1]
    relevance_M, (linear, rough, _, noise, _) = split(plain(theta_P, scale))
    domains = len(relevance_M)
    normal_SF, normal_SM, normal_SK, normal_SY = jnp.split(
        normal_SX, [waves, waves + domains, waves + domains + runs], axis=1
    )
    wave_SF, slope_SM = jnp.sqrt(2 * rough / waves) * normal_SF, jnp.sqrt(linear * relevance_M)[None, :] * normal_SM
    noise_K = jnp.sqrt(noise / jnp.where(weight_K > 0, weight_K, 1.0))
    feature_SY = normal_SY if scale is None else jnp.sqrt(_feature_variances(theta_P, scale))[None, :] * normal_SY

    def prior_function(frequency_FM, phase_F, wave_F, slope_M, feature_Y):
        return drawn(theta_P, ratios_KM, frequency_FM, phase_F, wave_F, slope_M, scale, feature_Y)

    prior_SK = jax.vmap(prior_function)(frequency_SFM, phase_SF, wave_SF, slope_SM, feature_SY)
    lack_SK = (target_K[None, :] - prior_SK - noise_K[None, :] * normal_SK) * active(weight_K)[None, :]
    alpha_SK = jax.scipy.linalg.cho_solve((factor_KK, True), lack_SK.T).T
    if scale is not None:
        of_runs = jax.vmap(lambda alpha_K: feature_weights(theta_P, ratios_KM, alpha_K, weight_K, scale))
        feature_SY = feature_SY + of_runs(alpha_SK)
    return alpha_SK, wave_SF, slope_SM, feature_SY


def feature_weights(theta_P, ratios_KM, alpha_K, weight_K, scale: Scale | LengthScale):
    """Return the posterior mean of the weights of the flat features; of curves v·w_j Σ_k α_k φ_jq(p_k)."""
    feature_KF = curves.flat_features(scale, ratios_KM)
    return _feature_variances(theta_P, scale) * ((alpha_K * active(weight_K)) @ feature_KF)
