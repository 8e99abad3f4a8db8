"""Levenberg–Marquardt within limits: many small robust regressions at once.

    min over θ, low ≤ θ ≤ high, of  Σ_k ω_k · huber_δ(f(p_k; θ) − y_k)

for every resample (its ω), task (its y) and start. One descent is a *lane*. Lanes need 5 to 300 steps, and mapped lanes
all cost as much as the slowest, so a pool of slots works through the queue of lanes: a slot whose lane is done takes
the next.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from olmix_jax.laws import cpu, inputs

# A lane is done when its best possible step would lower the loss by less than this share of it.
TOLERANCE = 1e-8
# For a resample that starts from the full fit. On the published DCLM swarm the mean loss is then 0.3 % above that of
# 16 starts to the end, nearly all of it in the few lanes that end in another minimum.
NEAR_STEPS, NEAR_TOLERANCE = 40, 1e-6
# Slots at work. Few wait idle for the last lane; a bootstrap takes the same time with 32 as with 1024.
SLOTS = 64
# Starts of resamples per call.
ROWS = 16


class Regression(NamedTuple):
    """What the descent needs of a law; both functions are of (features, theta_P, bpb_K, weight_K).

    Attributes:
      loss: the objective, a scalar.
      derivatives: the objective, its gradient_P, and a positive (semi-)definite stand-in for its Hessian_PP.
      max_steps: of a lane.
    """

    loss: Callable
    derivatives: Callable
    max_steps: int


class Found(NamedTuple):
    """The best end points: theta_RNP, their loss_RN [BPB²], and steps_RN of the longest descent."""

    theta_RNP: np.ndarray
    loss_RN: np.ndarray
    steps_RN: np.ndarray


def huber(residual_K, weight_K, delta: float | None):
    """(loss, psi_K, curve_K): Σ_k ω_k·huber_δ(r_k), its derivative in r_k and a curvature. Squares without a δ."""
    if delta is None:
        return 0.5 * (weight_K @ residual_K**2), weight_K * residual_K, weight_K
    size_K = jnp.abs(residual_K)
    beyond_K = size_K > delta
    loss = weight_K @ jnp.where(beyond_K, delta * (size_K - 0.5 * delta), 0.5 * size_K**2)
    # Beyond δ the true curvature is 0 and the reweighted-least-squares majoriser's δ/|r|; half of it is fastest.
    curve_K = weight_K * jnp.where(beyond_K, 0.5 * delta / jnp.maximum(size_K, delta), 1.0)
    return loss, weight_K * jnp.clip(residual_K, -delta, delta), curve_K


def least_squares(residual: Callable, jacobian: Callable, max_steps: int, delta: float | None = None) -> Regression:
    """A family by its residual(features, theta_P, bpb_K) → r_K and jacobian(features, theta_P) → J_KP = ∂r/∂θ."""

    def loss(features, theta_P, bpb_K, weight_K):
        return huber(residual(features, theta_P, bpb_K), weight_K, delta)[0]

    def derivatives(features, theta_P, bpb_K, weight_K):
        value, psi_K, curve_K = huber(residual(features, theta_P, bpb_K), weight_K, delta)
        jacobian_KP = jacobian(features, theta_P)
        return value, psi_K @ jacobian_KP, (jacobian_KP * curve_K[:, None]).T @ jacobian_KP

    return Regression(loss, derivatives, max_steps)


def fit(law: Regression, features, bpb_KN, weight_RK, tasks, begin: Callable, near_NP=None) -> Found:
    """Fits every task to every resample.

    Args:
      law: of the descent.
      features: what it makes of the mixtures; arrays, the same for all lanes.
      bpb_KN: measurements.
      weight_RK: ω ≥ 0.
      tasks: names for messages.
      begin: maps one resample's weight_K to (starts_NSP, low_NP, high_NP).
      near_NP: θ of the full fit. With it every resample starts there, and there alone.

    Raises:
      UserError: no start of a task ended at a finite loss.
    """
    begun = [begin(weight_K) for weight_K in weight_RK]
    starts_RNSP, low_RNP, high_RNP = (np.stack(x) for x in zip(*begun))
    if near_NP is not None:
        starts_RNSP = np.broadcast_to(near_NP[:, None, :], (len(begun), *near_NP[:, None, :].shape))
    limits = (law.max_steps, TOLERANCE) if near_NP is None else (NEAR_STEPS, NEAR_TOLERANCE)
    # A row is a start of a resample. All calls, of however many, are of ROWS at a time: one program, compiled once.
    starts = starts_RNSP.shape[2]
    row_CNP = starts_RNSP.swapaxes(1, 2).reshape(-1, *starts_RNSP.shape[1::2])
    rows = row_CNP, *(np.repeat(x, starts, axis=0) for x in (weight_RK, low_RNP, high_RNP))
    parts = [
        _rows(law, features, bpb_KN, [x[c : c + ROWS] for x in rows], limits) for c in range(0, len(row_CNP), ROWS)
    ]
    theta_CNP, loss_CN, steps_CN = (np.concatenate(x) for x in zip(*parts))
    theta_RSNP, loss_RSN, steps_RSN = (x.reshape(-1, starts, *x.shape[1:]) for x in (theta_CNP, loss_CN, steps_CN))
    loss_RSN = np.where(np.isfinite(loss_RSN), loss_RSN, np.inf)
    best_R1N1 = loss_RSN.argmin(axis=1)[:, None, :, None]
    theta_RNP = np.take_along_axis(theta_RSNP, best_R1N1, axis=1)[:, 0]
    found = Found(theta_RNP, loss_RSN.min(axis=1), steps_RSN.max(axis=1))
    inputs.refuse(~np.isfinite(found.loss_RN).all(axis=0), tasks, "no start of the fit ended at a finite loss for")
    return found


def _rows(law, features, bpb_KN, rows, limits):
    """(theta_CNP, loss_CN, steps_CN) at the ends of C ≤ ROWS rows."""
    used, tasks = len(rows[0]), bpb_KN.shape[1]
    theta_CNP, weight_CK, low_CNP, high_CNP = (np.concatenate([x, np.repeat(x[:1], ROWS - used, axis=0)]) for x in rows)
    theta_LP = np.clip(theta_CNP, low_CNP, high_CNP).reshape(ROWS * tasks, -1)
    shared = features, bpb_KN.T, weight_CK, low_CNP, high_CNP
    with cpu.float64():
        ends = map(np.asarray, _descend(law, theta_LP, used * tasks, shared, *limits))
    return [x.reshape(ROWS, tasks, *x.shape[1:])[:used] for x in ends]


class _State(NamedTuple):
    lane_B: jax.Array  # the lane in each slot; beyond those used in an idle one
    theta_BP: jax.Array
    damping_B: jax.Array
    steps_B: jax.Array
    queued: jax.Array  # the next lane
    theta_LP: jax.Array  # starts of lanes to come, end points of those that are done
    loss_L: jax.Array
    steps_L: jax.Array


@functools.partial(jax.jit, static_argnums=0, compiler_options=cpu.STEADY)
def _descend(law: Regression, theta_LP, used, shared, max_steps, tolerance):
    """(theta_LP, loss_L, steps_L) at the end of the first ``used`` lanes; lane l is task l mod N of row l div N."""
    lanes, slots = len(theta_LP), min(SLOTS, len(theta_LP))
    features, bpb_NK, weight_CK, low_CNP, high_CNP = shared
    step = jax.vmap(functools.partial(_step, law, features))

    def body(s: _State) -> _State:
        row_B, n_B = jnp.divmod(jnp.minimum(s.lane_B, lanes - 1), len(bpb_NK))
        data = bpb_NK[n_B], weight_CK[row_B], low_CNP[row_B, n_B], high_CNP[row_B, n_B]
        theta_BP, loss_B, damping_B, promised_B = step(s.theta_BP, s.damping_B, *data)
        done_B = (promised_B <= tolerance * loss_B) | (damping_B > 1e12) | ~jnp.isfinite(loss_B)
        out_B = done_B | (s.steps_B + 1 >= max_steps)
        to_B = jnp.where(out_B & (s.lane_B < used), s.lane_B, lanes)
        theta_LP = s.theta_LP.at[to_B].set(theta_BP, mode="drop")
        loss_L, steps_L = s.loss_L.at[to_B].set(loss_B, mode="drop"), s.steps_L.at[to_B].set(s.steps_B + 1, mode="drop")
        next_B = jnp.minimum(s.queued + jnp.cumsum(out_B) - 1, lanes)
        lane_B = jnp.where(out_B, next_B, s.lane_B)
        theta_BP = jnp.where(out_B[:, None], theta_LP[jnp.minimum(lane_B, lanes - 1)], theta_BP)
        damping_B, steps_B = jnp.where(out_B, 1e-3, damping_B), jnp.where(out_B, 0, s.steps_B + 1)
        return _State(lane_B, theta_BP, damping_B, steps_B, s.queued + out_B.sum(), theta_LP, loss_L, steps_L)

    lane_B, zero_L = jnp.arange(slots), jnp.zeros(lanes, int)
    damping_B = jnp.full(slots, 1e-3)
    begin = _State(lane_B, theta_LP[:slots], damping_B, 0 * lane_B, slots, theta_LP, jnp.full(lanes, jnp.inf), zero_L)
    end = jax.lax.while_loop(lambda s: (s.lane_B < used).any(), body, begin)
    return end.theta_LP, end.loss_L, end.steps_L


def _step(law: Regression, features, theta_P, damping, bpb_K, weight_K, low_P, high_P):
    """One step of one lane: (theta_P, its loss, damping, what the step promised to gain)."""
    loss, gradient_P, hessian_PP = law.derivatives(features, theta_P, bpb_K, weight_K)
    # A parameter that pushes against its limit is left out of the step.
    held_P = ((theta_P <= low_P) & (gradient_P > 0)) | ((theta_P >= high_P) & (gradient_P < 0))
    free_P = jnp.where(held_P, 0.0, 1.0)
    gradient_P, hessian_PP = gradient_P * free_P, hessian_PP * free_P[:, None] * free_P[None, :]
    ridge_P = jnp.diag(hessian_PP)
    ridge_P = damping * (ridge_P + 1e-9 * ridge_P.max() + 1e-300) + (1 - free_P)
    factor = jax.scipy.linalg.cho_factor(hessian_PP + jnp.diag(ridge_P), lower=True)
    step_P = -jax.scipy.linalg.cho_solve(factor, gradient_P)
    promised = -0.5 * (gradient_P @ step_P)
    new_theta_P = jnp.clip(theta_P + step_P, low_P, high_P)
    new_loss = law.loss(features, new_theta_P, bpb_K, weight_K)
    # A comparison with NaN is false: a step out of range is refused like any other that does not help.
    better = new_loss < loss
    calmed = jnp.where(loss - new_loss > 0.25 * promised, jnp.maximum(0.2 * damping, 1e-12), damping)
    damping = jnp.where(better, calmed, 5 * damping)
    return jnp.where(better, new_theta_P, theta_P), jnp.where(better, new_loss, loss), damping, promised
