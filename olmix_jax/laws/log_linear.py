"""The log-linear law f_i(p) = c_i + exp(A_iᵀ p) with c_i > 0 (METHOD §2, step 3; paper, Algorithm 1).

Per task, with rows k of weight ω_k (1 unless resampled), the published objective exactly:

    min over (log c, A) of  Σ_k ω_k · huber_δ(c + exp(Aᵀ p_k) − y_k),   δ = 0.02 BPB,

where huber_δ(r) = r²/2 for |r| ≤ δ and δ(|r| − δ/2) beyond. There is no penalty, only the limits
REACH_DOWN and REACH_UP. One task from one start is a pure function, :func:`_descend`; it is mapped over starts, tasks
and resamples outside.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from olmix_jax import rng
from olmix_jax.errors import UserError

DELTA = 0.02
# Limits of log c and of A around the log of the task's mean BPB. Where a domain is in very few runs the objective has
# minima at A = ±∞; e^5 = 150 times the mean is beyond the BPB of any model, and held-out predictions stay finite.
REACH_DOWN, REACH_UP = 100.0, 5.0
SCREENING_STEPS, SCREENED, MAX_STEPS = 40, 4, 300
# A start is done when its best possible step would lower the loss by less than this share of it.
TOLERANCE = 1e-8


class Params(NamedTuple):
    """log c_i [log BPB] and A_i; leading axes are resamples, where there are any."""

    log_c_N: np.ndarray
    coef_NM: np.ndarray


class Fit(NamedTuple):
    """A fitted law.

    Attributes:
      params: the best start's parameters per task, float64.
      loss_N: the Huber objective at them, summed over runs [BPB²]. In-sample.
      unseen: columns of domains that no run samples. Nothing determines their coefficients; each is set to the mean of
        A_iᵀ p over the runs, the value for which the domain alone does as well as the (geometric) average run.
      steps: Levenberg–Marquardt steps of the slowest start.
    """

    params: Params
    loss_N: np.ndarray
    unseen: tuple[int, ...]
    steps: int


def predict(params: Params, ratios_KM):
    """BPB of each task for each mixture, bpb_KN = c_N + exp(ratios_KM coef_NMᵀ). Pure JAX, differentiable."""
    return jnp.exp(params.log_c_N)[None, :] + jnp.exp(ratios_KM @ params.coef_NM.T)


def describe(params: Params, task: int, domains: tuple[str, ...]) -> dict:
    """One task's parameters by name: ``constant`` c [BPB] and ``coefficients`` A per domain."""
    coefficients = dict(zip(domains, np.asarray(params.coef_NM[task]).tolist(), strict=True))
    return {"constant": float(np.exp(params.log_c_N[task])), "coefficients": coefficients}


def restore(described, domains: tuple[str, ...]) -> Params:
    """The parameters of tasks that :func:`describe` described, in the order given."""
    described = list(described)
    coef_NM = [[task["coefficients"][domain] for domain in domains] for task in described]
    return Params(np.log([task["constant"] for task in described]), np.array(coef_NM, np.float64))


def fit(ratios_KM, bpb_KN, *, starts: int = 16, seed: int = 0, tasks=None) -> Fit:
    """Fits every task on all runs.

    Args:
      ratios_KM: mixtures, rows on the simplex.
      bpb_KN: measured BPB, finite.
      starts: starting points per task; the best end point is kept.
      seed: of the starting points that are random.
      tasks: names for messages; column numbers without it.

    Raises:
      UserError: a value is not finite, the shapes disagree, or no start of a task ended at a finite loss.
    """
    ratios_KM, bpb_KN = _checked(ratios_KM, bpb_KN, tasks)
    params, loss_RN, steps = _fit(ratios_KM, bpb_KN, np.ones((1, len(ratios_KM))), starts, seed, tasks)
    unseen = tuple(int(j) for j in np.flatnonzero(~(ratios_KM > 0).any(axis=0)))
    return Fit(Params(params.log_c_N[0], params.coef_NM[0]), loss_RN[0], unseen, steps)


def fit_weighted(ratios_KM, bpb_KN, weight_RK, *, starts: int = 16, seed: int = 0, tasks=None) -> Params:
    """Fits every task R times, with row weights ω: 0/1 for folds, counts for a bootstrap. One program of fixed shape.

    A domain without a row of positive weight counts as unseen in that resample. Arguments and errors as for
    :func:`fit`; returns ``Params`` with a leading R axis.
    """
    ratios_KM, bpb_KN = _checked(ratios_KM, bpb_KN, tasks)
    return _fit(ratios_KM, bpb_KN, np.asarray(weight_RK, np.float64), starts, seed, tasks)[0]


