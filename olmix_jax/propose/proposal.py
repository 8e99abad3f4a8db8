"""The proposal: the mixture that the settings ask for, how it is known to be that, and what follows from it."""

from types import ModuleType

import numpy as np

from olmix_jax import config, task_groups
from olmix_jax.errors import UserError
from olmix_jax.laws import evaluate, search
from olmix_jax.propose import candidates, explore, problem, saddle, uncertainty
from olmix_jax.propose.posed import Posed, pose
from olmix_jax.propose.solver import Solution, solve

# A predicted rise of BPB below this is rounding.
NOTICEABLE = 1e-9
NO_GAP = {
    True: "the law is not convex, and a duality gap bounds only convex laws",
    False: "the law has no slopes: the best candidate is kept, without proof",
}


def propose(
    law: ModuleType,
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
      law: a module of :mod:`olmix_jax.laws`; convex in the mixture if it has ``CONVEX = True``.
      params: its parameters.
      tasks: N names.
      domains: M names, in column order.
      natural_M: natural distribution p0.
      settings: the config's ``propose`` section; ``target_tokens`` None leaves repetition uncapped.
      samples: parameters with a leading axis (refits, or draws from the posterior), for error bars; None: none.
      ratios_KM: the swarm's runs, to start from; not needed for a convex law.
      bpb_KN: what they measured, to choose λ by; None: it is not looked into.
      tokens_M: unique tokens per domain; None leaves repetition uncapped.
      sizes_N: how many tasks each task stands for (:func:`olmix_jax.propose.objective.task_weights`).
      families: see :func:`olmix_jax.task_groups.families_of`.
      seed: of what is drawn.

    Raises:
      UserError: no mixture meets the bounds, or an input is not what it should be.
    """
    known = {"tasks": tasks, "domains": domains, "natural_M": natural_M, "tokens_M": tokens_M, "sizes_N": sizes_N}
    posed = pose(law, params, settings=settings, **known)
    choice = explore.choice(posed, settings, ratios_KM, bpb_KN, seed)
    if settings.choose_kl_weight:
        settings = explore.chosen(settings, choice)
        posed = pose(law, params, settings=settings, **known)
    guard = _guard(posed, tasks, settings, families)
    found, ends = _solved(posed, guard, settings, samples, ratios_KM, seed)
    weights_M = posed.expand(found.weights_M)
    predicted_CN = evaluate(law, params, np.stack([weights_M, posed.natural_M]))
    if not np.isfinite(predicted_CN).all():
        raise UserError("the law predicts no finite BPB at the proposed or the natural mixture: fit it on more runs")
    content = _content(posed, found, weights_M, predicted_CN, tasks, domains)
    content |= {name: getattr(settings, name) for name in ("kl_weight", "max_repeats", "target_tokens")}
    content |= _prices(posed, found, weights_M, domains, tokens_M, settings)
    content |= _guarded(guard, ends, settings)
    if samples is not None:
        content["warnings"] += _add_error_bars(content, posed, samples, found.weights_M, tasks, domains)
    content["warnings"] += [] if posed.capped else [_why_uncapped(tokens_M)]
    if choice:
        content["choice"] = choice
    if settings.explore and not settings.worst:
        content |= explore.beside(posed, settings, tokens_M, ratios_KM, tasks, domains, families, weights_M, seed)
    return content


def _guard(posed: Posed, tasks, settings: config.Propose, families: str) -> saddle.Guard:
    if settings.guard is None:
        return saddle.nothing(posed.problem)
    groups = {task: (task,) for task in tasks}
    if settings.guard_by == "family":
        groups = task_groups.families_of(tasks, families)
    natural_N = evaluate(posed.problem.law, posed.problem.params, posed.natural_M[None])[0]
    return saddle.guard(tasks, natural_N, groups, settings.guard)


def _solved(posed: Posed, guard: saddle.Guard, settings: config.Propose, samples, ratios_KM, seed: int):
    """(the solution over blocks, the Saddle that it comes from where there are guards or caution)."""
    reduced, ratios_KD = posed.reduced, posed.collapse(ratios_KM)
    if not reduced.law.DIFFERENTIABLE or settings.method != "exact":
        if settings.guard is not None or settings.tail is not None:
            raise UserError("propose.guard and propose.tail need a law with slopes; choose another fit.law")
        if reduced.law is search:
            ratios_KD = np.asarray(reduced.params.ratios_KM)[np.asarray(reduced.params.present_K) > 0]
        only_runs = settings.method == "search" or (reduced.law is search and settings.method == "exact")
        return (candidates.best_run if only_runs else candidates.simulate)(reduced, ratios_KD, seed), None
    starts_SD = None if reduced.convex else problem.starts(reduced, ratios_KD, seed)
    free = solve(reduced.law.predict, *reduced[1:], starts_SM=starts_SD, convex=reduced.convex)
    if settings.guard is None and settings.tail is None:
        return free, None
    if settings.tail is not None and samples is None:
        raise UserError("propose.tail needs samples of the law; set fit.resamples to 100 and run --stages=fit,propose")
    drawn = None if settings.tail is None else posed.samples(samples)
    starts_SD = free.weights_M[None] if reduced.convex else np.stack([free.weights_M, posed.collapse(posed.natural_M)])
    ends = saddle.solve(reduced, guard, drawn, 1.0 if settings.tail is None else settings.tail, starts_SM=starts_SD)
    if ends.rise_F.max(initial=0.0) > saddle.HOLDS_LOCALLY:
        least = saddle.least_slack(reduced, guard, ends.solution.weights_M)
        worst = guard.names[int(ends.rise_F.argmax())]
        raise UserError(
            f"no mixture within the bounds keeps propose.guard = {settings.guard:g} BPB ({worst} is the hardest); it "
            f"takes {settings.guard + least:.4g} or more, or looser bounds"
        )
    return ends.solution, ends


def _content(posed: Posed, found: Solution, weights_M, predicted_CN, tasks, domains) -> dict:
    """What there is to say of a solution, of any kind; rows of ``predicted_CN`` are proposed and natural."""
    problem_, sign = posed.problem, 1 if posed.problem.task_weights_N.sum() > 0 else -1
    worse = [task for task, (new, old) in zip(tasks, predicted_CN.T) if new > old + NOTICEABLE]
    warnings = [] if found.converged else [f"the solver did not converge: {found.status}"]
    if sign < 0:
        warnings.append("this is the WORST mixture within the bounds, as propose.worst asks for: do not train on it")
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
        "objective_natural": float(sign * problem_.task_weights_N @ predicted_CN[1]),
        "kl": found.kl,
        "certificate": _certificate(found, problem_.law.DIFFERENTIABLE),
        "task_weights": named(tasks, sign * problem_.task_weights_N),
        "worse_tasks": worse,
        "warnings": warnings,
    }
    if posed.own_anchor:
        content["anchor"] = named(domains, problem_.anchor_M)
    return content | ({"worst": True} if sign < 0 else {})


def _certificate(found: Solution, differentiable: bool) -> dict:
    """How the solution is known to be one."""
    steps = {"iterations": found.iterations, "residual": found.residual}
    if found.gap is not None:
        return {"gap": found.gap, "relative_gap": found.gap / max(1.0, abs(found.value)), **steps}
    sloped = differentiable and found.residual is not None
    tried = {"starts": found.starts, "agreeing": found.agreeing} if sloped else {"candidates": found.starts}
    return {"gap": None, "no_gap": NO_GAP[sloped], **(steps if sloped else {}), **tried}


def _prices(posed: Posed, found: Solution, weights_M, domains, tokens_M, settings: config.Propose) -> dict:
    """Epochs over each domain, what more of it or more repeats would be worth, and the same of groups."""
    content, bounds = {}, posed.problem.bounds
    if len(posed.groups):
        price_G = found.group_multipliers_G if found.group_multipliers_G is not None else np.zeros(len(posed.groups))
        content["groups"] = [
            {
                "name": name,
                "domains": [d for d, inside in zip(domains, bounds.member_GM[g]) if inside],
                "low": float(bounds.low_G[g]),
                "high": float(bounds.high_G[g]),
                "weight": float(weights_M[bounds.member_GM[g]].sum()),
                "multiplier": float(price_G[g]),
            }
            for g, name in enumerate(posed.groups)
        ]
    if not posed.capped:
        return content
    tokens_M = np.asarray(tokens_M, np.float64)
    content["repeats"] = named(domains, weights_M * settings.target_tokens / tokens_M)
    if found.multipliers_M is None:
        return content
    multipliers_M = _of_members(posed, found.multipliers_M)
    # Only a cap that repetition sets moves with tokens and repeats: k·N/R.
    repeated_M = np.isclose(bounds.upper_M, settings.max_repeats * tokens_M / settings.target_tokens, rtol=1e-12)
    multipliers_M = np.where(repeated_M & (bounds.upper_M < 1), multipliers_M, 0.0)
    content["shadow_prices"] = named(domains, multipliers_M * settings.max_repeats / settings.target_tokens * 1e9)
    content["repeat_prices"] = named(domains, multipliers_M * tokens_M / settings.target_tokens)
    return content


def _of_members(posed: Posed, multipliers_D) -> np.ndarray:
    """Multipliers of domains' caps: a block's belongs to the member whose cap binds it, in units of that cap."""
    if posed.blocks is None:
        return multipliers_D
    found_M, ratios_DM = np.zeros(len(posed.natural_M)), posed.blocks.ratios_DM
    for d, price in enumerate(multipliers_D):
        with np.errstate(divide="ignore", invalid="ignore"):
            room_M = np.where(ratios_DM[d] > 0, posed.problem.bounds.upper_M / ratios_DM[d], np.inf)
        first = int(room_M.argmin())
        found_M[first] = price / ratios_DM[d, first]
    return found_M


def _guarded(guard: saddle.Guard, ends: saddle.Saddle | None, settings: config.Propose) -> dict:
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
        content["tail"] = {"share": settings.tail, "value": ends.tail, "samples": len(ends.dual_S)}
    return content


def _add_error_bars(content: dict, posed: Posed, samples, weights_D, tasks, domains) -> list[str]:
    """Adds what samples of the law say; returns warnings."""
    whole = posed.problem._replace(task_weights_N=np.abs(posed.problem.task_weights_N))
    weights_M = posed.expand(weights_D)
    bars = uncertainty.error_bars(whole, samples, weights_M, posed.natural_M, tasks)
    warnings = bars.pop("warnings")
    content.update(bars)
    if whole.law.DIFFERENTIABLE and "gain" in bars and "guard" not in content and "tail" not in content:
        optima_RM = posed.expand(uncertainty.own_optima(posed.reduced, posed.samples(samples), weights_D))
        low_M, high_M = np.quantile(optima_RM, [uncertainty.LOW, uncertainty.HIGH], axis=0)
        content["weights_std"] = named(domains, optima_RM.std(axis=0))
        content |= {"weights_low": named(domains, low_M), "weights_high": named(domains, high_M)}
    return warnings


def _why_uncapped(tokens_M) -> str:
    missing = "unique tokens per domain" if tokens_M is None else "propose.target_tokens"
    return f"repetition is not capped: {missing} not given"


def named(names, values) -> dict[str, float]:
    return dict(zip(names, np.asarray(values).tolist(), strict=True))
