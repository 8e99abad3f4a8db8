"""From settings to a problem to solve: task weights, caps and bounds, what KL pulls towards, blocks of kept ratios."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from olmix_jax import config
from olmix_jax.laws import FittedLaw, Law
from olmix_jax.propose import blocks as reuse
from olmix_jax.propose import constraints
from olmix_jax.propose.feasibility import check_feasible, repetition_caps
from olmix_jax.propose.task_weights import task_weights
from olmix_jax.solver.problem import Problem
from olmix_jax.utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Posed:
    """A problem over domains, and what is solved in its place: the same over blocks of domains that keep their ratios.

    Attributes:
      problem: over the M domains.
      reduced: over the D blocks; the same problem where every domain is free.
      blocks: None where every domain is free.
      groups: names of the bounds' groups.
      wished_M: the upper bounds, but for those of repetition.
      repeated_M: those of repetition alone; all 1 where it is not capped.
      natural_M: what proposals are compared with.
      capped: whether repetition is.
      own_anchor: whether KL pulls towards another mixture than natural.
    """

    problem: Problem
    reduced: Problem
    blocks: reuse.Blocks | None
    groups: tuple[str, ...]
    wished_M: np.ndarray
    repeated_M: np.ndarray
    natural_M: np.ndarray
    capped: bool
    own_anchor: bool

    def expand(self, ratios_KD) -> np.ndarray:
        """Mixtures over domains."""
        return np.asarray(ratios_KD) if self.blocks is None else reuse.expand(ratios_KD, self.blocks)

    def collapse(self, ratios_KM) -> np.ndarray | None:
        """Mixtures over blocks, by the blocks' weights; None for None."""
        return ratios_KM if self.blocks is None or ratios_KM is None else reuse.collapse(ratios_KM, self.blocks)

    def samples(self, samples):
        """Samples of the law over domains as those of the law over blocks; None for None."""
        if self.blocks is None or samples is None:
            return samples
        whole = FittedLaw(self.problem.law, self.problem.params, samples)
        return whole.through(self.blocks.ratios_DM).samples


def pose(
    law: Law,
    params,
    *,
    tasks,
    domains,
    natural_M,
    tokens_M,
    settings: config.Propose,
    sizes_N=None,
    families: str = "",
) -> Posed:
    """The problem that the settings ask for; arguments as for :func:`olmix_jax.propose.propose`.

    Raises:
      UserError: a setting cannot be read, or no mixture meets the bounds.
    """
    natural_M = np.asarray(natural_M, np.float64) / np.sum(natural_M)
    sizes = {"tokens_M": tokens_M, "target_tokens": settings.target_tokens, "max_repeats": settings.max_repeats}
    capped = tokens_M is not None and settings.target_tokens is not None
    repeated_M = repetition_caps(**sizes) if capped else np.ones(len(domains))
    bounds, groups = constraints.read_bounds(settings.bounds, domains, repeated_M)
    wished_M = constraints.read_bounds(settings.bounds, domains, np.ones(len(domains)))[0].upper_M
    blocks = _blocks(settings.keep_ratios, domains)
    _check(bounds, wished_M, domains, groups, blocks, sizes if capped else {})
    own_anchor = bool(settings.anchor.strip())
    anchor_M = constraints.read_mixture(settings.anchor, "propose.anchor", domains) if own_anchor else natural_M
    if settings.kl_weight > 0:
        # The KL term allows a domain that the anchor has nothing of none.
        bounds = bounds._replace(upper_M=np.where(anchor_M > 0, bounds.upper_M, 0.0))
        _check_anchored(bounds, domains, groups, blocks, anchor_M, "propose.anchor" if own_anchor else "natural")
    weights_N = task_weights(settings.task_weights, tasks, sizes_N, families) * (-1 if settings.worst else 1)
    problem = Problem(law, params, weights_N, anchor_M, bounds, settings.kl_weight)
    reduced = problem if blocks is None else _reduced(problem, blocks, groups)
    return Posed(problem, reduced, blocks, groups, wished_M, repeated_M, natural_M, capped, own_anchor)


def _blocks(spec: str, domains: Sequence[str]) -> reuse.Blocks | None:
    if not spec.strip():
        return None
    _, kept = constraints.read(spec, "propose.keep_ratios")
    return reuse.blocks(kept, domains)


def _check(bounds, wished_M, domains, groups, blocks: reuse.Blocks | None, sizes: dict) -> None:
    """Refuses bounds that no mixture meets, or none that keeps the ratios; ``sizes`` are {} without repetition caps."""
    if blocks is None:
        check_feasible(bounds, domains, groups, wished_M=wished_M, **sizes)
        return
    names, ratios_DM = [], blocks.ratios_DM
    for name, ratios_M in zip(blocks.names, ratios_DM):
        members = [domain for domain, ratio in zip(domains, ratios_M) if ratio > 0]
        names.append(name if members == [name] else f"{name} ({' + '.join(members)})")
    if sizes:
        # A block is used up as soon as the first of its members is.
        with np.errstate(divide="ignore", invalid="ignore"):
            tokens_DM = np.where(ratios_DM > 0, np.asarray(sizes["tokens_M"], np.float64) / ratios_DM, np.inf)
        sizes = sizes | {"tokens_M": tokens_DM.min(axis=1)}
    wished_D = reuse.collapsed_bounds(bounds._replace(upper_M=wished_M), blocks, groups).upper_M
    check_feasible(reuse.collapsed_bounds(bounds, blocks, groups), names, groups, wished_M=wished_D, **sizes)


def _check_anchored(bounds, domains, groups, blocks, anchor_M, anchor: str) -> None:
    """Refuses bounds that only fail for what the anchor has nothing of."""
    try:
        _check(bounds, bounds.upper_M, domains, groups, blocks, {})
    except UserError as e:
        none = ", ".join(name for name, weight in zip(domains, anchor_M) if weight <= 0)
        raise UserError(
            f"{e}. With propose.kl_weight > 0 a domain that the anchor ({anchor}) has nothing of can have no weight: "
            f"{none}; give propose.anchor some of it, or set propose.kl_weight=0"
        ) from e


def _reduced(problem: Problem, blocks: reuse.Blocks, groups: tuple[str, ...]) -> Problem:
    fitted = FittedLaw(problem.law, problem.params).through(blocks.ratios_DM)
    return dataclasses.replace(
        problem,
        law=fitted.law,
        params=fitted.params,
        anchor_M=reuse.collapsed_anchor(problem.anchor_M, blocks),
        bounds=reuse.collapsed_bounds(problem.bounds, blocks, groups),
    )
