"""Weights of the tasks in the objective, from ``propose.task_weights``."""

from collections.abc import Sequence

import numpy as np

from olmix_jax.propose import constraints
from olmix_jax.swarm import task_groups
from olmix_jax.utils.errors import UserError


def task_weights(spec: str, tasks: Sequence[str], sizes_N=None, families: str = "") -> np.ndarray:
    """Weights per task that sum to 1, from the config's ``propose.task_weights``.

    Args:
      spec: a JSON object {task or family: weight}, or the path of a file with one; empty for the sizes. A family's
        weight is spread evenly over its tasks. Tasks that it does not name weigh 0.
      tasks: the tasks that the law predicts, in order; a name that is a task and a family is the task.
      sizes_N: how many tasks each of them stands for, so that a family counts as its tasks do; equal without it.
      families: as :func:`olmix_jax.swarm.task_groups.families_of` takes them.

    Raises:
      UserError: not such an object; or an unknown task, a task named again by its family, a weight that is no number
        or negative, or all zero.
    """
    if not spec.strip():
        sizes_N = np.ones(len(tasks)) if sizes_N is None else np.asarray(sizes_N, np.float64)
        return sizes_N / sizes_N.sum()
    _, weights = constraints.read(spec, "propose.task_weights")
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < float("inf"):
            raise UserError(f"propose.task_weights: the weight of {name} must be a number of 0 or more, not {weight!r}")
    # Divided by the largest first, so that the sum cannot overflow.
    largest = max([float(weight) for weight in weights.values()], default=0.0)
    if not largest:
        raise UserError("propose.task_weights: all weights are 0; give at least one task a positive weight")
    weight_of = {}
    for name, members in _named_tasks(weights, tasks, families).items():
        for task in members:
            if task in weight_of:
                raise UserError(
                    f"propose.task_weights names {task} twice, by its family as well; leave one of them out"
                )
            weight_of[task] = float(weights[name]) / largest / len(members)
    weights_N = np.array([weight_of.get(task, 0.0) for task in tasks])
    return weights_N / weights_N.sum()


def _named_tasks(names, tasks: Sequence[str], families: str) -> dict[str, tuple[str, ...]]:
    """{name: the task of that name, or the family's tasks}.

    Raises:
      UserError: a name is neither.
    """
    found, no_families = {}, ""
    if not set(names) <= set(tasks):
        try:
            found = task_groups.families_of(tasks, families)
        except UserError as e:
            no_families = f" There are no families, as of {e}."
    if unknown := [name for name in names if name not in tasks and name not in found]:
        raise UserError(
            f"propose.task_weights names unknown tasks: {', '.join(unknown)}; the tasks are {', '.join(tasks)}"
            + (f", and their families {', '.join(found)}" if found else no_families)
        )
    return {name: (name,) if name in tasks else found[name] for name in names}