def _checked(ratios_KM, bpb_KN, tasks):
    ratios_KM, bpb_KN = np.asarray(ratios_KM, np.float64), np.asarray(bpb_KN, np.float64)
    if ratios_KM.ndim != 2 or bpb_KN.ndim != 2 or len(ratios_KM) != len(bpb_KN) or not bpb_KN.size:
        raise UserError(f"a fit needs runs × domains and runs × tasks, not {ratios_KM.shape} and {bpb_KN.shape}")
    if not np.isfinite(ratios_KM).all():
        raise UserError("a fit needs finite ratios")
    _refuse(~np.isfinite(bpb_KN).all(axis=0), tasks, "the fit needs a finite BPB of every run; not so for")
    return ratios_KM, bpb_KN


def _refuse(bad_N, tasks, message: str) -> None:
    if bad_N.any():
        names = [str(tasks[i]) if tasks is not None else f"task {i}" for i in np.flatnonzero(bad_N)]
        raise UserError(f"{message} {', '.join(names)}")


def _fit(ratios_KM, bpb_KN, weight_RK, starts: int, seed: int, tasks):
    noise_SM = rng.generator(seed, "log_linear.starts").normal(size=(starts, ratios_KM.shape[1]))
    with jax.enable_x64(True):
        log_c_RN, coef_RNM, loss_RN, steps_RN = map(
            np.asarray, _fit_all(*map(jnp.asarray, (ratios_KM, bpb_KN, weight_RK, noise_SM)))
        )
    _refuse(~np.isfinite(loss_RN).all(axis=0), tasks, "no start of the fit ended at a finite loss for")
    return Params(log_c_RN, coef_RNM), loss_RN, int(steps_RN.max())


@jax.jit
def _fit_all(ratios_KM, bpb_KN, weight_RK, noise_SM):
    """All resamples × tasks × starts; the best start of each. Resamples run in turn, which bounds memory."""
    outer_KMM = ratios_KM[:, :, None] * ratios_KM[:, None, :]

    def one_task(weight_K, bpb_K):
        descend = functools.partial(_descend, ratios_KM, outer_KMM, bpb_K, weight_K)
        theta_SP = _starts(ratios_KM, outer_KMM, bpb_K, weight_K, noise_SM)
        # All starts for a while, then the promising ones to the end: mapped lanes all cost as much as the slowest.
        theta_SP, loss_S, _ = jax.vmap(lambda theta_P: descend(theta_P, SCREENING_STEPS))(theta_SP)
        kept = jnp.argsort(jnp.where(jnp.isfinite(loss_S), loss_S, jnp.inf))[:SCREENED]
        theta_SP, loss_S, steps_S = jax.vmap(lambda theta_P: descend(theta_P, MAX_STEPS))(theta_SP[kept])
        best = jnp.argmin(jnp.where(jnp.isfinite(loss_S), loss_S, jnp.inf))
        log_c, coef_M = theta_SP[best, 0], theta_SP[best, 1:]
        # Rounding in the solves must not move what no row determines, so the prior is written in at the end.
        prior = weight_K @ (ratios_KM @ coef_M) / jnp.maximum(weight_K.sum(), 1e-300)
        seen_M = ((ratios_KM > 0) & (weight_K[:, None] > 0)).any(axis=0)
        return log_c, jnp.where(seen_M, coef_M, prior), loss_S[best], steps_S.max()

    return jax.lax.map(lambda weight_K: jax.vmap(one_task, in_axes=(None, 1))(weight_K, bpb_KN), weight_RK)


def _starts(ratios_KM, outer_KMM, bpb_K, weight_K, noise_SM):
    """c at fractions of the least BPB, and A from ridge regression of log(y − c); every second A is jittered.

    The published starts are log c in [−2, 1.5] × random A. For a given c the law is a generalised linear model, so A
    is better solved for than drawn; c above the least BPB cannot be right, so the grid ends there, in whatever units.
    """
    starts, domains = noise_SM.shape
    least = jnp.maximum(jnp.where(weight_K > 0, bpb_K, jnp.inf).min(), 1e-6)
    least = jnp.where(jnp.isfinite(least), least, 1.0)
    c_S = least * (jnp.arange(starts) + 0.5) / starts
    target_SK = jnp.log(jnp.maximum(bpb_K[None, :] - c_S[:, None], 1e-3 * least))
    gram_MM = jnp.einsum("k,kab->ab", weight_K, outer_KMM)
    ridge = 1e-3 * jnp.trace(gram_MM) / domains + 1e-12
    # Ridge toward equal coefficients: Σ_j p_j = 1, so the mean is an intercept that the penalty leaves alone.
    mean_S = (target_SK @ weight_K) / jnp.maximum(weight_K.sum(), 1e-300)
    right_SM = ((target_SK - mean_S[:, None]) * weight_K[None, :]) @ ratios_KM
    coef_SM = jnp.linalg.solve(gram_MM + ridge * jnp.eye(domains), right_SM.T).T + mean_S[:, None]
    jitter_S = (jnp.arange(starts) % 2).astype(noise_SM.dtype)
    return jnp.concatenate([jnp.log(c_S)[:, None], coef_SM + jitter_S[:, None] * noise_SM], axis=1)


