"""Solutions against cvxpy, closed forms and certificates."""

import dataclasses
import itertools

import cvxpy as cp
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from olmix_jax.laws import evaluate, log_linear
from olmix_jax.solver.bounds import box
from olmix_jax.solver.problem import Problem
from olmix_jax.solver.solve import solve
from olmix_jax.solver.status import Status
from olmix_jax.swarm import table, task_groups
from olmix_jax.utils.errors import UserError
from tests.solver.cases import (
    BOX_SIZE,
    BOX_TASKS,
    EDGES,
    GROUPS,
    KINDS,
    SIZE,
    assert_inside,
    cvxpy_minimum,
    inaccurate,
    objective_cp,
    random_bounds,
    random_box_problem,
    random_law,
    solve_box,
    solve_padded,
    solve_with_cvxpy,
)

CASES = list(itertools.product([1, 2, 7, 30], [0.0, 0.01, 0.3], ["free", "loose", "fixed"]))[::2] + [
    (10, kl_weight, "tight") for kl_weight in (0.0, 1e-3, 0.01, 0.05, 1.0)
]


@inaccurate
@pytest.mark.parametrize("size, kl_weight, kind", CASES)
def test_solutions_agree_with_cvxpy(size, kl_weight, kind):
    problem = random_box_problem(np.random.default_rng(size), size, kl_weight, kind)
    ours, (p, value) = solve_box(problem), solve_with_cvxpy(problem)
    scale = max(1, abs(value))
    assert ours.status is Status.OPTIMAL and ours.gap <= 1e-9 * scale
    assert ours.value <= value + 1e-8 * scale and abs(ours.value - value) <= 1e-6 * scale
    # The lower bound holds up to the infeasibility of cvxpy's mixture.
    assert ours.value - ours.gap <= value + 1e-7 * scale
    if kl_weight >= 0.01:
        assert abs(ours.weights_M - p.value).sum() / 2 < 1e-5


@inaccurate
@pytest.mark.parametrize("kl_weight", [0.0, 0.01, 0.05, 0.3])
def test_solutions_within_groups_agree_with_cvxpy(kl_weight):
    for seed, number, fixed in ((0, 1, 0.0), (1, 2, 0.3), (2, 4, 0.0), (3, 4, 0.3)):
        rng = np.random.default_rng(seed)
        law, bounds = random_law(rng, 10), random_bounds(rng, 10, number, fixed)
        weights_M, ours = solve_padded(*law, bounds, kl_weight)
        p = cp.Variable(10)
        value = cvxpy_minimum(objective_cp(*law, kl_weight, p), p, bounds)
        assert_inside(weights_M, bounds)
        assert ours.status is Status.OPTIMAL and ours.value == pytest.approx(value, rel=1e-8)
        if kl_weight:
            assert abs(weights_M - p.value).sum() / 2 < 1e-5


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(
    st.integers(0, 2**32 - 1),
    st.integers(1, BOX_SIZE),
    st.sampled_from([0.0, 1e-4, 0.05, 100.0]),
    st.sampled_from(KINDS),
)
def test_solutions_are_feasible_finite_and_certified(seed, size, kl_weight, kind):
    problem = random_box_problem(np.random.default_rng(seed), size, kl_weight, kind)
    solution = solve_box(problem)
    weights_M, params = solution.weights_M, problem.params
    assert_inside(weights_M, problem.bounds)
    assert np.isfinite([solution.value, solution.kl, solution.gap, solution.residual, *solution.multipliers_M]).all()
    assert solution.status is Status.OPTIMAL and (solution.multipliers_M >= 0).all()

    def value(p_M):
        kl = kl_weight * (p_M * np.log(np.maximum(p_M, 1e-300) / problem.anchor_M)).sum() if kl_weight else 0.0
        return problem.weights @ (np.exp(params.log_c_N) + np.exp(params.coef_NM @ p_M)) + kl

    assert solution.value == pytest.approx(value(weights_M), rel=1e-12, abs=1e-13)
    # The certificate is below the anchor's value and below those of mixtures between anchor and solution.
    least = solution.value - solution.gap - 1e-12 * abs(solution.value)
    for share in (1.0, 0.1, 1e-3, 1e-6):
        assert value((1 - share) * weights_M + share * problem.anchor_M) >= least


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(
    st.integers(0, 2**32 - 1),
    st.integers(1, SIZE),
    st.integers(0, GROUPS),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.sampled_from([0.0, 1e-3, 0.05, 100.0]),
)
def test_solutions_within_groups_are_feasible_finite_and_optimal(seed, size, number, fixed, kl_weight):
    rng = np.random.default_rng(seed)
    law, bounds = random_law(rng, size), random_bounds(rng, size, number, fixed)
    weights_M, solution = solve_padded(*law, bounds, kl_weight)
    assert_inside(weights_M, bounds)
    assert solution.status is Status.OPTIMAL and (solution.multipliers_M >= 0).all()
    assert np.isfinite([solution.value, solution.kl, solution.gap, solution.residual, *solution.multipliers_M]).all()
    assert np.isfinite(solution.group_multipliers_G).all()


@pytest.mark.parametrize("kl_weight", [0.0, 0.05])
@pytest.mark.parametrize("name", EDGES)
def test_bounds_at_the_edge_of_feasibility_are_solved(name, kl_weight):
    law, bounds = random_law(np.random.default_rng(1), 4), EDGES[name][0]
    weights_M, solution = solve_padded(*law, bounds, kl_weight)
    assert_inside(weights_M, bounds)
    assert solution.status is Status.OPTIMAL and np.isfinite(solution.group_multipliers_G).all()
    assert solution.residual < 1e-6


