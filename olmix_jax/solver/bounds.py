"""Where a mixture may be: bounds per domain and per group of domains, and the projections that respect both."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# A sum this near to a group's bound is at it.
AT = 1e-13


class Bounds(NamedTuple):
    """{p : lower ≤ p ≤ upper, Σ_j p_j = 1, low_g ≤ Σ_{j ∈ g} p_j ≤ high_g for each group}; a pytree.

    Two groups are disjoint or one is inside the other, and then comes first (:func:`in_order`).

    Attributes:
      lower_M: at least 0.
      upper_M: at least ``lower_M``.
      member_GM: whether the domain is in the group.
      low_G: least weight of the group.
      high_G: most weight of the group.
    """

    lower_M: np.ndarray
    upper_M: np.ndarray
    member_GM: np.ndarray
    low_G: np.ndarray
    high_G: np.ndarray


def box(lower_M, upper_M) -> Bounds:
    """Bounds without groups."""
    return Bounds(lower_M, upper_M, np.zeros((0, lower_M.shape[-1]), bool), np.zeros(0), np.zeros(0))


def within(project: Callable, v_M, bounds: Bounds):
    """``project(v, lower, upper, total)`` on all of the bounds. Pure JAX.

    In a solution, a group's entries are those of the group alone for the total that it gets, which moves with the one
    multiplier of the whole between the group's bounds. So they are between the group's own solutions for its least and
    its most weight: bounds that say all there is to say of the group, and inner groups come first.
    """

    def narrow(sides, group):
        lower_M, upper_M = sides
        member_M, low, high = group
        own = jnp.where(member_M, lower_M, 0.0), jnp.where(member_M, upper_M, 0.0)
        reach = own[0].sum(), own[1].sum()
        low_M, high_M = (project(v_M, *own, jnp.clip(total, *reach)) for total in (low, high))
        lower_M = jnp.where(member_M, low_M, lower_M)
        return (lower_M, jnp.where(member_M, jnp.maximum(high_M, low_M), upper_M)), None

    sides = bounds.lower_M, bounds.upper_M
    if len(bounds.low_G):
        groups = bounds.member_GM, bounds.low_G, bounds.high_G
        sides = jax.lax.scan(narrow, tuple(map(jnp.asarray, sides)), tuple(map(jnp.asarray, groups)))[0]
    return project(v_M, *sides, 1.0)


def ends(bounds: Bounds, p_M):
    """(at_low_G, at_high_G): whether each group is at its bounds; 0 and 1 bound nothing that is not bounded anyway."""
    sum_G = bounds.member_GM @ p_M
    at_low_G = (sum_G <= bounds.low_G + AT) & (bounds.low_G > 0)
    return at_low_G, (sum_G >= bounds.high_G - AT) & (bounds.high_G < 1)


def classes(bounds: Bounds, p_M):
    """class_CM, C = G + 1: a domain's class is the innermost group at a bound that it is in; the last is that of none.

    Sums over each class cannot change as long as these groups stay at their bounds.
    """
    at_low_G, at_high_G = ends(bounds, p_M)
    inside_GM = bounds.member_GM & (at_low_G | at_high_G)[:, None]
    # Inner groups come first: the first that holds the domain is its class.
    first_GM = jnp.cumsum(inside_GM, axis=0) == 1
    return jnp.concatenate([inside_GM & first_GM, ~inside_GM.any(axis=0, keepdims=True)])


def holds(bounds: Bounds, ratios_KM, slack: float = 0.0) -> np.ndarray:
    """Whether each mixture is within the bounds; sums over groups are taken up to rounding."""
    ratios_KM = np.asarray(ratios_KM, np.float64)
    sum_KG, slack_sum = ratios_KM @ bounds.member_GM.T, max(slack, AT)
    inside_K = ((ratios_KM >= bounds.lower_M - slack) & (ratios_KM <= bounds.upper_M + slack)).all(axis=1)
    return inside_K & ((sum_KG >= bounds.low_G - slack_sum) & (sum_KG <= bounds.high_G + slack_sum)).all(axis=1)


def in_order(member_GM) -> np.ndarray:
    """An order of the groups in which inner ones come first."""
    return np.argsort(np.asarray(member_GM).sum(axis=1), kind="stable")


def crossing(member_GM) -> tuple[int, int] | None:
    """Two groups that share domains without one being inside the other; None where there are none."""
    member_GM = np.asarray(member_GM, bool)
    shared_GG = member_GM.astype(int) @ member_GM.T.astype(int)
    size_G = np.diag(shared_GG)
    bad_GG = (shared_GG > 0) & (shared_GG < np.minimum(size_G[:, None], size_G[None, :]))
    return tuple(int(g) for g in np.argwhere(bad_GG)[0]) if bad_GG.any() else None
