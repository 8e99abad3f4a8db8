"""Solve a problem from one start or several, and select the best end point (METHOD §2, step 4).

The algorithm and its certificate are in :mod:`olmix_jax.solver.minimise`.
"""

import jax
import numpy as np

from olmix_jax.laws import cpu
from olmix_jax.solver import feasibility
from olmix_jax.solver.minimise import Minimum, compiled
from olmix_jax.solver.problem import Problem, checked
from olmix_jax.solver.solution import TOLERANCE, Solution, count_agreeing, tolerance
from olmix_jax.solver.status import Status
from olmix_jax.utils.errors import UserError

# Default limits of the iterations per start, for convex problems and for others.
MAX_ITERATIONS, LOCAL_ITERATIONS = 500, 100


def solve(problem: Problem, *, starts_SM=None, max_iterations: int | None = None) -> Solution:
    """Solve a problem in float64 from every start, and return the best end point.

    Programs are compiled once per law, ``merge`` and shapes.

    Args:
      problem: the problem; its bounds must admit a mixture (:mod:`olmix_jax.solver.feasibility`).
      starts_SM: starting points, inside the bounds or not; the anchor by default. One is enough for a convex problem.
      max_iterations: limit of the iterations per start; 500 by default, or 100 if the problem is not convex.

    Returns:
      A Solution: OPTIMAL, LOCAL_OPTIMUM, or MAX_ITERATIONS if no start has converged.

    Raises:
      UserError: see :func:`olmix_jax.solver.problem.checked`; or no mixture meets the bounds; or the law's predictions
        are not finite.
    """
    return best(problem, end_points(problem, starts_SM=starts_SM, max_iterations=max_iterations))


def end_points(problem: Problem, *, starts_SM=None, max_iterations: int | None = None) -> list[Minimum]:
    """Return the finite end points from every start; arguments and errors as for :func:`solve`."""
    problem = checked(problem)
    starts_SM = problem.anchor_M[None] if starts_SM is None else np.asarray(starts_SM, np.float64)
    limit = iteration_limit(problem) if max_iterations is None else max_iterations
    entropic = problem.kl_weight > 0
    objective = problem.objective

    def end(start_M) -> Minimum:
        return jax.tree.map(np.asarray, compiled(objective, problem.bounds, limit, start_M, entropic=entropic))

    ends = [end for end in cpu.in_threads(end, starts_SM) if _finite(end)]
    if not ends:
        if fault := feasibility.explain(problem.bounds):
            raise UserError(fault)
        raise UserError("the law predicts no finite BPB around the natural distribution: fit it on more runs")
    return ends


def iteration_limit(problem: Problem) -> int:
    """Return the default limit of the iterations."""
    return MAX_ITERATIONS if problem.convex else LOCAL_ITERATIONS


def distinct(ends: list[Minimum]) -> np.ndarray:
    """Return the different minima among end points, lowest first, ratios_BM."""
    ends = sorted(ends, key=lambda end: float(end.value))
    found: list[Minimum] = []
    for end in ends:
        if not any(count_agreeing([end.value], [end.weights_M], np.inf, other.weights_M) for other in found):
            found.append(end)
    return np.stack([end.weights_M for end in found])


def best(problem: Problem, ends: list[Minimum]) -> Solution:
    """Return the end point of least value; among values equal up to rounding, one that has converged."""
    convex = problem.convex
    least = min(float(end.value) for end in ends)
    small = tolerance(convex, least)
    equal = least + TOLERANCE * max(1.0, abs(least))
    converged = [end for end in ends if end.gap <= small and end.value <= equal]
    lowest = min(converged or ends, key=lambda end: float(end.value))
    success = Status.OPTIMAL if convex else Status.LOCAL_OPTIMUM
    return Solution(
        status=success if converged else Status.MAX_ITERATIONS,
        weights_M=lowest.weights_M,
        value=lowest.value.item(),
        kl=lowest.kl.item(),
        gap=lowest.gap.item() if convex else None,
        iterations=lowest.iterations.item(),
        residual=lowest.residual.item(),
        multipliers_M=lowest.multipliers_M,
        group_multipliers_G=lowest.group_multipliers_G,
        starts=len(ends),
        agreeing=count_agreeing(
            [end.value for end in ends], [end.weights_M for end in ends], lowest.value, lowest.weights_M
        ),
    )


def _finite(end: Minimum) -> bool:
    """Return whether an end point is a mixture with finite values.

    KL may be infinite: with λ = 0 it does not count, and domains without anchor weight may be in the mixture.
    """
    numbers = end._replace(kl=0.0)
    return all(np.isfinite(x).all() for x in numbers) and bool(abs(end.weights_M.sum() - 1) < 1e-9)
