"""Random bounds and problems for the tests of the solver, and cvxpy as the reference.

Everything is padded to one size with domains held at 0 and empty groups, so that all cases share compiled programs.
"""

import dataclasses
import functools

import cvxpy as cp
import jax
import numpy as np
import pytest

from olmix_jax.laws import cpu, log_linear
from olmix_jax.solver.bounds import Bounds, box, inner_first, overlapping, within
from olmix_jax.solver.problem import Problem
from olmix_jax.solver.solve import solve

SIZE, GROUPS, TASKS = 12, 4, 6
# The size of problems without groups, and their kinds of bounds.
BOX_SIZE, BOX_TASKS = 30, 8
KINDS = ["free", "loose", "tight", "fixed"]
# cvxpy warns when it reaches fewer digits than requested; the tolerances allow for that.
inaccurate = pytest.mark.filterwarnings("ignore:Solution may be inaccurate")


def grouped(lower_M, upper_M, *groups) -> Bounds:
    """Return bounds from (members, low, high) of each group, inner groups first."""
    member_GM = np.array([np.isin(np.arange(len(lower_M)), members) for members, _, _ in groups])
    member_GM = member_GM.reshape(-1, len(lower_M)).astype(bool)
    low_G, high_G = (np.array([group[i] for group in groups], float) for i in (1, 2))
    return Bounds(np.array(lower_M, float), np.array(upper_M, float), member_GM, low_G, high_G)


def padded(bounds: Bounds) -> Bounds:
    """Return the bounds with SIZE domains and GROUPS groups; the extra domains are held at 0."""
    lower_M, upper_M, member_GM, low_G, high_G = (np.asarray(x) for x in bounds)
    extra, groups = SIZE - len(lower_M), GROUPS - len(low_G)
    lower_M, upper_M = (np.pad(x.astype(float), (0, extra)) for x in (lower_M, upper_M))
    member_GM = np.pad(member_GM.astype(bool), ((groups, 0), (0, extra)))
    return Bounds(lower_M, upper_M, member_GM, np.pad(low_G * 1.0, (groups, 0)), np.pad(high_G * 1.0, (groups, 0)))


def project_within(function, v_M, bounds: Bounds):
    """Return ``within(function, v, bounds)``, computed at the padded size."""
    v_M = np.asarray(v_M, np.float64)
    with cpu.float64():
        p_M = np.asarray(_within(function)(np.pad(v_M, (0, SIZE - len(v_M))), padded(bounds)))
    assert not p_M[len(v_M) :].any()
    return p_M[: len(v_M)]


@functools.cache
def _within(function):
    return jax.jit(lambda v_M, bounds: within(function, v_M, bounds), compiler_options=cpu.QUICK)


def random_groups(rng, size, number):
    """Return member_GM of random groups, disjoint or nested, inner groups first."""
    order, groups = rng.permutation(size), []
    while len(groups) < number:
        start, end = np.sort(rng.choice(size + 1, 2, replace=False))
        member_M = np.isin(np.arange(size), order[start:end])
        if overlapping([*groups, member_M]) is None:
            groups.append(member_M)
    member_GM = np.array(groups, bool).reshape(-1, size)
    return member_GM[inner_first(member_GM)]


def random_bounds(rng, size, number, fixed=0.0) -> Bounds:
    """Return feasible bounds. A share ``fixed`` of the domains and groups has equal lower and upper bounds."""
    inside_M = rng.dirichlet(np.full(size, rng.choice([0.3, 2.0])))
    lower_M = inside_M * rng.uniform(size=size) * (rng.uniform(size=size) < 0.4)
    upper_M = np.maximum(inside_M + (1 - inside_M) * rng.uniform(size=size) ** 3, lower_M)
    fixed_M = rng.uniform(size=size) < fixed
    lower_M, upper_M = np.where(fixed_M, inside_M, lower_M), np.where(fixed_M, inside_M, upper_M)
    member_GM = random_groups(rng, size, number)
    sum_G = member_GM @ inside_M
    low_G = sum_G * rng.uniform(size=number) ** 0.5 * (rng.uniform(size=number) < 0.7)
    high_G = np.minimum(sum_G + (1 - sum_G) * rng.uniform(size=number) ** 4, 1)
    fixed_G = rng.uniform(size=number) < fixed / 2
    return Bounds(lower_M, upper_M, member_GM, np.where(fixed_G, sum_G, low_G), np.where(fixed_G, sum_G, high_G))


