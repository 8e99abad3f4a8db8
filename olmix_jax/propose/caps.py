"""Bounds on a mixture from how often data may be repeated, and whether any mixture meets them (METHOD §2, step 4)."""

from collections.abc import Sequence

import numpy as np

from olmix_jax.errors import UserError

SLACK = 1e-12
SHOWN = 10


def repetition_caps(tokens_M, target_tokens: float, max_repeats: float) -> np.ndarray:
    """upper_M = min(1, k·N_j/R): a run of R tokens with weight p_j goes p_j·R/N_j times over N_j unique tokens."""
    return np.minimum(1.0, max_repeats * np.asarray(tokens_M, np.float64) / target_tokens)


def check_feasible(
    lower_M,
    upper_M,
    names: Sequence[str],
    *,
    tokens_M=None,
    target_tokens: float | None = None,
    max_repeats: float | None = None,
) -> None:
    """Refuses bounds that no mixture meets.

    With ``tokens_M``, ``target_tokens`` and ``max_repeats`` the caps are taken to be those of :func:`repetition_caps`,
    and the message gives the least k, or the largest R, that helps: Σ_j min(1, kN_j/R) ≥ 1 exactly when kΣN ≥ R.

    Raises:
      UserError: naming the domains at fault and the least change.
    """
    lower_M, upper_M = np.asarray(lower_M, np.float64), np.asarray(upper_M, np.float64)
    crossed_M = ~((0 <= lower_M) & (lower_M <= upper_M) & (upper_M <= 1))
    if crossed_M.any():
        bounds = [f"{names[j]} [{lower_M[j]:.6g}, {upper_M[j]:.6g}]" for j in np.flatnonzero(crossed_M)]
        raise UserError(f"no weight meets the bounds (0 ≤ lower ≤ cap ≤ 1) of {_listed(bounds)}")
    if lower_M.sum() > 1 + SLACK:
        bounds = [f"{names[j]} {lower_M[j]:.6g}" for j in np.argsort(-lower_M) if lower_M[j] > 0]
        raise UserError(f"the lower bounds sum to {lower_M.sum():.6g}, more than 1: {_listed(bounds)}; lower them")
    if upper_M.sum() >= 1 - SLACK:
        return
    bounds = [f"{names[j]} {upper_M[j]:.6g}" for j in np.argsort(upper_M)]
    message = f"the caps sum to {upper_M.sum():.6g}, less than 1, so no mixture meets them: {_listed(bounds)}"
    if tokens_M is None or target_tokens is None or max_repeats is None:
        raise UserError(f"{message}; raise them by {1 - upper_M.sum():.6g} in all")
    total = float(np.sum(tokens_M))
    raise UserError(
        f"{message}. {target_tokens:,.0f} target tokens repeat {total:,.0f} unique ones at least "
        f"{target_tokens / total:.4g} times: set propose.max_repeats to {_rounded(target_tokens / total, np.ceil)} or "
        f"more, or propose.target_tokens to {_rounded(max_repeats * total, np.floor)} or less, or add text to these "
        "domains"
    )


def _listed(items: Sequence[str]) -> str:
    return ", ".join(items[:SHOWN]) + (f" and {len(items) - SHOWN} more" if len(items) > SHOWN else "")


def _rounded(value: float, direction) -> str:
    """``value`` to six digits, rounded in the direction that keeps the advice true."""
    unit = 10.0 ** (np.floor(np.log10(value)) - 5)
    return f"{direction(value / unit) * unit:.12g}"
