"""What a proposal minimises (METHOD §2, step 4): Σ_i w_i f_i(p) + λ·KL(p ‖ natural), with Σ_i w_i = 1."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from olmix_jax import task_groups
from olmix_jax.errors import UserError
from olmix_jax.propose import limits


class Objective(NamedTuple):
    """The objective over mixtures, in BPB, for any law. Pure JAX; run under ``jax.enable_x64``.

    Attributes:
      predict: a law's ``predict(params, ratios_KM) -> bpb_KN``.
      merge: (weights, bpb_N) → what the tasks come to, such as :func:`mean`; convex and rising in each task's BPB
        keeps a convex law's objective convex.
      params: the law's parameters.
      weights: what ``merge`` takes; for :func:`mean` the task weights w.
      natural_M: p0.
      kl_weight: λ [BPB per nat].
    """

    predict: Callable
    merge: Callable
    params: Any
    weights: Any
    natural_M: Any
    kl_weight: Any

    def law(self, weights_M):
        """Σ_i w_i f_i(p) [BPB], or what else ``merge`` makes of the tasks: the part that the law predicts."""
        return self.merge(self.weights, self.predict(self.params, weights_M[None, :])[0])

    def kl(self, weights_M):
        """KL(p ‖ natural) [nats]; 0·ln 0 = 0."""
        return jax.scipy.special.rel_entr(weights_M, self.natural_M).sum()

    def penalty(self, weights_M):
        """λ·KL(p ‖ natural) [BPB]; 0 for λ = 0 even where the divergence is infinite."""
        return jnp.where(self.kl_weight > 0, self.kl_weight * self.kl(weights_M), 0.0)

    def values(self, ratios_KM):
        """The objective of every mixture, value_K [BPB]."""
        law_K = jax.vmap(self.merge, in_axes=(None, 0))(self.weights, self.predict(self.params, ratios_KM))
        return law_K + jax.vmap(self.penalty)(ratios_KM)


def mean(task_weights_N, bpb_N):
    """Σ_i w_i f_i [BPB]; w of sum 1, so that λ means the same whatever their scale (or −1, to maximise)."""
    return task_weights_N @ bpb_N


def combination(weights_SN, bpb_SN):
    """Σ w f for weights of any sum, over tasks and whatever other axes there are."""
    return (weights_SN * bpb_SN).sum()


def task_weights(spec: str, tasks: Sequence[str], sizes_N=None, families: str = "") -> np.ndarray:
    """Weights per task that sum to 1, from the config's ``propose.task_weights``.

    Args:
      spec: a JSON object {task or family: weight}, or the path of a file with one; empty for the sizes. A family's
        weight is spread evenly over its tasks. Tasks that it does not name weigh 0.
      tasks: the tasks that the law predicts, in order; a name that is a task and a family is the task.
      sizes_N: how many tasks each of them stands for, so that a family counts as its tasks do; equal without it.
      families: as :func:`olmix_jax.task_groups.families_of` takes them.

    Raises:
      UserError: not such an object; or an unknown task, a task named again by its family, a weight that is no number
        or negative, or all zero.
    """
    if not spec.strip():
        sizes_N = np.ones(len(tasks)) if sizes_N is None else np.asarray(sizes_N, np.float64)
        return sizes_N / sizes_N.sum()
    _, weights = limits.read(spec, "propose.task_weights")
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