def random_law(rng, size):
    """Return (params, task weights, anchor) of a random log-linear law."""
    params = log_linear.Params(rng.normal(size=TASKS) * 0.3, rng.normal(size=(TASKS, size)) * rng.choice([0.3, 1, 3]))
    anchor_M = np.maximum(rng.dirichlet(np.full(size, rng.choice([0.5, 3.0]))), 1e-5)
    return params, rng.dirichlet(np.ones(TASKS)), anchor_M / anchor_M.sum()


def solve_padded(params, weights_N, anchor_M, bounds: Bounds, kl_weight):
    """Return (weights without the padding, solution)."""
    extra, groups = SIZE - len(anchor_M), GROUPS - len(bounds.low_G)
    params = params._replace(coef_NM=np.pad(params.coef_NM, ((0, 0), (0, extra))))
    anchor_M = np.pad(anchor_M, (0, extra))
    solution = solve(Problem(log_linear.LAW, params, weights_N, anchor_M, padded(bounds), kl_weight))
    assert not solution.weights_M[SIZE - extra :].any() and not solution.group_multipliers_G[:groups].any()
    return solution.weights_M[: SIZE - extra], solution


def assert_inside(p_M, bounds: Bounds):
    """Check that p is finite and within the bounds, exactly for domains and to 1e-13 for sums."""
    assert np.isfinite(p_M).all() and (p_M >= bounds.lower_M).all() and (p_M <= bounds.upper_M).all()
    sum_G = bounds.member_GM @ p_M
    assert abs(p_M.sum() - 1) < 1e-13 and (sum_G > bounds.low_G - 1e-13).all() and (sum_G < bounds.high_G + 1e-13).all()


