"""The proposal: the mixture that the settings ask for, how it is known to be that, and what follows from it."""

import numpy as np

from olmix_jax import config
from olmix_jax.laws import Law, evaluate, search
from olmix_jax.propose import baselines, exploration, guard_slack, guards, shadow_prices, uncertainty
from olmix_jax.propose.feasibility import rounded
from olmix_jax.propose.formulation import Posed, pose
from olmix_jax.propose.shadow_prices import named
from olmix_jax.solver import ascent, problem
from olmix_jax.solver.solve import Solution, solve
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
) -> dict:
    """The content of ``proposal.json``: the mixture that minimises the law within its bounds, and what follows from it.

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
    found, ends = _solved(posed, guard, settings, samples, ratios_KM, seed)
    weights_M = posed.expand(found.weights_M)
    predicted_CN = evaluate(law, params, np.stack([weights_M, posed.natural_M]))
    if not np.isfinite(predicted_CN).all():
        raise UserError("the law predicts no finite BPB at the proposed or the natural mixture: fit it on more runs")
    content = _content(posed, found, weights_M, predicted_CN, tasks, domains)
    content |= {name: getattr(settings, name) for name in ("kl_weight", "max_repeats", "target_tokens")}
    content |= shadow_prices.of(posed, found, weights_M, domains, tokens_M, settings)
    content |= _guarded(posed, guard, ends, samples, settings)
    if samples is not None:
        content["warnings"] += _add_error_bars(content, posed, samples, found, tasks, domains)
    content["warnings"] += [] if posed.capped else [_why_uncapped(tokens_M)]
    content |= {"choice": choice} if choice else {}
    if settings.explore and not settings.worst:
        content |= exploration.beside(posed, settings, tokens_M, ratios_KM, tasks, domains, families, weights_M, seed)
    return content


def _guard(posed: Posed, tasks, settings: config.Propose, families: str) -> guards.Guard:
    if settings.guard is None:
        return guards.nothing(posed.problem)
    groups = {task: (task,) for task in tasks}
    if settings.guard_by == "family":
        groups = task_groups.families_of(tasks, families)
    natural_N = evaluate(posed.problem.law, posed.problem.params, posed.natural_M[None])[0]
    return guards.guard(tasks, natural_N, groups, settings.guard)


def _solved(posed: Posed, guard: guards.Guard, settings: config.Propose, samples, ratios_KM, seed: int):
    """(the solution over blocks, the Saddle that it comes from where there are guards or caution)."""
    reduced, ratios_KD = posed.reduced, posed.collapse(ratios_KM)
    if not reduced.law.differentiable or settings.method != "exact":
        return _searched(posed, settings, ratios_KD, seed), None
    if settings.tail is not None and samples is None:
        raise UserError("propose.tail needs samples of the law; set fit.resamples to 100 and run --stages=fit,propose")
    starts_SD = None if reduced.convex else problem.starts(reduced, ratios_KD, seed)
    if settings.worst:
        starts_SD = np.concatenate([ascent.ends(reduced, seed), starts_SD])
    natural_D = posed.collapse(posed.natural_M)
    # Before anything else: it costs least, and what cannot be kept is not worth solving for.
    safe_D = None if settings.guard is None else _keeps(reduced, guard, natural_D, settings)
    free = solve(reduced.law.predict, *reduced[1:], starts_SM=starts_SD, convex=reduced.convex)
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


def _keeps(reduced: problem.Problem, guard: guards.Guard, natural_D, settings: config.Propose) -> np.ndarray:
    """A mixture that keeps the guards.

    Raises:
      UserError: none was found; it says which guard is the hardest, and how much more room is enough.
    """
    least = guard_slack.least(reduced, guard, natural_D[None])
    if least.rise <= guards.HOLDS:
        return least.weights_M
    # A little room more, as a set of one mixture is hard to find again.
    enough = rounded(settings.guard + least.rise * (1 + guard_slack.NEAR), np.ceil, 3)
    found = "no mixture" if least.lower is not None and least.lower > 0 else "no mixture that was found"
    raise UserError(
        f"{found} within the bounds keeps propose.guard = {settings.guard:g} BPB ({least.hardest} is the hardest); it "
        f"takes {enough} or more, or looser bounds"
    )


def _content(posed: Posed, found: Solution, weights_M, predicted_CN, tasks, domains) -> dict:
    """What there is to say of a solution, of any kind; rows of ``predicted_CN`` are proposed and natural."""
    problem_, sign = posed.problem, 1 if posed.problem.task_weights_N.sum() > 0 else -1
    worse = [task for task, (new, old) in zip(tasks, predicted_CN.T) if new > old + NOTICEABLE]
    warnings = [] if found.converged else [f"the solver did not converge: {found.status}"]
    if sign < 0:
        warnings.append(
            "this is the WORST mixture that was found within the bounds, as propose.worst asks for: do not train on it"
        )
    elif worse:
        warnings.append(
            f"{len(worse)} of {len(tasks)} tasks predicted worse than under the natural mixture: {', '.join(worse)}"
        )
    content = {
        "status": found.status,
        "weights": named(domains, weights_M),
        "natural": named(domains, posed.natural_M),
        "caps": named(domains, problem_.bounds.upper_M),
        "lower": named(domains, problem_.bounds.lower_M),
        "predicted": named(tasks, predicted_CN[0]),
        "predicted_natural": named(tasks, predicted_CN[1]),
        "objective": sign * found.value,
        "objective_natural": _with_kl(posed, float(problem_.task_weights_N @ predicted_CN[1])),
        "kl": found.kl if np.isfinite(found.kl) else None,
        "certificate": _certificate(found, problem_),
        "task_weights": named(tasks, sign * problem_.task_weights_N),
        "worse_tasks": worse,
        "warnings": warnings,
    }
    if posed.own_anchor:
        content["anchor"] = named(domains, problem_.anchor_M)
    return content | ({"worst": True} if sign < 0 else {})


def _with_kl(posed: Posed, law: float) -> float | None:
    """The objective of natural, whose part of the law is given; None where it is infinite."""
    problem_ = posed.problem
    sign = 1 if problem_.task_weights_N.sum() > 0 else -1
    kl = float(problem_.kl(posed.natural_M[None])[0]) if posed.own_anchor and problem_.kl_weight > 0 else 0.0
    return sign * (law + problem_.kl_weight * kl) if np.isfinite(kl) else None


def _certificate(found: Solution, problem_: problem.Problem) -> dict:
    """How the solution is known to be one."""
    steps = {"iterations": found.iterations, "residual": found.residual}
    if found.gap is not None:
        return {"gap": found.gap, "relative_gap": found.gap / max(1.0, abs(found.value)), **steps}
    if found.residual is None:
        why = SEARCHED if problem_.law.differentiable else NO_SLOPES
        return {"gap": None, "no_gap": why, "candidates": found.starts}
    why = WORST if problem_.task_weights_N.sum() < 0 else NOT_CONVEX
    return {"gap": None, "no_gap": why, **steps, "starts": found.starts, "agreeing": found.agreeing}


def _guarded(posed: Posed, guard: guards.Guard, ends: guards.Saddle | None, samples, settings: config.Propose) -> dict:
    """What guards hold back, and what caution costs; the objective of natural is then of the same caution."""
    content = {}
    if ends is not None and settings.guard is not None:
        binding = [name for name, dual in zip(guard.names, ends.dual_F) if dual > 1e-9]
        content["guard"] = {
            "by": settings.guard_by,
            "slack": settings.guard,
            "names": list(guard.names),
            "multipliers": named(guard.names, ends.dual_F),
            "binding": binding,
            "worst": float(ends.rise_F.max() + settings.guard),
        }
    if ends is not None and settings.tail is not None:
        natural = guards.tail_at(posed.problem, samples, settings.tail, posed.natural_M)
        content["tail"] = {"share": settings.tail, "value": ends.tail, "natural": natural, "samples": len(ends.dual_S)}
        content["objective_natural"] = _with_kl(posed, natural)
    return content


def _add_error_bars(content: dict, posed: Posed, samples, found: Solution, tasks, domains) -> list[str]:
    """Adds what samples of the law say; returns warnings."""
    whole = posed.problem._replace(task_weights_N=np.abs(posed.problem.task_weights_N))
    weights_M = posed.expand(found.weights_M)
    bars = uncertainty.error_bars(whole, samples, weights_M, posed.natural_M, tasks)
    warnings = bars.pop("warnings")
    content.update(bars)
    if found.residual is None:
        content["no_weight_intervals"] = NO_OPTIMA
    elif "guard" in content or "tail" in content:
        content["no_weight_intervals"] = NOT_RESOLVED
    elif "gain" in bars:
        optima_RM = posed.expand(uncertainty.own_optima(posed.reduced, posed.samples(samples), found.weights_M))
        low_M, high_M = np.quantile(optima_RM, [uncertainty.LOW, uncertainty.HIGH], axis=0)
        content["weights_std"] = named(domains, optima_RM.std(axis=0))
        content |= {"weights_low": named(domains, low_M), "weights_high": named(domains, high_M)}
    # Of the worst mixture no gain is expected.
    return [] if content.get("worst") else warnings


def _why_uncapped(tokens_M) -> str:
    missing = "unique tokens per domain" if tokens_M is None else "propose.target_tokens"
    return f"repetition is not capped: {missing} not given"
