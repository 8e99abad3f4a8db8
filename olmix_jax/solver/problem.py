"""A problem for the solver: minimise a law's BPB over mixtures within bounds."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from olmix_jax.laws import Law, cpu, evaluate
from olmix_jax.solver.bounds import Bounds, within
from olmix_jax.solver.objective import Objective, mean
from olmix_jax.solver.projection import project
from olmix_jax.utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Problem:
    """Minimise F(p) = merge(weights, f_1(p), …, f_N(p)) + λ·KL(p ‖ anchor) within bounds.

    Attributes:
      law: a law over the problem's M weights.
      params: its parameters.
      weights: first argument of ``merge``; for :func:`olmix_jax.solver.objective.mean` the task weights, of sum 1, or
        of sum −1 to find the worst mixture.
      anchor_M: the mixture that KL pulls towards, natural or another. It need not sum to 1 if the weights are those of
        blocks of domains.
      bounds: the set of mixtures. With λ > 0, a domain of anchor weight 0 gets weight 0.
      kl_weight: λ ≥ 0 [BPB per nat].
      merge: see :class:`olmix_jax.solver.objective.Objective`. Any function other than ``mean`` must be convex and
        increasing in every task's BPB.
    """

    law: Law
    params: Any
    weights: Any
    anchor_M: np.ndarray
    bounds: Bounds
    kl_weight: float
    merge: Callable = mean

    @property
    def convex(self) -> bool:
        """Whether F is convex. Then a local minimum is the minimum, and the duality gap is a bound."""
        rising = self.merge is not mean or bool((np.asarray(self.weights) >= 0).all())
        return rising and self.law.convex

    @property
    def objective(self) -> Objective:
        """F as a pure JAX function."""
        params, kl_weight = self.law.prepared(self.params), float(self.kl_weight)
        return Objective(self.law.predict, self.merge, params, self.weights, self.anchor_M, kl_weight)

    def kl(self, ratios_KM) -> np.ndarray:
        """Return KL(p ‖ anchor) of every mixture [nats]; infinite if p has weight where the anchor has none."""
        with np.errstate(divide="ignore", invalid="ignore"):
            terms_KM = ratios_KM * np.log(ratios_KM / self.anchor_M)
        return np.where(ratios_KM > 0, terms_KM, 0.0).sum(axis=1)

    def values(self, ratios_KM) -> np.ndarray:
        """Return Σ_i w_i f_i + λ·KL of every mixture [BPB]; infinite where the law's prediction is not finite."""
        law_K = evaluate(self.law, self.params, ratios_KM) @ self.weights
        value_K = law_K + self.kl_weight * self.kl(ratios_KM) if self.kl_weight > 0 else law_K
        return np.where(np.isfinite(value_K), value_K, np.inf)

    def project(self, ratios_KM) -> np.ndarray:
        """Return the nearest mixture within the bounds to each mixture, in Euclidean distance."""
        with cpu.float64():
            return np.asarray(_project_each(np.asarray(ratios_KM, np.float64), self.bounds))


def checked(problem: Problem) -> Problem:
    """Return the problem with float64 arrays, and caps of 0 for domains that KL keeps out.

    Raises:
      UserError: a number is not finite, λ is negative, task weights do not sum to ±1, or a domain has a positive lower
        bound but no anchor weight, and λ > 0.
    """
    anchor_M, kl_weight = np.asarray(problem.anchor_M, np.float64), problem.kl_weight
    if problem.merge is mean and not np.isclose(abs(np.sum(problem.weights)), 1, atol=1e-9):
        raise UserError(
            f"task weights must sum to 1, not {np.sum(problem.weights):.6g}: their sum sets the scale of "
            "propose.kl_weight"
        )
    leaves = jax.tree.leaves((problem.params, problem.weights, anchor_M, problem.bounds, kl_weight))
    if not all(np.isfinite(x).all() for x in leaves):
        raise UserError("the law, the weights, the anchor or the bounds contain a number that is not finite")
    if not kl_weight >= 0:
        raise UserError(f"propose.kl_weight must be 0 or more, not {kl_weight:g}")
    bounds = jax.tree.map(np.asarray, problem.bounds)
    if kl_weight > 0:
        if (bounds.lower_M[anchor_M <= 0] > 0).any():
            raise UserError(
                "a domain of natural weight 0 has a positive lower bound, but propose.kl_weight > 0 excludes it from "
                "the mixture; lower the bound to 0 or set propose.kl_weight=0"
            )
        bounds = bounds._replace(upper_M=np.where(anchor_M > 0, bounds.upper_M, 0.0))
    return dataclasses.replace(problem, anchor_M=anchor_M, bounds=bounds, kl_weight=float(kl_weight))


@functools.partial(jax.jit, compiler_options=cpu.QUICK)
def _project_each(ratios_KM, bounds):
    return jax.vmap(lambda p_M: within(project, p_M, bounds))(ratios_KM)
