"""A law with its fitted parameters."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from olmix_jax.laws.law import Law, evaluate, evaluate_each, evaluate_spread


@dataclasses.dataclass(frozen=True, eq=False)
class FittedLaw:
    """A law, its parameters, and samples of them.

    Attributes:
      law: the family.
      params: its Params, without leading axes.
      samples: Params with a leading axis S, drawn from the posterior or refitted to resampled runs; None without.
    """

    law: Law
    params: Any
    samples: Any = None

    def predict(self, ratios_KM: Any) -> np.ndarray:
        """Return the predicted BPB of each mixture, bpb_KN."""
        return evaluate(self.law, self.params, ratios_KM)

    def predict_samples(self, ratios_KM: Any) -> np.ndarray:
        """Return the BPB that each sample predicts, bpb_SKN. Needs ``samples``."""
        return evaluate_each(self.law, self.samples, ratios_KM)

    def spread(self, ratios_KM: Any) -> np.ndarray | None:
        """Return the standard deviation of a new run's measurement, std_KN [BPB]; None if the law has no ``spread``."""
        return evaluate_spread(self.law, self.params, ratios_KM)

    def aimed(self, tokens: float, unique_M: Any) -> "FittedLaw":
        """Return this law with mixtures read at R training tokens and N_j unique ones. Needs ``law.aim``."""
        assert self.law.aim is not None
        samples = None if self.samples is None else self.law.aim(self.samples, tokens, unique_M)
        return FittedLaw(self.law, self.law.aim(self.params, tokens, unique_M), samples)

    def through(self, matrix_DM: Any) -> "FittedLaw":
        """Return this law over D other weights q, with p = matrix_DMᵀ q.

        Use it for blocks of domains that keep their ratios, or for another set of domains. The result is convex where
        this law is. It cannot be fitted.
        """
        matrix_DM = np.asarray(matrix_DM, np.float64)
        samples = self.samples
        if samples is not None:
            number = len(jax.tree.leaves(samples)[0])
            samples = MappedParams(samples, np.broadcast_to(matrix_DM, (number, *matrix_DM.shape)))
        return FittedLaw(_mapped(self.law), MappedParams(self.params, matrix_DM), samples)


class MappedParams(NamedTuple):
    """Parameters of a law over other weights: those of the underlying law, and the matrix that maps to its weights."""

    params: Any
    matrix_DM: np.ndarray


@functools.lru_cache(maxsize=32)
def _mapped(law: Law) -> Law:
    """Return the law over other weights. Cached, so that its functions are compiled once."""

    def predict(params: MappedParams, ratios_KD):
        return law.predict(params.params, ratios_KD @ params.matrix_DM)

    def rise(params: MappedParams, ratios_KD):
        assert law.rise is not None
        return law.rise(params.params, ratios_KD @ params.matrix_DM)

    def spread(params: MappedParams, ratios_KD):
        assert law.spread is not None
        return law.spread(params.params, ratios_KD @ params.matrix_DM)

    def prepare(params: MappedParams) -> MappedParams:
        return params._replace(params=law.prepared(params.params))

    def unsupported(*_, **__):
        raise TypeError(f"{law.name} over other weights cannot be fitted or described; use the law it is made from")

    return Law(
        name=law.name,
        Params=MappedParams,
        fit=unsupported,
        fit_weighted=unsupported,
        predict=predict,
        parameters=unsupported,
        describe=unsupported,
        differentiable=law.differentiable,
        convex=law.convex,
        rise=None if law.rise is None else rise,
        cheap_refits=law.cheap_refits,
        spread=None if law.spread is None else spread,
        prepare=None if law.prepare is None else prepare,
    )
