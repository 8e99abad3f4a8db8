"""Mixtures in whole tokens (or sequences): largest remainders that never break a cap of a domain or of a group.

Domains, groups and the total form a tree, and every node has bounds. The bounds that integers can meet are computed
from the leaves up. A node's lower bound is the larger of its given lower bound and the sum of its children's. Its upper
bound is the smaller of its given upper bound and the sum of its children's. A solution exists if and only if no lower
bound exceeds its upper bound (constraints on a laminar family are totally unimodular). Units can therefore be given out
one by one, each to the domain furthest below its share, and only the path from that domain to the root has to be
checked. The feasible sets are M-convex, for which this greedy order is optimal (Murota, Discrete Convex Analysis,
2003). Arithmetic is in fractions, exact at any total.

:func:`olmix_jax.swarm.apportion.snap` is the fast form in float64, for caps on single domains only.
"""

import heapq
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from olmix_jax.swarm.apportion import LARGE, checked_weights
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.names import listed

# Absolute tolerance of `bound × total` [units], and its relative tolerance: a float cap k·N/R has been rounded twice.
SLACK = Fraction(1, 10**9)
ROUNDED = Fraction(1, 2**52)
# Tolerance of weights outside their bounds.
OUTSIDE = 1e-9
# An error suggests a total that works: number of totals to try.
TRIED = 2000


class Group(NamedTuple):
    """Domains whose summed weight has bounds.

    Attributes:
      members: column indices, or a mask.
      lower: lower bound of the sum.
      upper: upper bound of the sum.
    """

    members: np.ndarray
    lower: float
    upper: float


class _Node(NamedTuple):
    """A domain, a group or the total: index of its parent (−1 for the total), bounds as weights, and name."""

    parent: int
    lower: Fraction
    upper: Fraction
    name: str


def counts(
    weights_M, total: int, lower_M, upper_M, groups: Sequence[Group] = (), names: Sequence[str] | None = None
) -> np.ndarray:
    """Return the mixture in whole units nearest to ``weights_M`` that keeps every bound, up to rounding.

    argmin over integer counts_M, Σ counts = total, of Σ_j φ(counts_j − total·w_j) for every strictly convex, even φ at
    once, with ceil(lower·total) ≤ counts ≤ floor(upper·total) for each domain and for the sum of each group. A product
    within 1e-9 of an integer, or within the two roundings of a cap k·N/R, counts as that integer. Only if no whole
    numbers meet these bounds, bounds of LARGE units or more are rounded outwards, by less than one unit. Every
    |counts_j − total·w_j| is below 1 unless the bounds in whole units forbid it. Ties go to the lower index. A zero
    weight stays zero unless the bounds leave no other place.

    Args:
      weights_M: weights ≥ 0, within the bounds to 1e-9; normalised here.
      total: units of the run, tokens or sequences.
      lower_M: lower bounds of the weights.
      upper_M: upper bounds of the weights.
      groups: bounds on sums of weights; any two groups are disjoint or nested.
      names: the M domains, for messages.

    Returns:
      counts_M, int64, summing to ``total`` exactly.

    Raises:
      UserError: ``total`` is not whole, below 1, or 2⁶³ or more; the weights are not a mixture or break a bound; groups
        overlap without being nested; or no whole numbers meet the bounds. The last message names the domains and, if
        there is one, a total that works.
    """
    weights_M = checked_weights(weights_M)
    names = [f"domain {j}" for j in range(len(weights_M))] if names is None else list(names)
    if not 1 <= total < 2**63 or total != int(total):
        raise UserError(f"a run needs a whole number of units, at least one and fewer than 2**63, not {total}")
    # Products with a NumPy integer could overflow.
    total = int(total)
    tree = _tree(np.asarray(lower_M, np.float64), np.asarray(upper_M, np.float64), groups, names)
    share_M = [Fraction(w) for w in weights_M.tolist()]
    sum_of_shares = sum(share_M)
    share_M = [w / sum_of_shares for w in share_M]
    _check_inside(share_M, tree)
    low_V, high_V = _whole(tree, total)
    if conflict := _propagate(tree, low_V, high_V):
        low_V, high_V = _whole(tree, total, outwards=True)
        conflict = _propagate(tree, low_V, high_V)
    if conflict:
        raise UserError(f"{conflict} ({total} units): {_advice(tree, total)}")
    wanted_M = [w * total for w in share_M]
    return np.array(_nearest(tree, wanted_M, low_V, high_V), np.int64)


