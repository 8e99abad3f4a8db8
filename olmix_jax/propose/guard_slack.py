"""Whether guards can hold at all, and otherwise the mixture that exceeds them least.

    min over p of  max_f (g_f(p) − limit_f)

The maximum is smoothed, max_f x_f ≤ t·ln Σ_f e^{x_f/t} ≤ max_f x_f + t·ln F, and solved for smaller and smaller t, each
time from the previous end point. The excess at any mixture is an upper bound on the minimum. For a convex law, the
smooth minimum minus its gap and minus t·ln F is a lower bound. Few rounds are enough, because the result only has to
say whether a mixture exists, and about how much slack it needs.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from olmix_jax.laws import evaluate
from olmix_jax.propose.guards import Guards
from olmix_jax.solver.problem import Problem
from olmix_jax.solver.solution import Solution
from olmix_jax.solver.solve import solve

ROUNDS, ITERATIONS = 8, 60
# The first t, in units of the spread of the excess over guards; and the factor by which t shrinks per round.
FIRST_SOFTNESS, SHRINK = 0.1, 4.0
# The search ends when the bounds on the least excess differ by this share of it.
NEAR = 1e-3


class SmoothMaximum(NamedTuple):
    """The terms of the smoothed maximum; a pytree.

    Attributes:
      rows_FN: r of the guards.
      limit_F: limits of the guards [BPB].
      softness: t [BPB].
    """

    rows_FN: Any
    limit_F: Any
    softness: Any


@dataclasses.dataclass(frozen=True)
class LeastSlack:
    """The mixture that exceeds guards least.

    Attributes:
      excess: max_f (g_f − limit_f) at the mixture [BPB]. Guards with this much more slack can hold.
      hardest: name of the guard with this excess.
      lower_bound: lower bound on the excess of every mixture [BPB]; None for a law that is not convex.
      weights_M: the mixture.
    """

    excess: float
    hardest: str
    lower_bound: float | None
    weights_M: np.ndarray


def smooth_maximum(terms: SmoothMaximum, bpb_N):
    """Return t·ln Σ_f e^{(g_f − limit_f)/t} [BPB]. It is convex and increasing in every task, because r ≥ 0."""
    excess_F = terms.rows_FN @ bpb_N - terms.limit_F
    return terms.softness * jax.scipy.special.logsumexp(excess_F / terms.softness)


def least_slack(problem: Problem, guards: Guards, starts_SM) -> LeastSlack:
    """Return the mixture that exceeds guards least, or the first one at which all guards hold.

    Args:
      problem: gives the law, the bounds and the anchor; its task weights and λ are not used.
      guards: one guard at least.
      starts_SM: starting points; one is enough for a convex law.
    """
    ends: list[LeastSlack] = []
    for start_M in np.asarray(problem.project(starts_SM)):
        ends.append(_least_from(problem, guards, start_M))
        if ends[-1].excess <= 0:
            break
    return min(ends, key=lambda end: end.excess)


def _least_from(problem: Problem, guards: Guards, weights_M) -> LeastSlack:
    def excess_at(weights_M):
        return guards.rows_FN @ evaluate(problem.law, problem.params, weights_M[None])[0] - guards.limit_F

    def slack_at(excess_F, weights_M):
        return LeastSlack(float(excess_F.max()), guards.names[int(excess_F.argmax())], None, weights_M)

    excess_F = excess_at(weights_M)
    best = slack_at(excess_F, weights_M)
    lower, softness = -np.inf, FIRST_SOFTNESS * max(float(np.ptp(excess_F)), 1e-6)
    log_guards = np.log(len(excess_F))
    for _ in range(ROUNDS):
        if best.excess <= 0 or (problem.convex and best.excess - lower <= NEAR * best.excess):
            break
        end = _solve_smoothed(problem, SmoothMaximum(guards.rows_FN, guards.limit_F, softness), weights_M)
        weights_M = end.weights_M
        best = min(best, slack_at(excess_at(weights_M), weights_M), key=lambda slack: slack.excess)
        if end.gap is not None:
            lower = max(lower, end.value - end.gap - softness * log_guards)
        elif softness * log_guards <= NEAR * best.excess:
            break
        softness = softness / SHRINK
    return dataclasses.replace(best, lower_bound=lower if problem.convex else None)


def _solve_smoothed(problem: Problem, terms: SmoothMaximum, start_M) -> Solution:
    smoothed = dataclasses.replace(problem, weights=terms, merge=smooth_maximum, kl_weight=0.0)
    return solve(smoothed, starts_SM=start_M[None], max_iterations=ITERATIONS)
