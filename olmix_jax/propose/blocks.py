"""Mixtures in which some domains keep their relative ratios: collapsed to fewer weights, and back (METHOD §3).

A block of domains of kept ratios p̃ (summing to 1) becomes one virtual domain of weight r_v, expanded as q_j = r_v p̃_j.
Pure functions on arrays; a block of one domain is that domain.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from olmix_jax.solver.bounds import Bounds
from olmix_jax.utils.errors import UserError


class Blocks(NamedTuple):
    """A partition of M domains into D blocks.

    Attributes:
      names: of the blocks; a domain's own name where it is alone.
      ratios_DM: p̃ of each block over all domains, so that a collapsed mixture r expands to r @ ratios_DM.
    """

    names: tuple[str, ...]
    ratios_DM: np.ndarray


def blocks(kept: dict[str, dict[str, float]], domains: Sequence[str]) -> Blocks:
    """The blocks {name: {domain: ratio}}, in the order given and before the domains that are in none.

    Raises:
      UserError: a block is no object of ratios or has a domain's name; a domain is unknown or in two blocks; a ratio
        is no positive number.
    """
    rows, home = [], {}
    for name, ratios in kept.items():
        if name in domains:
            raise UserError(f"propose.keep_ratios: a block cannot be called {name}, as a domain is")
        if not isinstance(ratios, dict):
            raise UserError(f'propose.keep_ratios: {name} must be as {{"domain": ratio, …}}, not {ratios!r}')
        for domain, ratio in ratios.items():
            if domain not in domains:
                raise UserError(f"propose.keep_ratios: {name} has {domain}, which is no domain")
            if domain in home:
                raise UserError(f"propose.keep_ratios: {domain} is in {home[domain]} and in {name}")
            if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 < ratio < np.inf:
                raise UserError(f"propose.keep_ratios: {name}: {domain} must be a positive number, not {ratio!r}")
            home[domain] = name
        if not ratios:
            raise UserError(f"propose.keep_ratios: {name} has no domain")
        row_M = np.array([float(ratios.get(domain, 0)) for domain in domains])
        rows.append(row_M / row_M.sum())
    alone = [j for j, domain in enumerate(domains) if domain not in home]
    rows += list(np.eye(len(domains))[alone])
    return Blocks((*kept, *(domains[j] for j in alone)), np.array(rows).reshape(-1, len(domains)))


def collapsed_bounds(bounds: Bounds, blocks: Blocks, groups: Sequence[str] = ()) -> Bounds:
    """Where a collapsed mixture may be, so that the expanded one is within ``bounds``: exactly there (paper, Lemma 1).

    r_v p̃_j ≤ upper_j for every member, so r_v ≤ min_j upper_j / p̃_j; lower bounds alike.

    Raises:
      UserError: a block is in a group only in part.
    """
    has_DM = blocks.ratios_DM > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        upper_D = np.where(has_DM, bounds.upper_M / blocks.ratios_DM, np.inf).min(axis=1)
        lower_D = np.where(has_DM, bounds.lower_M / blocks.ratios_DM, 0.0).max(axis=1)
    member_GD = np.zeros((len(bounds.low_G), len(blocks.names)), bool)
    for g, member_M in enumerate(np.asarray(bounds.member_GM, bool)):
        some_D, all_D = (has_DM & member_M).any(axis=1), ~(has_DM & ~member_M).any(axis=1)
        if (some_D & ~all_D).any():
            name = blocks.names[int(np.argmax(some_D & ~all_D))]
            raise UserError(f"propose.bounds: {groups[g] if groups else g} has only a part of the block {name}")
        member_GD[g] = some_D
    return Bounds(lower_D, np.minimum(upper_D, 1.0), member_GD, bounds.low_G, bounds.high_G)


def collapsed_anchor(anchor_M, blocks: Blocks) -> np.ndarray:
    """n with KL(expanded r ‖ anchor) = Σ_d r_d ln(r_d / n_d), n_v = Π_j (anchor_j / p̃_j)^p̃_j; not of sum 1."""
    ratios_DM = blocks.ratios_DM
    with np.errstate(divide="ignore", invalid="ignore"):
        terms_DM = np.where(ratios_DM > 0, ratios_DM * np.log(np.asarray(anchor_M, np.float64) / ratios_DM), 0.0)
    return np.exp(terms_DM.sum(axis=1))


def collapse(ratios_KM, blocks: Blocks) -> np.ndarray:
    """ratios_KD: each block's weight."""
    return np.asarray(ratios_KM, np.float64) @ (blocks.ratios_DM > 0).T


def expand(ratios_KD, blocks: Blocks) -> np.ndarray:
    """ratios_KM."""
    return np.asarray(ratios_KD, np.float64) @ blocks.ratios_DM


def proxies(dimensions: int, per_dimension: float = 3.0) -> int:
    """Runs for a swarm over so many weights: the power of two nearest 3·(dimensions + 1) (METHOD §3); 0 for one.

    Of two equally near it is the smaller. One weight is 1, and there is nothing to find out.
    """
    if dimensions <= 1:
        return 0
    wanted = per_dimension * (dimensions + 1)
    below = 2 ** int(np.floor(np.log2(wanted)))
    return below if wanted - below <= 2 * below - wanted else 2 * below
