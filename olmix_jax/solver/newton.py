"""The Newton step of the solver (:mod:`olmix_jax.solver.solve`), by conjugate gradients."""

import jax
import jax.numpy as jnp

from olmix_jax.solver.bounds import classes, ends
from olmix_jax.solver.geometry import log
from olmix_jax.solver.projection import TINY

CG_STEPS = 60
# An entry that is this near to its bound, as a share of the bound, is at it.
NEAR = 1e-14


def step(objective, geometry, slope_of, p_M, bounds):
    """The best of p and a few lengths of a Newton step over the entries strictly inside their bounds."""
    slope_M, curvature = jax.linearize(slope_of, p_M)
    at_low_M = p_M <= bounds.lower_M * (1 + NEAR)
    at_high_M = ~at_low_M & (p_M >= bounds.upper_M * (1 - NEAR))
    free_M = ~at_low_M & ~at_high_M
    scale_M = jnp.where(free_M, geometry.scale(p_M), 0.0)
    unit_CM = scale_M[None, :] * classes(bounds, p_M)
    unit_CM = unit_CM / jnp.maximum(jnp.linalg.norm(unit_CM, axis=1, keepdims=True), TINY)
    full_M = slope_M + penalty_slope(objective, p_M)

    def tangent(z_M):  # Σd = 0 over each class for d = scale · z
        return z_M - (unit_CM @ z_M) @ unit_CM

    def hessian(z_M):
        z_M = tangent(z_M)
        bent_M = scale_M * curvature(scale_M * z_M) + objective.kl_weight * scale_M**2 / jnp.maximum(p_M, TINY) * z_M
        return tangent(bent_M)

    z_M = _conjugate_gradients(hessian, tangent(-scale_M * full_M))
    # What is at a bound stays there: the proximal step is what lets it go.
    at_low_G, at_high_G = ends(bounds, p_M)
    held = bounds._replace(
        lower_M=jnp.where(at_high_M, bounds.upper_M, bounds.lower_M),
        upper_M=jnp.where(at_low_M, bounds.lower_M, bounds.upper_M),
        low_G=jnp.where(at_high_G, bounds.high_G, bounds.low_G),
        high_G=jnp.where(at_low_G, bounds.low_G, bounds.high_G),
    )
    lengths = jnp.array([1.0, 0.25, 0.0625, 0.0])
    trial_CM = jax.vmap(lambda t: geometry.move(p_M, t * scale_M * z_M, held))(lengths).at[-1].set(p_M)
    value_C = objective.values(trial_CM)
    value_C = jnp.where(jnp.isfinite(value_C), value_C, jnp.inf)
    # The longest step whose value is the least up to rounding: F cannot tell steps apart near the end, Newton can.
    fine_C = value_C <= value_C.min() + 4e-16 * jnp.abs(value_C.min())
    return trial_CM[jnp.argmax(fine_C)]


def penalty_slope(objective, p_M):
    """λ∇KL(p ‖ natural), finite where p or natural is 0."""
    natural_M = jnp.where(objective.natural_M > 0, objective.natural_M, 1.0)
    return objective.kl_weight * (log(p_M) - jnp.log(natural_M) + 1)


def _conjugate_gradients(hessian, right_M):
    """z with hessian(z) ≈ right, from 0; stops at negative curvature, at 1e-4 of the residual, or after CG_STEPS."""

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
