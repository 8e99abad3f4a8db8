"""A problem on which every kind of bound binds, for the tests of sensitivity.py."""

import functools
from typing import NamedTuple

import jax
import numpy as np

from olmix_jax.laws import log_linear
from olmix_jax.solver import sensitivity
from olmix_jax.solver.bounds import Bounds
from olmix_jax.solver.objective import Objective, mean
from olmix_jax.solver.problem import Problem
from olmix_jax.solver.solve import solve
from olmix_jax.solver.status import Status

SIZE = 8
STEP = 1e-5


class Case(NamedTuple):
    """A problem, or its tangents; a pytree."""

    objective: Objective
    bounds: Bounds

    @property
    def entropic(self) -> bool:
        return bool(self.objective.kl_weight > 0)

    @property
    def problem(self) -> Problem:
        o = self.objective
        return Problem(log_linear.LAW, o.params, o.weights, o.anchor_M, self.bounds, float(o.kl_weight))

    def change(self, **fields) -> "Case":
        """Return the case with some fields of the objective or of the bounds replaced."""
        inside = {name: x for name, x in fields.items() if name in Bounds._fields}
        others = {name: x for name, x in fields.items() if name not in Bounds._fields}
        values = {name: getattr(self.objective, name) for name in ("params", "weights", "anchor_M", "kl_weight")}
        objective = Objective(log_linear.predict, mean, **values | others)
        return Case(objective, self.bounds._replace(**inside))


def solution(case: Case):
    return solve(case.problem)


def minimiser(case: Case):
    """Return the minimiser."""
    return solution(case).weights_M


def move(case: Case, tangents: Case):
    """Return the derivative of the minimiser in a direction, from the columns of the sensitivity."""
    derived = sensitivity.derivatives(case.problem, minimiser(case))
    assert derived is not None
    objective, bounds = tangents.objective, tangents.bounds
    return (
        derived.kl_weight_M * objective.kl_weight
        + derived.weights_MN @ objective.weights
        + derived.upper_MM @ bounds.upper_M
        + derived.low_MG @ bounds.low_G
        + derived.high_MG @ bounds.high_G
    )


@functools.cache
def case(kl_weight) -> Case:
    """Return a case with a binding cap (domain 5), a binding lower bound (domain 4) and two nested binding groups.

    The inner group is at its upper bound, and the outer one at its lower bound. Every bound has a positive price, so
    derivatives exist.
    """
    rng = np.random.default_rng(4)
    params = log_linear.Params(0.3 * rng.normal(size=SIZE), 0.3 * rng.normal(size=(SIZE, SIZE)) - 6 * np.eye(SIZE))
    anchor_M, weights_N = rng.dirichlet(np.full(SIZE, 9.0)), rng.dirichlet(np.full(SIZE, 99.0))
    member_GM = np.array([[1, 1, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0, 0, 0]], bool)
    bounds = Bounds(np.zeros(SIZE), np.ones(SIZE), member_GM, np.zeros(2), np.ones(2))
    free = Case(Objective(log_linear.predict, mean, params, weights_N, anchor_M, np.float64(kl_weight)), bounds)
    sum_G = member_GM @ solution(free).weights_M
    in_groups = free.change(low_G=np.array([0.0, 1.1 * sum_G[1]]), high_G=np.array([0.8 * sum_G[0], 1.0]))
    p_M, unit_MM = solution(in_groups).weights_M, np.eye(SIZE)
    bound = in_groups.change(lower_M=1.2 * p_M * unit_MM[4], upper_M=1 + (0.9 * p_M - 1) * unit_MM[5])
    solved, (lower_M, upper_M, *_) = solution(bound), bound.bounds
    assert solved.status is Status.OPTIMAL and solved.multipliers_M[5] > 1e-3 and solved.weights_M[4] == lower_M[4]
    assert solved.group_multipliers_G[0] > 1e-3 and solved.group_multipliers_G[1] < -1e-3
    assert ((solved.weights_M > lower_M) & (solved.weights_M < upper_M)).sum() == SIZE - 2
    return bound


DIRECTIONS = ("λ", "cap", "task weights", "inner group", "outer group", "bounds that do not bind")


def directions(case: Case) -> dict[str, Case]:
    """Return tangents of the case, by the input that moves."""
    rng = np.random.default_rng(0)
    still = jax.tree.map(np.zeros_like, case)
    tangents = (
        still.change(kl_weight=np.float64(1.0)),
        still.change(upper_M=np.eye(SIZE)[5]),
        still.change(weights=rng.normal(size=SIZE) @ (np.eye(SIZE) - 1 / SIZE)),
        still.change(high_G=np.array([1.0, 0.0])),
        still.change(low_G=np.array([0.0, 1.0])),
        still.change(low_G=np.array([1.0, 0.0]), high_G=np.array([0.0, 1.0])),
    )
    return dict(zip(DIRECTIONS, tangents, strict=True))


def moved(case: Case, tangents: Case, step: float) -> Case:
    """Return the case moved by a step in a direction."""
    return jax.tree.map(lambda x, d: x if x.dtype == bool else x + step * d, case, tangents)


def difference(case: Case, tangents: Case):
    """Return the central difference of the minimiser in a direction."""
    return (minimiser(moved(case, tangents, STEP)) - minimiser(moved(case, tangents, -STEP))) / (2 * STEP)
