"""Posterior covariances of a law between candidate runs and reference mixtures."""

import jax
import jax.numpy as jnp
import numpy as np

from olmix_jax.laws import curves, per_task, warped_gp, warped_kernel
from olmix_jax.laws.joint_posterior import Covariances
from olmix_jax.utils.errors import UserError


def exact_covariances(params: warped_gp.Params | curves.CurvedParams, candidates_CM, reference_QM) -> Covariances:
    """Return a Gaussian process' covariances, of the standardised latent function of each task.

    Raises:
      UserError: the shapes disagree, or ``params`` has leading axes.
    """
    candidates_CM, reference_QM = np.asarray(candidates_CM, np.float64), np.asarray(reference_QM, np.float64)
    domains = params.slope_NM.shape[-1]
    if {x.ndim for x in (params.ratios_KM, candidates_CM, reference_QM)} != {2} or not len(reference_QM):
        raise UserError("next runs need one fitted law, and tables of candidates and reference mixtures")
    if candidates_CM.shape[1] != domains or reference_QM.shape[1] != domains:
        raise UserError(f"the law has {domains} domains, not {candidates_CM.shape[1]} and {reference_QM.shape[1]}")
    scale = curves.scale_of(params)
    shared = params.ratios_KM, params.weight_K, scale, candidates_CM, reference_QM
    half_NKC, variance_NC, cross_NCQ, variance_NQ = per_task.once(_conditioned, shared, params.theta_NP)

    def column(c: int) -> np.ndarray:
        (prior_NC,) = per_task.once(_prior, (scale, candidates_CM, candidates_CM[c]), params.theta_NP)
        return prior_NC - np.stack([half_KC[:, c] @ half_KC for half_KC in half_NKC])

    noise_N1 = np.exp(params.theta_NP[:, -2:-1]) + warped_kernel.JITTER
    return Covariances(variance_NC, cross_NCQ, variance_NQ, column, np.broadcast_to(noise_N1, variance_NC.shape))


def _conditioned(shared, theta_P):
    """Return one task's L⁻¹k(Z, C), Var(C), Cov(C, Q) and Var(Q)."""
    ratios_KM, weight_K, scale, candidates_CM, reference_QM = shared
    factor_KK, _ = warped_kernel.conditioned(theta_P, ratios_KM, jnp.zeros(len(weight_K)), weight_K, scale)

    def half(at_XM):
        cross_KX = warped_kernel.kernel(theta_P, ratios_KM, at_XM, scale) * warped_kernel.active(weight_K)[:, None]
        half_KX = jax.scipy.linalg.solve_triangular(factor_KK, cross_KX, lower=True)
        return half_KX, warped_kernel.variance(theta_P, at_XM, scale) - (half_KX**2).sum(axis=0)

    (half_KC, variance_C), (half_KQ, variance_Q) = half(candidates_CM), half(reference_QM)
    cross_CQ = warped_kernel.kernel(theta_P, candidates_CM, reference_QM, scale) - half_KC.T @ half_KQ
    return half_KC, variance_C, cross_CQ, variance_Q


def _prior(shared, theta_P):
    """Return one task's prior covariances between all candidates and one of them."""
    scale, candidates_CM, one_M = shared
    return (warped_kernel.kernel(theta_P, candidates_CM, one_M[None], scale)[:, 0],)


def sampled_covariances(predicted_RCN, predicted_RQN, noise_N, number: int) -> Covariances:
    """Return the covariances over samples of a law; see :func:`olmix_jax.propose.next_runs.choose_sampled`.

    Raises:
      UserError: the shapes disagree, or there are no more samples than runs to choose.
    """
    predicted_RCN, predicted_RQN = np.asarray(predicted_RCN, np.float64), np.asarray(predicted_RQN, np.float64)
    noise_N = np.asarray(noise_N, np.float64)
    samples, tasks = predicted_RQN.shape[0], predicted_RQN.shape[2]
    if predicted_RCN.shape[::2] != (samples, tasks) or noise_N.shape != (tasks,):
        raise UserError("next runs need predictions and noise of the same samples and tasks")
    if samples <= number:
        raise UserError(
            f"{samples} samples of the law are too few to choose {number} next runs; set fit.resamples above {number}"
        )
    spread_N = predicted_RQN.mean(axis=0).std(axis=0)
    unit_N = np.where(spread_N > 0, spread_N, 1.0)
    off_NCR, off_NQR = (
        ((x - x.mean(axis=0)) / unit_N / np.sqrt(samples - 1)).transpose(2, 1, 0)
        for x in (predicted_RCN, predicted_RQN)
    )
    variance_NC = (off_NCR**2).sum(axis=2)
    noise_N = np.maximum(noise_N / unit_N**2, warped_kernel.JITTER)
    return Covariances(
        variance_NC=variance_NC,
        cross_NCQ=off_NCR @ off_NQR.swapaxes(1, 2),
        variance_NQ=(off_NQR**2).sum(axis=2),
        column=lambda c: np.einsum("ncr,nr->nc", off_NCR, off_NCR[:, c]),
        noise_NC=np.broadcast_to(noise_N[:, None], variance_NC.shape),
    )
