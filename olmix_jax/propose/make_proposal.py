"""Make a proposal: formulate the problem, solve it, describe the solution, and add what follows from it.

:func:`solve` gives the required part, the mixture. :func:`complete` adds optional parts; one that fails is left out.
"""

import dataclasses
from typing import Any

import numpy as np

from olmix_jax.laws.fitted import FittedLaw
from olmix_jax.propose import aiming, exploration, guard_price, guards, shadow_prices, support, uncertainty
from olmix_jax.propose.formulation import Formulation, formulate
from olmix_jax.propose.optimum import Optimum, find_optimum
from olmix_jax.propose.options import Options
from olmix_jax.propose.proposal import Proposal
from olmix_jax.propose.proposal_parts import Certificate, Guard, Tail, by_name
from olmix_jax.propose.ranges import nearest, ranges
from olmix_jax.propose.sensitivity import sensitivity
from olmix_jax.propose.swarm_facts import SwarmFacts
from olmix_jax.solver.solution import Solution
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.names import listed
from olmix_jax.utils.optional import LeftOut
from olmix_jax.utils.progress import counted

# A guard binds if its multiplier exceeds this.
BINDING = 1e-9
# Reasons for a missing duality gap.
NOT_CONVEX = "the law is not convex, and a duality gap bounds only convex laws"
WORST = "the worst mixture is a maximum, and a duality gap bounds only minima of convex laws"
NOT_DIFFERENTIABLE = "the law is not differentiable: the best candidate is proposed, without proof"
SEARCHED = "a search over candidates has no certificate: another mixture may be better"


def propose(fitted: FittedLaw, swarm: SwarmFacts, options: Options | None = None, *, seed: int = 0) -> Proposal:
    """Return the mixture that minimises a law within constraints, and what follows from it.

    Args:
      fitted: the law; its samples, if any, give error bars.
      swarm: names, sizes and runs.
      options: what to minimise, and within which constraints; the defaults of :class:`Options` if None.
      seed: of everything that is drawn.

    Raises:
      UserError: no mixture meets the constraints, an option is invalid, or the law predicts no finite BPB.
    """
    return complete(solve(fitted, swarm, options, seed=seed))


@dataclasses.dataclass(frozen=True, eq=False)
class Solved:
    """A proposal without its optional parts, and what these are computed from.

    Attributes:
      proposal: the required part.
      fitted, swarm, options, seed: the arguments of :func:`propose`; the options have the λ in use.
      formulation: the problem.
      optimum: its solution.
    """

    proposal: Proposal
    fitted: FittedLaw
    swarm: SwarmFacts
    options: Options
    seed: int
    formulation: Formulation
    optimum: Optimum

    @property
    def weights_M(self) -> np.ndarray:
        """The proposed mixture."""
        return self.formulation.expand(self.optimum.solution.weights_M)


def solve(fitted: FittedLaw, swarm: SwarmFacts, options: Options | None = None, *, seed: int = 0) -> Solved:
    """Return the required part of :func:`propose`, with the same arguments and errors."""
    options, choice = options or Options(), None
    if options.trust is not None and swarm.tested_QM is None:
        raise UserError("propose.trust needs the swarm's runs, and there are none; unset it")
    fitted, read_at = aiming.aimed(fitted, swarm, options)
    formulation = formulate(fitted, swarm, options)
    if options.choose_kl_weight:
        choice = exploration.lambda_choice(fitted, formulation, swarm, options, seed)
        options = exploration.with_chosen(options, choice)
        formulation = formulate(fitted, swarm, options)
    optimum = find_optimum(formulation, swarm, options, seed)
    weights_M = formulation.expand(optimum.solution.weights_M)
    predicted_CN = fitted.predict(np.stack([weights_M, formulation.natural_M]))
    if not np.isfinite(predicted_CN).all():
        raise UserError("the law predicts no finite BPB at the proposed or the natural mixture; fit it on more runs")
    proposal = _describe(formulation, optimum.solution, weights_M, predicted_CN, swarm, options)
    if optimum.guarded is not None:
        proposal = _with_guards(proposal, formulation, optimum, fitted, options)
    if formulation.constraints.repetition is None:
        proposal = dataclasses.replace(proposal, warnings=(*proposal.warnings, _why_uncapped(swarm)))
    beyond = support.beyond_runs(swarm, weights_M, formulation.natural_M)
    beyond += aiming.warnings(fitted.law, weights_M, swarm, options)
    beyond += () if read_at is None else read_at.warnings
    warnings = *proposal.warnings, *formulation.excluded, *beyond
    proposal = dataclasses.replace(proposal, choice=choice, warnings=warnings, read_at=read_at)
    return Solved(proposal, fitted, swarm, options, seed, formulation, optimum)


