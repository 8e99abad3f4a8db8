"""Check that some mixture meets the constraints; if none does, say what to change (METHOD §2, step 4)."""

import numpy as np

from olmix_jax.propose.constraints import Constraints, Repetition
from olmix_jax.solver.feasibility import explain, feasible
from olmix_jax.utils.errors import UserError


def check_feasible(constraints: Constraints) -> None:
    """Raise an error if no mixture meets the constraints.

    Raises:
      UserError: names the domains or the group at fault. If the repetition caps are the reason, it also gives the
        smallest max_repeats and the largest target_tokens that help.
    """
    fault = explain(constraints.bounds, constraints.names, constraints.groups)
    if fault is None:
        return
    limit = constraints.repetition
    if limit is None:
        raise UserError(fault)
    # With this many repeats no cap is below 1, except that of a domain without text.
    tokens_M, target = limit.tokens_M, limit.target_tokens
    enough = max(limit.max_repeats, target / tokens_M.min(where=tokens_M > 0, initial=target))
    if not _feasible_with(constraints, limit, enough):
        raise UserError(f"{fault}; no number of repeats helps")
    repeats = _fewest_repeats(constraints, limit, enough)
    tokens = target * (limit.max_repeats / repeats)
    raise UserError(
        f"{fault}. The target run has {target:,.0f} tokens, and {tokens_M.sum():,.0f} are unique: set "
        f"propose.max_repeats to {rounded(repeats, np.ceil)} or more, "
        + (f"or propose.target_tokens to {rounded(tokens, np.floor)} or less, " if tokens >= 1 else "")
        + "or add text to these domains"
    )


def rounded(value: float, direction, digits: int = 6) -> str:
    """Return ``value`` with this many digits, rounded by ``direction`` (np.ceil or np.floor) so that advice holds."""
    unit = 10.0 ** (np.floor(np.log10(value)) - digits + 1)
    # The tolerance of a search for the value must not change its last digit.
    nudge = -1e-7 if direction is np.ceil else 1e-7
    return f"{direction(value / unit + nudge) * unit:.12g}"


def _feasible_with(constraints: Constraints, limit: Repetition, repeats: float) -> bool:
    user_upper_M = constraints.user_upper_M
    user_upper_M = np.ones(len(constraints.names)) if user_upper_M is None else np.asarray(user_upper_M, np.float64)
    upper_M = np.minimum(user_upper_M, limit.caps(repeats))
    return feasible(constraints.bounds._replace(upper_M=upper_M))


def _fewest_repeats(constraints: Constraints, limit: Repetition, enough: float) -> float:
    """Return the smallest feasible max_repeats, by bisection between too few and ``enough``."""
    too_few = limit.max_repeats
    while enough > too_few * (1 + 1e-12):
        middle = np.sqrt(too_few) * np.sqrt(enough) if enough > 4 * too_few else (too_few + enough) / 2
        if middle in (too_few, enough):
            break
        if _feasible_with(constraints, limit, middle):
            enough = middle
        else:
            too_few = middle
    return enough
