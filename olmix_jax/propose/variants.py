"""Solve many variants of a problem at once: other caps, task weights, parameters of the law, or λ."""

import jax
import numpy as np

from olmix_jax.solver import batch, starts
from olmix_jax.solver.problem import Problem
from olmix_jax.utils.errors import UserError

# Starting points for a law that is not convex. Variants lie close together, so two are enough.
STARTS = 2


def solve_variants(
    problem: Problem, kl_weight_P, *, params=None, weights_PN=None, upper_PM=None, ratios_KM=None, seed: int = 0
) -> np.ndarray:
    """Return the optimal mixtures of P variants, ratios_PM.

    Args:
      problem: gives the parts that do not vary.
      kl_weight_P: λ of each variant, or one λ for all.
      params, weights_PN, upper_PM: other parameters of the law, task weights or caps, with a leading axis P; at least
        one of the three.
      ratios_KM: the swarm's runs, as starting points for a law that is not convex.
      seed: of starting points that are drawn.

    Raises:
      UserError: the law predicts no finite BPB.
    """
    number = len(jax.tree.leaves((params, weights_PN, upper_PM))[0])
    # Parts that do not vary get the leading axis too, so that all kinds of variants share one compiled program.
    weights_PN = np.broadcast_to(problem.weights if weights_PN is None else weights_PN, (number, len(problem.weights)))
    upper_M = problem.bounds.upper_M
    upper_PM = np.broadcast_to(upper_M if upper_PM is None else upper_PM, (number, len(upper_M)))
    kl_weight_P = np.broadcast_to(np.asarray(kl_weight_P, np.float64), (number,))
    varying = batch.Varying(params, weights_PN, upper_M=upper_PM, kl_weight=kl_weight_P)
    starts_SM = problem.anchor_M[None] if problem.convex else starts.from_runs(problem, ratios_KM, seed)[:STARTS]
    ends = [batch.solve_each(problem, varying, start_M=start_M) for start_M in starts_SM]
    value_SP = np.stack([np.where(np.isfinite(end.value), end.value, np.inf) for end in ends])
    best_PM = np.stack([end.weights_M for end in ends])[value_SP.argmin(axis=0), np.arange(number)]
    if not np.isfinite(value_SP.min(axis=0)).all() or not np.isfinite(best_PM).all():
        raise UserError("the law predicts no finite BPB around the natural distribution; fit it on more runs")
    return best_PM
