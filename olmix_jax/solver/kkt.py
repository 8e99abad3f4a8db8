"""Optimality conditions of a mixture within bounds, and what the bounds cost: Lagrange multipliers."""

import jax
import jax.numpy as jnp

from olmix_jax.solver.bounds import Bounds, classes, ends
from olmix_jax.solver.projection import TINY


def of(slope_M, p_M, bounds: Bounds):
    """(residual, multipliers_M of the upper bounds, multipliers_G of the groups), from the slope ∇F at p. Pure JAX.

    Stationarity is ∇F_j = ν_c − μ_j + σ_j, with μ ≥ 0 on entries at their cap, σ ≥ 0 on those at their lower bound, and
    ν_c the level of the entry's class (:func:`olmix_jax.solver.bounds.classes`). A group's multiplier is the fall of
    the level into it: positive at the group's most weight, negative at its least. Where multipliers are not unique,
    those of groups are the least.

    ``residual`` is the worst violation, each taken as the lesser of a slope and the distance to the bound it points to.
    """
    slope_M, p_M, bounds = jax.tree.map(jnp.asarray, (slope_M, p_M, bounds))
    class_CM, (at_low_G, at_high_G) = classes(bounds, p_M), ends(bounds, p_M)
    least_C, most_C, inner_C = _own_levels(class_CM, slope_M, p_M, bounds)
    if groups := len(bounds.low_G):
        around_G = _around(bounds.member_GM)

        def up(g, levels):
            # What is around a group is no lower than it, but for one at its least, and no higher, but for one at its
            # most.
            least_C, most_C = levels
            a, held = around_G[g], inner_C[around_G[g]]
            least = jnp.where(at_low_G[g] | held, -jnp.inf, least_C[g])
            most = jnp.where(at_high_G[g] | held, jnp.inf, most_C[g])
            return least_C.at[a].max(least), most_C.at[a].min(most)

        least_C, most_C = jax.lax.fori_loop(0, groups, up, (least_C, most_C))
    # Groups that are fixed ask nothing of what is outside; if that is nobody, it is the group that gains least.
    choices = jnp.stack([least_C[-1], most_C[-1], least_C.max(), jnp.zeros(())])
    outside = choices[jnp.argmax(jnp.isfinite(choices))]
    level_C, fall_G, wrong = jnp.full_like(least_C, outside), jnp.zeros(groups), 0.0
    if groups:

        def down(i, level_C):
            g = groups - 1 - i
            return level_C.at[g].set(jnp.clip(level_C[around_G[g]], least_C[g], most_C[g]))

        level_C = jax.lax.fori_loop(0, groups, down, level_C)
        fall_G = level_C[around_G] - level_C[:-1]
        wrong = jnp.where(at_low_G, jnp.where(at_high_G, 0.0, fall_G), -fall_G).max()
    pull_M = (class_CM * level_C[:, None]).sum(axis=0) - slope_M
    off_M = jnp.where(pull_M > 0, bounds.upper_M - p_M, p_M - bounds.lower_M)
    off_M = jnp.minimum(jnp.abs(pull_M), off_M)
    # A domain without natural weight is kept out by the KL term, not by its cap.
    capped_M = (p_M >= bounds.upper_M) & (bounds.upper_M > 0)
    return jnp.maximum(off_M.max(), wrong), jnp.where(capped_M, jnp.maximum(pull_M, 0.0), 0.0), fall_G


def _own_levels(class_CM, slope_M, p_M, bounds: Bounds):
    """(least_C, most_C, inner_C): levels that a class's own entries allow, and whether some are within their bounds.

    The level is then their slope; otherwise no less than the slope of what is above its lower bound, and no more than
    that of what is below its cap.
    """
    room_CM = class_CM * jnp.minimum(p_M - bounds.lower_M, bounds.upper_M - p_M)[None, :]
    inner_C = room_CM.sum(axis=1) > 1e-12
    slope_C = (room_CM @ slope_M) / jnp.maximum(room_CM.sum(axis=1), TINY)
    above_CM, below_CM = (class_CM & side_M[None, :] for side_M in (p_M > bounds.lower_M, p_M < bounds.upper_M))
    least_C = jnp.where(above_CM, slope_M[None, :], -jnp.inf).max(axis=1)
    most_C = jnp.where(below_CM, slope_M[None, :], jnp.inf).min(axis=1)
    return jnp.where(inner_C, slope_C, least_C), jnp.where(inner_C, slope_C, most_C), inner_C


def _around(member_GM):
    """The next group that holds each; G where there is none."""
    number = jnp.arange(len(member_GM))
    holds_GG = ~(member_GM[:, None, :] & ~member_GM[None, :, :]).any(axis=2) & (number[None, :] > number[:, None])
    return jnp.where(holds_GG.any(axis=1), holds_GG.argmax(axis=1), len(member_GM))