def complete(solved: Solved) -> Proposal:
    """Add the optional parts: sensitivity, error bars, the choice of λ, the path over λ and k, and the front.

    A part that fails is left out; ``left_out`` and the log say why.
    """
    proposal, formulation, options, swarm = solved.proposal, solved.formulation, solved.options, solved.swarm
    left_out = LeftOut()
    if solved.optimum.guarded is None and solved.optimum.solution.converged:
        with left_out.unless_fails("propose", "sensitivities"):
            moves = sensitivity(formulation, solved.optimum.solution, swarm.tasks, swarm.domains)
            proposal = dataclasses.replace(proposal, sensitivity=moves)
    if swarm.tested_QM is not None:
        with left_out.unless_fails("propose", "distance from the runs"):
            proposal = _with_support(proposal, solved)
    if solved.fitted.samples is not None:
        with left_out.unless_fails("propose", "error bars"):
            proposal = _with_error_bars(proposal, solved)
    if not options.choose_kl_weight:
        with left_out.unless_fails("propose", "gains by λ"):
            choice = exploration.lambda_choice(solved.fitted, formulation, swarm, options, solved.seed)
            proposal = dataclasses.replace(proposal, choice=choice)
    if options.explore and not options.worst:
        around = exploration.explore(formulation, swarm, options, solved.weights_M, solved.seed, left_out)
        proposal = dataclasses.replace(proposal, **_fields(around))
    price = () if proposal.guard_price is None else (guard_price.warning(proposal.guard_price),)
    warnings = (*proposal.warnings, *price, *_unconverged(proposal))
    return dataclasses.replace(proposal, warnings=warnings, left_out=(*proposal.left_out, *left_out.reasons))


def _unconverged(proposal: Proposal) -> tuple[str, ...]:
    """Return a warning for each optional part with solves that did not converge."""
    parts: dict[str, Any] = {
        "gains by λ": proposal.choice,
        "paths over λ and k": proposal.path,
        "trade-offs between families": proposal.pareto,
    }
    number_of = {name: part.unconverged for name, part in parts.items() if part is not None}
    return tuple(
        f"{name}: {counted(number, 'solve')} did not converge; the best mixtures that were reached are shown"
        for name, number in number_of.items()
        if number
    )


def _fields(part: Any) -> dict[str, Any]:
    """Return a part of a proposal as {field: value}."""
    return {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}


def _describe(
    formulation: Formulation, solution: Solution, weights_M, predicted_CN, swarm: SwarmFacts, options: Options
) -> Proposal:
    """Return the fields that every solution has; rows of ``predicted_CN`` are the proposed and natural mixtures."""
    problem, sign, domains, tasks = formulation.problem, formulation.sign, swarm.domains, swarm.tasks
    worse = tuple(task for task, (new, old) in zip(tasks, predicted_CN.T) if new > old + guard_price.NOTICEABLE)
    prices = shadow_prices.prices(formulation, solution, weights_M, domains)
    return Proposal(
        status=solution.status,
        weights=by_name(domains, weights_M),
        natural=by_name(domains, formulation.natural_M),
        caps=by_name(domains, problem.bounds.upper_M),
        lower=by_name(domains, problem.bounds.lower_M),
        predicted=by_name(tasks, predicted_CN[0]),
        predicted_natural=by_name(tasks, predicted_CN[1]),
        objective=sign * solution.value,
        objective_natural=_natural_objective(formulation, float(problem.weights @ predicted_CN[1])),
        kl=solution.kl if np.isfinite(solution.kl) else None,
        certificate=_certificate(solution, formulation),
        task_weights=by_name(tasks, sign * problem.weights),
        worse_tasks=worse,
        warnings=_warnings(solution, sign, worse, len(tasks)),
        kl_weight=options.kl_weight,
        max_repeats=options.max_repeats,
        target_tokens=options.target_tokens,
        anchor=by_name(domains, problem.anchor_M) if formulation.has_anchor else None,
        worst=sign < 0,
        **_fields(prices),
    )


def _warnings(solution: Solution, sign: int, worse: tuple[str, ...], tasks: int) -> tuple[str, ...]:
    warnings = () if solution.converged else (f"the solver did not converge: {solution.describe()}",)
    if sign < 0:
        return (*warnings, "this is the WORST mixture found within the bounds (propose.worst): do not train on it")
    if worse:
        return (
            *warnings,
            f"{len(worse)} of {counted(tasks, 'task')} predicted worse than under the natural mixture: {listed(worse)}",
        )
    return warnings


