"""The proposal: the mixture that the settings ask for, how it is known to be that, and what follows from it."""

import dataclasses
from typing import Any

import numpy as np

from olmix_jax import config
from olmix_jax.laws import Law, evaluate, search
from olmix_jax.propose import baselines, exploration, guard_slack, guards, shadow_prices, uncertainty
from olmix_jax.propose.feasibility import rounded
from olmix_jax.propose.formulation import Posed, pose
from olmix_jax.propose.proposal import Certificate, Guard, Proposal, Tail, by_name
from olmix_jax.solver import problem, starts
from olmix_jax.solver.solution import Solution
from olmix_jax.solver.solve import solve
from olmix_jax.solver.status import GUARD_TOLERANCE
from olmix_jax.swarm import task_groups
from olmix_jax.utils.errors import UserError

# A predicted rise of BPB below this is rounding.
NOTICEABLE = 1e-9
# Why a proposal has no duality gap.
NOT_CONVEX = "the law is not convex, and a duality gap bounds only convex laws"
WORST = "the worst mixture is a maximum, and a duality gap bounds only minima of convex laws"
NO_SLOPES = "the law has no slopes: the best candidate is kept, without proof"
SEARCHED = "a search over candidates proves nothing: another mixture may be better"
# Why it has no intervals for weights.
NO_OPTIMA = "a search has no optima of the law's samples"
NOT_RESOLVED = "propose.guard and propose.tail are not solved again for each of the law's samples"


def propose(
    law: Law,
    params,
    *,
    tasks,
    domains,
    natural_M,
    settings: config.Propose,
    samples=None,
    ratios_KM=None,
    bpb_KN=None,
    tokens_M=None,
    sizes_N=None,
    families: str = "",
    seed: int = 0,
) -> Proposal:
    """Return the mixture that minimises the law within its bounds, and what follows from it.

    A convex law is solved with proof, another differentiable one from several starts, one without slopes by search.

    Args:
      law: the family of the law, such as ``log_linear.LAW``.
      params: its parameters.
      tasks: N names.
      domains: M names, in column order.
      natural_M: natural distribution p0.
      settings: the config's ``propose`` section; ``target_tokens`` None leaves repetition uncapped.
      samples: parameters with a leading axis (refits, or draws from the posterior), for error bars; None: none.
      ratios_KM: the swarm's runs, to start from; not needed for a convex law.
      bpb_KN: what they measured, to choose λ by; None: it is not looked into.
      tokens_M: unique tokens per domain; None leaves repetition uncapped.
      sizes_N: how many tasks each task stands for (:func:`olmix_jax.solver.objective.task_weights`).
      families: see :func:`olmix_jax.swarm.task_groups.families_of`.
      seed: of what is drawn.

    Raises:
      UserError: no mixture meets the bounds, or an input is not what it should be.
    """
    known = {"tasks": tasks, "domains": domains, "natural_M": natural_M, "tokens_M": tokens_M, "sizes_N": sizes_N}
    known["families"] = families
    posed = pose(law, params, settings=settings, **known)
    choice = exploration.choice(posed, settings, ratios_KM, bpb_KN, seed)
    if settings.choose_kl_weight:
        settings = exploration.chosen(settings, choice)
        posed = pose(law, params, settings=settings, **known)
    guard = _guard(posed, tasks, settings, families)
    solution, guarded = _solved(posed, guard, settings, samples, ratios_KM, seed)
    weights_M = posed.expand(solution.weights_M)
    predicted_CN = evaluate(law, params, np.stack([weights_M, posed.natural_M]))
    if not np.isfinite(predicted_CN).all():
        raise UserError("the law predicts no finite BPB at the proposed or the natural mixture: fit it on more runs")
    proposal = _proposal(posed, solution, weights_M, predicted_CN, tasks, domains, settings)
    prices = shadow_prices.of(posed, solution, weights_M, domains, tokens_M, settings)
    proposal = dataclasses.replace(proposal, **_fields(prices))
    if guarded is not None:
        proposal = _with_guards(proposal, posed, guard, guarded, samples, settings)
    if samples is not None:
        bars = _error_bars(posed, samples, solution, guarded is not None, tasks, domains)
        # The worst mixture is not expected to gain anything.
        warnings = proposal.warnings + (() if proposal.worst else bars.warnings)
        proposal = dataclasses.replace(proposal, **_fields(bars) | {"warnings": warnings})
    if not posed.capped:
        proposal = dataclasses.replace(proposal, warnings=(*proposal.warnings, _why_uncapped(tokens_M)))
    proposal = dataclasses.replace(proposal, choice=choice)
    if settings.explore and not settings.worst:
        explored = exploration.beside(posed, settings, tokens_M, ratios_KM, tasks, domains, families, weights_M, seed)
        proposal = dataclasses.replace(proposal, **_fields(explored))
    return proposal


