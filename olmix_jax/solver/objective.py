"""What a proposal minimises (METHOD §2, step 4): Σ_i w_i f_i(p) + λ·KL(p ‖ natural), with Σ_i w_i = 1."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


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
