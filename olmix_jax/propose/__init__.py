"""From a law to a mixture: caps, objective, solver, and the proposal that they make together."""

import numpy as np

from olmix_jax.errors import UserError
from olmix_jax.laws import evaluate
from olmix_jax.propose.caps import check_feasible, repetition_caps
from olmix_jax.propose.objective import task_weights as read_task_weights
from olmix_jax.propose.solver import Solution, solve

# A predicted rise of BPB below this is rounding.
NOTICEABLE = 1e-9


def propose(
    predict,
    params,
    *,
    tasks,
    domains,
    natural_M,
    tokens_M=None,
    kl_weight: float,
    max_repeats: float,
    target_tokens: float | None,
    task_weights: str = "",
) -> dict:
    """The content of ``proposal.json``: the mixture that minimises the law within its caps, and what follows from it.

    Args:
      predict: a law's ``predict(params, ratios_KM) -> bpb_KN``, convex in the mixture.
      params: its parameters.
      tasks: N names.
      domains: M names, in column order.
      natural_M: natural distribution p0.
      tokens_M: unique tokens per domain; None leaves repetition uncapped.
      kl_weight: λ [BPB per nat].
      max_repeats: k, epochs over a domain at most.
      target_tokens: R, tokens of the target run; None leaves repetition uncapped.
      task_weights: see :func:`olmix_jax.propose.objective.task_weights`.

    Raises:
      UserError: the caps are infeasible, or an input is not what it should be.
    """
    natural_M = np.asarray(natural_M, np.float64) / np.sum(natural_M)
    capped = tokens_M is not None and target_tokens is not None
    lower_M, upper_M = np.zeros(len(domains)), np.ones(len(domains))
    if capped:
        limits = {"tokens_M": tokens_M, "target_tokens": target_tokens, "max_repeats": max_repeats}
        upper_M = repetition_caps(**limits)
        check_feasible(lower_M, upper_M, domains, **limits)
    weights_N = read_task_weights(task_weights, tasks)
    found = solve(predict, params, weights_N, natural_M, lower_M, upper_M, kl_weight)
    predicted_CN = evaluate(predict, params, np.stack([found.weights_M, natural_M]))
    if not np.isfinite(predicted_CN).all():
        raise UserError("the law predicts no finite BPB at the proposed or the natural mixture: fit it on more runs")
    content = _content(found, predicted_CN, weights_N, natural_M, upper_M, tasks, domains)
    content |= {"kl_weight": kl_weight, "max_repeats": max_repeats, "target_tokens": target_tokens}
    if capped:
        # A cap is k·N/R: a billion more unique tokens raise it by 1e9 · k/R, each unit worth its multiplier.
        price_M = np.where(upper_M < 1, found.multipliers_M * max_repeats / target_tokens * 1e9, 0.0)
        content["shadow_prices"] = _named(domains, price_M)
        content["repeats"] = _named(domains, found.weights_M * target_tokens / np.asarray(tokens_M, np.float64))
    else:
        missing = "unique tokens per domain" if tokens_M is None else "propose.target_tokens"
        content["warnings"].append(f"repetition is not capped: {missing} not given")
    return content


def _content(found: Solution, predicted_CN, weights_N, natural_M, upper_M, tasks, domains) -> dict:
    """What there is to say of a solution, with or without caps; rows of ``predicted_CN`` are proposed and natural."""
    worse = [task for task, (new, old) in zip(tasks, predicted_CN.T) if new > old + NOTICEABLE]
    warnings = []
    if found.status != "optimal":
        warnings.append(f"the solver did not converge: {found.status}")
    if worse:
        warnings.append(
            f"{len(worse)} of {len(tasks)} tasks predicted worse than under the natural mixture: {', '.join(worse)}"
        )
    return {
        "status": found.status,
        "weights": _named(domains, found.weights_M),
        "natural": _named(domains, natural_M),
        "caps": _named(domains, upper_M),
        "predicted": _named(tasks, predicted_CN[0]),
        "predicted_natural": _named(tasks, predicted_CN[1]),
        "objective": found.value,
        "objective_natural": float(weights_N @ predicted_CN[1]),
        "kl": found.kl,
        "certificate": {
            "gap": found.gap,
            "relative_gap": found.gap / max(1.0, abs(found.value)),
            "iterations": found.iterations,
            "residual": found.residual,
        },
        "task_weights": _named(tasks, weights_N),
        "worse_tasks": worse,
        "warnings": warnings,
    }


def _named(names, values) -> dict[str, float]:
    return dict(zip(names, np.asarray(values).tolist(), strict=True))
