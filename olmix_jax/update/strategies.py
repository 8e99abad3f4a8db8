"""Update strategies: what is kept of an old mixture when the domain set changes (METHOD §3).

A strategy partitions the new domains into blocks. Domains of a block keep their relative ratios, so the swarm, the law
and the solver work on blocks. A single block needs no runs.

    full           every domain alone: full recomputation
    full_reuse     all unaffected domains form one block with their old ratios: FullMixtureReuse, Algorithm 2
    partial_reuse  as full_reuse, but some unaffected domains are alone as well: PartialMixtureReuse
    swarm_reuse    every domain alone; old runs count towards the number of runs: Algorithm 3
    carry          nothing is recomputed: unaffected domains as before, affected ones at their natural share
    natural        the natural distribution
    auto           as partial_reuse, with domains chosen by predicted loss (:mod:`olmix_jax.update.recompute`)
"""

import dataclasses
import enum
from collections.abc import Sequence

import numpy as np

from olmix_jax.propose.blocks import Blocks, form_blocks, swarm_size
from olmix_jax.utils.errors import UserError


class Strategy(enum.StrEnum):
    """An update strategy, as the module's docstring describes it."""

    AUTO = "auto"
    FULL = "full"
    FULL_REUSE = "full_reuse"
    PARTIAL_REUSE = "partial_reuse"
    SWARM_REUSE = "swarm_reuse"
    CARRY = "carry"
    NATURAL = "natural"


@dataclasses.dataclass(frozen=True)
class Reuse:
    """What a strategy keeps and recomputes.

    Attributes:
      strategy: the strategy.
      blocks: the partition of the domains.
      recomputed: domains whose weights are optimised again.
      proxies: number of new runs.
    """

    strategy: Strategy
    blocks: Blocks
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
    """Apply a strategy to a changed domain set.

    Args:
      strategy: any but ``AUTO``.
      domains: M names of the new set.
      affected: names of the affected domains.
      weights_M: the old mixture on the unaffected domains; values of affected domains are ignored.
      natural_M: p0 of the new set.
      recompute: unaffected domains that ``partial_reuse`` recomputes.
      old_runs: number of old runs that the new set can express; ``swarm_reuse`` subtracts it from its new runs.

    Raises:
      UserError: ``recompute`` names a domain that is not unaffected.
    """
    unaffected = [d for d in domains if d not in affected]
    wrong = [d for d in recompute if d not in unaffected]
    if wrong:
        raise UserError(
            f"update.recompute: {wrong[0]} is not an unaffected domain; choose from {', '.join(unaffected)}"
        )
    natural = {d: float(p) for d, p in zip(domains, np.asarray(natural_M, np.float64))}
    if strategy is Strategy.NATURAL:
        return Reuse(strategy, form_blocks({"kept": natural}, domains), (), 0)
    kept = {d: w for d, w in zip(domains, np.asarray(weights_M).tolist()) if d not in affected and w > 0}
    if strategy is Strategy.CARRY:
        share, total = sum(natural[d] for d in unaffected), sum(kept.values())
        whole = {d: share * w / total for d, w in kept.items()} | {d: natural[d] for d in domains if d in affected}
        return Reuse(strategy, form_blocks({"kept": whole}, domains), (), 0)
    alone = set(domains) if strategy in (Strategy.FULL, Strategy.SWARM_REUSE) else {*affected}
    alone |= {*recompute} if strategy is Strategy.PARTIAL_REUSE else set()
    kept = {d: w for d, w in kept.items() if d not in alone}
    blocks = form_blocks({"kept": kept} if len(kept) > 1 else {}, domains)
    proxies = swarm_size(len(blocks.names))
    if strategy is Strategy.SWARM_REUSE:
        # No old run contains an affected domain. So there are at least the runs of a swarm over these and one block.
        proxies = max(proxies - old_runs, swarm_size(len(affected) + 1))
    return Reuse(strategy, blocks, tuple(d for d in domains if d in alone), proxies)
