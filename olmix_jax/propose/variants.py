"""Solve many variants of a problem at once: other caps, task weights, parameters of the law, or λ."""

import dataclasses

import jax
import numpy as np

from olmix_jax.solver import batch, starts
from olmix_jax.solver.problem import Problem
from olmix_jax.solver.solution import tolerance
from olmix_jax.utils.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Variants:
    """The optimal mixtures of P variants.

    Attributes:
      ratios_PM: the mixtures.
      unconverged: number of variants whose solve did not converge. Their mixtures are the best that were reached.
    """

    ratios_PM: np.ndarray
    unconverged: int


def solve_variants(
    problem: Problem,
    kl_weight_P,
    *,
    params=None,
    weights_PN=None,
    upper_PM=None,
    near_M=None,
    ratios_KM=None,
    seed: int = 0,
) -> Variants:
    """Return the optimal mixtures of P variants.

    If the law is not convex, all variants are solved from two mixtures: the anchor, and ``near_M`` or else the best
    run.

    Args:
      problem: gives the parts that do not vary.
      kl_weight_P: λ of each variant, or one λ for all.
      params, weights_PN, upper_PM: other parameters of the law, task weights or caps, with a leading axis P. At least
        one of the three, or λ, has it.
      near_M: the optimum of a problem close to the variants.
      ratios_KM: the swarm's runs.
      seed: of starting points that are drawn.

    Raises:
      UserError: the law predicts no finite BPB.
    """
    kl_weight_P = np.asarray(kl_weight_P, np.float64)
    number = next(len(x) for x in jax.tree.leaves((params, weights_PN, upper_PM, kl_weight_P)) if np.ndim(x))
    # Parts that do not vary get the leading axis too, so that all kinds of variants share one compiled program.
    weights_PN = np.broadcast_to(problem.weights if weights_PN is None else weights_PN, (number, len(problem.weights)))
    upper_M = problem.bounds.upper_M
    upper_PM = np.broadcast_to(upper_M if upper_PM is None else upper_PM, (number, len(upper_M)))
    kl_weight_P = np.broadcast_to(kl_weight_P, (number,))
    varying = batch.Varying(params, weights_PN, upper_M=upper_PM, kl_weight=kl_weight_P)
    starts_SM = problem.anchor_M[None]
    if not problem.convex:
        other_M = best_run(problem, ratios_KM, seed) if near_M is None else near_M
        starts_SM = np.stack([problem.anchor_M, other_M])
    # All variants from the first start, then all from the second.
    varying = jax.tree.map(lambda x: np.concatenate([x] * len(starts_SM)), varying)
    ends = batch.solve_each(problem, varying._replace(start_M=np.repeat(starts_SM, number, axis=0)))
    ends = jax.tree.map(lambda x: x.reshape(len(starts_SM), number, *x.shape[1:]), ends)
    value_SP = np.where(np.isfinite(ends.value), ends.value, np.inf)
    best_P, variants_P = value_SP.argmin(axis=0), np.arange(number)
    best_PM = ends.weights_M[best_P, variants_P]
    if not np.isfinite(value_SP.min(axis=0)).all() or not np.isfinite(best_PM).all():
        raise UserError("the law predicts no finite BPB around the natural distribution; fit it on more runs")
    gap_P = ends.gap[best_P, variants_P]
    wide_P = [gap > tolerance(problem.convex, value) for gap, value in zip(gap_P, value_SP.min(axis=0))]
    return Variants(best_PM, int(np.sum(wide_P)))


def best_run(problem: Problem, ratios_KM, seed: int) -> np.ndarray:
    """Return the best run of the swarm for a problem, moved within its bounds; see :func:`solve_variants`."""
    return starts.spread_out(problem, ratios_KM, seed)[1]
