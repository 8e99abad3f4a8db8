"""A problem to solve, for any kind of law, and mixtures to begin with."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from olmix_jax.laws import Law, cpu, evaluate
from olmix_jax.solver.bounds import Bounds, within
from olmix_jax.solver.projection import project
from olmix_jax.utils import rng

# Runs of the swarm that the solver starts from, and the share of natural that is mixed into them: what a run leaves
# out may belong in the optimum.
BEST_RUNS = 4
SHARE_OF_NATURAL = 0.02


class Problem(NamedTuple):
    """Minimise Σ_i w_i f_i(p) + λ·KL(p ‖ anchor) within bounds.

    Attributes:
      law: the family of the law, such as ``log_linear.LAW``.
      params: its parameters.
      task_weights_N: w, of sum 1; of sum −1 to find the worst mixture.
      anchor_M: what KL pulls towards: natural, or another mixture; for a collapsed problem not of sum 1.
      bounds: where mixtures may be; 0 at most for a domain of anchor weight 0, if λ > 0.
      kl_weight: λ [BPB per nat].
    """

    law: Law
    params: Any
    task_weights_N: np.ndarray
    anchor_M: np.ndarray
    bounds: Bounds
    kl_weight: float

    @property
    def convex(self) -> bool:
        """Whether a local minimum is the minimum, and a duality gap bounds."""
        return self.law.convex and bool((self.task_weights_N >= 0).all())

    def kl(self, ratios_KM) -> np.ndarray:
        """KL(p ‖ anchor) per mixture [nats]; infinite where a domain has weight and the anchor none."""
        with np.errstate(divide="ignore", invalid="ignore"):
            terms_KM = ratios_KM * np.log(ratios_KM / self.anchor_M)
        return np.where(ratios_KM > 0, terms_KM, 0.0).sum(axis=1)

    def values(self, ratios_KM) -> np.ndarray:
        """The objective per mixture [BPB]; infinite where the law predicts nothing finite."""
        law_K = evaluate(self.law, self.params, ratios_KM) @ self.task_weights_N
        value_K = law_K + self.kl_weight * self.kl(ratios_KM) if self.kl_weight > 0 else law_K
        return np.where(np.isfinite(value_K), value_K, np.inf)

    def project(self, ratios_KM) -> np.ndarray:
        """Each mixture's nearest one within the bounds."""
        with cpu.float64():
            return np.asarray(_project_each(np.asarray(ratios_KM, np.float64), self.bounds))


def starts(problem: Problem, ratios_KM, seed: int) -> np.ndarray:
    """Where to start from for a law that is not convex, starts_SM: the anchor, best runs, mixtures between, and draws.

    Args:
      problem: what is to be solved.
      ratios_KM: the swarm's runs, or None.
      seed: of the draws, which stand in for the runs where there are none.
    """
    natural_M = problem.anchor_M / problem.anchor_M.sum()
    if ratios_KM is None or not len(ratios_KM):
        draw = rng.generator(seed, "propose.starts")
        ratios_KM = draw.dirichlet(np.maximum(natural_M, 1e-3) * len(natural_M), size=2 * BEST_RUNS)
    mixed_KM = (1 - SHARE_OF_NATURAL) * np.asarray(ratios_KM, np.float64) + SHARE_OF_NATURAL * natural_M
    inside_KM = problem.project(np.concatenate([mixed_KM, natural_M[None]]))
    best_BM = inside_KM[:-1][np.argsort(problem.values(inside_KM)[:-1], kind="stable")[:BEST_RUNS]]
    between_BM = np.stack([(best_BM[0] + natural_M) / 2, best_BM.mean(axis=0), 2 / 3 * best_BM[-1] + natural_M / 3])
    return np.concatenate([natural_M[None], best_BM, between_BM])


@functools.partial(jax.jit, compiler_options=cpu.QUICK)
def _project_each(ratios_KM, bounds):
    return jax.vmap(lambda p_M: within(project, p_M, bounds))(ratios_KM)
