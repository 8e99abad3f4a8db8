"""What bounds a proposal, how often it repeats each domain, and what more data or more repeats would be worth.

Multipliers of the solver are per unit of a cap. The repetition cap is k·N/R, so one more unique token raises it by
k/R, and one more repeat raises it by N/R. That turns a multiplier into the price of a token or of a repeat.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from olmix_jax.propose.formulation import Formulation
from olmix_jax.propose.proposal_parts import Group, by_name
from olmix_jax.solver.solution import Solution


@dataclasses.dataclass(frozen=True)
class Prices:
    """Caps, repeats and prices of a proposal. Field names are those of the proposal."""

    capped_by: dict[str, str | None]
    groups: tuple[Group, ...] = ()
    repeats: dict[str, float] | None = None
    shadow_prices: dict[str, float] | None = None
    repeat_prices: dict[str, float] | None = None


def prices(formulation: Formulation, solution: Solution, weights_M, domains: Sequence[str]) -> Prices:
    """Return what caps each domain and, if repetition is capped, repeats and prices.

    ``capped_by`` is "repetition" where the cap is k·N/R, "bound" where a bound of the user or an anchor weight of 0 is
    lower, and None without a cap.
    """
    upper_M, limit = formulation.problem.bounds.upper_M, formulation.constraints.repetition
    repetition_M = np.ones(len(upper_M)) if limit is None else limit.caps()
    by_repetition_M = (upper_M < 1) & np.isclose(upper_M, repetition_M, rtol=1e-12, atol=0)
    by = ["repetition" if repeated else "bound" if cap < 1 else None for repeated, cap in zip(by_repetition_M, upper_M)]
    result = Prices(dict(zip(domains, by, strict=True)), _groups(formulation, solution, weights_M, domains))
    if limit is None:
        return result
    result = dataclasses.replace(result, repeats=by_name(domains, weights_M * limit.target_tokens / limit.tokens_M))
    if solution.multipliers_M is None:
        return result
    # More tokens or repeats raise only the caps that repetition sets.
    multipliers_M = np.where(by_repetition_M, domain_multipliers(formulation, solution.multipliers_M), 0.0)
    return dataclasses.replace(
        result,
        shadow_prices=by_name(domains, multipliers_M * limit.max_repeats / limit.target_tokens * 1e9),
        repeat_prices=by_name(domains, multipliers_M * limit.tokens_M / limit.target_tokens),
    )


def _groups(formulation: Formulation, solution: Solution, weights_M, domains: Sequence[str]) -> tuple[Group, ...]:
    bounds, names = formulation.problem.bounds, formulation.constraints.groups
    multipliers_G = solution.group_multipliers_G
    multipliers_G = np.zeros(len(names)) if multipliers_G is None else multipliers_G
    return tuple(
        Group(
            name=name,
            domains=tuple(d for d, inside in zip(domains, bounds.member_GM[g]) if inside),
            low=float(bounds.low_G[g]),
            high=float(bounds.high_G[g]),
            weight=float(weights_M[bounds.member_GM[g]].sum()),
            multiplier=float(multipliers_G[g]),
        )
        for g, name in enumerate(names)
    )


def domain_multipliers(formulation: Formulation, multipliers_D) -> np.ndarray:
    """Return multipliers_M of the domains' caps for those of the blocks' caps.

    A block's cap is min_j upper_j / p̃_j. Its multiplier belongs to the member j with the smallest ratio, and is divided
    by p̃_j because one unit of upper_j raises the block's cap by 1/p̃_j.
    """
    if formulation.blocks is None:
        return multipliers_D
    multipliers_M, ratios_DM = np.zeros(len(formulation.natural_M)), formulation.blocks.ratios_DM
    for d, j in enumerate(capping_members(formulation)):
        multipliers_M[j] = multipliers_D[d] / ratios_DM[d, j]
    return multipliers_M


def capping_members(formulation: Formulation) -> np.ndarray:
    """Return index_D of the domain whose upper bound caps each block."""
    if formulation.blocks is None:
        return np.arange(len(formulation.natural_M))
    ratios_DM = formulation.blocks.ratios_DM
    with np.errstate(divide="ignore", invalid="ignore"):
        room_DM = np.where(ratios_DM > 0, formulation.problem.bounds.upper_M / ratios_DM, np.inf)
    return room_DM.argmin(axis=1)
