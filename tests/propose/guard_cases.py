"""Problems with guards and samples of the law for the tests of guards."""

import cvxpy as cp
import numpy as np

from olmix_jax.laws import evaluate, log_linear
from olmix_jax.propose import guards
from olmix_jax.solver.bounds import box
from olmix_jax.solver.problem import Problem

DOMAINS, TASKS, SAMPLES = 6, 5, 12
NAMES = tuple("abcde")
EACH_TASK = {name: (name,) for name in NAMES}


def random_problem(seed=0, kl_weight=0.05) -> Problem:
    rng = np.random.default_rng(seed)
    params = log_linear.Params(np.log(rng.uniform(0.3, 0.6, TASKS)), rng.normal(size=(TASKS, DOMAINS)))
    natural_M = rng.dirichlet(np.full(DOMAINS, 3.0))
    bounds = box(np.zeros(DOMAINS), np.minimum(1, 3 * natural_M))
    return Problem(log_linear.LAW, params, rng.dirichlet(np.ones(TASKS)), natural_M, bounds, kl_weight)


def infeasible_problem() -> Problem:
    """Return a problem whose caps force every task above its BPB under natural."""
    problem = random_problem(0)
    first_M = np.arange(DOMAINS) == 0
    params = problem.params._replace(coef_NM=np.where(first_M, -3.0, 0.1) * np.ones((TASKS, 1)))
    bounds = box(np.zeros(DOMAINS), np.where(first_M, 0.2 * problem.anchor_M, 1.0))
    return Problem(problem.law, params, problem.weights, problem.anchor_M, bounds, problem.kl_weight)


def samples_of(problem: Problem, noise=0.3) -> log_linear.Params:
    """Return SAMPLES random laws around the problem's law."""
    rng = np.random.default_rng(5)
    coef_SNM = problem.params.coef_NM + noise * rng.normal(size=(SAMPLES, TASKS, DOMAINS))
    return log_linear.Params(np.tile(problem.params.log_c_N, (SAMPLES, 1)), coef_SNM)


def guards_of(problem: Problem, groups, slack) -> guards.Guards:
    natural_N = evaluate(problem.law, problem.params, problem.anchor_M[None])[0]
    return guards.group_guards(NAMES, natural_N, groups, slack)


def cvxpy_optimum(problem: Problem, guard=None, samples=None, share=1.0):
    """Return cvxpy's (minimiser, minimum) of the problem with guards, a tail objective or both."""
    p = cp.Variable(DOMAINS)

    def bpb(params):
        return np.exp(params.log_c_N) + cp.exp(params.coef_NM @ p)

    limits = [p >= 0, p <= problem.bounds.upper_M, cp.sum(p) == 1]
    value = problem.weights @ bpb(problem.params)
    if samples is not None:
        each = [problem.weights @ bpb(log_linear.Params(*x)) for x in zip(*samples[:2])]
        t, over = cp.Variable(), cp.Variable(len(each), nonneg=True)
        limits += [over[s] >= each[s] - t for s in range(len(each))]
        value = t + cp.sum(over) / max(share * len(each), 1.0)
    if guard is not None:
        limits.append(guard.rows_FN @ bpb(problem.params) <= guard.limit_F)
    if problem.kl_weight:
        value += problem.kl_weight * cp.sum(cp.rel_entr(p, problem.anchor_M))
    model = cp.Problem(cp.Minimize(value), limits)
    model.solve(solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    return p.value, model.value
