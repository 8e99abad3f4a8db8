"""Whether guards can be kept at all, and by how much the best mixture for that breaks them.

    min over p of  max_f (g_f(p) − limit_f)

The maximum is smoothed, max_f x_f ≤ t·ln Σ_f e^{x_f/t} ≤ max_f x_f + t·ln F, and solved for ever smaller t, each time
from the end before. Every end is a mixture, so that what it breaks the guards by is an upper bound that needs no proof;
for a convex law the smooth minimum less its gap and t·ln F is a lower one. Few rounds are enough: this is to say
whether there is a mixture, and about how much it takes.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from olmix_jax.laws import evaluate
from olmix_jax.solver import solve
from olmix_jax.solver.problem import Problem

ROUNDS, ITERATIONS = 8, 60
# t in units of the spread over guards, at first, and what it is divided by in a round.
FIRST, STEP = 0.1, 4.0
# Near enough, as a share of what the guards are broken by.
NEAR = 1e-3


class Smooth(NamedTuple):
    """What the smoothed maximum is made of; a pytree.

    Attributes:
      rows_FN: r of the guards.
      limit_F: of the guards [BPB].
      softness: t [BPB].
    """

    rows_FN: Any
    limit_F: Any
    softness: Any


@dataclasses.dataclass(frozen=True)
class Slack:
    """What was found.

    Attributes:
      rise: max_f (g_f − limit_f) at the mixture [BPB]; guards of that much more room can be kept.
      hardest: the guard that it is at.
      lower: no mixture has less; None for a law that is not convex.
      weights_M: the mixture.
    """

    rise: float
    hardest: str
    lower: float | None
    weights_M: np.ndarray


def merged(smooth: Smooth, bpb_N):
    """t·ln Σ_f e^{(g_f − limit_f)/t} [BPB]; convex and rising in every task, as r ≥ 0."""
    rise_F = smooth.rows_FN @ bpb_N - smooth.limit_F
    return smooth.softness * jax.scipy.special.logsumexp(rise_F / smooth.softness)


def least(problem: Problem, guard, starts_SM) -> Slack:
    """The mixture that breaks guards by the least; it ends as soon as one keeps all of them.

    Args:
      problem: law, bounds and anchor; its task weights and λ play no part.
      guard: see :func:`olmix_jax.propose.guards.guard`; of one guard at least.
      starts_SM: mixtures to begin from; one is enough for a convex law.
    """
    found = []
    for start_M in np.asarray(problem.project(starts_SM)):
        found.append(_from(problem, guard, start_M))
        if found[-1].rise <= 0:
            break
    return min(found, key=lambda slack: slack.rise)


def _from(problem: Problem, guard, p_M) -> Slack:
    def at(p_M):
        rise_F = guard.rows_FN @ evaluate(problem.law, problem.params, p_M[None])[0] - guard.limit_F
        return rise_F, Slack(float(rise_F.max()), guard.names[int(rise_F.argmax())], None, p_M)

    rise_F, best = at(p_M)
    lower, hidden, softness = -np.inf, np.log(len(rise_F)), FIRST * max(float(np.ptp(rise_F)), 1e-6)
    for _ in range(ROUNDS):
        if best.rise <= 0 or (problem.convex and best.rise - lower <= NEAR * best.rise):
            break
        end = _solved(problem, Smooth(guard.rows_FN, guard.limit_F, softness), p_M)
        p_M = end.weights_M
        best = min(best, at(p_M)[1], key=lambda slack: slack.rise)
        if problem.convex:
            lower = max(lower, end.value - end.gap - softness * hidden)
        elif softness * hidden <= NEAR * best.rise:
            break
        softness = softness / STEP
    return dataclasses.replace(best, lower=lower if problem.convex else None)


def _solved(problem: Problem, smooth: Smooth, p_M) -> solve.Solution:
    return solve.solve(
        problem.law.predict,
        problem.params,
        smooth,
        problem.anchor_M,
        problem.bounds,
        0.0,
        merge=merged,
        starts_SM=p_M[None],
        convex=problem.convex,
        max_iterations=ITERATIONS,
    )