def _natural_objective(formulation: Formulation, law: float) -> float | None:
    """Return the objective of natural, given the law's part of it; None if it is infinite."""
    problem, kl = formulation.problem, 0.0
    if formulation.has_anchor and problem.kl_weight > 0:
        kl = float(problem.kl(formulation.natural_M[None])[0])
    return formulation.sign * (law + problem.kl_weight * kl) if np.isfinite(kl) else None


def _certificate(solution: Solution, formulation: Formulation) -> Certificate:
    if solution.gap is not None:
        return Certificate(
            gap=solution.gap,
            relative_gap=solution.gap / max(1.0, abs(solution.value)),
            iterations=solution.iterations,
            residual=solution.residual,
        )
    if solution.residual is None:
        why = SEARCHED if formulation.problem.law.differentiable else NOT_DIFFERENTIABLE
        return Certificate(gap=None, no_gap=why, candidates=solution.starts)
    return Certificate(
        gap=None,
        no_gap=WORST if formulation.sign < 0 else NOT_CONVEX,
        iterations=solution.iterations,
        residual=solution.residual,
        starts=solution.starts,
        agreeing=solution.agreeing,
    )


def _with_guards(
    proposal: Proposal, formulation: Formulation, optimum: Optimum, fitted: FittedLaw, options: Options
) -> Proposal:
    """Add the guards that bind and the mean over the worst samples, which natural's objective then uses too."""
    names, guarded = optimum.guards.names, optimum.guarded
    assert guarded is not None
    if options.guard is not None:
        guard = Guard(
            by=options.guard_by,
            slack=options.guard,
            names=names,
            multipliers=by_name(names, guarded.multipliers_F),
            binding=tuple(name for name, price in zip(names, guarded.multipliers_F) if price > BINDING),
            worst=float(guarded.excess_F.max() + options.guard),
        )
        proposal = dataclasses.replace(proposal, guard=guard)
    if options.tail is not None:
        natural = guards.tail_at(formulation.problem, fitted.samples, options.tail, formulation.natural_M)
        tail = Tail(options.tail, guarded.tail, natural, len(guarded.sample_weights_S))
        objective = _natural_objective(formulation, natural)
        proposal = dataclasses.replace(proposal, tail=tail, objective_natural=objective)
    return proposal


def _with_support(proposal: Proposal, solved: Solved) -> Proposal:
    """Add the distance from the runs, a warning where the gain is extrapolated, and the price of ``propose.trust``."""
    swarm, options, weights_N = solved.swarm, solved.options, np.abs(solved.formulation.problem.weights)
    points_CM = np.stack([solved.weights_M, solved.formulation.natural_M])
    within_CM = [nearest(ranges(swarm.tested_QM), p_M) for p_M in points_CM]
    mean_C = solved.fitted.predict(np.concatenate([points_CM, within_CM])) @ weights_N
    extrapolated = np.abs(mean_C[:2] - mean_C[2:]).sum()
    far = support.support(swarm, points_CM[0], points_CM[1], mean_C[1] - mean_C[0], extrapolated)
    if options.trust is not None and not proposal.worst:
        free_options = dataclasses.replace(options, trust=None, choose_kl_weight=False)
        free = solve(solved.fitted, swarm, free_options, seed=solved.seed)
        price = float(mean_C[0] - solved.fitted.predict(free.weights_M[None])[0] @ weights_N)
        # With λ the free mixture can lie nearer to natural, at a lower objective but a higher BPB.
        far = dataclasses.replace(far, caution=max(price, 0.0))
    warnings = () if proposal.worst else support.warnings(far, proposal.weights, proposal.natural, options.trust)
    return dataclasses.replace(proposal, support=far, warnings=(*proposal.warnings, *warnings))


def _with_error_bars(proposal: Proposal, solved: Solved) -> Proposal:
    formulation, fitted, swarm = solved.formulation, solved.fitted, solved.swarm
    bars = uncertainty.error_bars(
        formulation,
        fitted.samples,
        solved.optimum.solution,
        guarded=solved.optimum.guarded is not None,
        tasks=swarm.tasks,
        domains=swarm.domains,
        held_out=uncertainty.held_out_slope(fitted, swarm, formulation.problem.weights, solved.seed),
        ranges=None if swarm.tested_QM is None else ranges(swarm.tested_QM),
        longest=aiming.longest(fitted, swarm, solved.options, proposal.read_at),
        seed=solved.seed,
    )
    # The worst mixture is not expected to gain anything.
    warnings = proposal.warnings + (() if proposal.worst else bars.warnings)
    return dataclasses.replace(proposal, **_fields(bars) | {"warnings": warnings})


def _why_uncapped(swarm: SwarmFacts) -> str:
    missing = "unique tokens per domain" if swarm.tokens_M is None else "propose.target_tokens"
    return f"repetition is not capped: {missing} not given"
