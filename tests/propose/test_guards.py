"""Guards on tasks and means over the worst samples, against cvxpy (also covers guard_rounds.py)."""

import dataclasses

import cvxpy as cp
import jax
import numpy as np
import pytest

from olmix_jax.laws import evaluate, evaluate_each, log_linear, warped_gp
from olmix_jax.propose import guard_rounds, guards
from olmix_jax.solver.bounds import box
from olmix_jax.solver.problem import Problem
from olmix_jax.solver.solve import solve
from olmix_jax.solver.status import Status
from olmix_jax.swarm import table, task_groups
from tests.propose.cases import NATURAL_M, fitted_gp
from tests.propose.guard_cases import (
    DOMAINS,
    EACH_TASK,
    TASKS,
    cvxpy_optimum,
    guards_of,
    infeasible_problem,
    random_problem,
    samples_of,
)

inaccurate = pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
both = pytest.mark.parametrize("kl_weight", [0.05, 0.0])


@inaccurate
@pytest.mark.parametrize("seed", range(4))
@both
def test_guarded_solutions_agree_with_cvxpy(seed, kl_weight):
    problem = random_problem(seed, kl_weight)
    guard, free_M = guards_of(problem, EACH_TASK, 0.005), solve(problem).weights_M
    guarded = guards.solve(problem, guard, starts_SM=free_M[None])
    solution, (weights_M, value) = guarded.solution, cvxpy_optimum(problem, guard)
    assert solution.status is Status.OPTIMAL and solution.gap <= 1e-9 * max(1, abs(solution.value))
    assert solution.value == pytest.approx(value, rel=1e-8)
    assert guarded.excess_F.max() <= 1e-10 and solution.guard_excess == guarded.excess_F.max()
    if kl_weight:
        assert abs(solution.weights_M - weights_M).sum() / 2 < 1e-5
    assert (guarded.multipliers_F >= 0).all() and abs(guarded.multipliers_F * guarded.excess_F).max() < 1e-8
    free_N = evaluate(problem.law, problem.params, free_M[None])[0]
    if (guard.rows_FN @ free_N > guard.limit_F + 1e-6).any():
        assert guarded.multipliers_F.max() > 0


def test_multipliers_of_guards_are_the_fall_of_the_minimum_per_bpb_of_slack():
    problem = random_problem(1)
    less, now, more = (
        guards.solve(problem, guards_of(problem, EACH_TASK, slack), starts_SM=problem.anchor_M[None])
        for slack in (0.005 - 1e-5, 0.005, 0.005 + 1e-5)
    )
    fall = (less.solution.value - more.solution.value) / 2e-5
    assert now.multipliers_F.sum() > 1e-3 and now.multipliers_F.sum() == pytest.approx(fall, rel=1e-3)


@inaccurate
def test_guards_on_groups_hold_for_the_mean_of_the_group():
    problem = random_problem(2)
    guard = guards_of(problem, {"one": ("a", "b"), "two": ("c", "d", "e")}, 0.0)
    solution = guards.solve(problem, guard, starts_SM=problem.anchor_M[None]).solution
    proposed_N, natural_N = evaluate(problem.law, problem.params, np.stack([solution.weights_M, problem.anchor_M]))
    assert proposed_N[:2].mean() <= natural_N[:2].mean() + 1e-10
    assert proposed_N[2:].mean() <= natural_N[2:].mean() + 1e-10
    assert solution.value == pytest.approx(cvxpy_optimum(problem, guard)[1], rel=1e-8)