def _fields(part: Any) -> dict[str, Any]:
    """Return a part of a proposal as {field: value}."""
    return {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}


def _guard(posed: Posed, tasks, settings: config.Propose, families: str) -> guards.Guards:
    if settings.guard is None:
        return guards.no_guards(posed.problem)
    groups = {task: (task,) for task in tasks}
    if settings.guard_by == "family":
        groups = task_groups.families_of(tasks, families)
    natural_N = evaluate(posed.problem.law, posed.problem.params, posed.natural_M[None])[0]
    return guards.group_guards(tasks, natural_N, groups, settings.guard)


def _solved(posed: Posed, guard: guards.Guards, settings: config.Propose, samples, ratios_KM, seed: int):
    """(the solution over blocks, the GuardedSolution that it comes from where there are guards or caution)."""
    reduced, ratios_KD = posed.reduced, posed.collapse(ratios_KM)
    if not reduced.law.differentiable or settings.method != "exact":
        return _searched(posed, settings, ratios_KD, seed), None
    if settings.tail is not None and samples is None:
        raise UserError("propose.tail needs samples of the law; set fit.resamples to 100 and run --stages=fit,propose")
    starts_SD = None if reduced.convex else starts.from_runs(reduced, ratios_KD, seed)
    if settings.worst:
        starts_SD = np.concatenate([starts.from_vertices(reduced, seed), starts_SD])
    natural_D = posed.collapse(posed.natural_M)
    # Before anything else: it costs least, and what cannot be kept is not worth solving for.
    safe_D = None if settings.guard is None else _keeps(reduced, guard, natural_D, settings)
    free = solve(reduced, starts_SM=starts_SD)
    if settings.guard is None and settings.tail is None:
        return free, None
    drawn = None if settings.tail is None else posed.samples(samples)
    starts_SD = free.weights_M[None]
    if not reduced.convex:
        starts_SD = np.stack([free.weights_M, natural_D if safe_D is None else safe_D])
    share = 1.0 if settings.tail is None else settings.tail
    ends = guards.solve(reduced, guard, drawn, share, starts_SM=starts_SD, safe_M=safe_D)
    return ends.solution, ends


def _searched(posed: Posed, settings: config.Propose, ratios_KD, seed: int) -> Solution:
    """The best of candidates, for a law without slopes or as a published baseline."""
    reduced, law = posed.reduced, posed.problem.law
    if settings.guard is not None or settings.tail is not None:
        raise UserError("propose.guard and propose.tail need a law with slopes; choose another fit.law")
    only_runs = settings.method == "search" or (law == search.LAW and settings.method == "exact")
    if only_runs and posed.blocks is not None:
        which = "propose.method=search" if settings.method == "search" else "fit.law=search"
        raise UserError(f"propose.keep_ratios has no effect with {which}, which proposes one of the runs as it is")
    if reduced.law == search.LAW:
        ratios_KD = np.asarray(reduced.params.ratios_KM)[np.asarray(reduced.params.present_K) > 0]
    if only_runs:
        return baselines.best_run(reduced, ratios_KD, seed)
    return (baselines.simulate if settings.method == "simulation" else baselines.refine)(reduced, ratios_KD, seed)


def _keeps(reduced: problem.Problem, guard: guards.Guards, natural_D, settings: config.Propose) -> np.ndarray:
    """A mixture that keeps the guards.

    Raises:
      UserError: none was found; it says which guard is the hardest, and how much more room is enough.
    """
    least = guard_slack.least_slack(reduced, guard, natural_D[None])
    if least.excess <= GUARD_TOLERANCE:
        return least.weights_M
    # A little room more, as a set of one mixture is hard to find again.
    enough = rounded(settings.guard + least.excess * (1 + guard_slack.NEAR), np.ceil, 3)
    found = "no mixture" if least.lower_bound is not None and least.lower_bound > 0 else "no mixture that was found"
    raise UserError(
        f"{found} within the bounds keeps propose.guard = {settings.guard:g} BPB ({least.hardest} is the hardest); it "
        f"takes {enough} or more, or looser bounds"
    )