def _tree(lower_M, upper_M, groups: Sequence, names: list[str]) -> list[_Node]:
    """Return the domains in order, then the groups from small to large, then the total: children before parents."""
    M = len(names)
    if not lower_M.shape == upper_M.shape == (M,):
        raise UserError(
            f"each bound must have one value per domain, {M}; the shapes are {lower_M.shape} and {upper_M.shape}"
        )
    members = [np.asarray(g.members) for g in groups]
    sets = [frozenset((np.flatnonzero(m) if m.dtype == bool else m).tolist()) for m in members]
    if outside := sorted(set().union(*sets) - set(range(M))):
        raise UserError(f"a group contains column {outside[0]}, but there are only {M} domains")
    if empty := [g for g in range(len(sets)) if not sets[g] and groups[g].lower > 0]:
        raise UserError(f"a group without domains has the lower bound {groups[empty[0]].lower:.6g}; it must be 0")
    order = sorted((g for g in range(len(sets)) if sets[g]), key=lambda g: len(sets[g]))
    spans = [*(frozenset([j]) for j in range(M)), *(sets[g] for g in order), frozenset(range(M))]
    bounds = [*zip(lower_M, upper_M), *((groups[g].lower, groups[g].upper) for g in order), (1.0, 1.0)]
    nodes = []
    for v, (span, (lower, upper)) in enumerate(zip(spans, bounds)):
        name = "the total" if v == len(spans) - 1 else listed([names[j] for j in sorted(span)])
        # Sums of weights may differ by rounding from the bounds that they are to meet.
        if upper < lower <= upper + OUTSIDE:
            lower = upper
        if not 0 <= lower <= upper:
            raise UserError(f"no weight meets the bounds of {name}: from {lower:.6g} to {upper:.6g}")
        above = [u for u in range(max(v + 1, M), len(spans)) if span & spans[u]]
        if crossing := [u for u in above if not span <= spans[u]]:
            other = listed([names[j] for j in sorted(spans[crossing[0]])])
            raise UserError(f"the groups {name} and {other} overlap: make them disjoint, or make one contain the other")
        parent = above[0] if above else -1
        nodes.append(_Node(parent, Fraction(float(lower)), Fraction(float(min(upper, 1.0))), name))
    return nodes


def _check_inside(share_M: list[Fraction], tree: list[_Node]) -> None:
    for node, share in zip(tree, _summed(tree, share_M)):
        if not node.lower - Fraction(OUTSIDE) <= share <= node.upper + Fraction(OUTSIDE):
            raise UserError(
                f"the weight {float(share):.9g} of {node.name} is outside its bounds, {float(node.lower):.9g} to "
                f"{float(node.upper):.9g}: give a mixture that keeps its bounds"
            )


def _summed(tree: list[_Node], leaf_M: list) -> list:
    """Return the sum over the leaves under each node."""
    sum_V = [*leaf_M, *[0] * (len(tree) - len(leaf_M))]
    for v, node in enumerate(tree[:-1]):
        sum_V[node.parent] += sum_V[v]
    return sum_V


def _whole(tree: list[_Node], total: int, *, outwards: bool = False) -> tuple[list[int], list[int]]:
    """Return the bounds of each node in units: lower and upper. ``outwards`` rounds large ones outwards."""
    down, up = (1 - ROUNDED) * total, (1 + ROUNDED) * total
    low_V = [math.ceil(node.lower * down - SLACK) for node in tree]
    high_V = [math.floor(node.upper * up + SLACK) for node in tree]
    if outwards:
        low_V = [math.floor(n.lower * up + SLACK) if n.lower * total >= LARGE else low for n, low in zip(tree, low_V)]
        high_V = [
            math.ceil(n.upper * down - SLACK) if n.upper * total >= LARGE else top for n, top in zip(tree, high_V)
        ]
    low_V[-1] = high_V[-1] = total
    return [max(low, 0) for low in low_V], high_V