@inaccurate
@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 1.0])
@both
def test_means_over_the_worst_samples_agree_with_cvxpy(share, kl_weight):
    problem = random_problem(3, kl_weight)
    samples = samples_of(problem)
    with_tail = guards.solve(problem, guards.no_guards(problem), samples, share, starts_SM=problem.anchor_M[None])
    solution, (weights_M, value) = with_tail.solution, cvxpy_optimum(problem, None, samples, share)
    assert solution.status is Status.OPTIMAL and solution.value == pytest.approx(value, rel=1e-8)
    assert solution.guard_excess is None
    if kl_weight:
        assert abs(solution.weights_M - weights_M).sum() / 2 < 1e-5
    value_S = evaluate_each(problem.law, samples, solution.weights_M[None])[:, 0] @ problem.weights
    if share == 0.0:
        assert with_tail.tail == pytest.approx(value_S.max(), abs=1e-10)
    if share == 1.0:
        assert with_tail.tail == pytest.approx(value_S.mean(), abs=1e-10)
    assert with_tail.tail == pytest.approx(guards.tail_at(problem, samples, share, solution.weights_M), abs=1e-10)
    assert with_tail.sample_weights_S.sum() == pytest.approx(1) and (with_tail.sample_weights_S >= 0).all()


@inaccurate
def test_guards_together_with_the_worst_samples_agree_with_cvxpy():
    problem = random_problem(4)
    samples, guard = samples_of(problem), guards_of(problem, EACH_TASK, 0.01)
    both_ = guards.solve(problem, guard, samples, 0.25, starts_SM=problem.anchor_M[None])
    assert both_.solution.status is Status.OPTIMAL and both_.excess_F.max() <= 1e-10
    assert both_.solution.value == pytest.approx(cvxpy_optimum(problem, guard, samples, 0.25)[1], rel=1e-8)


def test_tail_at_counts_the_last_sample_in_part():
    """A share of 0.2 of 12 samples is 2.4 samples: the worst two, and 0.4 of the third."""
    problem = random_problem(3)
    samples = samples_of(problem)
    value_S = evaluate_each(problem.law, samples, problem.anchor_M[None])[:, 0] @ problem.weights
    first, second, third = np.sort(value_S)[::-1][:3]
    tail = guards.tail_at(problem, samples, 0.2, problem.anchor_M)
    assert tail == pytest.approx((first + second + 0.4 * third) / 2.4, rel=1e-12)


def test_infeasible_guards_are_reported_with_the_excess():
    problem = infeasible_problem()
    guarded = guards.solve(problem, guards_of(problem, EACH_TASK, 0.0), starts_SM=problem.anchor_M[None])
    assert guarded.solution.status is Status.MAX_ITERATIONS and guarded.excess_F.max() > 1e-3
    assert guarded.solution.describe().startswith("not converged (a guard is exceeded by ")


def test_guards_on_the_published_swarm_hold_without_kl(published):
    """Natural takes a task to within 1e-7 BPB of its constant."""
    folder = published / "olmix_dclm"
    swarm = table.SwarmTable.read(folder / "ratios.csv", folder / "metrics.csv", folder / "meta.json")
    swarm = task_groups.with_mmlu_groups(swarm)
    params = log_linear.fit(swarm.ratios_KM, swarm.bpb_KN, starts=4).params
    tasks, bounds = len(swarm.tasks), box(np.zeros(len(swarm.domains)), np.ones(len(swarm.domains)))
    problem = Problem(log_linear.LAW, params, np.full(tasks, 1 / tasks), swarm.natural_M, bounds, 0.0)
    natural_N = evaluate(log_linear.LAW, params, swarm.natural_M[None])[0]
    guard = guards.group_guards(swarm.tasks, natural_N, {task: (task,) for task in swarm.tasks}, 0.0)
    guarded = guards.solve(problem, guard, starts_SM=swarm.natural_M[None])
    assert guarded.solution.status is Status.OPTIMAL and guarded.excess_F.max() <= 1e-10


def steep_problem(seed: int) -> Problem:
    """Return a problem in which natural takes four tasks to within 1e-5 BPB of their constants, each by one domain."""
    rng = np.random.default_rng(seed)
    natural_M = rng.dirichlet(np.full(DOMAINS, 2.0))
    coef_NM = rng.normal(size=(TASKS, DOMAINS))
    steep = np.arange(TASKS - 1)
    coef_NM[steep, steep] -= rng.uniform(11, 13, TASKS - 1) / natural_M[steep]
    params = log_linear.Params(np.log(rng.uniform(0.3, 0.6, TASKS)), coef_NM)
    bounds = box(np.zeros(DOMAINS), np.ones(DOMAINS))
    return Problem(log_linear.LAW, params, rng.dirichlet(np.ones(TASKS)), natural_M, bounds, 0.0)


