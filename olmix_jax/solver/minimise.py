"""The iteration of the solver: proximal gradient and Newton steps with a duality gap, in pure JAX.

    min F(p) = f(p) + λ·KL(p ‖ anchor)   over   {lower ≤ p ≤ upper, Σ_j p_j = 1, groups' bounds},   f = Σ_i w_i f_i

Each iteration has two parts.

1. A proximal projected-gradient step with line search finds the bounds that bind. A step towards the minimiser of the
   linearised problem replaces it if that gives a lower value.
2. A Newton step over the entries strictly inside their bounds, by conjugate gradients on Hessian-vector products, so
   no M × M matrix is formed. It is projected back and shortened until F falls.

For λ > 0 both use the geometry of the KL divergence. The proximal step is then
argmin_p ⟨∇f, p⟩ + λKL(p ‖ anchor) + KL(p ‖ p_t)/η, which is one projection. For λ = 0 both use the Euclidean geometry,
in which a weight can become 0 and leave 0.

The certificate linearises f alone. For convex f and every feasible v, F(v) ≥ f(p) + ⟨∇f(p), v − p⟩ + λKL(v ‖ anchor).
The minimum of the right side over the set has a closed form (a KL projection; a greedy fill for λ = 0). So
``gap`` = F(p) − that minimum is an upper bound on F(p) − min F, whatever the algorithm.

For other laws the same steps find a local minimum. F never rises, and ``gap`` is 0 exactly at a stationary point. So it
remains the stopping criterion, but it is not a bound.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from olmix_jax.laws import cpu
from olmix_jax.solver import geometry as geometries
from olmix_jax.solver import kkt, newton, projection
from olmix_jax.solver.bounds import Bounds, within
from olmix_jax.solver.geometry import Geometry
from olmix_jax.solver.objective import Objective
from olmix_jax.solver.projection import TINY
from olmix_jax.solver.solution import TOLERANCE

# Iterations after the gap is small enough. The gap bounds the error of the weights by its square root only,
# TV² ≤ gap/(2λ). One more Newton step makes the weights as exact as the value.
POLISH = 1


class Minimum(NamedTuple):
    """The result of :func:`minimise`; see :class:`olmix_jax.solver.solution.Solution`. A pytree."""

    weights_M: Any
    value: Any
    kl: Any
    gap: Any
    iterations: Any
    residual: Any
    multipliers_M: Any
    group_multipliers_G: Any


class _State(NamedTuple):
    p_M: Any
    next_M: Any
    slope_M: Any  # ∇f at p
    value: Any
    gap: Any
    eta: Any
    iterations: Any
    tight: Any  # consecutive iterations with a small enough gap
    done: Any


def minimise(objective: Objective, bounds: Bounds, max_iterations, start_M, *, entropic: bool) -> Minimum:
    """Minimise ``objective`` within bounds, starting from a mixture near ``start_M``.

    Pure JAX, for float64 and ``jax.vmap``.

    Args:
      objective: F.
      bounds: a set that is not empty.
      max_iterations: limit of the iterations.
      start_M: any vector.
      entropic: whether λ > 0; it selects the geometry.
    """
    geometry = (geometries.entropic if entropic else geometries.euclidean)(objective, bounds)
    slope_of, both_of = jax.grad(objective.law), jax.value_and_grad(objective.law)

    def advance(state, v_M):
        p_M, eta = _line_search(objective, geometry, both_of, state)
        pair_CM = jnp.stack([p_M, _linearised_step(slope_of, state, v_M)])
        value_C = objective.values(pair_CM)
        p_M = jnp.where(value_C[1] < value_C[0], pair_CM[1], pair_CM[0])
        return newton.step(objective, geometry, slope_of, p_M, bounds), eta

    def body(state):
        p_M = state.next_M
        law, slope_M = both_of(p_M)
        v_M, penalty = geometry.bound(slope_M), objective.penalty(p_M)
        gap = jnp.maximum(slope_M @ (p_M - v_M) + penalty - objective.penalty(v_M), 0.0)
        value = law + penalty
        # Half the tolerance, so that the last bit of the value cannot decide whether the caller's test passes.
        tight = jnp.where(gap <= 0.5 * TOLERANCE * jnp.maximum(1.0, jnp.abs(value)), state.tight + 1, 0)
        done = (tight > POLISH) | (gap == 0) | ~jnp.isfinite(value) | (state.iterations >= max_iterations)
        state = _State(p_M, p_M, slope_M, value, gap, state.eta, state.iterations + ~done, tight, done)
        # The step is computed even when done: under vmap, lax.cond would copy the law for every problem.
        next_M, eta = advance(state, v_M)
        return state._replace(next_M=next_M, eta=eta)

    begin_M = within(projection.inside, start_M, bounds)
    zero = jnp.zeros(())
    begin = _State(begin_M, begin_M, jnp.zeros_like(begin_M), zero, zero, jnp.ones(()), 0, 0, False)
    state = jax.lax.while_loop(lambda state: ~state.done, body, begin)
    return Minimum(
        state.p_M,
        state.value,
        objective.kl(state.p_M),
        state.gap,
        state.iterations,
        *kkt.conditions(state.slope_M + objective.penalty_slope(state.p_M), state.p_M, bounds),
    )


def compiled(objective: Objective, bounds: Bounds, max_iterations, start_M, *, entropic: bool) -> Minimum:
    """Return :func:`minimise`, compiled. Call it under cpu.float64()."""
    program = _program(tuple(cpu.for_size(objective.params).items()))
    return program(objective, bounds, max_iterations, start_M, entropic=entropic)


@functools.cache
def _program(options: tuple):
    return jax.jit(minimise, static_argnames="entropic", compiler_options=dict(options))


def _line_search(objective: Objective, geometry: Geometry, both_of, state: _State):
    """Return (p⁺, η): the proximal step, with η reduced until the slope changes by at most D/η and F does not rise.

    For convex f the first condition implies the second.
    """

    def divide(carry):
        _, eta, _ = carry
        eta = eta / 4
        new_M = geometry.step(state.p_M, state.slope_M, eta)
        law, slope_M = both_of(new_M)
        # ⟨∇f(p⁺) − ∇f(p), p⁺ − p⟩ bounds the quantity of the usual test on f, and is free of cancellation.
        turn = (slope_M - state.slope_M) @ (new_M - state.p_M)
        rise = law + objective.penalty(new_M) - state.value
        allowed = geometry.distance(new_M, state.p_M) / eta + 1e-17
        return new_M, eta, (turn <= allowed) & (rise <= 1e-13 * jnp.maximum(1.0, jnp.abs(state.value)))

    # The first trial is at four times the last η.
    start = state.p_M, state.eta * 16, jnp.array(False)
    new_M, eta, good = jax.lax.while_loop(lambda c: ~c[2] & (c[1] > 1e-30), divide, start)
    return jnp.where(good, new_M, state.p_M), eta


def _linearised_step(slope_of, state: _State, v_M):
    """Return the step towards the certificate's minimiser v, shortened according to the curvature of f.

    F falls by at least γ·gap − γ²·dᵀ∇²f d/2 for p + γd, d = v − p. A proximal step only multiplies weights in the
    entropic geometry, so a weight that has become almost 0 can only grow again by this step.
    """
    toward_M = v_M - state.p_M
    curve = toward_M @ jax.jvp(slope_of, (state.p_M,), (toward_M,))[1]
    share = jnp.minimum(1.0, state.gap / jnp.maximum(curve, TINY))
    # Clipping keeps rounding from moving an entry past its bound, or away from it.
    new_M = jnp.clip(state.p_M + share * toward_M, jnp.minimum(state.p_M, v_M), jnp.maximum(state.p_M, v_M))
    return jnp.where(share < 1, new_M, v_M)
