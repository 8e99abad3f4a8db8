"""Bounds on a mixture from how often data may be repeated, and whether any mixture meets them (METHOD §2, step 4)."""

from collections.abc import Sequence

import numpy as np

from olmix_jax.solver.bounds import Bounds
from olmix_jax.solver.feasibility import explain, feasible
from olmix_jax.utils.errors import UserError


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
    fault = explain(bounds, names, groups)
    if fault is None:
        return
    if tokens_M is None or target_tokens is None or max_repeats is None:
        raise UserError(fault)
    wished_M = np.ones(len(names)) if wished_M is None else np.asarray(wished_M, np.float64)

    def meets(repeats):
        upper_M = np.minimum(wished_M, repetition_caps(tokens_M, target_tokens, repeats))
        return feasible(bounds._replace(upper_M=upper_M))

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


def rounded(value: float, direction, digits: int = 6) -> str:
    """``value`` to so many digits, rounded in the direction that keeps the advice true."""
    unit = 10.0 ** (np.floor(np.log10(value)) - digits + 1)
    # What the search for the value left over is no reason for another digit.
    nudge = -1e-7 if direction is np.ceil else 1e-7
    return f"{direction(value / unit + nudge) * unit:.12g}"