def _loss(residual_K, weight_K):
    size_K = jnp.abs(residual_K)
    return weight_K @ jnp.where(size_K <= DELTA, 0.5 * size_K**2, DELTA * (size_K - 0.5 * DELTA))


def _terms(ratios_KM, bpb_K, theta_P):
    c, e_K = jnp.exp(theta_P[0]), jnp.exp(ratios_KM @ theta_P[1:])
    return c, e_K, c + e_K - bpb_K


def _derivatives(ratios_KM, outer_KMM, bpb_K, weight_K, theta_P):
    """The gradient of the loss and a positive semi-definite stand-in for its Hessian, over (log c, A)."""
    c, e_K, residual_K = _terms(ratios_KM, bpb_K, theta_P)
    psi_K = weight_K * jnp.clip(residual_K, -DELTA, DELTA)
    # Beyond δ the true curvature is 0 and the reweighted-least-squares majoriser's δ/|r|; half of it is fastest.
    beyond_K = jnp.abs(residual_K) > DELTA
    curve_K = weight_K * jnp.where(beyond_K, 0.5 * DELTA / jnp.maximum(jnp.abs(residual_K), DELTA), 1.0)
    gradient_P = jnp.concatenate([c * psi_K.sum()[None], (psi_K * e_K) @ ratios_KM])
    cross_M = c * ((curve_K * e_K) @ ratios_KM)
    block_MM = jnp.einsum("k,kab->ab", curve_K * e_K**2, outer_KMM)
    corner = (c**2 * curve_K.sum())[None, None]
    return gradient_P, jnp.block([[corner, cross_M[None, :]], [cross_M[:, None], block_MM]])


def _descend(ratios_KM, outer_KMM, bpb_K, weight_K, theta_P, max_steps):
    """Levenberg–Marquardt within limits from one start. theta_P = (log c, A), P = M + 1; (theta_P, loss, steps)."""
    total = jnp.maximum(weight_K.sum(), 1e-300)
    scale = jnp.log(jnp.maximum((weight_K @ bpb_K) / total, 1e-6))
    low, high = scale - REACH_DOWN, scale + REACH_UP

    def loss_at(theta_P):
        return _loss(_terms(ratios_KM, bpb_K, theta_P)[2], weight_K)

    def step(theta_P, damping):
        gradient_P, hessian_PP = _derivatives(ratios_KM, outer_KMM, bpb_K, weight_K, theta_P)
        # A parameter that pushes against its limit is left out of the step.
        held_P = ((theta_P <= low) & (gradient_P > 0)) | ((theta_P >= high) & (gradient_P < 0))
        free_P = jnp.where(held_P, 0.0, 1.0)
        gradient_P, hessian_PP = gradient_P * free_P, hessian_PP * free_P[:, None] * free_P[None, :]
        ridge_P = jnp.diag(hessian_PP)
        ridge_P = damping * (ridge_P + 1e-9 * ridge_P.max() + 1e-300) + (1 - free_P)
        factor = jax.scipy.linalg.cho_factor(hessian_PP + jnp.diag(ridge_P))
        step_P = -jax.scipy.linalg.cho_solve(factor, gradient_P)
        return jnp.clip(theta_P + step_P, low, high), -0.5 * (gradient_P @ step_P)

    def body(state):
        theta_P, loss, damping, steps, _ = state
        new_theta_P, promised = step(theta_P, damping)
        new_loss = loss_at(new_theta_P)
        # A comparison with NaN is false: a step out of range is refused like any other that does not help.
        better = new_loss < loss
        calmed = jnp.where(loss - new_loss > 0.25 * promised, jnp.maximum(0.2 * damping, 1e-12), damping)
        damping = jnp.where(better, calmed, 5 * damping)
        done = (promised <= TOLERANCE * loss) | (damping > 1e12)
        theta_P = jnp.where(better, new_theta_P, theta_P)
        return theta_P, jnp.where(better, new_loss, loss), damping, steps + 1, done

    def unfinished(state):
        return ~state[4] & (state[3] < max_steps) & jnp.isfinite(state[1])

    theta_P = jnp.clip(theta_P, low, high)
    state = theta_P, loss_at(theta_P), jnp.full((), 1e-3), 0, False
    theta_P, loss, _, steps, _ = jax.lax.while_loop(unfinished, body, state)
    return theta_P, loss, steps
