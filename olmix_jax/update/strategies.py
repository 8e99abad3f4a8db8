"""What is kept of an old mixture when the domain set changes, and what is found anew: one interface (METHOD §3).

A strategy is a partition of the new domains into blocks. Those of a block keep their relative ratios, so a swarm, a law
and a solver over blocks are all there is to it; one weight needs no runs.

    full           every domain alone: full recomputation
    full_reuse     unaffected domains as one block in their old ratios: FullMixtureReuse, Algorithm 2
    partial_reuse  the same, but some unaffected domains alone as well: PartialMixtureReuse
    swarm_reuse    every domain alone, and old runs count as runs: Algorithm 3
    carry          nothing is found anew: unaffected domains as they were, affected ones at their natural share
    natural        the natural distribution
"""

import dataclasses
import enum
from collections.abc import Sequence

import numpy as np

from olmix_jax.propose import blocks as reuse
from olmix_jax.utils.errors import UserError


class Strategy(enum.StrEnum):
    """A way to update a mixture. ``AUTO`` chooses the domains to recompute (:mod:`olmix_jax.update.recompute`)."""

    AUTO = "auto"
    FULL = "full"
    FULL_REUSE = "full_reuse"
    PARTIAL_REUSE = "partial_reuse"
    SWARM_REUSE = "swarm_reuse"
    CARRY = "carry"
    NATURAL = "natural"


@dataclasses.dataclass(frozen=True)
class Reuse:
    """What a strategy keeps and recomputes, and with how many runs.

    Attributes:
      strategy: which one.
      blocks: of domains that keep their ratios.
      recomputed: domains whose weights are found anew.
      proxies: new runs.
    """

    strategy: Strategy
    blocks: reuse.Blocks
    recomputed: tuple[str, ...]
    proxies: int


def apply(
    strategy: Strategy,
    domains: Sequence[str],
    affected: Sequence[str],
    weights_M,
    natural_M,
    *,
    recompute: Sequence[str] = (),
    old_runs: int = 0,
) -> Reuse:
    """Applies a strategy to a changed domain set.

    Args:
      strategy: any but ``AUTO``.
      domains: M names of the new set.
      affected: those that are not what they were.
      weights_M: the old mixture on the unaffected domains; others are not looked at.
      natural_M: p0 of the new set.
      recompute: unaffected domains that ``partial_reuse`` finds anew.
      old_runs: of the old swarm, those that the new set can express; they save ``swarm_reuse`` new ones.

    Raises:
      UserError: ``recompute`` names a domain that is not unaffected.
    """
    wrong = [d for d in recompute if d not in domains or d in affected]
    if wrong:
        raise UserError(
            f"update.recompute: {wrong[0]} is not an unaffected domain; these are "
            f"{', '.join(d for d in domains if d not in affected)}"
        )
    natural_M, weights = np.asarray(natural_M, np.float64), dict(zip(domains, np.asarray(weights_M).tolist()))
    if strategy is Strategy.NATURAL:
        return Reuse(strategy, _one({d: float(p) for d, p in zip(domains, natural_M)}, domains), (), 0)
    kept = {d: weights[d] for d in domains if d not in affected and weights[d] > 0}
    if strategy is Strategy.CARRY:
        share = sum(p for d, p in zip(domains, natural_M) if d not in affected)
        total = sum(kept.values())
        whole = {d: share * w / total for d, w in kept.items()}
        return Reuse(strategy, _one(whole | _natural(affected, domains, natural_M), domains), (), 0)
    alone = set(domains) if strategy in (Strategy.FULL, Strategy.SWARM_REUSE) else {*affected}
    alone |= {*recompute} if strategy is Strategy.PARTIAL_REUSE else set()
    kept = {d: w for d, w in kept.items() if d not in alone}
    blocks = reuse.blocks({"kept": kept} if len(kept) > 1 else {}, domains)
    proxies = reuse.proxies(len(blocks.names))
    if strategy is Strategy.SWARM_REUSE:
        # Affected domains have no old runs, so they get what a swarm over them and the rest as one would have.
        proxies = max(proxies - old_runs, reuse.proxies(len(affected) + 1))
    return Reuse(strategy, blocks, tuple(d for d in domains if d in alone), proxies)


def _natural(names: Sequence[str], domains: Sequence[str], natural_M) -> dict[str, float]:
    return {d: float(p) for d, p in zip(domains, natural_M) if d in names}


def _one(weights: dict[str, float], domains: Sequence[str]) -> reuse.Blocks:
    """Every domain in one block."""
    return reuse.blocks({"kept": weights}, domains)
