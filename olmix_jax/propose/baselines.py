"""Proposals of laws without slopes, and the published baselines: the best of many mixtures, all within bounds."""

import numpy as np

from olmix_jax.laws import evaluate
from olmix_jax.solver.bounds import holds
from olmix_jax.solver.problem import Problem
from olmix_jax.solver.solution import Solution
from olmix_jax.solver.status import Status
from olmix_jax.utils import rng
from olmix_jax.utils.errors import UserError

# The baseline: mixtures sampled around natural alone.
SIMULATED = 20_000
# For laws without slopes, more rounds look around the best, ever nearer.
DRAWS = 2000
CENTRES = 8
# Dirichlet strengths of a round, in units of the number of domains.
STRENGTHS = (1.0, 4.0, 16.0), (4.0, 16.0, 64.0), (16.0, 64.0, 256.0), (64.0, 256.0, 1024.0)


def simulate(problem: Problem, ratios_KM, seed: int) -> Solution:
    """The best of Dirichlet mixtures around natural, brought within the bounds, as in the paper's baseline and RegMix.

    Raises:
      UserError: the law predicts nothing finite.
    """
    del ratios_KM
    draw, anchor_M = rng.generator(seed, "propose.simulation"), problem.anchor_M / problem.anchor_M.sum()
    found_KM = problem.project(np.concatenate([anchor_M[None], _around(anchor_M[None], STRENGTHS[0], SIMULATED, draw)]))
    value_K = problem.values(found_KM)
    return _solution(problem, found_KM, value_K, value_K)


def refine(problem: Problem, ratios_KM, seed: int) -> Solution:
    """The best of mixtures sampled around natural, and then around the best ones, brought within the bounds.

    Raises:
      UserError: the law predicts nothing finite.
    """
    draw, anchor_M = rng.generator(seed, "propose.candidates"), problem.anchor_M / problem.anchor_M.sum()
    first_KM = anchor_M[None] if ratios_KM is None else np.concatenate([anchor_M[None], ratios_KM])
    found_KM = problem.project(first_KM)
    value_K = problem.values(found_KM)
    for strengths in STRENGTHS:
        best_KM = found_KM[np.argsort(value_K, kind="stable")[:CENTRES]]
        new_KM = problem.project(_around(np.concatenate([anchor_M[None], best_KM]), strengths, DRAWS, draw))
        found_KM, value_K = np.concatenate([found_KM, new_KM]), np.concatenate([value_K, problem.values(new_KM)])
    return _solution(problem, found_KM, value_K, value_K)


def best_run(problem: Problem, ratios_KM, seed: int) -> Solution:
    """The run of least weighted BPB by the law, KL apart, as in the paper's baseline; runs are taken as they are.

    Raises:
      UserError: no run is within the bounds, or the law predicts nothing finite.
    """
    del seed
    if ratios_KM is None or not len(ratios_KM):
        raise UserError("propose.method=search needs the swarm's runs")
    inside_KM = np.asarray(ratios_KM, np.float64)[holds(problem.bounds, ratios_KM)]
    if not len(inside_KM):
        raise UserError(
            f"none of the swarm's {len(ratios_KM)} runs is within the caps, and only runs are proposed: raise "
            "propose.max_repeats, lower propose.target_tokens, or choose another fit.law and propose.method=exact"
        )
    law_K = evaluate(problem.law, problem.params, inside_KM) @ problem.weights
    return _solution(problem, inside_KM, law_K, problem.values(inside_KM))


def _solution(problem: Problem, found_KM, rank_K, value_K) -> Solution:
    """The candidate of least rank; of equals, which trees make, the one nearest to natural."""
    kl_K = problem.kl(found_KM)
    best = np.lexsort([kl_K, rank_K])[0]
    if not np.isfinite([rank_K[best], value_K[best]]).all():
        raise UserError("the law predicts no finite BPB at any candidate: fit it on more runs")
    return Solution(
        status=Status.SEARCHED,
        weights_M=found_KM[best],
        value=float(value_K[best]),
        kl=float(kl_K[best]),
        gap=None,
        iterations=0,
        residual=None,
        multipliers_M=None,
        starts=len(found_KM),
        agreeing=None,
    )


def _around(centres_CM, strengths, number: int, draw) -> np.ndarray:
    """So many mixtures (or a few more) from Dirichlet distributions of these means and strengths, in equal shares."""
    domains, count = centres_CM.shape[1], -(-number // (len(centres_CM) * len(strengths)))
    found = []
    for centre_M in centres_CM:
        # No entry may be 0, and one of almost 0 would be drawn as 0 or underflow.
        centre_M = 0.98 * centre_M + 0.02 / domains
        found += [draw.dirichlet(strength * domains * centre_M, size=count) for strength in strengths]
    return np.concatenate(found)
