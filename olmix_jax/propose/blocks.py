"""Blocks of domains that keep their relative ratios (METHOD §3).

A block with ratios p̃ (of sum 1) becomes one weight r_v, and its domains get q_j = r_v p̃_j. The functions here map
mixtures, bounds and the KL anchor between M domains and D blocks. A domain outside all blocks forms a block alone.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from olmix_jax.propose.constraints import Constraints, Repetition
from olmix_jax.solver.bounds import Bounds
from olmix_jax.utils.errors import UserError


class Blocks(NamedTuple):
    """A partition of M domains into D blocks.

    Attributes:
      names: of the blocks; a domain alone keeps its name.
      ratios_DM: p̃ of each block over all domains. A collapsed mixture r_D expands to r_D @ ratios_DM.
    """

    names: tuple[str, ...]
    ratios_DM: np.ndarray


def form_blocks(kept: Mapping[str, Mapping[str, float]], domains: Sequence[str]) -> Blocks:
    """Return the blocks {name: {domain: ratio}} in the given order, followed by the domains outside all blocks.

    Raises:
      UserError: a block is not an object of ratios, is empty, or has the name of a domain; a domain is unknown or in
        two blocks; a ratio is not a positive number.
    """
    rows: list[np.ndarray] = []
    block_of: dict[str, str] = {}
    for name, ratios in kept.items():
        if name in domains:
            raise UserError(f"propose.keep_ratios: the block {name} has the name of a domain; choose another name")
        if not isinstance(ratios, Mapping):
            raise UserError(f'propose.keep_ratios: {name} must be {{"domain": ratio, …}}, not {ratios!r}')
        for domain, ratio in ratios.items():
            if domain not in domains:
                raise UserError(f"propose.keep_ratios: {name} contains {domain}, which is not a domain")
            if domain in block_of:
                raise UserError(f"propose.keep_ratios: {domain} is in both {block_of[domain]} and {name}")
            if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 < ratio < np.inf:
                raise UserError(
                    f"propose.keep_ratios: the ratio of {domain} in {name} must be a positive number, not {ratio!r}"
                )
            block_of[domain] = name
        if not ratios:
            raise UserError(f"propose.keep_ratios: {name} contains no domain")
        row_M = np.array([float(ratios.get(domain, 0)) for domain in domains])
        rows.append(row_M / row_M.sum())
    alone = [j for j, domain in enumerate(domains) if domain not in block_of]
    rows += list(np.eye(len(domains))[alone])
    return Blocks((*kept, *(domains[j] for j in alone)), np.array(rows).reshape(-1, len(domains)))


def collapsed_bounds(bounds: Bounds, blocks: Blocks, groups: Sequence[str] = ()) -> Bounds:
    """Return the bounds on collapsed mixtures that are equivalent to ``bounds`` on expanded ones (paper, Lemma 1).

    r_v p̃_j ≤ upper_j for every member, so r_v ≤ min_j upper_j / p̃_j. Lower bounds work alike.

    Raises:
      UserError: a group contains only a part of a block.
    """
    has_DM = blocks.ratios_DM > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        upper_D = np.where(has_DM, bounds.upper_M / blocks.ratios_DM, np.inf).min(axis=1)
        lower_D = np.where(has_DM, bounds.lower_M / blocks.ratios_DM, 0.0).max(axis=1)
    member_GD = np.zeros((len(bounds.low_G), len(blocks.names)), bool)
    for g, member_M in enumerate(np.asarray(bounds.member_GM, bool)):
        any_D, all_D = (has_DM & member_M).any(axis=1), ~(has_DM & ~member_M).any(axis=1)
        if (any_D & ~all_D).any():
            name = blocks.names[int(np.argmax(any_D & ~all_D))]
            raise UserError(
                f"propose.bounds: {groups[g] if groups else g} contains only a part of the block {name}; include all "
                "of its domains or none"
            )
        member_GD[g] = any_D
    return Bounds(lower_D, np.minimum(upper_D, 1.0), member_GD, bounds.low_G, bounds.high_G)


def collapsed_constraints(constraints: Constraints, blocks: Blocks) -> Constraints:
    """Return the constraints on collapsed mixtures; names list the members: "web (web:a + web:b)"."""
    names = []
    for name, ratios_M in zip(blocks.names, blocks.ratios_DM):
        members = [domain for domain, ratio in zip(constraints.names, ratios_M) if ratio > 0]
        names.append(name if members == [name] else f"{name} ({' + '.join(members)})")
    user_upper_D = repetition = None
    if constraints.user_upper_M is not None:
        user_bounds = constraints.bounds._replace(upper_M=constraints.user_upper_M)
        user_upper_D = collapsed_bounds(user_bounds, blocks, constraints.groups).upper_M
    if constraints.repetition is not None:
        # A block is used up as soon as the first of its members is.
        limit = constraints.repetition
        with np.errstate(divide="ignore", invalid="ignore"):
            tokens_DM = np.where(blocks.ratios_DM > 0, limit.tokens_M / blocks.ratios_DM, np.inf)
        repetition = Repetition(tokens_DM.min(axis=1), limit.target_tokens, limit.max_repeats)
    return Constraints(
        names=names,
        bounds=collapsed_bounds(constraints.bounds, blocks, constraints.groups),
        groups=constraints.groups,
        user_upper_M=user_upper_D,
        repetition=repetition,
    )


def collapsed_anchor(anchor_M, blocks: Blocks) -> np.ndarray:
    """Return n_D with KL(expanded r ‖ anchor) = Σ_d r_d ln(r_d / n_d): n_v = Π_j (anchor_j / p̃_j)^p̃_j.

    It does not sum to 1.
    """
    ratios_DM = blocks.ratios_DM
    with np.errstate(divide="ignore", invalid="ignore"):
        terms_DM = np.where(ratios_DM > 0, ratios_DM * np.log(np.asarray(anchor_M, np.float64) / ratios_DM), 0.0)
    return np.exp(terms_DM.sum(axis=1))


def collapse(ratios_KM, blocks: Blocks) -> np.ndarray:
    """Return ratios_KD, the weight of each block in mixtures of domains."""
    return np.asarray(ratios_KM, np.float64) @ (blocks.ratios_DM > 0).T


def expand(ratios_KD, blocks: Blocks) -> np.ndarray:
    """Return ratios_KM, the mixtures of domains for mixtures of blocks."""
    return np.asarray(ratios_KD, np.float64) @ blocks.ratios_DM


def swarm_size(dimensions: int, per_dimension: float = 3.0) -> int:
    """Return the number of runs for a swarm over ``dimensions`` weights: the power of two nearest 3·(D + 1).

    Of two equally near powers it is the smaller (METHOD §3). One weight is always 1, so it takes 0 runs.
    """
    if dimensions <= 1:
        return 0
    wanted = per_dimension * (dimensions + 1)
    below = 2 ** int(np.floor(np.log2(wanted)))
    return below if wanted - below <= 2 * below - wanted else 2 * below
