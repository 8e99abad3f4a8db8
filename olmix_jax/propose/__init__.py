"""From a law to a mixture: caps, objective, solver, and the proposal that they make together."""

from types import ModuleType

import numpy as np

from olmix_jax.errors import UserError
from olmix_jax.laws import evaluate
from olmix_jax.propose import candidates, problem, uncertainty
from olmix_jax.propose.caps import check_feasible, repetition_caps
from olmix_jax.propose.objective import task_weights as read_task_weights
from olmix_jax.propose.problem import Problem
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
    samples=None,
    ratios_KM=None,
    tasks,
    domains,
    natural_M,
    tokens_M=None,
    kl_weight: float,
    max_repeats: float,
    target_tokens: float | None,
    task_weights: str = "",
    sizes_N=None,
    seed: int = 0,
) -> dict:
    """The content of ``proposal.json``: the mixture that minimises the law within its caps, and what follows from it.

    A convex law is solved with proof, another differentiable one from several starts, one without slopes by search.

    Args:
      law: a module of :mod:`olmix_jax.laws`; convex in the mixture if it has ``CONVEX = True``.
      params: its parameters.
      samples: the same with a leading axis (refits, or draws from the posterior), for error bars; None: none.
      ratios_KM: the swarm's runs, to start from; not needed for a convex law.
      tasks: N names.
      domains: M names, in column order.
      natural_M: natural distribution p0.
      tokens_M: unique tokens per domain; None leaves repetition uncapped.
      kl_weight: λ [BPB per nat].
      max_repeats: k, epochs over a domain at most.
      target_tokens: R, tokens of the target run; None leaves repetition uncapped.
      task_weights: see :func:`olmix_jax.propose.objective.task_weights`.
      sizes_N: see there.
      seed: of what is drawn.

    Raises:
      UserError: the caps are infeasible, or an input is not what it should be.
    """
    natural_M = np.asarray(natural_M, np.float64) / np.sum(natural_M)
    limits = {"tokens_M": tokens_M, "target_tokens": target_tokens, "max_repeats": max_repeats}
    capped = tokens_M is not None and target_tokens is not None
    lower_M, upper_M = np.zeros(len(domains)), repetition_caps(**limits) if capped else np.ones(len(domains))
    if capped:
        check_feasible(lower_M, upper_M, domains, **limits)
    weights_N = read_task_weights(task_weights, tasks, sizes_N)
    # The KL term allows a domain of natural weight 0 nothing.
    allowed_M = np.where(natural_M > 0, upper_M, 0.0) if kl_weight > 0 else upper_M
    posed = Problem(law, params, weights_N, natural_M, lower_M, allowed_M, kl_weight)
    found = _solved(posed, ratios_KM, seed)
    predicted_CN = evaluate(law, params, np.stack([found.weights_M, natural_M]))
    if not np.isfinite(predicted_CN).all():
        raise UserError("the law predicts no finite BPB at the proposed or the natural mixture: fit it on more runs")
    content = _content(found, predicted_CN, posed, upper_M, tasks, domains)
    content |= {"kl_weight": kl_weight, "max_repeats": max_repeats, "target_tokens": target_tokens}
    if capped:
        content |= _repetition(found, upper_M, domains, **limits)
    else:
        missing = "unique tokens per domain" if tokens_M is None else "propose.target_tokens"
        content["warnings"].append(f"repetition is not capped: {missing} not given")
    if samples is not None:
        bars = uncertainty.error_bars(posed, samples, found.weights_M, tasks, domains)
        content["warnings"] += bars.pop("warnings")
        content |= bars
    return content


def _repetition(found: Solution, upper_M, domains, *, tokens_M, target_tokens: float, max_repeats: float) -> dict:
    """Epochs over each domain, and what more of it would be worth."""
    content = {"repeats": _named(domains, found.weights_M * target_tokens / np.asarray(tokens_M, np.float64))}
    if found.multipliers_M is not None:
        # A cap is k·N/R: a billion more unique tokens raise it by 1e9 · k/R, each unit worth its multiplier.
        price_M = np.where(upper_M < 1, found.multipliers_M * max_repeats / target_tokens * 1e9, 0.0)
        content["shadow_prices"] = _named(domains, price_M)
    return content


def _solved(posed: Problem, ratios_KM, seed: int) -> Solution:
    """The solution by the means that the law allows."""
    law, convex = posed.law, getattr(posed.law, "CONVEX", False)
    if not law.DIFFERENTIABLE:
        return candidates.find(posed, ratios_KM, seed)
    starts_SM = None if convex else problem.starts(posed, ratios_KM, seed)
    return solve(law.predict, *posed[1:], starts_SM=starts_SM, convex=convex)


def _content(found: Solution, predicted_CN, posed: Problem, upper_M, tasks, domains) -> dict:
    """What there is to say of a solution, with or without caps; rows of ``predicted_CN`` are proposed and natural."""
    worse = [task for task, (new, old) in zip(tasks, predicted_CN.T) if new > old + NOTICEABLE]
    warnings = []
    if not found.converged:
        warnings.append(f"the solver did not converge: {found.status}")
    if worse:
        warnings.append(
            f"{len(worse)} of {len(tasks)} tasks predicted worse than under the natural mixture: {', '.join(worse)}"
        )
    return {
        "status": found.status,
        "weights": _named(domains, found.weights_M),
        "natural": _named(domains, posed.natural_M),
        "caps": _named(domains, upper_M),
        "predicted": _named(tasks, predicted_CN[0]),
        "predicted_natural": _named(tasks, predicted_CN[1]),
        "objective": found.value,
        "objective_natural": float(posed.task_weights_N @ predicted_CN[1]),
        "kl": found.kl,
        "certificate": _certificate(found, posed.law.DIFFERENTIABLE),
        "task_weights": _named(tasks, posed.task_weights_N),
        "worse_tasks": worse,
        "warnings": warnings,
    }


def _certificate(found: Solution, differentiable: bool) -> dict:
    """How the solution is known to be one."""
    steps = {"iterations": found.iterations, "residual": found.residual}
    if found.gap is not None:
        return {"gap": found.gap, "relative_gap": found.gap / max(1.0, abs(found.value)), **steps}
    tried = {"starts": found.starts, "agreeing": found.agreeing} if differentiable else {"candidates": found.starts}
    return {"gap": None, "no_gap": NO_GAP[differentiable], **(steps if differentiable else {}), **tried}


def _named(names, values) -> dict[str, float]:
    return dict(zip(names, np.asarray(values).tolist(), strict=True))
