"""What bounds a mixture, how often it repeats each domain, and what more data or more repeats would be worth."""

import dataclasses

import numpy as np

from olmix_jax import config
from olmix_jax.propose.formulation import Posed
from olmix_jax.propose.proposal import Group, by_name
from olmix_jax.solver.solution import Solution


@dataclasses.dataclass(frozen=True)
class Prices:
    """What bounds a proposal and what loosening the bounds is worth: the proposal's fields of the same names."""

    capped_by: dict[str, str | None]
    groups: tuple[Group, ...] = ()
    repeats: dict[str, float] | None = None
    shadow_prices: dict[str, float] | None = None
    repeat_prices: dict[str, float] | None = None


def of(posed: Posed, found: Solution, weights_M, domains, tokens_M, settings: config.Propose) -> Prices:
    """Fields of a proposal: ``capped_by``, ``groups``, and where repetition is capped ``repeats`` and prices.

    ``capped_by`` is {domain: "repetition", where its cap is min(1, k·N/R); "bound", where a bound of the user's, or an
    anchor that has nothing of it, is lower; None without a cap}.
    """
    caps_M = posed.problem.bounds.upper_M
    # Only a cap that repetition sets moves with tokens and repeats: k·N/R.
    repeated_M = (caps_M < 1) & np.isclose(caps_M, posed.repeated_M, rtol=1e-12, atol=0)
    by = ["repetition" if repeated else "bound" if cap < 1 else None for repeated, cap in zip(repeated_M, caps_M)]
    prices = Prices(dict(zip(domains, by, strict=True)), _groups(posed, found, weights_M, domains))
    if not posed.capped:
        return prices
    tokens_M = np.asarray(tokens_M, np.float64)
    prices = dataclasses.replace(prices, repeats=by_name(domains, weights_M * settings.target_tokens / tokens_M))
    if found.multipliers_M is None:
        return prices
    multipliers_M = np.where(repeated_M, _of_members(posed, found.multipliers_M), 0.0)
    return dataclasses.replace(
        prices,
        shadow_prices=by_name(domains, multipliers_M * settings.max_repeats / settings.target_tokens * 1e9),
        repeat_prices=by_name(domains, multipliers_M * tokens_M / settings.target_tokens),
    )


def _groups(posed: Posed, found: Solution, weights_M, domains) -> tuple[Group, ...]:
    bounds = posed.problem.bounds
    price_G = found.group_multipliers_G if found.group_multipliers_G is not None else np.zeros(len(posed.groups))
    return tuple(
        Group(
            name=name,
            domains=tuple(d for d, inside in zip(domains, bounds.member_GM[g]) if inside),
            low=float(bounds.low_G[g]),
            high=float(bounds.high_G[g]),
            weight=float(weights_M[bounds.member_GM[g]].sum()),
            multiplier=float(price_G[g]),
        )
        for g, name in enumerate(posed.groups)
    )


def _of_members(posed: Posed, multipliers_D) -> np.ndarray:
    """Multipliers of domains' caps: a block's belongs to the member whose cap binds it, in units of that cap."""
    if posed.blocks is None:
        return multipliers_D
    found_M, ratios_DM = np.zeros(len(posed.natural_M)), posed.blocks.ratios_DM
    for d, price in enumerate(multipliers_D):
        with np.errstate(divide="ignore", invalid="ignore"):
            room_M = np.where(ratios_DM[d] > 0, posed.problem.bounds.upper_M / ratios_DM[d], np.inf)
        first = int(room_M.argmin())
        found_M[first] = price / ratios_DM[d, first]
    return found_M
