"""The mixture that minimises an objective within bounds, with proof (METHOD §2, step 4).

    min F(p) = f(p) + λ·KL(p ‖ natural)   over   {lower ≤ p ≤ upper, Σ_j p_j = 1},   f = Σ_i w_i f_i

Each iteration takes a proximal projected-gradient step with line search, which finds the bounds that bind (or, where
that does better, a step to the minimiser of the linearised problem), and then a Newton step over the entries strictly
inside their bounds (conjugate gradients on Hessian-vector products, so no M × M matrix is formed), projected back and
kept only as far as F falls. For λ > 0 both live in the geometry of the KL divergence, where the proximal step is
argmin_p ⟨∇f, p⟩ + λKL(p ‖ natural) + KL(p ‖ p_t)/η and is one projection; for λ = 0 in the Euclidean one, which can
reach and leave weight 0.

The certificate linearises f alone. For convex f and every feasible v, F(v) ≥ f(p) + ⟨∇f(p), v − p⟩ + λKL(v ‖ natural);
the minimum of the right side over the set has a closed form (a KL projection; a greedy fill for λ = 0). So
``gap`` = F(p) − that minimum bounds F(p) − min F from above, whatever way p was found.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from olmix_jax.errors import UserError
from olmix_jax.propose import geometry as geometries
from olmix_jax.propose.geometry import TINY, log
from olmix_jax.propose.objective import Objective
from olmix_jax.propose.projection import project

# Converged: gap ≤ TOLERANCE · max(1, |value|).
TOLERANCE = 1e-9
# Iterations after that. A gap bounds weights by its root, TV² ≤ gap/(2λ); two Newton steps more make them as exact.
POLISH = 2
MAX_ITERATIONS = 500
CG_STEPS = 60


@dataclasses.dataclass(frozen=True)
class Solution:
    """A minimiser and how it is known to be one.

    Attributes:
      status: "optimal", or "not converged (gap …)". Optimal means gap ≤ 1e-9 · max(1, |value|), for a convex law.
      weights_M: the mixture; within the bounds exactly, sum 1 to rounding.
      value: F [BPB].
      kl: KL(p ‖ natural) [nats].
      gap: duality gap, an upper bound on how far ``value`` is above the minimum [BPB].
      iterations: of the solver.
      residual: max_j |p − project(p − ∇F(p))|_j, zero at and only at a stationary point.
      multipliers_M: of the upper bounds, ≥ 0: fall of the minimum per unit by which the bound is raised [BPB].
    """

    status: str
    weights_M: np.ndarray
    value: float
    kl: float
    gap: float
    iterations: int
    residual: float
    multipliers_M: np.ndarray


class Minimum(NamedTuple):
    """What :func:`minimise` returns: the arrays of a :class:`Solution`."""

    weights_M: jax.Array
    value: jax.Array
    kl: jax.Array
    gap: jax.Array
    iterations: jax.Array
    residual: jax.Array
    multipliers_M: jax.Array


def solve(
    predict,
    params,
    task_weights_N,
    natural_M,
    lower_M,
    upper_M,
    kl_weight: float,
    *,
    max_iterations: int = MAX_ITERATIONS,
) -> Solution:
    """Solves one problem in float64.

    Args:
      predict: a law's ``predict(params, ratios_KM) -> bpb_KN``; compiled once per function and shapes.
      params: its parameters.
      task_weights_N: w ≥ 0, normalised here to sum 1.
      natural_M: p0. A domain of natural weight 0 gets none, if λ > 0.
      lower_M: lower bounds.
      upper_M: upper bounds; the set must not be empty (:func:`olmix_jax.propose.caps.check_feasible`).
      kl_weight: λ ≥ 0 [BPB per nat].
      max_iterations: after which the solver gives up and says so.

    Raises:
      UserError: an input or the law's prediction is not finite, or a domain of natural weight 0 has a lower bound.
    """
    task_weights_N = np.asarray(task_weights_N, np.float64)
    natural_M, lower_M, upper_M = (np.asarray(x, np.float64) for x in (natural_M, lower_M, upper_M))
    leaves = jax.tree.leaves(params)
    if not all(np.isfinite(x).all() for x in [task_weights_N, natural_M, lower_M, upper_M, kl_weight, *leaves]):
        raise UserError("the problem to solve has a value that is not finite in its law, weights or bounds")
    if not (task_weights_N >= 0).all() or not task_weights_N.any() or not kl_weight >= 0:
        raise UserError("task weights must be 0 or more and not all 0, and propose.kl_weight 0 or more")
    if kl_weight > 0:
        if (lower_M[natural_M <= 0] > 0).any():
            raise UserError(
                "a domain of natural weight 0 has a positive lower bound; with propose.kl_weight > 0 it "
                "cannot be in the mixture"
            )
        upper_M = np.where(natural_M > 0, upper_M, 0.0)
    objective = (params, task_weights_N / task_weights_N.sum(), natural_M, float(kl_weight))
    with jax.enable_x64(True):
        found = jax.tree.map(
            np.asarray, _compiled(predict, kl_weight > 0)(*objective, lower_M, upper_M, max_iterations)
        )
    if not all(np.isfinite(x).all() for x in found):
        raise UserError("the law predicts no finite BPB around the natural distribution: fit it on more runs")
    good = found.gap <= TOLERANCE * max(1.0, abs(float(found.value)))
    status = "optimal" if good else f"not converged (gap {found.gap:.3g} after {found.iterations} iterations)"
    scalars = {name: getattr(found, name).item() for name in ("value", "kl", "gap", "iterations", "residual")}
    return Solution(status=status, weights_M=found.weights_M, multipliers_M=found.multipliers_M, **scalars)


@functools.lru_cache(maxsize=32)
def _compiled(predict, entropic: bool):
    def minimum(params, task_weights_N, natural_M, kl_weight, lower_M, upper_M, max_iterations):
        objective = Objective(predict, params, task_weights_N, natural_M, kl_weight)
        return minimise(objective, lower_M, upper_M, entropic, max_iterations)

    return jax.jit(minimum)


class _State(NamedTuple):
    p_M: jax.Array
    slope_M: jax.Array  # ∇f
    bound_M: jax.Array  # where the linearised problem has its minimum
    value: jax.Array
    gap: jax.Array
    eta: jax.Array
    iterations: jax.Array
    polished: jax.Array  # iterations since the gap was first small enough


def minimise(objective: Objective, lower_M, upper_M, entropic: bool, max_iterations: int = MAX_ITERATIONS) -> Minimum:
    """Minimises ``objective`` within bounds. Pure JAX, for float64 and ``jax.vmap``; ``entropic`` says that λ > 0."""
    geometry = (geometries.entropic if entropic else geometries.euclidean)(objective, lower_M, upper_M)
    slope_of = jax.grad(objective.law)

    def certified(p_M, eta, iterations, polished):
        slope_M, value = slope_of(p_M), objective.value(p_M)
        v_M = geometry.bound(slope_M)
        gap = slope_M @ (p_M - v_M) + objective.penalty(p_M) - objective.penalty(v_M)
        return _State(p_M, slope_M, v_M, value, jnp.maximum(gap, 0.0), eta, iterations, polished)

    def loose(state):
        # Half the tolerance, so that nothing hangs on the last bit of the value.
        return state.gap > 0.5 * TOLERANCE * jnp.maximum(1.0, jnp.abs(state.value))

    def body(state):
        p_M, eta = _line_search(geometry, slope_of, state)
        leap_M = _leap(slope_of, state)
        p_M = jnp.where(objective.value(leap_M) < objective.value(p_M), leap_M, p_M)
        p_M = _newton(objective, geometry, slope_of, p_M, lower_M, upper_M)
        return certified(p_M, eta, state.iterations + 1, jnp.where(loose(state), 0, state.polished + 1))

    def unfinished(state):
        going = loose(state) | ((state.polished < POLISH) & (state.gap > 0))
        return going & jnp.isfinite(state.value) & (state.iterations < max_iterations)

    state = jax.lax.while_loop(unfinished, body, certified(geometry.start_M, jnp.ones(()), 0, 0))
    residual, multipliers_M = _stationarity(objective, state, lower_M, upper_M)
    return Minimum(
        state.p_M, state.value, objective.kl(state.p_M), state.gap, state.iterations, residual, multipliers_M
    )


def _line_search(geometry: geometries.Geometry, slope_of, state: _State):
    """The proximal step, with η halved until the slope changes by no more than D/η allows; (p⁺, next η)."""

    def trial(eta):
        new_M = geometry.step(state.p_M, state.slope_M, eta)
        # ⟨∇f(p⁺) − ∇f(p), p⁺ − p⟩ bounds what the usual test on f measures, and has no cancellation in it.
        turn = (slope_of(new_M) - state.slope_M) @ (new_M - state.p_M)
        allowed = geometry.distance(new_M, state.p_M) / eta + 1e-17
        return new_M, eta, turn <= allowed

    def halve(carry):
        _, eta, _ = carry
        return trial(eta / 4)

    new_M, eta, good = jax.lax.while_loop(lambda c: ~c[2] & (c[1] > 1e-30), halve, trial(state.eta * 4))
    return jnp.where(good, new_M, state.p_M), eta


def _leap(slope_of, state: _State):
    """The step to the certificate's minimiser v, shortened to where the curvature of f says that it pays.

    F falls by at least γ·gap − γ²·dᵀ∇²f d/2 along d = v − p. Weights that the entropic geometry has driven to almost 0
    come back in one such step, and in it alone: a proximal step can only multiply them.
    """
    toward_M = state.bound_M - state.p_M
    curve = toward_M @ jax.jvp(slope_of, (state.p_M,), (toward_M,))[1]
    new_M = state.p_M + jnp.minimum(1.0, state.gap / jnp.maximum(curve, TINY)) * toward_M
    # Rounding must not carry an entry past a bound.
    return jnp.clip(new_M, jnp.minimum(state.p_M, state.bound_M), jnp.maximum(state.p_M, state.bound_M))


def _newton(objective, geometry, slope_of, p_M, lower_M, upper_M):
    """The best of p and a few lengths of a Newton step over the entries strictly inside their bounds."""
    slope_M, curvature = jax.linearize(slope_of, p_M)
    free_M = (p_M > lower_M) & (p_M < upper_M)
    scale_M = jnp.where(free_M, geometry.scale(p_M), 0.0)
    unit_M = scale_M / jnp.maximum(jnp.linalg.norm(scale_M), TINY)
    full_M = slope_M + _penalty_slope(objective, p_M)

    def tangent(z_M):  # Σd = 0 for d = scale · z
        return z_M - unit_M * (unit_M @ z_M)

    def hessian(z_M):
        z_M = tangent(z_M)
        bent_M = scale_M * curvature(scale_M * z_M) + objective.kl_weight * scale_M**2 / jnp.maximum(p_M, TINY) * z_M
        return tangent(bent_M)

    z_M = _conjugate_gradients(hessian, tangent(-scale_M * full_M))
    # What is at a bound stays there: the proximal step is what lets it go.
    low_M, high_M = jnp.where(free_M, lower_M, p_M), jnp.where(free_M, upper_M, p_M)
    lengths = jnp.array([1.0, 0.25, 0.0625, 0.0])
    trial_CM = jax.vmap(lambda t: geometry.move(p_M, t * scale_M * z_M, low_M, high_M))(lengths).at[-1].set(p_M)
    value_C = jax.vmap(objective.value)(trial_CM)
    value_C = jnp.where(jnp.isfinite(value_C), value_C, jnp.inf)
    # The longest step whose value is the least up to rounding: F cannot tell steps apart near the end, Newton can.
    fine_C = value_C <= value_C.min() + 4e-16 * jnp.abs(value_C.min())
    return trial_CM[jnp.argmax(fine_C)]


def _penalty_slope(objective, p_M):
    natural_M = jnp.where(objective.natural_M > 0, objective.natural_M, 1.0)
    return objective.kl_weight * (log(p_M) - jnp.log(natural_M) + 1)


def _conjugate_gradients(hessian, right_M):
    """z with hessian(z) ≈ right, from 0; stops at negative curvature, at 1e-10 of the residual, or after CG_STEPS."""

    def body(carry):
        z_M, residual_M, direction_M, square, steps, _ = carry
        bent_M = hessian(direction_M)
        curve = direction_M @ bent_M
        size = direction_M @ direction_M
        good = curve > 1e-14 * size
        length = jnp.where(good, square / jnp.where(good, curve, 1.0), 0.0)
        residual_M = residual_M - length * bent_M
        new_square = residual_M @ residual_M
        direction_M = residual_M + new_square / jnp.maximum(square, TINY) * direction_M
        return z_M + length * carry[2], residual_M, direction_M, new_square, steps + 1, ~good

    square = right_M @ right_M
    start = jnp.zeros_like(right_M), right_M, right_M, square, 0, False
    z_M, *_ = jax.lax.while_loop(lambda c: ~c[5] & (c[3] > 1e-20 * square) & (c[4] < CG_STEPS), body, start)
    return z_M


def _stationarity(objective, state, lower_M, upper_M):
    """The projected-gradient residual, and the multipliers μ of the upper bounds.

    Stationarity is ∇F_j = ν − μ_j + σ_j, with μ on entries at their cap and σ on those at their lower bound. ν is the
    slope of the entries in between; at a vertex, the slope at which the next bit of room would be paid for.
    """
    p_M, slope_M = state.p_M, state.slope_M + _penalty_slope(objective, state.p_M)
    residual = jnp.abs(p_M - project(p_M - slope_M, lower_M, upper_M)).max()
    inside_M = jnp.minimum(p_M - lower_M, upper_M - p_M)
    inner = (inside_M @ slope_M) / jnp.maximum(inside_M.sum(), TINY)
    vertex = jnp.where(p_M > lower_M, slope_M, -jnp.inf).max()
    level = jnp.where(inside_M.sum() > 1e-12, inner, vertex)
    # A domain without natural weight is kept out by the KL term, not by its cap.
    capped_M = (p_M >= upper_M) & (upper_M > 0)
    return residual, jnp.where(capped_M, jnp.maximum(level - slope_M, 0.0), 0.0)
