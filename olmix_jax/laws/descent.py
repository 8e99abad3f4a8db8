"""Levenberg–Marquardt within bounds, for many small robust regressions at once.

    min over θ, low ≤ θ ≤ high, of  Σ_k ω_k · huber_δ(f(p_k; θ) − y_k)

for every resample (its ω), task (its y) and start. One descent is a *lane*. Lanes need 5 to 300 steps, and ``vmap``
over all of them would cost as much as the slowest for each. So a fixed number of slots works through the queue of
lanes: a slot whose lane is done takes the next one.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from olmix_jax.laws import cpu, inputs

# A lane is done when its best step would lower the loss by less than this fraction of the loss.
TOLERANCE = 1e-9
# The same for resamples that start from the full fit. On the published DCLM swarm their mean loss is 0.3 % above that
# of 16 complete starts, nearly all of it from the few lanes that end in another minimum.
NEAR_STEPS, NEAR_TOLERANCE = 40, 1e-6
# A minimum counts as reached by every start that ends within this fraction of it (and within 1e-9 BPB² per run). If
# fewer than AGREEING starts reach the lowest one, further rounds of starts are run, ROUNDS in all.
CLOSE, AGREEING, ROUNDS = 1e-4, 2, 3
# Number of slots. The fewer there are, the fewer are idle while the last lane finishes. A bootstrap takes the same time
# with 32 as with 1024.
SLOTS = 64
# Rows per call, where a row is one start of one resample.
ROWS = 16


class Objective(NamedTuple):
    """What to minimise. Both functions take (features, theta_P, bpb_K, weight_K).

    Attributes:
      loss: the objective, a scalar.
      derivatives: the objective, its gradient_P, and a positive (semi-)definite approximation of its Hessian_PP.
      max_steps: upper bound on the steps of a lane.
    """

    loss: Callable
    derivatives: Callable
    max_steps: int


class Minima(NamedTuple):
    """The best minimum of each resample and task.

    Attributes:
      theta_RNP: its parameters.
      loss_RN: the objective there [BPB²].
      steps_RN: steps of the slowest start of all rounds.
    """

    theta_RNP: np.ndarray
    loss_RN: np.ndarray
    steps_RN: np.ndarray


def huber(residual_K, weight_K, delta: float | None):
    """Return loss = Σ_k ω_k·huber_δ(r_k), its derivative psi_K by r_k, and a curvature curve_K; r²/2 if δ is None."""
    if delta is None:
        return 0.5 * (weight_K @ residual_K**2), weight_K * residual_K, weight_K
    size_K = jnp.abs(residual_K)
    beyond_K = size_K > delta
    loss = weight_K @ jnp.where(beyond_K, delta * (size_K - 0.5 * delta), 0.5 * size_K**2)
    # Beyond δ the true curvature is 0, and that of the majoriser (reweighted least squares) is δ/|r|. Half of δ/|r|
    # converges fastest.
    curve_K = weight_K * jnp.where(beyond_K, 0.5 * delta / jnp.maximum(size_K, delta), 1.0)
    return loss, weight_K * jnp.clip(residual_K, -delta, delta), curve_K


def least_squares(residual: Callable, jacobian: Callable, max_steps: int, delta: float | None = None) -> Objective:
    """Return the Objective of a residual and its Jacobian.

    Args:
      residual: (features, theta_P, bpb_K) → r_K.
      jacobian: (features, theta_P) → J_KP = ∂r/∂θ.
      max_steps: upper bound on the steps of a lane.
      delta: δ of the Huber loss [BPB]; None for squares.
    """

    def loss(features, theta_P, bpb_K, weight_K):
        return huber(residual(features, theta_P, bpb_K), weight_K, delta)[0]

    def derivatives(features, theta_P, bpb_K, weight_K):
        value, psi_K, curve_K = huber(residual(features, theta_P, bpb_K), weight_K, delta)
        jacobian_KP = jacobian(features, theta_P)
        return value, psi_K @ jacobian_KP, (jacobian_KP * curve_K[:, None]).T @ jacobian_KP

    return Objective(loss, derivatives, max_steps)


def minimise(
    objective: Objective,
    features: Any,
    bpb_KN: np.ndarray,
    weight_RK: np.ndarray,
    tasks: Sequence[str] | None,
    begin: Callable,
    near_NP: np.ndarray | None = None,
    rounds: int = 1,
) -> Minima:
    """Minimise the objective for every task and resample.

    Args:
      objective: of one lane.
      features: what the objective needs of the mixtures: arrays, the same for all lanes.
      bpb_KN: measurements.
      weight_RK: ω ≥ 0.
      tasks: names for messages.
      begin: maps the weight_K of a resample and the number of a round to (starts_NSP, low_NP, high_NP).
      near_NP: θ of the fit to all runs. If given, every resample starts there only.
      rounds: most rounds of starts. Another round is run for the tasks and resamples whose lowest minimum fewer than
        AGREEING starts have reached: a minimum that is rarely found may not be the lowest.

    Raises:
      UserError: no start of a task ended at a finite loss.
    """
    limits = (objective.max_steps, TOLERANCE) if near_NP is None else (NEAR_STEPS, NEAR_TOLERANCE)
    todo_RN = np.ones((len(weight_RK), bpb_KN.shape[1]), bool)
    parts: list[tuple[np.ndarray, ...]] = []
    while todo_RN.any() and len(parts) < rounds:
        begun = [begin(weight_K, len(parts)) for weight_K in weight_RK]
        starts_RNSP, low_RNP, high_RNP = (np.stack(x) for x in zip(*begun))
        if near_NP is not None:
            starts_RNSP = np.broadcast_to(near_NP[:, None, :], (len(begun), *near_NP[:, None, :].shape))
        bounds = low_RNP, high_RNP
        parts.append(_round(objective, features, bpb_KN, weight_RK, starts_RNSP, bounds, todo_RN, limits))
        theta_RSNP, loss_RSN, steps_RSN = (np.concatenate(x, axis=1) for x in zip(*parts))
        close_RN = (1 + CLOSE) * loss_RSN.min(axis=1) + 1e-9 * weight_RK.sum(axis=1, keepdims=True)
        todo_RN = (loss_RSN <= close_RN[:, None]).sum(axis=1) < AGREEING
    best_R1N1 = loss_RSN.argmin(axis=1)[:, None, :, None]
    theta_RNP = np.take_along_axis(theta_RSNP, best_R1N1, axis=1)[:, 0]
    minima = Minima(theta_RNP, loss_RSN.min(axis=1), steps_RSN.max(axis=1))
    inputs.refuse(~np.isfinite(minima.loss_RN).all(axis=0), tasks, "no start of the fit ended at a finite loss for")
    return minima


def _round(objective: Objective, features, bpb_KN, weight_RK, starts_RNSP, bounds, todo_RN, limits):
    """Return theta_RSNP, loss_RSN and steps_RSN at the end points of the starts; a loss is infinite where not to do."""
    # Every call gets ROWS rows, however many starts and resamples there are, so one program is compiled.
    starts = starts_RNSP.shape[2]
    row_CNP = starts_RNSP.swapaxes(1, 2).reshape(-1, *starts_RNSP.shape[1::2])
    rows = row_CNP, *(np.repeat(x, starts, axis=0) for x in (weight_RK, *bounds, todo_RN))
    parts = [
        _rows(objective, features, bpb_KN, [x[c : c + ROWS] for x in rows], limits)
        for c in range(0, len(row_CNP), ROWS)
    ]
    theta_RSNP, loss_RSN, steps_RSN = (
        np.concatenate(x).reshape(-1, starts, *x[0].shape[1:]) for x in zip(*parts, strict=True)
    )
    return theta_RSNP, np.where(np.isfinite(loss_RSN), loss_RSN, np.inf), steps_RSN


def _rows(objective: Objective, features, bpb_KN, rows, limits):
    """Return theta_CNP, loss_CN and steps_CN at the end points of C ≤ ROWS rows."""
    used, tasks = len(rows[0]), bpb_KN.shape[1]
    *rows, todo_CN = (np.concatenate([x, np.repeat(x[:1], ROWS - used, axis=0)]) for x in rows)
    theta_CNP, weight_CK, low_CNP, high_CNP = rows
    theta_LP = np.clip(theta_CNP, low_CNP, high_CNP).reshape(ROWS * tasks, -1)
    shared = features, bpb_KN.T, weight_CK, low_CNP, high_CNP
    # The lanes to descend come first.
    todo_L = todo_CN.reshape(-1) & (np.arange(ROWS * tasks) < used * tasks)
    order_L = np.argsort(~todo_L, kind="stable")
    with cpu.float64():
        ends = map(np.asarray, _descend(objective, theta_LP, order_L, todo_L.sum(), shared, *limits))
    return [x.reshape(ROWS, tasks, *x.shape[1:])[:used] for x in ends]


class _State(NamedTuple):
    place_B: jax.Array  # the place in the queue of each slot's lane; a number beyond the used ones if the slot is idle
    theta_BP: jax.Array
    damping_B: jax.Array
    steps_B: jax.Array
    queued: jax.Array | int  # the next place in the queue
    theta_LP: jax.Array  # starting points of queued lanes, end points of finished ones
    loss_L: jax.Array
    steps_L: jax.Array


@functools.partial(jax.jit, static_argnums=0, compiler_options=cpu.STEADY)
def _descend(objective: Objective, theta_LP, order_L, used, shared, max_steps, tolerance):
    """Return theta_LP, loss_L and steps_L at the end points of the first ``used`` lanes of ``order_L``.

    Lane l is task l mod N of row l div N. The others keep their starting point, with an infinite loss.
    """
    lanes, slots = len(theta_LP), min(SLOTS, len(theta_LP))
    features, bpb_NK, weight_CK, low_CNP, high_CNP = shared
    step = jax.vmap(functools.partial(_step, objective, features))

    def body(s: _State) -> _State:
        lane_B = order_L[jnp.minimum(s.place_B, lanes - 1)]
        row_B, n_B = jnp.divmod(lane_B, len(bpb_NK))
        data = bpb_NK[n_B], weight_CK[row_B], low_CNP[row_B, n_B], high_CNP[row_B, n_B]
        theta_BP, loss_B, damping_B, promised_B = step(s.theta_BP, s.damping_B, *data)
        done_B = (promised_B <= tolerance * loss_B) | (damping_B > 1e12) | ~jnp.isfinite(loss_B)
        out_B = done_B | (s.steps_B + 1 >= max_steps)
        to_B = jnp.where(out_B & (s.place_B < used), lane_B, lanes)
        theta_LP = s.theta_LP.at[to_B].set(theta_BP, mode="drop")
        loss_L, steps_L = s.loss_L.at[to_B].set(loss_B, mode="drop"), s.steps_L.at[to_B].set(s.steps_B + 1, mode="drop")
        next_B = jnp.minimum(s.queued + jnp.cumsum(out_B) - 1, lanes)
        place_B = jnp.where(out_B, next_B, s.place_B)
        theta_BP = jnp.where(out_B[:, None], theta_LP[order_L[jnp.minimum(place_B, lanes - 1)]], theta_BP)
        damping_B, steps_B = jnp.where(out_B, 1e-3, damping_B), jnp.where(out_B, 0, s.steps_B + 1)
        return _State(place_B, theta_BP, damping_B, steps_B, s.queued + out_B.sum(), theta_LP, loss_L, steps_L)

    place_B, zero_L = jnp.arange(slots), jnp.zeros(lanes, int)
    theta_BP, loss_L = theta_LP[order_L[:slots]], jnp.full(lanes, jnp.inf)
    begin = _State(place_B, theta_BP, jnp.full(slots, 1e-3), 0 * place_B, slots, theta_LP, loss_L, zero_L)
    end = jax.lax.while_loop(lambda s: (s.place_B < used).any(), body, begin)
    return end.theta_LP, end.loss_L, end.steps_L


def _step(objective: Objective, features, theta_P, damping, bpb_K, weight_K, low_P, high_P):
    """Take one step of one lane; return theta_P, its loss, the damping, and the decrease that the step promised."""
    loss, gradient_P, hessian_PP = objective.derivatives(features, theta_P, bpb_K, weight_K)
    # A parameter at its bound, which the gradient pushes outwards, does not move.
    held_P = ((theta_P <= low_P) & (gradient_P > 0)) | ((theta_P >= high_P) & (gradient_P < 0))
    free_P = jnp.where(held_P, 0.0, 1.0)
    gradient_P, hessian_PP = gradient_P * free_P, hessian_PP * free_P[:, None] * free_P[None, :]
    ridge_P = jnp.diag(hessian_PP)
    ridge_P = damping * (ridge_P + 1e-9 * ridge_P.max() + 1e-300) + (1 - free_P)
    factor = jax.scipy.linalg.cho_factor(hessian_PP + jnp.diag(ridge_P), lower=True)
    step_P = -jax.scipy.linalg.cho_solve(factor, gradient_P)
    promised = -0.5 * (gradient_P @ step_P)
    new_theta_P = jnp.clip(theta_P + step_P, low_P, high_P)
    new_loss = objective.loss(features, new_theta_P, bpb_K, weight_K)
    # A comparison with NaN is false, so a step to a value that is not finite is rejected too.
    better = new_loss < loss
    calmed = jnp.where(loss - new_loss > 0.25 * promised, jnp.maximum(0.2 * damping, 1e-12), damping)
    damping = jnp.where(better, calmed, 5 * damping)
    return jnp.where(better, new_theta_P, theta_P), jnp.where(better, new_loss, loss), damping, promised
