"""What the Gaussian processes learn from runs: standardised targets, θ, the floor, and the weights of runs. Per task.

The floor of a task is the BPB c that no mixture reaches, in log (f − c). :mod:`~olmix_jax.laws.exposure` learns it with
θ. It is at most 1 − LEAST_ABOVE of the least BPB of the runs, and may be far below 0; then the logarithm is almost
linear. The likelihood of the BPB is that of the targets times |∂target/∂BPB|.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from olmix_jax.laws import bfgs, cpu, per_task, warped_kernel
from olmix_jax.laws.curves import LengthScale

STEPS = 100
# The search for θ ends when one more step promises less than this [nats]. An odds ratio of 1.1 is negligible.
TOLERANCE = 0.1
# The same for refits to other runs that start at an earlier fit. It is smaller, so that the θ of a fold hardly depends
# on the runs that were left out.
NEAR_TOLERANCE = 0.03
# First estimate of the inverse Hessian of −log posterior, in units of the prior's variance.
FIRST_STEP = 0.1
# The floor is (1 − LEAST_ABOVE − eˣ) times the least BPB of the runs. Prior of x: mean and standard deviation.
ABOVE = -1.4, 1.3
LEAST_ABOVE = 0.01


def standardised(bpb_KN, weight_RK, floor_RN):
    """Return target_RNK, offset_RN, scale_RN and logged_N.

    Targets have mean 0 and variance 1 over the runs of a resample, and are 0 for runs that are left out.
    """
    logged_N, present_RK1 = (bpb_KN > 0).all(axis=0), (weight_RK > 0)[:, :, None]
    above_RKN = bpb_KN[None] - floor_RN[:, None, :]
    # A run that is left out may lie below the floor of the others.
    value_RKN = np.where(logged_N, np.log(np.where(logged_N & present_RK1, above_RKN, 1.0)), above_RKN)
    share_RK = weight_RK / np.maximum(weight_RK.sum(axis=1, keepdims=True), 1e-300)
    offset_RN = np.einsum("rk,rkn->rn", share_RK, value_RKN)
    off_RKN = (value_RKN - offset_RN[:, None, :]) * present_RK1
    scale_RN = np.sqrt(np.einsum("rk,rkn->rn", share_RK, off_RKN**2))
    # If all runs measure the same, the scale is 1, to avoid a division by 0.
    scale_RN = np.where(scale_RN > 1e-12 * (1 + np.abs(offset_RN)), scale_RN, 1.0)
    return (
        np.ascontiguousarray((off_RKN / scale_RN[:, None, :]).transpose(0, 2, 1)),
        offset_RN,
        scale_RN,
        logged_N * 1.0,
    )


def least_of(bpb_KN, weight_RK):
    """Return the least BPB of the runs of positive weight, least_RN."""
    return np.where(weight_RK[:, :, None] > 0, bpb_KN[None], np.inf).min(axis=1)


def below_all_runs(floor_RN, bpb_KN, weight_RK):
    """Return the floors of an earlier fit, lowered where another run lies below."""
    least_RN = least_of(bpb_KN, weight_RK)
    return np.where(least_RN > 0, np.minimum(floor_RN, (1 - LEAST_ABOVE) * least_RN), floor_RN)


def learn_each(target_RNK, shared, begin_NP=None):
    """Return θ_RNP, loss_RN and promised_RN of every task and resample.

    Args:
      target_RNK: standardised measurements.
      shared: the runs' mixtures, weights, and None for curves, with a leading axis R.
      begin_NP: θ of an earlier fit to start from; the prior's mean by default. Then the first resample finds the
        curvature there, and the others start with it.
    """
    (resamples, tasks, _), domains = target_RNK.shape, shared[0].shape[2]
    with cpu.float64():
        mean_P, std_P = map(np.asarray, warped_kernel.prior(domains))
    start_NP = np.broadcast_to(mean_P, (tasks, len(mean_P))) if begin_NP is None else begin_NP
    inverse_NPP = np.broadcast_to(np.diag(FIRST_STEP * std_P**2), (tasks, len(std_P), len(std_P)))
    tolerance_N = np.full(tasks, TOLERANCE if begin_NP is None else NEAR_TOLERANCE)

    def learnt(turn: slice, keep: int):
        target, runs = jax.tree.map(lambda x: x[turn], (target_RNK, shared))
        common = (np.broadcast_to(x, (len(target), *x.shape)) for x in (start_NP, inverse_NPP, tolerance_N))
        return per_task.mapped(learn, (target, *common), runs, keep)

    if begin_NP is None or resamples == 1:
        return learnt(slice(resamples), 3)
    *first, (inverse_NPP,) = learnt(slice(1), 4)
    theta_RNP, loss_RN, promised_RN = map(np.concatenate, zip(first, learnt(slice(1, resamples), 3), strict=True))
    return theta_RNP, loss_RN, promised_RN


def learn(shared, target_K, start_P, inverse_PP, tolerance):
    """Return one task's θ, its loss, the decrease that one more step promises, and the inverse Hessian."""
    ratios_KM, weight_K, _ = shared
    objective = functools.partial(
        warped_kernel.negative_log_posterior, ratios_KM=ratios_KM, target_K=target_K, weight_K=weight_K
    )
    return bfgs.descend(objective, start_P, inverse_PP, STEPS, tolerance)


