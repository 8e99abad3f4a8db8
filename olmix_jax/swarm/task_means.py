"""The mean over tasks: the number that a proposal minimises, and that every headline states.

Weights come from ``propose.task_weights``, or from the numbers of tasks behind the columns of a table of families. The
plain mean, with equal weights, is stated beside the weighted mean where the two differ.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from olmix_jax.swarm import task_groups
from olmix_jax.swarm.table import SwarmTable
from olmix_jax.utils.progress import counted

# Weights that differ by less than this share of their mean count as equal.
_EQUAL = 1e-9


def task_mean(bpb: Mapping[str, Any], weights: Mapping[str, float] | None = None) -> Any:
    """Return Σ_i w_i y_i / Σ_i w_i over the tasks i of ``bpb``.

    Args:
      bpb: {task: BPB}, numbers or arrays of the same shape.
      weights: {task: weight}; a task that is not named has weight 0. None or empty: equal weights.
    """
    weights = weights or dict.fromkeys(bpb, 1.0)
    named = [(weights.get(task, 0.0), np.asarray(value, np.float64)) for task, value in bpb.items()]
    return sum(weight * value for weight, value in named) / sum(weight for weight, _ in named)


def are_equal(weights: Mapping[str, float] | None) -> bool:
    """Return whether all tasks have the same weight, so that the weighted mean is the plain one."""
    values = list((weights or {}).values())
    return not values or max(values) - min(values) <= _EQUAL * max(values)


def word(weights: Mapping[str, float] | None) -> str:
    """Return "mean" for equal weights, else "weighted mean"."""
    return "mean" if are_equal(weights) else "weighted mean"


def name(tasks: int, weights: Mapping[str, float] | None) -> str:
    """Return the name of a mean over ``tasks`` tasks, as in "mean of 12 tasks" or "weighted mean of 2 of 12 tasks"."""
    if are_equal(weights):
        return f"mean of {counted(tasks, 'task')}"
    positive = [task for task, weight in (weights or {}).items() if weight > 0]
    if len(positive) == 1:
        return f"task {positive[0]} alone"
    return f"weighted mean of {'' if len(positive) == tasks else f'{len(positive)} of '}{counted(tasks, 'task')}"


def weights_of_columns(
    weights: Mapping[str, float],
    columns: Sequence[str],
    *,
    mmlu_groups: bool,
    granularity: str,
    families: Mapping[str, Sequence[str]] | None,
) -> dict[str, float]:
    """Return weights of metric columns whose weighted mean is that of the tasks made from them.

    A law over families has weights by family. A model that validates its proposal is scored on single tasks.

    Args:
      weights: by task of the law.
      columns: the columns that these tasks were made from.
      mmlu_groups, granularity, families: see :func:`olmix_jax.swarm.task_groups.grouped`.

    Raises:
      UserError: the columns cannot be grouped.
    """
    if set(weights) <= set(columns):
        return {column: float(weights.get(column, 0.0)) for column in columns}
    # One run per column, with a score of 1 there and 0 elsewhere: a task's mean is then the weight of the column in it.
    columns, ones_KM = tuple(columns), np.ones((len(columns), 1))
    table = SwarmTable(columns, ("all",), columns, ones_KM, np.eye(len(columns)), None, None, columns)
    made = task_groups.grouped(table, mmlu_groups=mmlu_groups, granularity=granularity, families=families)
    return dict(zip(columns, (made.bpb_KN @ [weights.get(task, 0.0) for task in made.tasks]).tolist()))
