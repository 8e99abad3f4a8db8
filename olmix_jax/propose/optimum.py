"""Find the optimal mixture of a formulation: by the solver, under guards, or by a search."""

import dataclasses

import numpy as np

from olmix_jax.laws import Law, evaluate, search
from olmix_jax.propose import baselines, guard_slack
from olmix_jax.propose import guards as guard_functions
from olmix_jax.propose.feasibility import rounded
from olmix_jax.propose.formulation import Formulation
from olmix_jax.propose.guards import GuardedSolution, Guards
from olmix_jax.propose.options import Options
from olmix_jax.propose.swarm_facts import SwarmFacts
from olmix_jax.solver import solve as solver
from olmix_jax.solver import starts
from olmix_jax.solver.problem import Problem
from olmix_jax.solver.solution import Solution
from olmix_jax.solver.status import GUARD_TOLERANCE
from olmix_jax.swarm import task_groups
from olmix_jax.utils.errors import UserError

# A tail or guards take many solves per starting point, so they start only from this many minima of the law, those of
# lowest tail.
GUARDED_STARTS = 2


@dataclasses.dataclass(frozen=True, eq=False)
class Optimum:
    """A solution over blocks.

    Attributes:
      solution: the mixture of blocks.
      guards: the guards of the options; none without.
      guarded: the solution with its multipliers, if there are guards or a tail.
    """

    solution: Solution
    guards: Guards
    guarded: GuardedSolution | None = None


def find_optimum(formulation: Formulation, swarm: SwarmFacts, options: Options, seed: int) -> Optimum:
    """Return the optimal mixture.

    A convex law is solved with a certificate, another differentiable law from several starting points. Other laws are
    searched.

    Raises:
      UserError: options exclude each other or lack data, or the guards cannot hold.
    """
    check_options(formulation.problem.law, options, formulation.reduced_law.samples is not None)
    guards = _guards(formulation, swarm, options)
    reduced = formulation.reduced
    ratios_KD = None if swarm.ratios_KM is None else formulation.collapse(swarm.ratios_KM)
    if not reduced.law.differentiable or options.method != "exact":
        return Optimum(_search(formulation, ratios_KD, options, seed), guards)
    samples = formulation.reduced_law.samples
    starts_SD = None if reduced.convex else starts.spread_out(reduced, ratios_KD, seed)
    if options.worst:
        starts_SD = np.concatenate([starts.from_vertices(reduced, seed), starts_SD])
    natural_D = formulation.collapse(formulation.natural_M)
    # Checked first, because it costs least.
    safe_D = None if options.guard is None else _guarded_mixture(reduced, guards, natural_D, options.guard)
    ends = solver.end_points(reduced, starts_SM=starts_SD)
    free = solver.best(reduced, ends)
    if options.guard is None and options.tail is None:
        return Optimum(free, guards)
    tail_samples, share = (None, 1.0) if options.tail is None else (samples, options.tail)
    starts_SD = _lowest_tails(reduced, solver.distinct(ends), tail_samples, share)
    if not reduced.convex and options.guard is not None:
        starts_SD = np.stack([starts_SD[0], natural_D if safe_D is None else safe_D])
    guarded = guard_functions.solve(reduced, guards, tail_samples, share, starts_SM=starts_SD, safe_M=safe_D)
    return Optimum(guarded.solution, guards, guarded)


def with_guards(formulation: Formulation, swarm: SwarmFacts, options: Options, proposed_M) -> Solution:
    """Return the optimal mixture of blocks under the guards of ``options``, found from a proposal without guards.

    Raises:
      UserError: the guards cannot hold.
    """
    reduced, guards = formulation.reduced, _guards(formulation, swarm, options)
    proposed_D, natural_D = formulation.collapse(proposed_M), formulation.collapse(formulation.natural_M)
    safe_D = _guarded_mixture(reduced, guards, natural_D, options.guard or 0.0)
    starts_SD = np.stack([proposed_D, natural_D if safe_D is None else safe_D])
    return guard_functions.solve(reduced, guards, None, 1.0, starts_SM=starts_SD, safe_M=safe_D).solution


