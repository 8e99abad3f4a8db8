"""Mixtures within bounds on domains and groups: projections, classes, and the solver, against cvxpy and differences."""

import functools

import cvxpy as cp
import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from olmix_jax.laws import cpu, log_linear
from olmix_jax.solver import bounds as bounds_of
from olmix_jax.solver import kkt, projection
from olmix_jax.solver import solve as solver
from olmix_jax.solver.bounds import Bounds, within
from olmix_jax.solver.problem import Problem
from olmix_jax.solver.status import Status

SIZE, GROUPS, TASKS = 12, 4, 6
FUNCTIONS = [projection.project, projection.project_kl, projection.fill, projection.inside]
fuzz = hypothesis.settings(deadline=None, max_examples=40)
seeds = st.integers(0, 2**32 - 1)
inaccurate = pytest.mark.filterwarnings("ignore:Solution may be inaccurate")


def padded(bounds: Bounds) -> Bounds:
    """With domains held at 0 and empty groups added up to one size, so that all problems share one compilation."""
    lower_M, upper_M, member_GM, low_G, high_G = (np.asarray(x) for x in bounds)
    extra, groups = SIZE - len(lower_M), GROUPS - len(low_G)
    lower_M, upper_M = (np.pad(x.astype(float), (0, extra)) for x in (lower_M, upper_M))
    member_GM = np.pad(member_GM.astype(bool), ((groups, 0), (0, extra)))
    return Bounds(lower_M, upper_M, member_GM, np.pad(low_G * 1.0, (groups, 0)), np.pad(high_G * 1.0, (groups, 0)))


@functools.cache
def compiled(function):
    return jax.jit(lambda v_M, bounds: within(function, v_M, bounds), compiler_options=cpu.QUICK)


def run(function, v_M, bounds: Bounds):
    v_M = np.asarray(v_M, np.float64)
    with cpu.float64():
        p_M = np.asarray(compiled(function)(np.pad(v_M, (0, SIZE - len(v_M))), padded(bounds)))
    assert not p_M[len(v_M) :].any()
    return p_M[: len(v_M)]


def groups_of(rng, size, number):
    """member_GM of random groups, disjoint or one inside the other, inner ones first."""
    order, found = rng.permutation(size), []
    while len(found) < number:
        start, end = np.sort(rng.choice(size + 1, 2, replace=False))
        member_M = np.isin(np.arange(size), order[start:end])
        if bounds_of.overlapping([*found, member_M]) is None:
            found.append(member_M)
    member_GM = np.array(found, bool).reshape(-1, size)
    return member_GM[bounds_of.inner_first(member_GM)]


def random_bounds(rng, size, number, fixed=0.0):
    """Feasible bounds, with a share of domains and groups fixed."""
    inside_M = rng.dirichlet(np.full(size, rng.choice([0.3, 2.0])))
    lower_M = inside_M * rng.uniform(size=size) * (rng.uniform(size=size) < 0.4)
    upper_M = np.maximum(inside_M + (1 - inside_M) * rng.uniform(size=size) ** 3, lower_M)
    fixed_M = rng.uniform(size=size) < fixed
    lower_M, upper_M = np.where(fixed_M, inside_M, lower_M), np.where(fixed_M, inside_M, upper_M)
    member_GM = groups_of(rng, size, number)
    sum_G = member_GM @ inside_M
    low_G = sum_G * rng.uniform(size=number) ** 0.5 * (rng.uniform(size=number) < 0.7)
    high_G = np.minimum(sum_G + (1 - sum_G) * rng.uniform(size=number) ** 4, 1)
    fixed_G = rng.uniform(size=number) < fixed / 2
    return Bounds(lower_M, upper_M, member_GM, np.where(fixed_G, sum_G, low_G), np.where(fixed_G, sum_G, high_G))


