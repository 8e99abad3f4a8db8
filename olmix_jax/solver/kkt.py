"""Optimality conditions of a mixture within bounds, and the Lagrange multipliers of the bounds."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from olmix_jax.solver.bounds import Bounds, at_bounds, classes
from olmix_jax.solver.projection import TINY


class Conditions(NamedTuple):
    """Optimality conditions at a mixture; a pytree.

    Attributes:
      residual: largest violation. The force on an entry is the level of its class minus its slope. Its violation is the
        smaller of |force| and the distance to the bound that the force points to. So the residual is 0 exactly at a
        stationary point.
      multipliers_M: multipliers of the upper bounds, ≥ 0.
      group_multipliers_G: multipliers of the groups, ≥ 0 at the upper bound and ≤ 0 at the lower bound.
    """

    residual: jax.Array
    multipliers_M: jax.Array
    group_multipliers_G: jax.Array


def conditions(slope_M, p_M, bounds: Bounds) -> Conditions:
    """Return the residual and the multipliers at p, given the slope ∇F. Pure JAX.

    Stationarity is ∇F_j = ν_c − μ_j + σ_j, with μ ≥ 0 at upper bounds, σ ≥ 0 at lower bounds, and ν_c the level of the
    entry's class (:func:`olmix_jax.solver.bounds.classes`). The multiplier of a group is the level around it minus its
    own level. Where multipliers are not unique, those of the groups are the smallest.
    """
    slope_M, p_M, bounds = jax.tree.map(jnp.asarray, (slope_M, p_M, bounds))
    class_CM, (at_low_G, at_high_G) = classes(bounds, p_M), at_bounds(bounds, p_M)
    least_C, most_C, inner_C = _level_ranges(class_CM, slope_M, p_M, bounds)
    if groups := len(bounds.low_G):
        around_G = _enclosing(bounds.member_GM)

        def up(g, levels):
            # A group limits the level of the group around it: from below, unless the inner group is at its lower
            # bound; and from above, unless it is at its upper bound.
            least_C, most_C = levels
            a, held = around_G[g], inner_C[around_G[g]]
            least = jnp.where(at_low_G[g] | held, -jnp.inf, least_C[g])
            most = jnp.where(at_high_G[g] | held, jnp.inf, most_C[g])
            return least_C.at[a].max(least), most_C.at[a].min(most)

        least_C, most_C = jax.lax.fori_loop(0, groups, up, (least_C, most_C))
    # A fixed group does not constrain the level outside. If no class does, take the level of the group that gains
    # least.
    choices = jnp.stack([least_C[-1], most_C[-1], least_C.max(), jnp.zeros(())])
    outside = choices[jnp.argmax(jnp.isfinite(choices))]
    level_C, fall_G = jnp.full_like(least_C, outside), jnp.zeros(groups)
    wrong: Any = 0.0
    if groups:

        def down(i, level_C):
            g = groups - 1 - i
            return level_C.at[g].set(jnp.clip(level_C[around_G[g]], least_C[g], most_C[g]))

        level_C = jax.lax.fori_loop(0, groups, down, level_C)
        fall_G = level_C[around_G] - level_C[:-1]
        wrong = jnp.where(at_low_G, jnp.where(at_high_G, 0.0, fall_G), -fall_G).max()
    force_M = (class_CM * level_C[:, None]).sum(axis=0) - slope_M
    room_M = jnp.where(force_M > 0, bounds.upper_M - p_M, p_M - bounds.lower_M)
    violation_M = jnp.minimum(jnp.abs(force_M), room_M)
    # A domain with a cap of 0 is kept out by the KL term, so its cap has no price.
    capped_M = (p_M >= bounds.upper_M) & (bounds.upper_M > 0)
    multipliers_M = jnp.where(capped_M, jnp.maximum(force_M, 0.0), 0.0)
    return Conditions(jnp.maximum(violation_M.max(), wrong), multipliers_M, fall_G)


def _level_ranges(class_CM, slope_M, p_M, bounds: Bounds):
    """Return (least_C, most_C, inner_C): the levels that a class's entries allow, and whether one fixes the level.

    An entry strictly inside its bounds fixes the level at its slope. Otherwise the level is at least the slope of
    entries above their lower bound, and at most that of entries below their cap.
    """
    room_CM = class_CM * jnp.minimum(p_M - bounds.lower_M, bounds.upper_M - p_M)[None, :]
    inner_C = room_CM.sum(axis=1) > 1e-12
    slope_C = (room_CM @ slope_M) / jnp.maximum(room_CM.sum(axis=1), TINY)
    above_CM, below_CM = (class_CM & side_M[None, :] for side_M in (p_M > bounds.lower_M, p_M < bounds.upper_M))
    least_C = jnp.where(above_CM, slope_M[None, :], -jnp.inf).max(axis=1)
    most_C = jnp.where(below_CM, slope_M[None, :], jnp.inf).min(axis=1)
    return jnp.where(inner_C, slope_C, least_C), jnp.where(inner_C, slope_C, most_C), inner_C


def _enclosing(member_GM):
    """Return the smallest group around each group; G if none encloses it."""
    number = jnp.arange(len(member_GM))
    holds_GG = ~(member_GM[:, None, :] & ~member_GM[None, :, :]).any(axis=2) & (number[None, :] > number[:, None])
    return jnp.where(holds_GG.any(axis=1), holds_GG.argmax(axis=1), len(member_GM))
