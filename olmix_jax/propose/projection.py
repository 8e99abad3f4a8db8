"""Exact projections onto mixtures within bounds, {p : lower ≤ p ≤ upper, Σ_j p_j = total}.

Both have the form p_j = clip(rise_j(τ), lower_j, upper_j) for one multiplier τ, and Σ_j p_j is monotone in τ, simple
between the 2M values of τ at which an entry meets a bound. So the right segment is found by binary search over the
sorted breakpoints, and τ on it in closed form: no tolerance, O(M log M), and cost independent of the data (which
``jax.vmap`` likes). Pure JAX for float64; run under ``jax.enable_x64``. The set must not be empty
(:func:`olmix_jax.propose.caps.check_feasible`).
"""

import math

import jax
import jax.numpy as jnp


def project(v_M, lower_M, upper_M, total=1.0):
    """argmin_p ‖p − v‖² over the set: p = clip(v + τ, lower, upper), for any finite v."""
    enter_M, leave_M = lower_M - v_M, upper_M - v_M
    tau, below_M, above_M = _segment(lambda tau: v_M + tau, enter_M, leave_M, lower_M, upper_M, total)
    free_M = ~(below_M | above_M)
    rest = total - jnp.where(below_M, lower_M, 0.0).sum() - jnp.where(above_M, upper_M, 0.0).sum()
    count = free_M.sum()
    exact = (rest - jnp.where(free_M, v_M, 0.0).sum()) / jnp.maximum(count, 1)
    p_M = jnp.clip(v_M + jnp.where(count > 0, exact, tau), lower_M, upper_M)
    # v + τ rounds in units of |v|; what that leaves over is spread over the entries that can still move.
    loose_M = (p_M > lower_M) & (p_M < upper_M)
    missing = (total - p_M.sum()) / jnp.maximum(loose_M.sum(), 1)
    return jnp.clip(p_M + jnp.where(loose_M, missing, 0.0), lower_M, upper_M)


def project_kl(log_v_M, lower_M, upper_M, total=1.0):
    """argmin_p Σ_j p_j ln(p_j/v_j) over the set: p = clip(v·e^τ, lower, upper).

    Args:
      log_v_M: ln v up to a constant, however small or large; −∞ (v_j = 0) keeps the entry at its lower bound.
      lower_M: at least 0.
      upper_M: at least ``lower_M``; may be 0.
      total: the sum.
    """
    none_M = jnp.isneginf(log_v_M)
    finite_M = jnp.where(none_M, 0.0, log_v_M)
    enter_M = jnp.where(none_M, jnp.inf, _log(lower_M) - finite_M)
    leave_M = jnp.where(none_M, jnp.inf, _log(upper_M) - finite_M)
    tau, below_M, above_M = _segment(lambda tau: _exp(log_v_M, tau), enter_M, leave_M, lower_M, upper_M, total)
    free_M = ~(below_M | above_M | none_M)
    rest = total - jnp.where(below_M | none_M, lower_M, 0.0).sum() - jnp.where(above_M, upper_M, 0.0).sum()
    # e^τ = rest / Σ_free v, with the largest v taken out so that nothing underflows that matters.
    top = jnp.where(free_M, finite_M, -jnp.inf).max()
    top = jnp.where(jnp.isfinite(top), top, 0.0)
    mass = jnp.where(free_M, jnp.exp(jnp.minimum(finite_M - top, 0.0)), 0.0).sum()
    exact = jnp.log(jnp.maximum(rest, 1e-300) / jnp.maximum(mass, 1e-300)) - top
    p_M = jnp.clip(_exp(log_v_M, jnp.where(free_M.any(), exact, tau)), lower_M, upper_M)
    loose_M = (p_M > lower_M) & (p_M < upper_M)
    loose = jnp.where(loose_M, p_M, 0.0).sum()
    share = 1 + (total - p_M.sum()) / jnp.where(loose > 0, loose, 1.0)
    return jnp.clip(jnp.where(loose_M, p_M * share, p_M), lower_M, upper_M)


def _segment(rise, enter_M, leave_M, lower_M, upper_M, total):
    """The breakpoint τ below the solution, and which entries are at their lower and at their upper bound after it."""
    breaks = jnp.sort(jnp.concatenate([enter_M, leave_M]))
    count = breaks.shape[0]

    def halve(_, bounds):
        # Invariant: the sum at breaks[low] is at most `total` (or low = 0), and above it at breaks[high].
        low, high = bounds
        middle = (low + high) // 2
        small = jnp.clip(rise(breaks[middle]), lower_M, upper_M).sum() <= total
        return jnp.where(small, middle, low), jnp.where(small, high, middle)

    rounds = math.ceil(math.log2(count)) + 1
    low, _ = jax.lax.fori_loop(0, rounds, halve, (jnp.zeros((), int), jnp.full((), count)))
    tau = breaks[low]
    above_M = leave_M <= tau
    return tau, (enter_M > tau) & ~above_M, above_M


def _log(x_M):
    return jnp.where(x_M > 0, jnp.log(jnp.where(x_M > 0, x_M, 1.0)), -jnp.inf)


def _exp(log_v_M, tau):
    # τ = ±∞ is a breakpoint of empty bounds, where ∞ − ∞ would be NaN.
    return jnp.where(jnp.isneginf(log_v_M), 0.0, jnp.exp(jnp.where(jnp.isneginf(log_v_M), 0.0, log_v_M) + tau))
