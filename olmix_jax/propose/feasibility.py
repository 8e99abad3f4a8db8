"""Bounds on a mixture from how often data may be repeated, and whether any mixture meets them (METHOD §2, step 4)."""

from collections.abc import Sequence

import numpy as np

from olmix_jax.solver.bounds import Bounds
from olmix_jax.utils.errors import UserError

SLACK = 1e-12
SHOWN = 10


def repetition_caps(tokens_M, target_tokens: float, max_repeats: float) -> np.ndarray:
    """upper_M = min(1, k·N_j/R): a run of R tokens with weight p_j goes p_j·R/N_j times over N_j unique tokens."""
    with np.errstate(over="ignore"):
        return np.minimum(1.0, max_repeats * np.asarray(tokens_M, np.float64) / target_tokens)


def check_feasible(
    bounds: Bounds,
    names: Sequence[str],
    groups: Sequence[str] = (),
    *,
    wished_M=None,
    tokens_M=None,
    target_tokens: float | None = None,
    max_repeats: float | None = None,
) -> None:
    """Refuses bounds that no mixture meets.

    Args:
      bounds: what is to be met.
      names: of the domains.
      groups: names of the groups.
      wished_M: the upper bounds without those of repetition; all 1 without it.
      tokens_M: with the two that follow, the upper bounds are those wished and those of :func:`repetition_caps`; the
        message then gives the least k, or the largest R, that helps, if one does.
      target_tokens: R.
      max_repeats: k.

    Raises:
      UserError: naming the domains or the group at fault and the least change.
    """
    fault = _fault(bounds, names, groups)
    if fault is None:
        return
    if tokens_M is None or target_tokens is None or max_repeats is None:
        raise UserError(fault)
    wished_M = np.ones(len(names)) if wished_M is None else np.asarray(wished_M, np.float64)

    def meets(repeats):
        upper_M = np.minimum(wished_M, repetition_caps(tokens_M, target_tokens, repeats))
        return _fault(bounds._replace(upper_M=upper_M), names, groups) is None

    tokens_M = np.asarray(tokens_M, np.float64)
    # With so many repeats no cap is below 1 but for a domain without text.
    enough = max(max_repeats, target_tokens / tokens_M.min(where=tokens_M > 0, initial=target_tokens))
    if not meets(enough):
        raise UserError(f"{fault}; no number of repeats helps")
    short = max_repeats
    while enough > short * (1 + 1e-12):
        middle = np.sqrt(short) * np.sqrt(enough) if enough > 4 * short else (short + enough) / 2
        if middle in (short, enough):
            break
        short, enough = (short, middle) if meets(middle) else (middle, enough)
    longest = target_tokens * (max_repeats / enough)
    raise UserError(
        f"{fault}. {target_tokens:,.0f} target tokens of {tokens_M.sum():,.0f} unique ones: set propose.max_repeats to "
        f"{rounded(enough, np.ceil)} or more, "
        + (f"or propose.target_tokens to {rounded(longest, np.floor)} or less, " if longest >= 1 else "")
        + "or add text to these domains"
    )


def feasible(bounds: Bounds, names: Sequence[str]) -> bool:
    """Whether some mixture meets the bounds."""
    return _fault(bounds, names, ()) is None


def _fault(bounds: Bounds, names: Sequence[str], groups: Sequence[str]) -> str | None:
    """Why no mixture meets the bounds; None where one does."""
    lower_M, upper_M = np.asarray(bounds.lower_M, np.float64), np.asarray(bounds.upper_M, np.float64)
    crossed_M = ~((0 <= lower_M) & (lower_M <= upper_M) & (upper_M <= 1))
    if crossed_M.any():
        listed = [f"{names[j]} [{lower_M[j]:.6g}, {upper_M[j]:.6g}]" for j in np.flatnonzero(crossed_M)]
        return f"no weight meets the bounds (0 ≤ lower ≤ cap ≤ 1) of {_listed(listed)}"
    # What each group can have: the groups right inside it, and its other domains.
    least_M, most_M = lower_M.copy(), upper_M.copy()
    for g, member_M in enumerate(np.asarray(bounds.member_GM, bool)):
        least, most = least_M[member_M].sum(), most_M[member_M].sum()
        low, high, name = float(bounds.low_G[g]), float(bounds.high_G[g]), groups[g] if groups else f"group {g}"
        if low > high + SLACK:
            return f"{name} must have {low:.6g} at least and {high:.6g} at most"
        if least > high + SLACK:
            return f"{name} may have {high:.6g} at most, and its domains' lower bounds sum to {least:.6g}; lower them"
        if most < low - SLACK:
            return f"{name} must have {low:.6g} at least, and its domains' caps sum to {most:.6g}"
        # Its first domain stands for all of it from here on.
        first = np.flatnonzero(member_M)[:1]
        least_M[member_M], most_M[member_M] = 0.0, 0.0
        least_M[first], most_M[first] = max(least, low), min(most, high)
    if least_M.sum() > 1 + SLACK:
        listed = [f"{names[j]} {lower_M[j]:.6g}" for j in np.argsort(-lower_M) if lower_M[j] > 0]
        listed += [f"{g} {low:.6g}" for g, low in zip(groups, bounds.low_G) if low > 0]
        return f"the lower bounds sum to {least_M.sum():.6g}, more than 1: {_listed(listed)}; lower them"
    if most_M.sum() < 1 - SLACK:
        listed = [f"{names[j]} {upper_M[j]:.6g}" for j in np.argsort(upper_M)]
        listed = [f"{g} {high:.6g}" for g, high in zip(groups, bounds.high_G) if high < 1] + listed
        short = 1 - most_M.sum()
        return (
            f"the caps sum to {most_M.sum():.6g}, less than 1, so no mixture meets them: {_listed(listed)}; raise them "
            f"by {short:.6g} in all"
        )
    return None


def _listed(items: Sequence[str]) -> str:
    return ", ".join(items[:SHOWN]) + (f" and {len(items) - SHOWN} more" if len(items) > SHOWN else "")


def rounded(value: float, direction, digits: int = 6) -> str:
    """``value`` to so many digits, rounded in the direction that keeps the advice true."""
    unit = 10.0 ** (np.floor(np.log10(value)) - digits + 1)
    # What the search for the value left over is no reason for another digit.
    nudge = -1e-7 if direction is np.ceil else 1e-7
    return f"{direction(value / unit + nudge) * unit:.12g}"
