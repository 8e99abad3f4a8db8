"""What a proposal minimises (METHOD §2, step 4): Σ_i w_i f_i(p) + λ·KL(p ‖ natural), with Σ_i w_i = 1."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from olmix_jax.errors import UserError
from olmix_jax.table_meta import read_object


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


def task_weights(spec: str, tasks: Sequence[str], sizes_N=None) -> np.ndarray:
    """Weights per task that sum to 1, from the config's ``propose.task_weights``.

    Args:
      spec: a JSON object {task: weight}, or the path of a file with one; empty for the sizes. Tasks that it does not
        name weigh 0.
      tasks: the tasks that the law predicts, in order.
      sizes_N: how many tasks each of them stands for, so that a family counts as its tasks do; equal without it.

    Raises:
      UserError: not such an object; or an unknown task, a weight that is no number or negative, or all zero.
    """
    if not spec.strip():
        sizes_N = np.ones(len(tasks)) if sizes_N is None else np.asarray(sizes_N, np.float64)
        return sizes_N / sizes_N.sum()
    _, weights = read_object(spec, "propose.task_weights")
    unknown = [t for t in weights if t not in tasks]
    if unknown:
        raise UserError(
            f"propose.task_weights names unknown tasks: {', '.join(unknown)}; the tasks are {', '.join(tasks)}"
        )
    for task, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < float("inf"):
            raise UserError(f"propose.task_weights: the weight of {task} must be a number of 0 or more, not {weight!r}")
    weights_N = np.array([float(weights.get(t, 0)) for t in tasks])
    if not weights_N.any():
        raise UserError("propose.task_weights: all weights are 0; give at least one task a positive weight")
    # Divided by the largest first, so that the sum cannot overflow.
    weights_N = weights_N / weights_N.max()
    return weights_N / weights_N.sum()
