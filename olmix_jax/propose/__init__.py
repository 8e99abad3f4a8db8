"""From a law to a mixture: caps, objective, solver, and the proposal that they make together."""

import numpy as np

from olmix_jax.errors import UserError
from olmix_jax.laws import evaluate
from olmix_jax.propose.caps import check_feasible, repetition_caps
from olmix_jax.propose.objective import task_weights as read_task_weights
from olmix_jax.propose.solver import solve

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
    warnings = []
    if capped:
        upper_M = repetition_caps(tokens_M, target_tokens, max_repeats)
        check_feasible(
            lower_M, upper_M, domains, tokens_M=tokens_M, target_tokens=target_tokens, max_repeats=max_repeats
        )
    else:
        missing = "unique tokens per domain" if tokens_M is None else "propose.target_tokens"
        warnings.append(f"repetition is not capped: {missing} not given")
    weights_N = read_task_weights(task_weights, tasks)
    found = solve(predict, params, weights_N, natural_M, lower_M, upper_M, kl_weight)
    predicted_CN = evaluate(predict, params, np.stack([found.weights_M, natural_M]))
    if not np.isfinite(predicted_CN).all():
        raise UserError("the law predicts no finite BPB at the proposed or the natural mixture: fit it on more runs")
    worse = [task for task, (new, old) in zip(tasks, predicted_CN.T) if new > old + NOTICEABLE]
    if found.status != "optimal":
        warnings.append(f"the solver did not converge: {found.status}")
    if worse:
        warnings.append(f"predicted worse than under the natural mixture: {', '.join(worse)}")
    named = lambda values_M: dict(zip(domains, np.asarray(values_M).tolist(), strict=True))  # noqa: E731
    content = {
        "status": found.status,
        "weights": named(found.weights_M),
        "natural": named(natural_M),
        "caps": named(upper_M),
        "predicted": dict(zip(tasks, predicted_CN[0].tolist(), strict=True)),
        "predicted_natural": dict(zip(tasks, predicted_CN[1].tolist(), strict=True)),
        "objective": found.value,
        "objective_natural": float(weights_N @ predicted_CN[1]),
        "kl": found.kl,
        "certificate": {
            "gap": found.gap,
            "relative_gap": found.gap / max(1.0, abs(found.value)),
            "iterations": found.iterations,
            "residual": found.residual,
        },
        "task_weights": dict(zip(tasks, weights_N.tolist(), strict=True)),
        "kl_weight": kl_weight,
        "max_repeats": max_repeats,
        "target_tokens": target_tokens,
        "worse_tasks": worse,
        "warnings": warnings,
    }
    if capped:
        tokens_M = np.asarray(tokens_M, np.float64)
        # A cap is k·N/R: a billion more unique tokens raise it by 1e9 · k/R, each unit worth its multiplier.
        price_M = np.where(upper_M < 1, found.multipliers_M * max_repeats / target_tokens * 1e9, 0.0)
        content["shadow_prices"] = named(price_M)
        content["repeats"] = named(found.weights_M * target_tokens / tokens_M)
    return content
