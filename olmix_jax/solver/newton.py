"""The Newton step of the solver (:mod:`olmix_jax.solver.minimise`), by conjugate gradients."""

import jax
import jax.numpy as jnp

from olmix_jax.solver.bounds import Bounds, at_bounds, classes
from olmix_jax.solver.geometry import Geometry
from olmix_jax.solver.objective import Objective
from olmix_jax.solver.projection import TINY

CG_STEPS = 60
# An entry is at its bound if its distance, relative to the bound, is at most this.
NEAR = 1e-14


def step(objective: Objective, geometry: Geometry, slope_of, p_M, bounds: Bounds):
    """Return the best of p and Newton steps of a few lengths over the entries strictly inside their bounds.

    Args:
      objective: F = f + λ·KL.
      geometry: the geometry of the problem.
      slope_of: ∇f as a function of p.
      p_M: a mixture within the bounds.
      bounds: the bounds.
    """
    slope_M, curvature = jax.linearize(slope_of, p_M)
    at_lower_M = p_M <= bounds.lower_M * (1 + NEAR)
    at_upper_M = ~at_lower_M & (p_M >= bounds.upper_M * (1 - NEAR))
    free_M = ~at_lower_M & ~at_upper_M
    scale_M = jnp.where(free_M, geometry.scale(p_M), 0.0)
    unit_CM = scale_M[None, :] * classes(bounds, p_M)
    unit_CM = unit_CM / jnp.maximum(jnp.linalg.norm(unit_CM, axis=1, keepdims=True), TINY)
    full_M = slope_M + objective.penalty_slope(p_M)

    def tangent(z_M):  # Σd = 0 over each class, for d = scale · z
        return z_M - (unit_CM @ z_M) @ unit_CM

    def hessian(z_M):
        z_M = tangent(z_M)
        bent_M = scale_M * curvature(scale_M * z_M) + objective.kl_weight * scale_M**2 / jnp.maximum(p_M, TINY) * z_M
        return tangent(bent_M)

    z_M = _conjugate_gradients(hessian, tangent(-scale_M * full_M))
    # Entries and groups at a bound stay there. Only the proximal step can move them away.
    at_low_G, at_high_G = at_bounds(bounds, p_M)
    held = bounds._replace(
        lower_M=jnp.where(at_upper_M, bounds.upper_M, bounds.lower_M),
        upper_M=jnp.where(at_lower_M, bounds.lower_M, bounds.upper_M),
        low_G=jnp.where(at_high_G, bounds.high_G, bounds.low_G),
        high_G=jnp.where(at_low_G, bounds.low_G, bounds.high_G),
    )
    lengths = jnp.array([1.0, 0.25, 0.0625, 0.0])
    trial_CM = jax.vmap(lambda t: geometry.move(p_M, t * scale_M * z_M, held))(lengths).at[-1].set(p_M)
    value_C = objective.values(trial_CM)
    value_C = jnp.where(jnp.isfinite(value_C), value_C, jnp.inf)
    # Take the longest step whose value is the smallest up to rounding. Near the optimum all values are equal up to
    # rounding, and the full Newton step is the most exact.
    best_C = value_C <= value_C.min() + 4e-16 * jnp.abs(value_C.min())
    return trial_CM[jnp.argmax(best_C)]


def _conjugate_gradients(hessian, right_M):
    """Return z with hessian(z) ≈ right, starting from 0.

    Stops at negative curvature, at a relative residual of 1e-4, or after CG_STEPS.
    """

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
    z_M, *_ = jax.lax.while_loop(lambda c: ~c[5] & (c[3] > 1e-8 * square) & (c[4] < CG_STEPS), body, start)
    return z_M