def _proposal(
    posed: Posed, solution: Solution, weights_M, predicted_CN, tasks, domains, settings: config.Propose
) -> Proposal:
    """Return what holds for a solution of any kind; rows of ``predicted_CN`` are the proposed and natural mixtures."""
    problem_, sign = posed.problem, 1 if posed.problem.weights.sum() > 0 else -1
    worse = tuple(task for task, (new, old) in zip(tasks, predicted_CN.T) if new > old + NOTICEABLE)
    warnings = () if solution.converged else (f"the solver did not converge: {solution.describe()}",)
    if sign < 0:
        warnings += (
            "this is the WORST mixture that was found within the bounds, as propose.worst asks for: do not train on it",
        )
    elif worse:
        warnings += (
            f"{len(worse)} of {len(tasks)} tasks predicted worse than under the natural mixture: {', '.join(worse)}",
        )
    return Proposal(
        status=solution.status,
        weights=by_name(domains, weights_M),
        natural=by_name(domains, posed.natural_M),
        caps=by_name(domains, problem_.bounds.upper_M),
        lower=by_name(domains, problem_.bounds.lower_M),
        predicted=by_name(tasks, predicted_CN[0]),
        predicted_natural=by_name(tasks, predicted_CN[1]),
        objective=sign * solution.value,
        objective_natural=_with_kl(posed, float(problem_.weights @ predicted_CN[1])),
        kl=solution.kl if np.isfinite(solution.kl) else None,
        certificate=_certificate(solution, problem_),
        task_weights=by_name(tasks, sign * problem_.weights),
        worse_tasks=worse,
        warnings=warnings,
        kl_weight=settings.kl_weight,
        max_repeats=settings.max_repeats,
        target_tokens=settings.target_tokens,
        capped_by={},
        anchor=by_name(domains, problem_.anchor_M) if posed.own_anchor else None,
        worst=sign < 0,
    )


def _with_kl(posed: Posed, law: float) -> float | None:
    """The objective of natural, whose part of the law is given; None where it is infinite."""
    problem_ = posed.problem
    sign = 1 if problem_.weights.sum() > 0 else -1
    kl = float(problem_.kl(posed.natural_M[None])[0]) if posed.own_anchor and problem_.kl_weight > 0 else 0.0
    return sign * (law + problem_.kl_weight * kl) if np.isfinite(kl) else None


def _certificate(solution: Solution, problem_: problem.Problem) -> Certificate:
    """Return how the solution is known to be one."""
    steps = {"iterations": solution.iterations, "residual": solution.residual}
    if solution.gap is not None:
        return Certificate(solution.gap, relative_gap=solution.gap / max(1.0, abs(solution.value)), **steps)
    if solution.residual is None:
        why = SEARCHED if problem_.law.differentiable else NO_SLOPES
        return Certificate(None, why, candidates=solution.starts)
    why = WORST if problem_.weights.sum() < 0 else NOT_CONVEX
    return Certificate(None, why, **steps, starts=solution.starts, agreeing=solution.agreeing)


def _with_guards(
    proposal: Proposal,
    posed: Posed,
    guard: guards.Guards,
    guarded: guards.GuardedSolution,
    samples,
    settings: config.Propose,
) -> Proposal:
    """Add which guards bind and the mean over the worst samples; the objective of natural is then that mean too."""
    if settings.guard is not None:
        binding = tuple(name for name, dual in zip(guard.names, guarded.multipliers_F) if dual > 1e-9)
        facts = Guard(
            by=settings.guard_by,
            slack=settings.guard,
            names=guard.names,
            multipliers=by_name(guard.names, guarded.multipliers_F),
            binding=binding,
            worst=float(guarded.excess_F.max() + settings.guard),
        )
        proposal = dataclasses.replace(proposal, guard=facts)
    if settings.tail is not None:
        natural = guards.tail_at(posed.problem, samples, settings.tail, posed.natural_M)
        tail = Tail(settings.tail, guarded.tail, natural, len(guarded.sample_weights_S))
        proposal = dataclasses.replace(proposal, tail=tail, objective_natural=_with_kl(posed, natural))
    return proposal


def _error_bars(posed: Posed, samples, solution: Solution, guarded: bool, tasks, domains) -> uncertainty.ErrorBars:
    """Return intervals of predictions and, where samples of the law have optima, of weights."""
    whole = dataclasses.replace(posed.problem, weights=np.abs(posed.problem.weights))
    weights_M = posed.expand(solution.weights_M)
    bars = uncertainty.error_bars(whole, samples, weights_M, posed.natural_M, tasks)
    if solution.residual is None:
        return dataclasses.replace(bars, no_weight_intervals=NO_OPTIMA)
    if guarded:
        return dataclasses.replace(bars, no_weight_intervals=NOT_RESOLVED)
    if bars.gain is None:
        return bars
    optima_RM = posed.expand(uncertainty.own_optima(posed.reduced, posed.samples(samples), solution.weights_M))
    low_M, high_M = np.quantile(optima_RM, [uncertainty.LOW, uncertainty.HIGH], axis=0)
    return dataclasses.replace(
        bars,
        weights_std=by_name(domains, optima_RM.std(axis=0)),
        weights_low=by_name(domains, low_M),
        weights_high=by_name(domains, high_M),
    )


def _why_uncapped(tokens_M) -> str:
    missing = "unique tokens per domain" if tokens_M is None else "propose.target_tokens"
    return f"repetition is not capped: {missing} not given"