def _propagate(tree: list[_Node], low_V: list[int], high_V: list[int]) -> str:
    """Tighten the bounds, in place, to what the leaves allow. Return a description of the first conflict, or ""."""
    inner = {node.parent for node in tree}
    least_V, most_V = [0] * len(tree), [0] * len(tree)
    for v, node in enumerate(tree):
        if low_V[v] > high_V[v]:
            return f"no whole number of units is within the bounds of {node.name}"
        if v in inner:
            if most_V[v] < low_V[v]:
                return f"at most {_parts(tree, v, high_V)}: room for {most_V[v]} of the {low_V[v]} units of {node.name}"
            if least_V[v] > high_V[v]:
                return f"at least {_parts(tree, v, low_V)}: {least_V[v]} units, but {node.name} allows {high_V[v]}"
            low_V[v], high_V[v] = max(low_V[v], least_V[v]), min(high_V[v], most_V[v])
        if node.parent >= 0:
            least_V[node.parent] += low_V[v]
            most_V[node.parent] += high_V[v]
    return ""


def _parts(tree: list[_Node], parent: int, bound_V: list[int]) -> str:
    return listed([f"{bound} of {node.name}" for node, bound in zip(tree, bound_V) if node.parent == parent])


def _nearest(tree: list[_Node], wanted_M: list[Fraction], low_V: list[int], high_V: list[int]) -> list[int]:
    """Start from the lower bounds and give each unit to the domain furthest below its share that can take it."""
    M = len(wanted_M)
    held_V = [low if v < M and wanted_M[v] == 0 else high for v, (low, high) in enumerate(zip(low_V, high_V))]
    if not _propagate(tree, [*low_V], [*held_V]):
        high_V = held_V
    low_V = _first_units(tree, wanted_M, low_V, high_V)
    least_V = [0] * len(tree)
    for v, node in enumerate(tree[:-1]):
        least_V[node.parent] += low_V[v]
    # Differences are rounded so that float errors do not break ties: the lower index wins.
    units = [(round(float(low_V[j] - wanted_M[j]), 6), j) for j in range(M)]
    heapq.heapify(units)
    while units:
        over, j = heapq.heappop(units)
        # A domain that cannot take a unit now never can later, as the room on its path only shrinks.
        if _add_unit(tree, j, low_V, high_V, least_V):
            heapq.heappush(units, (over + 1, j))
    return low_V[:M]


def _first_units(tree: list[_Node], wanted_M: list[Fraction], low_V: list[int], high_V: list[int]) -> list[int]:
    """Raise all counts at once to ``wanted_M + over``, for the largest integer ``over`` that is feasible."""
    M, total = len(wanted_M), low_V[-1]

    def filled(over: int) -> list[int]:
        return [min(max(low, math.ceil(w) + over), high) for low, w, high in zip(low_V, wanted_M, high_V)] + low_V[M:]

    yes, no = -total - 1, total + 1
    while no - yes > 1:
        over = (yes + no) // 2
        if _propagate(tree, filled(over), [*high_V]):
            no = over
        else:
            yes = over
    low_V = filled(yes)
    _propagate(tree, low_V, [*high_V])
    return low_V


def _add_unit(tree: list[_Node], j: int, low_V: list[int], high_V: list[int], least_V: list[int]) -> bool:
    """Give domain j one more unit if a solution remains possible. Return whether the unit was given.

    Args:
      tree: from :func:`_tree`.
      j: the domain.
      low_V: current lower bound of each node; the bounds on the path are raised in place.
      high_V: upper bound of each node.
      least_V: sum of ``low_V`` over each node's children; raised in place.
    """
    rising = [j]
    while low_V[rising[-1]] < high_V[rising[-1]]:
        parent = tree[rising[-1]].parent
        if least_V[parent] < low_V[parent]:
            for v in rising:
                low_V[v] += 1
                least_V[tree[v].parent] += 1
            return True
        rising.append(parent)
    return False


def _advice(tree: list[_Node], total: int) -> str:
    """Return advice for an infeasible request: a larger total that works, or how far to loosen the bounds."""
    # A node whose lower bound is positive needs an upper bound of at least one unit.
    needed = [(1 - SLACK) / n.upper for n in tree if n.upper > 0 and n.lower * total > 2 * SLACK]
    first = max(total + 1, math.ceil(max(needed, default=1) * (1 - ROUNDED)))
    for larger in range(first, first + TRIED):
        if not _propagate(tree, *_whole(tree, larger, outwards=True)):
            return f"use a total of {larger} units, the smallest that works, or loosen each bound by 1/{total}"
    # If each bound is looser by one unit, every node may round up or down, and a solution always exists.
    return f"no total up to {first + TRIED - 1} works: loosen each bound by 1/{total}"
