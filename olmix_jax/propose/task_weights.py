"""Weights of the tasks in the objective, from ``propose.task_weights``."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from olmix_jax.swarm import task_groups
from olmix_jax.utils.errors import UserError


def task_weights(
    weights: Mapping[str, float] | None,
    tasks: Sequence[str],
    sizes_N=None,
    families: Mapping[str, Sequence[str]] | None = None,
) -> np.ndarray:
    """Return weights per task that sum to 1.

    Args:
      weights: {task or family: weight}. A family's weight is divided equally among its tasks. Tasks without a weight
        get 0. None: proportional to ``sizes_N``.
      tasks: N names, in the order of the law's predictions. A name that is both a task and a family means the task.
      sizes_N: how many tasks each task stands for; equal by default.
      families: see :func:`olmix_jax.swarm.task_groups.families_of`.

    Raises:
      UserError: a name is unknown, a task is named both directly and by its family, a weight is not a number of 0 or
        more, or all weights are 0.
    """
    if weights is None:
        sizes_N = np.ones(len(tasks)) if sizes_N is None else np.asarray(sizes_N, np.float64)
        return sizes_N / sizes_N.sum()
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < float("inf"):
            raise UserError(f"propose.task_weights: the weight of {name} must be a number of 0 or more, not {weight!r}")
    # Divide by the largest weight first, so that the sum cannot overflow.
    largest = max([float(weight) for weight in weights.values()], default=0.0)
    if not largest:
        raise UserError("propose.task_weights: all weights are 0; give at least one task a positive weight")
    weight_of: dict[str, float] = {}
    for name, members in _members(weights, tasks, families).items():
        for task in members:
            if task in weight_of:
                raise UserError(
                    f"propose.task_weights: {task} is weighted by name and by its family; remove one of them"
                )
            weight_of[task] = float(weights[name]) / largest / len(members)
    weights_N = np.array([weight_of.get(task, 0.0) for task in tasks])
    return weights_N / weights_N.sum()


def _members(
    names: Iterable[str], tasks: Sequence[str], families: Mapping[str, Sequence[str]] | None
) -> dict[str, tuple[str, ...]]:
    """Return {name: the task of that name, or the family's tasks}."""
    members: dict[str, tuple[str, ...]] = {}
    why_none = ""
    if not set(names) <= set(tasks):
        try:
            members = task_groups.families_of(tasks, families)
        except UserError as e:
            why_none = f". Families cannot be used: {e}"
    if unknown := [name for name in names if name not in tasks and name not in members]:
        choices = f", and their families {', '.join(members)}" if members else why_none
        raise UserError(
            f"propose.task_weights: unknown tasks: {', '.join(unknown)}; the tasks are {', '.join(tasks)}{choices}"
        )
    return {name: (name,) if name in tasks else members[name] for name in names}