def cvxpy_minimum(value, p: cp.Variable, bounds: Bounds) -> float:
    """Return the minimum of a cvxpy expression in p within the bounds; ``p.value`` is the minimiser."""
    rules = [p >= bounds.lower_M, p <= bounds.upper_M, cp.sum(p) == 1]
    if len(bounds.low_G):
        rules += [bounds.member_GM @ p >= bounds.low_G, bounds.member_GM @ p <= bounds.high_G]
    model = cp.Problem(cp.Minimize(value), rules)
    model.solve(solver=cp.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
    return model.value


def objective_cp(params, weights_N, anchor_M, kl_weight, p: cp.Variable):
    """Return the objective as a cvxpy expression."""
    value = weights_N @ (np.exp(params.log_c_N) + cp.exp(params.coef_NM @ p))
    return value + kl_weight * cp.sum(cp.rel_entr(p, anchor_M)) if kl_weight else value


def random_box_problem(rng, size, kl_weight, kind) -> Problem:
    """Return a random problem over ``size`` domains without groups."""
    log_c_N = rng.normal(size=BOX_TASKS) * 0.3
    params = log_linear.Params(log_c_N, rng.normal(size=(BOX_TASKS, size)) * rng.choice([0.3, 1, 3]))
    anchor_M = rng.dirichlet(np.full(size, rng.choice([0.5, 3.0])))
    anchor_M = np.maximum(anchor_M, 1e-5) / np.maximum(anchor_M, 1e-5).sum()
    lower_M, upper_M = np.zeros(size), np.ones(size)
    if kind != "free":
        upper_M = np.minimum(1, anchor_M * {"loose": 4.0, "tight": 1.01, "fixed": 2.0}[kind])
    if kind == "fixed":
        fixed_M = rng.uniform(size=size) < 0.4
        lower_M, upper_M = (np.where(fixed_M, anchor_M, bound) for bound in (anchor_M * 0.1, upper_M))
    return Problem(
        log_linear.LAW, params, rng.dirichlet(np.ones(BOX_TASKS)), anchor_M, box(lower_M, upper_M), kl_weight
    )


def solve_box(problem: Problem, **options):
    """Solve with domains added up to BOX_SIZE that are held at 0, so that all problems share one program."""
    size = len(problem.anchor_M)
    extra, bounds = (0, BOX_SIZE - size), problem.bounds
    larger = dataclasses.replace(
        problem,
        params=problem.params._replace(coef_NM=np.pad(problem.params.coef_NM, ((0, 0), extra))),
        anchor_M=np.pad(problem.anchor_M, extra),
        bounds=box(np.pad(bounds.lower_M, extra), np.pad(bounds.upper_M, extra)),
    )
    solution = solve(larger, **options)
    assert not solution.weights_M[size:].any()
    return dataclasses.replace(
        solution, weights_M=solution.weights_M[:size], multipliers_M=solution.multipliers_M[:size]
    )


def solve_with_cvxpy(problem: Problem):
    """Return cvxpy's (minimiser, minimum)."""
    p = cp.Variable(len(problem.anchor_M))
    value = objective_cp(problem.params, problem.weights, problem.anchor_M, problem.kl_weight, p)
    return p, cvxpy_minimum(value, p, problem.bounds)


Z4, O4 = [0] * 4, [1] * 4
# Bounds at the edge of what is possible, and the KL projection of (0.1, 0.2, 0.3, 0.4) onto them.
EDGES = {
    "group of all domains": (grouped(Z4, O4, ([0, 1, 2, 3], 0.2, 1.0)), [0.1, 0.2, 0.3, 0.4]),
    "fixed group of all domains": (grouped(Z4, O4, ([0, 1, 2, 3], 1.0, 1.0)), [0.1, 0.2, 0.3, 0.4]),
    "fixed group": (grouped(Z4, O4, ([0, 1], 0.6, 0.6)), [0.2, 0.4, 0.12 / 0.7, 0.16 / 0.7]),
    "two fixed groups that contain all domains": (
        grouped(Z4, O4, ([0, 1], 0.6, 0.6), ([2, 3], 0.4, 0.4)),
        [0.2, 0.4, 0.12 / 0.7, 0.16 / 0.7],
    ),
    "empty group": (grouped(Z4, O4, ([], 0, 1), ([0], 0, 1)), [0.1, 0.2, 0.3, 0.4]),
    "group of one domain": (grouped(Z4, O4, ([3], 0.0, 0.1)), [0.15, 0.3, 0.45, 0.1]),
    "group of one domain held at 0": (grouped(Z4, O4, ([3], 0.0, 0.0)), [1 / 6, 1 / 3, 1 / 2, 0]),
    "equal groups": (grouped(Z4, O4, ([0, 1], 0.45, 1), ([0, 1], 0.0, 0.45)), [0.15, 0.3, 0.55 * 3 / 7, 0.55 * 4 / 7]),
    "three nested groups": (
        grouped(Z4, O4, ([0], 0.3, 1), ([0, 1], 0, 0.4), ([0, 1, 2], 0.85, 1)),
        [0.3, 0.1, 0.45, 0.15],
    ),
    "caps that sum to the lower bound of a group": (
        grouped(Z4, [0.25, 0.35, 1, 1], ([0, 1], 0.6, 1)),
        [0.25, 0.35, 1.2 / 7, 1.6 / 7],
    ),
    "lower bounds that sum to the upper bound of a group": (
        grouped([0.3, 0.3, 0, 0], O4, ([0, 1], 0, 0.6)),
        [0.3, 0.3, 1.2 / 7, 1.6 / 7],
    ),
}