def assert_inside(p_M, bounds: Bounds):
    assert np.isfinite(p_M).all() and (p_M >= bounds.lower_M).all() and (p_M <= bounds.upper_M).all()
    sum_G = bounds.member_GM @ p_M
    assert abs(p_M.sum() - 1) < 1e-13 and (sum_G > bounds.low_G - 1e-13).all() and (sum_G < bounds.high_G + 1e-13).all()


def constraints(p, bounds: Bounds):
    rules = [p >= bounds.lower_M, p <= bounds.upper_M, cp.sum(p) == 1]
    return rules + [bounds.member_GM @ p >= bounds.low_G, bounds.member_GM @ p <= bounds.high_G]


def minimum(value, p, bounds: Bounds) -> float:
    model = cp.Problem(cp.Minimize(value), constraints(p, bounds))
    model.solve(solver=cp.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
    return model.value


# Projections.

stationary = jax.jit(kkt.conditions, compiler_options=cpu.QUICK)


@fuzz
@hypothesis.given(seeds, st.integers(1, SIZE), st.integers(0, GROUPS), st.sampled_from([0.0, 0.3, 1.0]))
def test_projections_are_inside_and_stationary(seed, size, number, fixed):
    """For any groups: feasible to 1e-13, and the optimality conditions of ‖p − v‖²/2 and KL(p ‖ e^v) hold."""
    rng = np.random.default_rng(seed)
    bounds, v_M = random_bounds(rng, size, number, fixed), rng.normal(size=size) * rng.choice([0.1, 1.0, 5.0])
    found = {function: run(function, v_M, bounds) for function in FUNCTIONS}
    for p_M in found.values():
        assert_inside(p_M, bounds)
    np.testing.assert_allclose(
        run(projection.inside, found[projection.fill], bounds), found[projection.fill], atol=1e-15
    )
    if fixed == 0:
        p_M, q_M = found[projection.project], found[projection.project_kl]
        for x_M, slope_M in ((p_M, p_M - v_M), (q_M, np.log(np.maximum(q_M, 1e-300)) - v_M)):
            slope_M, x_M = (np.pad(y_M, (0, SIZE - size)) for y_M in (slope_M, x_M))
            with cpu.float64():
                assert stationary(slope_M, x_M, padded(bounds)).residual < 1e-11


def test_small_entries_of_a_kl_projection_keep_their_digits():
    """A last bit of the sum once went to an entry of 2e-6, eleven digits in: the slope of KL was off by 3e-11."""
    v_M = np.array([-8.04451447, 4.6361408, 3.28989761])
    bounds = bounds_of.box(np.array([0.0, 0.0, 0.1193919]), np.array([0.3077107, 0.8305816, 0.36358922]))
    slope_M = np.log(run(projection.project_kl, v_M, bounds)) - v_M
    assert np.ptp(slope_M) < 1e-14


@inaccurate
@pytest.mark.parametrize("number", [1, 2, 4])
def test_projections_against_cvxpy(number):
    for seed in range(4):
        rng = np.random.default_rng(10 * number + seed)
        bounds, v_M = random_bounds(rng, 9, number, 0.2), rng.normal(size=9)
        p = cp.Variable(9)
        minimum(cp.sum_squares(p - v_M), p, bounds)
        np.testing.assert_allclose(run(projection.project, v_M, bounds), p.value, atol=1e-6)
        minimum(cp.sum(cp.rel_entr(p, np.exp(v_M))), p, bounds)
        np.testing.assert_allclose(run(projection.project_kl, v_M, bounds), p.value, atol=5e-5)
        least = minimum(v_M @ p, p, bounds)
        assert v_M @ run(projection.fill, v_M, bounds) == pytest.approx(least, abs=1e-8)


def grouped(lower_M, upper_M, *groups) -> Bounds:
    """Bounds from (members, low, high) per group, inner ones first."""
    member_GM = np.array([np.isin(np.arange(len(lower_M)), members) for members, _, _ in groups])
    member_GM = member_GM.reshape(-1, len(lower_M)).astype(bool)
    low_G, high_G = (np.array([group[i] for group in groups], float) for i in (1, 2))
    return Bounds(np.array(lower_M, float), np.array(upper_M, float), member_GM, low_G, high_G)


Z4, O4 = [0] * 4, [1] * 4
EDGES = {
    "all domains": (grouped(Z4, O4, ([0, 1, 2, 3], 0.2, 1.0)), [0.1, 0.2, 0.3, 0.4]),
    "all domains, fixed": (grouped(Z4, O4, ([0, 1, 2, 3], 1.0, 1.0)), [0.1, 0.2, 0.3, 0.4]),
    "fixed": (grouped(Z4, O4, ([0, 1], 0.6, 0.6)), [0.2, 0.4, 0.12 / 0.7, 0.16 / 0.7]),
    "complements": (grouped(Z4, O4, ([0, 1], 0.6, 0.6), ([2, 3], 0.4, 0.4)), [0.2, 0.4, 0.12 / 0.7, 0.16 / 0.7]),
    "empty": (grouped(Z4, O4, ([], 0, 1), ([0], 0, 1)), [0.1, 0.2, 0.3, 0.4]),
    "one": (grouped(Z4, O4, ([3], 0.0, 0.1)), [0.15, 0.3, 0.45, 0.1]),
    "one, nothing": (grouped(Z4, O4, ([3], 0.0, 0.0)), [1 / 6, 1 / 3, 1 / 2, 0]),
    "twins": (grouped(Z4, O4, ([0, 1], 0.45, 1), ([0, 1], 0.0, 0.45)), [0.15, 0.3, 0.55 * 3 / 7, 0.55 * 4 / 7]),
    "deep": (
        grouped(Z4, O4, ([0], 0.3, 1), ([0, 1], 0, 0.4), ([0, 1, 2], 0.85, 1)),
        [0.3, 0.1, 0.45, 0.15],
    ),
    "caps that just suffice": (grouped(Z4, [0.25, 0.35, 1, 1], ([0, 1], 0.6, 1)), [0.25, 0.35, 1.2 / 7, 1.6 / 7]),
    "lower bounds that fill it": (grouped([0.3, 0.3, 0, 0], O4, ([0, 1], 0, 0.6)), [0.3, 0.3, 1.2 / 7, 1.6 / 7]),
}


@pytest.mark.parametrize("name", EDGES)
def test_edge_cases(name):
    """KL projections of (0.1, 0.2, 0.3, 0.4): within a group, and outside all, ratios stay."""
    bounds, expected_M = EDGES[name]
    assert bounds_of.overlapping(bounds.member_GM) is None
    np.testing.assert_allclose(run(projection.project_kl, np.log([0.1, 0.2, 0.3, 0.4]), bounds), expected_M, rtol=1e-13)
    for function in FUNCTIONS:
        for v_M in ([0.1, 0.2, 0.3, 0.4], [9.0, -9.0, 0.0, 1e3], [0.0] * 4):
            assert_inside(run(function, v_M, bounds), bounds)


def test_absent_domains_stay_out_of_their_groups():
    bounds = grouped(Z4, [0.4, 1, 1, 1], ([0, 1, 2], 0.6, 1))
    p_M = run(projection.project_kl, [0.0, -np.inf, -1e3, 10.0], bounds)
    np.testing.assert_allclose(p_M, [0.4, 0, 0.2, 0.4], rtol=1e-13)


@pytest.mark.parametrize("function", [projection.project, projection.project_kl])
def test_derivatives_against_differences(function):
    """By v, caps and groups' bounds; two groups bind, the inner one at its most and the outer one at its least."""
    v_M = np.log([0.25, 0.3, 0.05, 0.1, 0.2, 0.1])
    if function is projection.project:
        v_M = np.exp(v_M)
    bounds = grouped([0] * 6, [1, 1, 1, 1, 0.1, 1], ([0, 1], 0.1, 0.4), ([0, 1, 2, 3], 0.75, 0.9))
    bounds = bounds._replace(upper_M=np.array([1, 1, 0.2, 1, 0.1, 1]))
    direction = np.random.default_rng(0).normal(size=(4, 6))
    d_bounds = bounds._replace(lower_M=direction[1] * 0, upper_M=direction[2], low_G=direction[3, :2])
    d_bounds = d_bounds._replace(
        high_G=direction[3, 2:4], member_GM=np.zeros(bounds.member_GM.shape, jax.dtypes.float0)
    )

    def at(step):
        moved = [x + step * d for x, d in zip(bounds[3:], d_bounds[3:])]
        moved = bounds._replace(upper_M=bounds.upper_M + step * direction[2], low_G=moved[0], high_G=moved[1])
        return run(function, v_M + step * direction[0], moved)

    sums_G = bounds.member_GM @ at(0)
    np.testing.assert_allclose(sums_G, [0.4, 0.75], atol=1e-14)
    with cpu.float64():
        found_M = jax.jvp(lambda v, b: within(function, v, b), (v_M, bounds), (direction[0], d_bounds))[1]
        found_M = np.asarray(found_M)
    np.testing.assert_allclose(found_M, (at(1e-6) - at(-1e-6)) / 2e-6, atol=1e-8)
    assert abs(found_M).max() > 0.1 and abs(found_M.sum()) < 1e-13


# What else there is to say of bounds.


def test_classes():
    bounds = grouped([0] * 5, [1] * 5, ([0, 1], 0, 0.3), ([4], 0.2, 1), ([0, 1, 2], 0.5, 0.9))

    def classes(p_M):
        with cpu.float64():
            return np.asarray(bounds_of.classes(bounds, np.array(p_M))).argmax(axis=0).tolist()

    assert classes([0.1, 0.2, 0.2, 0.3, 0.2]) == [0, 0, 2, 3, 1]
    assert classes([0.1, 0.1, 0.3, 0.3, 0.2]) == [2, 2, 2, 3, 1]
    assert classes([0.1, 0.1, 0.4, 0.1, 0.3]) == [3, 3, 3, 3, 3]
    # Rounding does not take a group off its bound; nothing is at a bound of 0 or 1.
    assert classes([0.1, 0.2 + 1e-15, 0.4, 0.05, 0.25]) == [0, 0, 3, 3, 3]
    assert classes([0, 0, 0.5, 0, 0.5]) == [2, 2, 2, 3, 3]


def test_overlapping_and_inner_first():
    a, b, c, d = [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]
    assert (
        bounds_of.overlapping([a, b, d, a, [0] * 5]) is None and bounds_of.overlapping(np.zeros((0, 5), bool)) is None
    )
    assert bounds_of.overlapping([a, b, c]) == (1, 2)
    assert bounds_of.inner_first([b, a, [1] * 5, d]).tolist() == [3, 1, 0, 2]


def test_holds():
    bounds = grouped([0.1, 0, 0], [1, 0.5, 1], ([0, 1], 0, 0.3))
    ratios_KM = [[0.1, 0.2, 0.7], [0.1, 0.2 + 1e-15, 0.7], [0.2, 0.2, 0.6], [0.05, 0.2, 0.75], [0.09, 0.2, 0.71]]
    assert bounds_of.holds(bounds, ratios_KM).tolist() == [True, True, False, False, False]
    assert bounds_of.holds(bounds, ratios_KM, slack=0.02).tolist() == [True, True, False, False, True]


# The solver.


def law(rng, size):
    params = log_linear.Params(rng.normal(size=TASKS) * 0.3, rng.normal(size=(TASKS, size)) * rng.choice([0.3, 1, 3]))
    natural_M = np.maximum(rng.dirichlet(np.full(size, rng.choice([0.5, 3.0]))), 1e-5)
    return params, rng.dirichlet(np.ones(TASKS)), natural_M / natural_M.sum()


def solve(params, weights_N, natural_M, bounds: Bounds, kl_weight):
    """The solution without what is padded: (weights, solution)."""
    extra, groups = SIZE - len(natural_M), GROUPS - len(bounds.low_G)
    params = params._replace(coef_NM=np.pad(params.coef_NM, ((0, 0), (0, extra))))
    natural_M = np.pad(natural_M, (0, extra))
    found = solver.solve(Problem(log_linear.LAW, params, weights_N, natural_M, padded(bounds), kl_weight))
    assert not found.weights_M[SIZE - extra :].any() and not found.group_multipliers_G[:groups].any()
    return found.weights_M[: SIZE - extra], found


@inaccurate
@pytest.mark.parametrize("kl_weight", [0.0, 0.01, 0.05, 0.3])
def test_solver_against_cvxpy(kl_weight):
    for seed, number, fixed in ((0, 1, 0.0), (1, 2, 0.3), (2, 4, 0.0), (3, 4, 0.3)):
        rng = np.random.default_rng(seed)
        (params, weights_N, natural_M), bounds = law(rng, 10), random_bounds(rng, 10, number, fixed)
        weights_M, found = solve(params, weights_N, natural_M, bounds, kl_weight)
        p = cp.Variable(10)
        value = weights_N @ (np.exp(params.log_c_N) + cp.exp(params.coef_NM @ p))
        value = minimum(value + kl_weight * cp.sum(cp.rel_entr(p, natural_M)) if kl_weight else value, p, bounds)
        assert_inside(weights_M, bounds)
        assert found.status is Status.OPTIMAL and found.value == pytest.approx(value, rel=1e-8)
        if kl_weight:
            assert abs(weights_M - p.value).sum() / 2 < 1e-5


@pytest.mark.slow
@inaccurate
@hypothesis.settings(deadline=None, max_examples=1000, derandomize=True)
@hypothesis.given(
    seeds,
    st.integers(1, SIZE),
    st.integers(0, GROUPS),
    st.sampled_from([0.0, 0.3]),
    st.sampled_from([0.0, 1e-3, 0.01, 0.05, 0.3]),
)
def test_a_thousand_problems_of_all_shapes_against_cvxpy(seed, size, number, fixed, kl_weight):
    """Objective to 1e-8, weights to 1e-5 in total variation where λ makes them unique, bounds to 1e-13."""
    rng = np.random.default_rng(seed)
    (params, weights_N, natural_M), bounds = law(rng, size), random_bounds(rng, size, number, fixed)
    weights_M, found = solve(params, weights_N, natural_M, bounds, kl_weight)
    assert_inside(weights_M, bounds)
    assert found.status is Status.OPTIMAL and found.gap <= 1e-9 * max(1, abs(found.value))
    p = cp.Variable(size)
    value = weights_N @ (np.exp(params.log_c_N) + cp.exp(params.coef_NM @ p))
    value = value + kl_weight * cp.sum(cp.rel_entr(p, natural_M)) if kl_weight else value
    try:
        least = minimum(value, p, bounds)
    except cp.error.SolverError:
        hypothesis.reject()
    small = 1e-8 * max(1, abs(least))
    assert found.value <= least + small
    # The referee's mixture breaks its bounds by a little, and its value may be lower by that.
    clean_M = np.clip(p.value, bounds.lower_M, bounds.upper_M)
    off = abs(clean_M / clean_M.sum() - p.value).sum() + abs(clean_M - p.value).sum()
    assert abs(found.value - least) <= small + 10 * abs(found.value) * off
    if kl_weight:
        assert abs(weights_M - p.value).sum() / 2 < 1e-5


@fuzz
@hypothesis.given(
    seeds,
    st.integers(1, SIZE),
    st.integers(0, GROUPS),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.sampled_from([0.0, 1e-3, 0.05, 100.0]),
)
def test_solutions_are_optimal_finite_and_inside(seed, size, number, fixed, kl_weight):
    rng = np.random.default_rng(seed)
    (params, weights_N, natural_M), bounds = law(rng, size), random_bounds(rng, size, number, fixed)
    weights_M, found = solve(params, weights_N, natural_M, bounds, kl_weight)
    assert_inside(weights_M, bounds)
    assert found.status is Status.OPTIMAL and (found.multipliers_M >= 0).all()
    assert np.isfinite([found.value, found.kl, found.gap, found.residual, *found.multipliers_M]).all()
    assert np.isfinite(found.group_multipliers_G).all()


@pytest.mark.parametrize("kl_weight", [0.0, 0.05])
def test_multipliers_of_groups_are_their_price(kl_weight):
    """Nested groups, the inner one at its most and the outer one at its least, and one that is fixed."""
    rng = np.random.default_rng(5)
    params = log_linear.Params(np.zeros(TASKS), 0.3 * rng.normal(size=(TASKS, 6)) - 3 * np.eye(TASKS))
    problem = params, np.full(TASKS, 1 / TASKS), np.full(6, 1 / 6)
    free_M, _ = solve(*problem, grouped([0] * 6, [1] * 6), kl_weight)
    inner, outer = free_M[:2].sum() - 0.05, free_M[:4].sum() + 0.03
    groups = ([0, 1], 0, inner), ([4], free_M[4] + 0.02, free_M[4] + 0.02), ([0, 1, 2, 3], outer, 1)
    bounds = grouped([0] * 6, [1] * 6, *groups)
    price_G = solve(*problem, bounds, kl_weight)[1].group_multipliers_G[-3:]
    assert price_G[0] > 1e-3 and price_G[2] < -1e-3 and abs(price_G[1]) > 1e-3
    for g, ends in enumerate((["high_G"], ["low_G", "high_G"], ["low_G"])):
        step_G = 1e-5 * (np.arange(3) == g)
        down, up = (
            solve(*problem, bounds._replace(**{e: getattr(bounds, e) + s * step_G for e in ends}), kl_weight)[1].value
            for s in (-1, 1)
        )
        assert price_G[g] == pytest.approx((down - up) / 2e-5, rel=1e-5)


@pytest.mark.parametrize("kl_weight", [0.0, 0.05])
@pytest.mark.parametrize("name", EDGES)
def test_solver_at_the_edges(name, kl_weight):
    rng = np.random.default_rng(1)
    params, weights_N, natural_M = law(rng, 4)
    weights_M, found = solve(params, weights_N, natural_M, EDGES[name][0], kl_weight)
    assert_inside(weights_M, EDGES[name][0])
    assert found.status is Status.OPTIMAL and np.isfinite(found.group_multipliers_G).all() and found.residual < 1e-6


@pytest.mark.parametrize("kl_weight", [0.0, 0.05])
def test_newton_steps_keep_groups_at_their_bounds(kl_weight):
    """Two nested groups bind; then a second group that says the same as the first changes neither it nor its price."""
    rng = np.random.default_rng(0)
    params = log_linear.Params(np.zeros(TASKS), 1.5 * rng.normal(size=(TASKS, 8)))
    problem = params, np.full(TASKS, 1 / TASKS), rng.dirichlet(np.full(8, 3.0))
    sum_G = [solve(*problem, grouped([0] * 8, [1] * 8), kl_weight)[0][:end].sum() for end in (3, 6)]
    inner, outer = (list(range(3)), 0, 0.8 * sum_G[0]), (list(range(6)), 0, 0.9 * sum_G[1])
    weights_M, found = solve(*problem, grouped([0] * 8, [1] * 8, inner, outer), kl_weight)
    np.testing.assert_allclose([weights_M[:3].sum(), weights_M[:6].sum()], [inner[2], outer[2]], atol=1e-14)
    assert found.iterations <= 8 and found.residual < 1e-8 and (found.group_multipliers_G[-2:] > 1e-3).all()
    twin_M, twin = solve(*problem, grouped([0] * 8, [1] * 8, inner, inner, outer), kl_weight)
    np.testing.assert_allclose(twin_M, weights_M, atol=1e-9)
    np.testing.assert_allclose(twin.group_multipliers_G[[-3, -1]], found.group_multipliers_G[-2:], atol=1e-7)
    assert twin.group_multipliers_G[-2] == 0 and twin.residual < 1e-8
