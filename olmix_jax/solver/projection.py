"""Exact projections onto mixtures within bounds, {p : lower ≤ p ≤ upper, Σ_j p_j = total}, and their derivatives.

Every projection has the form p_j = clip(rise_j(τ), lower_j, upper_j) for one multiplier τ. The algorithm works in
rounds (Bitran and Hax 1981, Kiwiel 2008):

1. Compute τ from the undecided entries, as if they had no bounds.
2. Sum the amounts by which entries fall below their lower bounds, and those by which entries exceed their upper bounds.
3. Decide the entries with the larger sum. They are at these bounds in the solution, because the total is monotone in
   τ.

The undecided entries are a smaller problem of the same kind. The result is exact after at most M rounds, mostly after
four, without sorting.

Pure JAX for float64; run under ``jax.enable_x64``. The set must not be empty
(:mod:`olmix_jax.solver.feasibility`). Forward and reverse derivatives are those of the solution, not of the rounds: τ
moves so that the free entries balance the moves of all others. An entry that just meets a bound stays there.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

TINY = 1e-300
# A sum whose relative distance to its total is at most this equals the total up to rounding.
LAST_BITS = 1e-15


@jax.custom_jvp
def project(v_M, lower_M, upper_M, total=1.0):
    """Return argmin_p ‖p − v‖² over the set, which is clip(v + τ, lower, upper), for any finite v."""

    def level(free_M, rest):
        return (rest - jnp.where(free_M, v_M, 0.0).sum()) / jnp.maximum(free_M.sum(), 1)

    p_M = _decide(lambda tau: v_M + tau, level, lower_M, upper_M, lower_M < upper_M, total)
    # v + τ rounds in units of |v|. Spread the resulting error over the entries that can still move.
    loose_M = (p_M > lower_M) & (p_M < upper_M)
    missing = (total - p_M.sum()) / jnp.maximum(loose_M.sum(), 1)
    p_M = jnp.where(loose_M, jnp.clip(p_M + missing, lower_M, upper_M), p_M)
    return _with_total(p_M, lower_M, upper_M, total)


@jax.custom_jvp
def project_kl(log_v_M, lower_M, upper_M, total=1.0):
    """Return argmin_p Σ_j p_j ln(p_j/v_j) over the set, which is clip(v·e^τ, lower, upper).

    Args:
      log_v_M: ln v plus any constant. −∞ (v_j = 0) keeps the entry at its lower bound.
      lower_M: at least 0.
      upper_M: at least ``lower_M``; may be 0.
      total: sum of the result.
    """
    free_M = (lower_M < upper_M) & (log_v_M > -jnp.inf)

    def level(free_M, rest):
        # Relative to the largest v, only negligible terms underflow.
        top = jnp.where(free_M, log_v_M, -jnp.inf).max()
        top = jnp.where(jnp.isfinite(top), top, 0.0)
        return (
            jnp.log(jnp.maximum(rest, TINY)) - jnp.log(jnp.exp(jnp.where(free_M, log_v_M - top, -jnp.inf)).sum()) - top
        )

    p_M = _decide(lambda tau: jnp.exp(log_v_M + tau), level, lower_M, upper_M, free_M, total)
    loose_M = (p_M > lower_M) & (p_M < upper_M)
    loose = jnp.where(loose_M, p_M, 0.0).sum()
    share = jnp.maximum(1 + (total - p_M.sum()) / jnp.where(loose > 0, loose, 1.0), 0.0)
    p_M = jnp.where(loose_M, p_M * share, p_M)
    # For logarithms beyond 10^15 rounding changes whole factors, and clipping undoes the scaling, so the sum needs a
    # correction.
    return _with_total(p_M, lower_M, upper_M, total)


def inside(v_M, lower_M, upper_M, total=1.0):
    """Return a point of the set, v itself if it is in the set: clip v, and share the rest in proportion to the room."""
    p_M = jnp.clip(v_M, lower_M, upper_M)
    missing = total - p_M.sum()
    room_M = jnp.where(missing > 0, upper_M - p_M, p_M - lower_M)
    return jnp.clip(p_M + missing * room_M / jnp.maximum(room_M.sum(), TINY), lower_M, upper_M)


def _with_total(p_M, lower_M, upper_M, total):
    """Return :func:`inside`, but p itself if its sum equals the total up to rounding.

    Correcting the last bits would move entries off their bounds, where derivatives are 0, and would cost small entries
    the digits of their logarithms, and so of KL's slopes.
    """
    sum_ = p_M.sum()
    rounding = LAST_BITS * jnp.sqrt(p_M.size) * jnp.abs(total)
    return inside(p_M, lower_M, upper_M, jnp.where(jnp.abs(total - sum_) <= rounding, sum_, total))


def fill(slope_M, lower_M, upper_M, total=1.0):
    """Return a minimiser of Σ_j slope_j p_j over the set. It fills entries up to their bounds, lowest slope first."""
    lower_M, upper_M = jnp.asarray(lower_M), jnp.asarray(upper_M)
    order = jnp.argsort(slope_M)
    room_M = (upper_M - lower_M)[order]
    left_M = (total - lower_M.sum()) - (jnp.cumsum(room_M) - room_M)
    filled_M = lower_M.at[order].add(jnp.clip(left_M, 0.0, room_M))
    return jnp.clip(filled_M, lower_M, upper_M)


def _decide(rise: Callable, level: Callable, lower_M, upper_M, free_M, total):
    """Return clip(rise(τ)) with the given total. Entries that are not free stay at their lower bound.

    Args:
      rise: τ → p, increasing.
      level: (free_M, rest) → the τ at which the free entries, without bounds, sum to ``rest``.
    """

    def decide(state):
        p_M, free_M, _ = state
        rise_M = rise(level(free_M, total - jnp.where(free_M, 0.0, p_M).sum()))
        below_M = jnp.where(free_M, jnp.maximum(lower_M - rise_M, 0.0), 0.0)
        above_M = jnp.where(free_M, jnp.maximum(rise_M - upper_M, 0.0), 0.0)
        below, above = below_M.sum(), above_M.sum()
        decided_M = jnp.where(below >= above, below_M, above_M) > 0
        p_M = jnp.where(free_M, jnp.clip(rise_M, lower_M, upper_M), p_M)
        # If the sums on both sides are equal, they cancel, and τ is exact. NaN also ends the loop.
        return p_M, free_M & ~decided_M, ~(jnp.abs(below - above) > 0)

    return jax.lax.while_loop(lambda state: ~state[2], decide, (lower_M, free_M, False))[0]


@project.defjvp
def _project_jvp(primals, tangents):
    p_M, bound_M, free_M = _with_tangents(project, primals, tangents)
    v_M, total = tangents[0], tangents[3]
    rest = total - jnp.where(free_M, 0.0, bound_M).sum() - jnp.where(free_M, v_M, 0.0).sum()
    return p_M, jnp.where(free_M, v_M + rest / jnp.maximum(free_M.sum(), 1), bound_M)


@project_kl.defjvp
def _project_kl_jvp(primals, tangents):
    p_M, bound_M, free_M = _with_tangents(project_kl, primals, tangents)
    turn_M, total = jnp.where(free_M, p_M * tangents[0], 0.0), tangents[3]
    rest = total - jnp.where(free_M, 0.0, bound_M).sum() - turn_M.sum()
    share_M = jnp.where(free_M, p_M, 0.0) / jnp.maximum(jnp.where(free_M, p_M, 0.0).sum(), TINY)
    return p_M, jnp.where(free_M, turn_M + rest * share_M, bound_M)


def _with_tangents(function, primals, tangents):
    """Return the projection, the tangents of the bounds that bind, and which entries are strictly inside theirs."""
    _, lower_M, upper_M, _ = primals
    p_M = function(*primals)
    return p_M, jnp.where(p_M <= lower_M, tangents[1], tangents[2]), (p_M > lower_M) & (p_M < upper_M)