def _lowest_tails(reduced: Problem, minima_BD, samples, share: float) -> np.ndarray:
    """Return the GUARDED_STARTS minima of the law with the lowest objective under the tail, lowest first."""
    if samples is not None and len(minima_BD) > 1:
        tail_B = np.array([guard_functions.tail_at(reduced, samples, share, p_D) for p_D in minima_BD])
        penalty_B = reduced.kl_weight * reduced.kl(minima_BD) if reduced.kl_weight > 0 else 0.0
        minima_BD = minima_BD[np.argsort(tail_B + penalty_B, kind="stable")]
    return minima_BD[:GUARDED_STARTS]


def proposes_a_run(law: Law, options: Options) -> bool:
    """Return whether the proposal is one of the runs."""
    return options.method == "search" or (law == search.LAW and options.method == "exact")


def check_options(law: Law, options: Options, has_samples: bool) -> None:
    """Raise an error if options exclude each other, or need what the law lacks.

    Args:
      law: the family.
      options: the choices behind the proposal.
      has_samples: whether there are samples of the law's parameters.

    Raises:
      UserError: guards or a tail without a differentiable law, a tail without samples, or a search with kept ratios.
    """
    searches = not law.differentiable or options.method != "exact"
    if searches and (options.guard is not None or options.tail is not None):
        raise UserError(
            "propose.guard and propose.tail need a differentiable law and propose.method=exact; choose another fit.law "
            "or propose.method=exact"
        )
    if options.tail is not None and not has_samples:
        raise UserError(
            "propose.tail needs samples of the law; set fit.resamples to 100, and if it is fitted already, run "
            "--stages=fit,propose"
        )
    if proposes_a_run(law, options) and options.keep_ratios is not None:
        which = "propose.method=search" if options.method == "search" else "fit.law=search"
        raise UserError(
            f"propose.keep_ratios has no effect with {which}, which proposes a run unchanged; remove one of the two"
        )


def check_families(swarm: SwarmFacts, options: Options) -> None:
    """Raise an error if guards are by family and the tasks have no families."""
    if options.guard is not None and options.guard_by == "family":
        task_groups.families_of(swarm.tasks, swarm.families)


def _guards(formulation: Formulation, swarm: SwarmFacts, options: Options) -> Guards:
    problem = formulation.problem
    if options.guard is None:
        return guard_functions.no_guards(problem)
    natural_N = evaluate(problem.law, problem.params, formulation.natural_M[None])[0]
    return guards_over_natural(swarm, options, natural_N)


def guards_over_natural(swarm: SwarmFacts, options: Options, natural_N) -> Guards:
    """Return the guards that the options ask for; with natural_N of 0, their limits are relative to natural."""
    groups: dict[str, tuple[str, ...]] = {task: (task,) for task in swarm.tasks}
    if options.guard_by == "family":
        groups = task_groups.families_of(swarm.tasks, swarm.families)
    assert options.guard is not None
    return guard_functions.group_guards(swarm.tasks, natural_N, groups, options.guard)


def _search(formulation: Formulation, ratios_KD, options: Options, seed: int) -> Solution:
    """Return the best of candidates, for a law that is not differentiable, or as a published baseline."""
    reduced = formulation.reduced
    if reduced.law == search.LAW:
        ratios_KD = np.asarray(reduced.params.ratios_KM)[np.asarray(reduced.params.present_K) > 0]
    if proposes_a_run(formulation.problem.law, options):
        return baselines.best_run(reduced, ratios_KD)
    if options.method == "simulation":
        return baselines.simulate(reduced, seed)
    return baselines.refine(reduced, ratios_KD, seed)


def _guarded_mixture(reduced: Problem, guards: Guards, natural_D, slack: float) -> np.ndarray:
    """Return a mixture at which all guards hold.

    Raises:
      UserError: no such mixture was found; the message gives the hardest guard, and a slack that is enough.
    """
    least = guard_slack.least_slack(reduced, guards, natural_D[None])
    if least.excess <= GUARD_TOLERANCE:
        return least.weights_M
    # Slightly more than the least, because a set with a single mixture is hard to find.
    enough = rounded(slack + least.excess * (1 + guard_slack.NEAR), np.ceil, 3)
    proven = least.lower_bound is not None and least.lower_bound > 0
    raise UserError(
        f"{'no mixture' if proven else 'no mixture that was tried'} within the bounds meets propose.guard = {slack:g} "
        f"BPB ({least.hardest} exceeds it most); raise it to {enough}, or loosen the bounds"
    )
