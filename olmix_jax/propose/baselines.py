"""Proposals by search, for laws that are not differentiable and as published baselines: the best of many mixtures."""

import numpy as np

from olmix_jax.laws import evaluate
from olmix_jax.solver.bounds import Bounds, holds
from olmix_jax.solver.problem import Problem
from olmix_jax.solver.solution import Solution
from olmix_jax.solver.status import Status
from olmix_jax.utils import rng
from olmix_jax.utils.errors import UserError

# Number of mixtures that the baseline samples around natural.
SIMULATED = 20_000
# For laws that are not differentiable: mixtures per round, and how many of the best mixtures each round samples around.
DRAWS = 2000
CENTRES = 8
# Dirichlet strengths of each round, in units of the number of domains. Later rounds stay closer to their centres.
STRENGTHS = (1.0, 4.0, 16.0), (4.0, 16.0, 64.0), (16.0, 64.0, 256.0), (64.0, 256.0, 1024.0)


def simulate(problem: Problem, seed: int) -> Solution:
    """Return the best Dirichlet mixture around the anchor, projected into the bounds: the baseline of paper and RegMix.

    Raises:
      UserError: the law predicts no finite BPB.
    """
    draw, anchor_M = rng.generator(seed, "propose.simulation"), problem.anchor_M / problem.anchor_M.sum()
    drawn_KM = _sample_around(anchor_M[None], STRENGTHS[0], SIMULATED, draw)
    candidates_KM = problem.project(np.concatenate([anchor_M[None], drawn_KM]))
    value_K = problem.values(candidates_KM)
    return _best(problem, candidates_KM, value_K, value_K)


def refine(problem: Problem, ratios_KM, seed: int) -> Solution:
    """Return the best mixture of several rounds, each of which samples around the best mixtures so far.

    Args:
      problem: the problem.
      ratios_KM: further candidates of the first round, or None.
      seed: of the draws.

    Raises:
      UserError: the law predicts no finite BPB.
    """
    draw, anchor_M = rng.generator(seed, "propose.candidates"), problem.anchor_M / problem.anchor_M.sum()
    first_KM = anchor_M[None] if ratios_KM is None else np.concatenate([anchor_M[None], ratios_KM])
    candidates_KM = problem.project(first_KM)
    value_K = problem.values(candidates_KM)
    for strengths in STRENGTHS:
        best_KM = candidates_KM[np.argsort(value_K, kind="stable")[:CENTRES]]
        new_KM = problem.project(_sample_around(np.concatenate([anchor_M[None], best_KM]), strengths, DRAWS, draw))
        candidates_KM = np.concatenate([candidates_KM, new_KM])
        value_K = np.concatenate([value_K, problem.values(new_KM)])
    return _best(problem, candidates_KM, value_K, value_K)


def best_run(problem: Problem, ratios_KM) -> Solution:
    """Return the run with the lowest predicted task-weighted BPB, unchanged. KL does not count, as in the paper.

    Raises:
      UserError: there are no runs, no run is within the bounds, or the law predicts no finite BPB.
    """
    inside_KM = runs_within(problem.bounds, ratios_KM)
    law_K = evaluate(problem.law, problem.params, inside_KM) @ problem.weights
    return _best(problem, inside_KM, law_K, problem.values(inside_KM))


def runs_within(bounds: Bounds, ratios_KM) -> np.ndarray:
    """Return the runs that are within the bounds.

    Raises:
      UserError: there are none.
    """
    if ratios_KM is None or not len(ratios_KM):
        raise UserError("propose.method=search needs the swarm's runs; use propose.method=exact")
    inside_KM = np.asarray(ratios_KM, np.float64)[holds(bounds, ratios_KM)]
    if not len(inside_KM):
        raise UserError(
            f"none of the swarm's {len(ratios_KM)} runs is within the caps, and a search proposes only runs: raise "
            "propose.max_repeats, lower propose.target_tokens, or choose another fit.law and propose.method=exact"
        )
    return inside_KM


def _best(problem: Problem, candidates_KM, score_K, value_K) -> Solution:
    """Return the candidate with the lowest score; in a tie, which trees cause, the one nearest to the anchor."""
    kl_K = problem.kl(candidates_KM)
    best = np.lexsort([kl_K, score_K])[0]
    if not np.isfinite([score_K[best], value_K[best]]).all():
        raise UserError("the law predicts no finite BPB at any candidate; fit it on more runs")
    return Solution(
        status=Status.SEARCHED,
        weights_M=candidates_KM[best],
        value=float(value_K[best]),
        kl=float(kl_K[best]),
        gap=None,
        iterations=0,
        residual=None,
        multipliers_M=None,
        starts=len(candidates_KM),
        agreeing=None,
    )


def _sample_around(centres_CM, strengths, number: int, draw) -> np.ndarray:
    """Return ``number`` mixtures or a few more, in equal numbers from the Dirichlet of each centre and strength."""
    domains, count = centres_CM.shape[1], -(-number // (len(centres_CM) * len(strengths)))
    mixtures = []
    for centre_M in centres_CM:
        # A concentration of 0 is invalid, and a tiny one underflows.
        centre_M = 0.98 * centre_M + 0.02 / domains
        mixtures += [draw.dirichlet(strength * domains * centre_M, size=count) for strength in strengths]
    return np.concatenate(mixtures)
