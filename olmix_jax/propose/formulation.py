"""From options to the problem to solve: task weights, constraints, the anchor of KL, blocks of kept ratios."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from olmix_jax.laws.fitted import FittedLaw
from olmix_jax.propose import constraints as constraint_functions
from olmix_jax.propose.blocks import (
    Blocks,
    collapse,
    collapsed_anchor,
    collapsed_bounds,
    collapsed_constraints,
    expand,
    form_blocks,
)
from olmix_jax.propose.constraints import Constraints
from olmix_jax.propose.feasibility import check_feasible
from olmix_jax.propose.options import Options
from olmix_jax.propose.ranges import Ranges, ranges
from olmix_jax.propose.swarm_facts import SwarmFacts
from olmix_jax.propose.task_weights import task_weights
from olmix_jax.solver.problem import Problem
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.names import listed


@dataclasses.dataclass(frozen=True, eq=False)
class Formulation:
    """The problem over domains, and the problem over blocks that is solved in its place.

    Attributes:
      problem: over the M domains.
      reduced: over the D blocks; the same as ``problem`` without blocks.
      reduced_law: the fitted law over the D blocks.
      blocks: blocks that keep their ratios; None without.
      constraints: the set of allowed mixtures of domains.
      natural_M: the natural distribution, which proposals are compared with.
      has_anchor: whether KL pulls towards another mixture than natural.
    """

    problem: Problem
    reduced: Problem
    reduced_law: FittedLaw
    blocks: Blocks | None
    constraints: Constraints
    natural_M: np.ndarray
    has_anchor: bool

    @property
    def sign(self) -> int:
        """−1 if the worst mixture is sought, else 1."""
        return 1 if self.problem.weights.sum() > 0 else -1

    @property
    def excluded(self) -> tuple[str, ...]:
        """Sentences that name the domains that ``propose.anchor`` keeps at 0."""
        anchored = self.has_anchor and self.problem.kl_weight > 0
        names = [name for name, weight in zip(self.constraints.names, self.problem.anchor_M) if weight <= 0]
        text = f"propose.anchor gives {listed(names)} no weight, and so the proposal none; give weight to every domain"
        return (text,) if anchored and names else ()

    def expand(self, ratios_KD) -> np.ndarray:
        """Return mixtures of domains for mixtures of blocks."""
        return np.asarray(ratios_KD) if self.blocks is None else expand(ratios_KD, self.blocks)

    def collapse(self, ratios_KM) -> np.ndarray:
        """Return mixtures of blocks for mixtures of domains."""
        return np.asarray(ratios_KM) if self.blocks is None else collapse(ratios_KM, self.blocks)


def formulate(fitted: FittedLaw, swarm: SwarmFacts, options: Options) -> Formulation:
    """Return the problem that the options ask for.

    Raises:
      UserError: an option is invalid, or no mixture meets the constraints.
    """
    natural_M = np.asarray(swarm.natural_M, np.float64) / np.sum(swarm.natural_M)
    constraints = constraint_functions.constraints(
        options.bounds,
        swarm.domains,
        tokens_M=swarm.tokens_M,
        target_tokens=options.target_tokens,
        max_repeats=options.max_repeats,
        trusted=_trusted(swarm, options),
    )
    blocks = None if options.keep_ratios is None else form_blocks(options.keep_ratios, swarm.domains)
    try:
        _check(constraints, blocks)
    except UserError as e:
        if options.trust is None:
            raise
        raise UserError(
            f"{e}. propose.trust = {options.trust:g} keeps each weight near its range in the runs; raise or unset it, "
            "or add runs with other weights"
        ) from e
    has_anchor, anchor_M, anchor_name = False, natural_M, "natural"
    if options.anchor is not None:
        has_anchor, anchor_name = True, "propose.anchor"
        anchor_M = constraint_functions.mixture(options.anchor, swarm.domains, anchor_name)
    if options.kl_weight > 0:
        constraints = _without_anchorless(constraints, anchor_M)
        _check_with_anchor(constraints, blocks, anchor_M, anchor_name)
    weights_N = task_weights(options.task_weights, swarm.tasks, swarm.sizes_N, swarm.families)
    weights_N = weights_N * (-1 if options.worst else 1)
    problem = Problem(fitted.law, fitted.params, weights_N, anchor_M, constraints.bounds, options.kl_weight)
    reduced, reduced_law = problem, fitted
    if blocks is not None:
        reduced_law = fitted.through(blocks.ratios_DM)
        reduced = _reduced(problem, reduced_law, blocks, constraints.groups)
    return Formulation(problem, reduced, reduced_law, blocks, constraints, natural_M, has_anchor)


def _trusted(swarm: SwarmFacts, options: Options) -> Ranges | None:
    """Return the weights that ``propose.trust`` allows; None without it or before there are runs."""
    if options.trust is None or swarm.tested_QM is None:
        return None
    low_M, high_M = ranges(swarm.tested_QM)
    return Ranges(low_M / options.trust, np.minimum(1.0, options.trust * high_M))


def _without_anchorless(constraints: Constraints, anchor_M) -> Constraints:
    """Return the constraints with caps of 0 for domains that have no anchor weight: their KL term is infinite."""
    upper_M = np.where(anchor_M > 0, constraints.bounds.upper_M, 0.0)
    return dataclasses.replace(constraints, bounds=constraints.bounds._replace(upper_M=upper_M))


def _check(constraints: Constraints, blocks: Blocks | None) -> None:
    check_feasible(constraints if blocks is None else collapsed_constraints(constraints, blocks))


def _check_with_anchor(constraints: Constraints, blocks: Blocks | None, anchor_M, anchor_name: str) -> None:
    """Raise an error for constraints that are infeasible only because the anchor excludes domains."""
    try:
        _check(dataclasses.replace(constraints, user_upper_M=None, repetition=None), blocks)
    except UserError as e:
        excluded = ", ".join(name for name, weight in zip(constraints.names, anchor_M) if weight <= 0)
        raise UserError(
            f"{e}. With propose.kl_weight > 0, domains without weight in the anchor ({anchor_name}) are excluded: "
            f"{excluded}; give them weight in propose.anchor, or set propose.kl_weight=0"
        ) from e


def _reduced(problem: Problem, reduced_law: FittedLaw, blocks: Blocks, groups: Sequence[str]) -> Problem:
    return dataclasses.replace(
        problem,
        law=reduced_law.law,
        params=reduced_law.params,
        anchor_M=collapsed_anchor(problem.anchor_M, blocks),
        bounds=collapsed_bounds(problem.bounds, blocks, groups),
    )
