"""Bounds on domains and on groups of domains, and projections onto the mixtures within them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# A group is at its bound if its sum is this close to it.
AT = 1e-13


class Bounds(NamedTuple):
    """{p : lower ≤ p ≤ upper, Σ_j p_j = 1, low_g ≤ Σ_{j ∈ g} p_j ≤ high_g for each group}; a pytree.

    Two groups are disjoint or nested. An inner group comes before the groups around it (:func:`inner_first`).

    Attributes:
      lower_M: lower bounds, at least 0.
      upper_M: upper bounds (caps), at least ``lower_M``.
      member_GM: whether the domain is in the group.
      low_G: lower bound of the group's sum.
      high_G: upper bound of the group's sum.
    """

    lower_M: Any
    upper_M: Any
    member_GM: Any
    low_G: Any
    high_G: Any


def box(lower_M, upper_M) -> Bounds:
    """Return bounds without groups."""
    return Bounds(lower_M, upper_M, np.zeros((0, lower_M.shape[-1]), bool), np.zeros(0), np.zeros(0))


def within(project: Callable, v_M, bounds: Bounds):
    """Extend ``project(v, lower, upper, total)`` from bounds on domains to bounds on groups. Pure JAX.

    Within a group, the solution depends only on the group's total, and moves monotonically with it. So the entries lie
    between the group's solutions for its smallest and its largest total. These two are bounds on domains that replace
    the group. Groups are replaced in order, inner ones first.
    """

    def narrow(sides, group):
        lower_M, upper_M = sides
        member_M, low, high = group
        inside = jnp.where(member_M, lower_M, 0.0), jnp.where(member_M, upper_M, 0.0)
        reach = inside[0].sum(), inside[1].sum()
        low_M, high_M = (project(v_M, *inside, jnp.clip(total, *reach)) for total in (low, high))
        lower_M = jnp.where(member_M, low_M, lower_M)
        return (lower_M, jnp.where(member_M, jnp.maximum(high_M, low_M), upper_M)), None

    sides: Any = bounds.lower_M, bounds.upper_M
    if len(bounds.low_G):
        groups = bounds.member_GM, bounds.low_G, bounds.high_G
        sides = jax.lax.scan(narrow, tuple(map(jnp.asarray, sides)), tuple(map(jnp.asarray, groups)))[0]
    return project(v_M, *sides, 1.0)


def at_bounds(bounds: Bounds, p_M):
    """Return (at_low_G, at_high_G): whether each group is at its bounds. Bounds of 0 and 1 never bind."""
    sum_G = bounds.member_GM @ p_M
    at_low_G = (sum_G <= bounds.low_G + AT) & (bounds.low_G > 0)
    return at_low_G, (sum_G >= bounds.high_G - AT) & (bounds.high_G < 1)


def classes(bounds: Bounds, p_M):
    """Return class_CM, C = G + 1: the class of a domain is the innermost group around it that is at a bound.

    The last class holds the other domains. As long as these groups stay at their bounds, the sum over a class is
    constant.
    """
    at_low_G, at_high_G = at_bounds(bounds, p_M)
    inside_GM = bounds.member_GM & (at_low_G | at_high_G)[:, None]
    # Inner groups come first, so the first group with the domain is its class.
    first_GM = jnp.cumsum(inside_GM, axis=0) == 1
    return jnp.concatenate([inside_GM & first_GM, ~inside_GM.any(axis=0, keepdims=True)])


def holds(bounds: Bounds, ratios_KM, slack: float = 0.0) -> np.ndarray:
    """Return whether each mixture is within the bounds, up to ``slack``; for groups, also up to rounding."""
    ratios_KM = np.asarray(ratios_KM, np.float64)
    sum_KG, slack_sum = ratios_KM @ bounds.member_GM.T, max(slack, AT)
    inside_K = ((ratios_KM >= bounds.lower_M - slack) & (ratios_KM <= bounds.upper_M + slack)).all(axis=1)
    return inside_K & ((sum_KG >= bounds.low_G - slack_sum) & (sum_KG <= bounds.high_G + slack_sum)).all(axis=1)


def inner_first(member_GM) -> np.ndarray:
    """Return an order of the groups in which inner groups come first."""
    return np.argsort(np.asarray(member_GM).sum(axis=1), kind="stable")


def overlapping(member_GM) -> tuple[int, int] | None:
    """Return two groups that share domains but are not nested; None if there are no such groups."""
    member_GM = np.asarray(member_GM, bool)
    shared_GG = member_GM.astype(int) @ member_GM.T.astype(int)
    size_G = np.diag(shared_GG)
    bad_GG = (shared_GG > 0) & (shared_GG < np.minimum(size_G[:, None], size_G[None, :]))
    if not bad_GG.any():
        return None
    first, second = np.argwhere(bad_GG)[0]
    return int(first), int(second)