THREE = Problem(
    log_linear.LAW,
    log_linear.Params(np.zeros(BOX_TASKS), np.tile([-1.0, 0.0, 0.5], (BOX_TASKS, 1))),
    np.full(BOX_TASKS, 1 / BOX_TASKS),
    np.array([0.2, 0.3, 0.5]),
    box(np.zeros(3), np.ones(3)),
    0.0,
)


def test_closed_forms_of_a_law_that_falls_along_one_domain():
    """All weight on that domain for λ = 0; p ∝ anchor·e^{−g/λ} with the slope g at p otherwise."""
    free = solve_box(THREE)
    np.testing.assert_allclose(free.weights_M, [1, 0, 0], atol=1e-12)
    assert free.value == pytest.approx(1 + np.exp(-1), rel=1e-12)
    tied = solve_box(dataclasses.replace(THREE, kl_weight=0.5))
    coef_M = THREE.params.coef_NM[0]
    expected_M = THREE.anchor_M * np.exp(-np.exp(coef_M @ tied.weights_M) * coef_M / 0.5)
    np.testing.assert_allclose(tied.weights_M, expected_M / expected_M.sum(), atol=1e-6)
    still = solve_box(dataclasses.replace(THREE, kl_weight=1e6))
    np.testing.assert_allclose(still.weights_M, THREE.anchor_M, atol=1e-6)
    assert still.kl < 1e-9


def test_lambda_zero_allows_weight_where_the_anchor_has_none():
    """The divergence is infinite there, but does not count."""
    bounds = box(np.zeros(3), np.array([0.7, 1, 1]))
    solution = solve_box(dataclasses.replace(THREE, anchor_M=np.array([0, 0.5, 0.5]), bounds=bounds))
    np.testing.assert_allclose(solution.weights_M, [0.7, 0.3, 0], atol=1e-12)
    assert solution.status is Status.OPTIMAL and solution.kl == np.inf and np.isfinite(solution.value)


def test_too_few_iterations_are_reported_as_not_converged():
    problem = random_box_problem(np.random.default_rng(1), 3, 0.05, "free")
    solution = solve_box(problem, max_iterations=1)
    assert solution.status is Status.MAX_ITERATIONS and solution.gap > 1e-6 and solution.iterations == 1
    assert abs(solution.weights_M.sum() - 1) < 1e-14
    assert solution.value - solution.gap <= solve_box(problem).value <= solution.value


def test_the_best_of_several_starts_is_returned_and_agreeing_ones_are_counted():
    """With negative weights there is a local optimum at every vertex: 2 of 3 starts lead to the best one."""
    coef_NM = np.zeros((BOX_TASKS, 3))
    coef_NM[0], coef_NM[1] = [2.0, -5, -5], [-5, 1.0, -5]
    params = log_linear.Params(np.zeros(BOX_TASKS), coef_NM)
    worst = dataclasses.replace(THREE, params=params, weights=-THREE.weights)
    starts_SM = np.array([[0.98, 0.01, 0.01], [0.01, 0.98, 0.01], [0.8, 0.1, 0.1]])
    solution = solve_box(worst, starts_SM=np.pad(starts_SM, ((0, 0), (0, BOX_SIZE - 3))))
    np.testing.assert_allclose(solution.weights_M, [1, 0, 0], atol=1e-12)
    assert solution.status is Status.LOCAL_OPTIMUM and solution.gap is None
    assert solution.starts == 3 and solution.agreeing == 2


def test_infeasible_bounds_and_infinite_predictions_are_errors():
    with pytest.raises(UserError, match="no finite BPB"):
        solve_box(dataclasses.replace(THREE, params=THREE.params._replace(log_c_N=np.full(BOX_TASKS, 1e4))))
    with pytest.raises(UserError, match="the caps sum to 0.6, less than 1"):
        solve_box(dataclasses.replace(THREE, bounds=box(np.zeros(3), np.full(3, 0.2))))


@inaccurate
def test_the_published_swarm_agrees_with_cvxpy_and_the_paper(published):
    """METHOD §5: λ = 0.05, k = 4, R = 1e12 on DCLM. The law is fitted here; cvxpy solves the same one."""
    folder = published / "olmix_dclm"
    swarm = table.SwarmTable.read(folder / "ratios.csv", folder / "metrics.csv", folder / "meta.json")
    swarm = task_groups.with_mmlu_groups(swarm)
    params = log_linear.fit(swarm.ratios_KM, swarm.bpb_KN, starts=4).params
    tasks, domains = len(swarm.tasks), len(swarm.domains)
    bounds = box(np.zeros(domains), np.minimum(1, 4.0 * swarm.tokens_M / 1e12))
    assert (tasks, domains) == (52, 24)
    for kl_weight in (0.05, 0.0):
        problem = Problem(log_linear.LAW, params, np.full(tasks, 1 / tasks), swarm.natural_M, bounds, kl_weight)
        ours, (p, value) = solve(problem), solve_with_cvxpy(problem)
        assert ours.status is Status.OPTIMAL and ours.value == pytest.approx(value, rel=1e-8)
        if kl_weight:
            assert abs(ours.weights_M - p.value).sum() / 2 < 1e-5
            weights = dict(zip(swarm.domains, ours.weights_M))
            assert weights["software_development"] == pytest.approx(0.345, abs=0.01)
            assert weights["software_development"] == pytest.approx(0.347, abs=0.008)
            assert weights["science_math_and_technology"] == pytest.approx(0.180, abs=0.005)
            assert ours.value - kl_weight * ours.kl == pytest.approx(1.6426, abs=0.005)
            natural_N = evaluate(log_linear.LAW, params, swarm.natural_M[None])[0]
            assert natural_N.mean() == pytest.approx(2.0355, abs=0.005)