@inaccurate
@pytest.mark.parametrize("groups", [EACH_TASK, {"one": ("a", "b"), "two": ("c", "d", "e")}], ids=["tasks", "groups"])
@pytest.mark.parametrize("seed", range(3))
def test_guards_where_the_law_is_almost_flat_agree_with_cvxpy(seed, groups):
    """The last 1e-6 BPB of the guards change the minimum by 1e-4 BPB or more, so a multiplier is over 100.

    cvxpy has the guards as limits of ln Σ exp(Aᵀp).
    """
    problem = steep_problem(seed)
    guard, params = guards_of(problem, groups, 0.0), problem.params
    p = cp.Variable(DOMAINS)
    limits = [p >= 0, cp.sum(p) == 1]
    for row_N in guard.rows_FN:
        in_row = np.flatnonzero(row_N)
        natural = np.log(np.exp(params.coef_NM[in_row] @ problem.anchor_M).sum())
        limits.append(cp.log_sum_exp(params.coef_NM[in_row] @ p) <= natural)
    value = problem.weights @ (np.exp(params.log_c_N) + cp.exp(params.coef_NM @ p))
    model = cp.Problem(cp.Minimize(value), limits)
    model.solve(solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    found = guards.solve(problem, guard, starts_SM=problem.anchor_M[None])
    assert found.solution.status is Status.OPTIMAL and found.excess_F.max() <= 1e-10
    assert found.solution.value == pytest.approx(model.value, rel=1e-8)
    loose = guards.solve(problem, guards_of(problem, groups, 1e-6), starts_SM=problem.anchor_M[None])
    assert found.solution.value - loose.solution.value > 1e-4 and found.multipliers_F.max() > 100


@inaccurate
@pytest.mark.parametrize("seed", [1, 2, 3])  # with these a guard binds
def test_guards_where_the_law_continues_as_a_tangent_agree_with_cvxpy(seed):
    """g(x) is the minimum of e^y + e^t (x − y) over y ≤ t and y ≤ x; g(x) ≤ g(natural) if x is at most natural's."""
    rng, problem = np.random.default_rng(seed), random_problem(seed, 0.0)
    x_N = problem.params.coef_NM @ problem.anchor_M
    params = problem.params._replace(top_N=x_N - rng.uniform(0.1, 1.0, TASKS))
    problem = dataclasses.replace(problem, params=params)
    guard = guards_of(problem, EACH_TASK, 0.0)
    p, y = cp.Variable(DOMAINS), cp.Variable(TASKS)
    x, top_N = params.coef_NM @ p, params.top_N
    limits = [p >= 0, p <= problem.bounds.upper_M, cp.sum(p) == 1, y <= top_N, y <= x, x <= x_N]
    rise = cp.exp(y) + cp.multiply(np.exp(top_N), x - y)
    model = cp.Problem(cp.Minimize(problem.weights @ (np.exp(params.log_c_N) + rise)), limits)
    model.solve(solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    found = guards.solve(problem, guard, starts_SM=problem.anchor_M[None])
    assert found.solution.status is Status.OPTIMAL and found.excess_F.max() <= 1e-10
    assert found.solution.value == pytest.approx(model.value, rel=1e-8) and found.multipliers_F.max() > 0


def test_a_round_that_does_not_converge_is_repeated_with_a_quarter_of_the_stiffness(monkeypatch):
    problem, stiffness, failed = random_problem(1, 0.0), [], []
    original = guard_rounds.solve

    def fail_once(this_round, **options):
        solution = original(this_round, **options)
        stiffness.append(this_round.weights.stiffness)
        if stiffness[-1] > guard_rounds.FIRST_STIFFNESS and not failed:
            failed.append(len(stiffness))
            return dataclasses.replace(solution, status=Status.MAX_ITERATIONS)
        return solution

    monkeypatch.setattr(guard_rounds, "solve", fail_once)
    found = guards.solve(problem, guards_of(problem, EACH_TASK, 0.0), starts_SM=problem.anchor_M[None])
    assert found.solution.status is Status.OPTIMAL and found.excess_F.max() <= 1e-10
    assert stiffness[failed[0]] == stiffness[failed[0] - 1] / 4


@inaccurate
def test_the_safe_mixture_is_returned_unproven_if_guards_hold_at_no_end_point(monkeypatch):
    """One round is too few for the guards to hold."""
    monkeypatch.setattr(guard_rounds, "ROUNDS", 1)
    problem = random_problem(1)
    guard, free_M = guards_of(problem, EACH_TASK, 0.0), solve(problem).weights_M
    guarded = guards.solve(problem, guard, starts_SM=free_M[None], safe_M=problem.anchor_M)
    solution = guarded.solution
    np.testing.assert_array_equal(solution.weights_M, problem.anchor_M)
    assert guarded.excess_F.max() <= 0 and solution.status is Status.MAX_ITERATIONS
    assert solution.describe().startswith("not converged (gap ")
    assert solution.value - solution.gap <= cvxpy_optimum(problem, guard)[1] + 1e-8


def sampled_default_law():
    """The default law on 30 runs of three domains with 20 samples, and a problem with it."""
    fitted, _ = fitted_gp(noise=0.02)
    samples = warped_gp.sample(fitted.params, 20, seed=0)
    problem = Problem(warped_gp.LAW, fitted.params, np.full(2, 0.5), NATURAL_M, box(np.zeros(3), np.ones(3)), 0.05)
    return problem, samples


def test_tail_of_the_default_law_reaches_the_minimum_of_a_grid(monkeypatch):
    problem, samples = sampled_default_law()
    found = guards.solve(problem, guards.no_guards(problem), samples, 0.1, starts_SM=NATURAL_M[None])
    assert found.solution.status is Status.LOCAL_OPTIMUM and found.solution.residual <= 2e-7
    axis = np.linspace(0.01, 0.99, 50)
    grid_KM = np.array([(a, b, 1 - a - b) for a in axis for b in axis if a + b < 0.9999])
    value_SK = evaluate_each(problem.law, samples, grid_KM).mean(axis=2)
    tail_K = np.sort(value_SK, axis=0)[-2:].mean(axis=0) + 0.05 * problem.kl(grid_KM)
    assert tail_K.min() - 1e-3 < found.solution.value <= tail_K.min() + 1e-7
    # With a limit on the rounds it is not called an optimum.
    monkeypatch.setattr(guard_rounds, "ROUNDS", 1)
    solution = guards.solve(problem, guards.no_guards(problem), samples, 0.1, starts_SM=NATURAL_M[None]).solution
    assert solution.status is Status.MAX_ITERATIONS and solution.residual > 1e-5
    assert solution.describe().startswith("not converged (residual ")


def test_arrays_that_samples_share_are_passed_once_and_predictions_stay_the_same():
    problem, samples = sampled_default_law()
    combined = guard_rounds.with_samples(problem, samples)
    params, drawn = combined.params
    assert drawn.theta_NP.shape == params.theta_NP.shape and drawn.alpha_NK.shape == (20, *params.alpha_NK.shape)
    bpb_SN = evaluate(combined.law, combined.params, NATURAL_M[None])[0]
    np.testing.assert_allclose(bpb_SN, guard_rounds.bpb_rows(problem, samples, NATURAL_M), rtol=1e-12)
    one = jax.tree.map(lambda x: x[:1], samples)
    assert guard_rounds.with_samples(problem, one).params[1].theta_NP.shape == one.theta_NP.shape