def learn_with_floor(shared, bpb_K, logged, least):
    """Return one task's θ, its floor [BPB], the loss, and the decrease that one more step promises."""
    scale = shared[2]
    mean_P, std_P = warped_kernel.prior(len(scale.typical_M), True, isinstance(scale, LengthScale))
    mean_P, std_P = jnp.append(ABOVE[0], mean_P), jnp.append(ABOVE[1], std_P)
    objective = objective_with_floor(shared, bpb_K, logged, least)
    x_P, loss, promised = bfgs.minimise(objective, mean_P, FIRST_STEP * std_P**2, STEPS, TOLERANCE)
    return x_P[1:], logged * (1 - LEAST_ABOVE - jnp.exp(x_P[0])) * least, loss, promised


def objective_with_floor(shared, bpb_K, logged, least):
    """Return the function of (x, θ) to minimise; it returns its value and gradient."""
    ratios_KM, weight_K, scale = shared

    def objective(x_P):
        (target_K, volume), pull = jax.vjp(lambda x: _above_floor(x, least, bpb_K, weight_K, logged), x_P[0])
        value, gradient_P, alpha_K = warped_kernel.with_alpha(x_P[1:], ratios_KM, target_K, weight_K, scale)
        (slope,) = pull((alpha_K * warped_kernel.active(weight_K), jnp.ones_like(volume)))
        off = (x_P[0] - ABOVE[0]) / ABOVE[1]
        return value + volume + 0.5 * off**2, jnp.append(slope + off / ABOVE[1], gradient_P)

    return objective


def _above_floor(x, least, bpb_K, weight_K, logged):
    """Return the standardised log of the BPB above the floor, and −log |∂target/∂BPB| of all runs."""
    active_K = warped_kernel.active(weight_K)
    above_K = jnp.where(active_K > 0, bpb_K - (1 - LEAST_ABOVE - jnp.exp(x)) * least, 1.0)
    value_K = jnp.where(logged > 0, jnp.log(jnp.where(logged > 0, above_K, 1.0)), bpb_K)
    share_K = weight_K / weight_K.sum()
    off_K = (value_K - share_K @ value_K) * active_K
    size = jnp.sqrt(share_K @ off_K**2 + 1e-24)
    return off_K / size, logged * (active_K @ value_K + active_K.sum() * jnp.log(size))


def condition(shared, target_K, theta_P):
    """Return one task's α and the weights of its flat features."""
    ratios_KM, weight_K, scale = shared
    alpha_K = warped_kernel.conditioned(theta_P, ratios_KM, target_K, weight_K, scale)[1]
    if scale is None:
        return alpha_K, jnp.zeros(0)
    return alpha_K, warped_kernel.feature_weights(theta_P, ratios_KM, alpha_K, weight_K, scale)
