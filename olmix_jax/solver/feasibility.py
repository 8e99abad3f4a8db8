"""Whether any mixture meets a set of bounds."""

from collections.abc import Sequence

import numpy as np

from olmix_jax.solver.bounds import Bounds
from olmix_jax.utils.names import listed

# Bounds that contradict each other by at most this much count as feasible, because of rounding.
SLACK = 1e-12


def feasible(bounds: Bounds) -> bool:
    """Return whether some mixture meets the bounds."""
    return explain(bounds) is None


def explain(bounds: Bounds, names: Sequence[str] = (), groups: Sequence[str] = ()) -> str | None:
    """Return why no mixture meets the bounds, naming domains or a group; None if one does.

    Args:
      bounds: the bounds to check.
      names: names of the M domains; "domain 0", "domain 1", … by default.
      groups: names of the G groups; "group 0", "group 1", … by default.
    """
    lower_M, upper_M = np.asarray(bounds.lower_M, np.float64), np.asarray(bounds.upper_M, np.float64)
    names = names or [f"domain {j}" for j in range(len(lower_M))]
    groups = groups or [f"group {g}" for g in range(len(bounds.low_G))]
    wrong_M = ~((0 <= lower_M) & (lower_M <= upper_M) & (upper_M <= 1))
    if wrong_M.any():
        items = [f"{names[j]} [{lower_M[j]:.6g}, {upper_M[j]:.6g}]" for j in np.flatnonzero(wrong_M).tolist()]
        return f"bounds must satisfy 0 ≤ lower ≤ cap ≤ 1, not {listed(items)}"
    # The smallest and largest total of each group, from its domains and from the groups inside it.
    least_M, most_M = lower_M.copy(), upper_M.copy()
    for g, member_M in enumerate(np.asarray(bounds.member_GM, bool)):
        least, most = least_M[member_M].sum(), most_M[member_M].sum()
        low, high, name = float(bounds.low_G[g]), float(bounds.high_G[g]), groups[g]
        if low > high + SLACK:
            return f"the lower bound of {name}, {low:.6g}, exceeds its upper bound, {high:.6g}"
        if least > high + SLACK:
            return (
                f"the lower bounds of the domains of {name} sum to {least:.6g}, more than its upper bound "
                f"{high:.6g}; lower them"
            )
        if most < low - SLACK:
            return f"the caps of the domains of {name} sum to {most:.6g}, less than its lower bound {low:.6g}"
        # From here on the group's first domain represents the group.
        first = np.flatnonzero(member_M)[:1]
        least_M[member_M], most_M[member_M] = 0.0, 0.0
        least_M[first], most_M[first] = max(least, low), min(most, high)
    if least_M.sum() > 1 + SLACK:
        items = [f"{names[j]} {lower_M[j]:.6g}" for j in np.argsort(-lower_M) if lower_M[j] > 0]
        items += [f"{name} {low:.6g}" for name, low in zip(groups, bounds.low_G) if low > 0]
        return f"the lower bounds sum to {least_M.sum():.6g}, more than 1: {listed(items)}; lower them"
    if most_M.sum() < 1 - SLACK:
        items = [f"{names[j]} {upper_M[j]:.6g}" for j in np.argsort(upper_M)]
        items = [f"{name} {high:.6g}" for name, high in zip(groups, bounds.high_G) if high < 1] + items
        short = 1 - most_M.sum()
        # Six digits would hide a small shortage.
        total = f"{most_M.sum():.6g}" if short > 1e-6 else f"1 − {short:.3g}"
        return (
            f"the caps sum to {total}, less than 1, so no mixture meets them: {listed(items)}; raise them "
            f"by {short:.6g} in total"
        )
    return None
