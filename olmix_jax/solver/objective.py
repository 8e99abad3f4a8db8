"""The objective of a mixture: a law's weighted BPB plus a KL penalty (METHOD §2, step 4)."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from olmix_jax.solver.projection import TINY


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["params", "weights", "anchor_M", "kl_weight"],
    meta_fields=["predict", "merge"],
)
@dataclasses.dataclass(frozen=True)
class Objective:
    """F(p) = merge(weights, predict(params, p)) + λ·KL(p ‖ anchor) [BPB]. Pure JAX in float64.

    A pytree: ``predict`` and ``merge`` are static, the other attributes are arrays.

    Attributes:
      predict: a law's ``predict(params, ratios_KM) -> bpb_KN``.
      merge: (weights, bpb_N) → one BPB, such as :func:`mean`. F is convex if the law is convex and ``merge`` is convex
        and increasing in each task's BPB.
      params: the law's parameters.
      weights: first argument of ``merge``; for :func:`mean` the task weights w.
      anchor_M: the mixture that KL pulls towards.
      kl_weight: λ [BPB per nat].
    """

    predict: Callable
    merge: Callable
    params: Any
    weights: Any
    anchor_M: Any
    kl_weight: Any

    def law(self, weights_M):
        """Return the part of F that the law predicts, f(p) [BPB]; for :func:`mean` Σ_i w_i f_i(p)."""
        return self.merge(self.weights, self.predict(self.params, weights_M[None, :])[0])

    def kl(self, weights_M):
        """Return KL(p ‖ anchor) [nats], with 0·ln 0 = 0."""
        return jax.scipy.special.rel_entr(weights_M, self.anchor_M).sum()

    def penalty(self, weights_M):
        """Return λ·KL(p ‖ anchor) [BPB]; 0 for λ = 0, even where the divergence is infinite."""
        return jnp.where(self.kl_weight > 0, self.kl_weight * self.kl(weights_M), 0.0)

    def penalty_slope(self, weights_M):
        """Return λ∇KL(p ‖ anchor), finite where p or the anchor is 0."""
        anchor_M = jnp.where(self.anchor_M > 0, self.anchor_M, 1.0)
        return self.kl_weight * (jnp.log(jnp.maximum(weights_M, TINY)) - jnp.log(anchor_M) + 1)

    def values(self, ratios_KM):
        """Return F of every mixture, value_K [BPB]."""
        law_K = jax.vmap(self.merge, in_axes=(None, 0))(self.weights, self.predict(self.params, ratios_KM))
        return law_K + jax.vmap(self.penalty)(ratios_KM)


def mean(task_weights_N, bpb_N):
    """Return Σ_i w_i f_i [BPB]. The weights sum to 1 (−1 to maximise), which fixes the scale of λ."""
    return task_weights_N @ bpb_N


def combination(weights_SN, bpb_SN):
    """Return Σ w·f over all axes, for weights of any sum."""
    return (weights_SN * bpb_SN).sum()
