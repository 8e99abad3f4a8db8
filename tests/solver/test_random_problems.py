"""Thousands of random problems for :mod:`olmix_jax.solver.solve`, against cvxpy or with corrupted inputs. Slow."""

import dataclasses
import functools

import cvxpy as cp
import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from olmix_jax.solver.bounds import Bounds, box
from olmix_jax.solver.feasibility import feasible
from olmix_jax.solver.status import Status
from olmix_jax.utils.errors import UserError
from tests.solver.cases import (
    BOX_SIZE,
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


def assert_agrees(weights_M, ours, p: cp.Variable, value: float, bounds: Bounds, kl_weight: float):
    """Check the objective to 1e-8, weights to 1e-5 in total variation where λ makes them unique, bounds to 1e-13."""
    assert_inside(weights_M, bounds)
    assert ours.status is Status.OPTIMAL and ours.gap <= 1e-9 * max(1, abs(ours.value))
    small = 1e-8 * max(1, abs(value))
    assert ours.value <= value + small
    # cvxpy's mixture may exceed its bounds a little, and its value be lower by that.
    clean_M = np.clip(p.value, bounds.lower_M, bounds.upper_M)
    off = abs(clean_M / clean_M.sum() - p.value).sum() + abs(clean_M - p.value).sum()
    assert abs(ours.value - value) <= small + 10 * abs(ours.value) * off
    if kl_weight >= 0.01:
        assert abs(weights_M - p.value).sum() / 2 < 1e-5


@pytest.mark.slow
@inaccurate
def test_a_thousand_random_problems_agree_with_cvxpy():
    rng, judged = np.random.default_rng(0), 0
    for _ in range(1000):
        size, kl_weight = int(rng.integers(1, BOX_SIZE + 1)), float(rng.choice([0.0, 1e-3, 0.01, 0.05, 0.3]))
        problem = random_box_problem(rng, size, kl_weight, str(rng.choice(KINDS)))
        try:
            p, value = solve_with_cvxpy(problem)
        except cp.error.SolverError:
            continue
        ours, judged = solve_box(problem), judged + 1
        assert_agrees(ours.weights_M, ours, p, value, problem.bounds, kl_weight)
    assert judged > 950


@pytest.mark.slow
@inaccurate
@hypothesis.settings(deadline=None, max_examples=1000, derandomize=True)
@hypothesis.given(
    st.integers(0, 2**32 - 1),
    st.integers(1, SIZE),
    st.integers(0, GROUPS),
    st.sampled_from([0.0, 0.3]),
    st.sampled_from([0.0, 1e-3, 0.01, 0.05, 0.3]),
)
def test_a_thousand_random_problems_within_groups_agree_with_cvxpy(seed, size, number, fixed, kl_weight):
    rng = np.random.default_rng(seed)
    law, bounds = random_law(rng, size), random_bounds(rng, size, number, fixed)
    weights_M, ours = solve_padded(*law, bounds, kl_weight)
    p = cp.Variable(size)
    try:
        value = cvxpy_minimum(objective_cp(*law, kl_weight, p), p, bounds)
    except cp.error.SolverError:
        hypothesis.reject()
    assert_agrees(weights_M, ours, p, value, bounds, kl_weight)


@pytest.mark.slow
def test_ten_thousand_corrupted_inputs_give_a_mixture_or_an_error():
    """PITFALL 18: never NaN, None or a vector of zeros."""
    rng, solved = np.random.default_rng(1), 0
    odd = np.array([0.0, 1.0, -1.0, 1e-300, 1e300, -1e300, np.nan, np.inf, -np.inf, 1e-12, 0.5, 700.0])

    def corrupt(x, share):
        x = np.array(x, np.float64)
        return np.where(rng.uniform(size=x.shape) < share, rng.choice(odd, size=x.shape), x)

    for _ in range(10_000):
        size, kl_weight = int(rng.integers(1, BOX_SIZE + 1)), float(rng.choice([0.0, 1e-9, 0.05, 1e9, np.nan, -1.0]))
        problem = random_box_problem(rng, size, 0.0, str(rng.choice(["free", "loose"])))
        share = float(rng.choice([0.0, 0.02, 0.2]))
        params = jax.tree.map(functools.partial(corrupt, share=share / 4), problem.params)
        lower_M, upper_M, anchor_M = (corrupt(x, share) for x in (*problem.bounds[:2], problem.anchor_M))
        if not (anchor_M >= 0).all() or not 0 < anchor_M.sum() < np.inf:
            continue
        anchor_M = anchor_M / anchor_M.sum()
        allowed_M = np.where(anchor_M > 0, upper_M, 0) if kl_weight > 0 else upper_M
        if not feasible(box(lower_M, upper_M)) or not feasible(box(lower_M, allowed_M)):
            continue
        bounds = box(lower_M, upper_M)
        problem = dataclasses.replace(problem, params=params, anchor_M=anchor_M, bounds=bounds, kl_weight=kl_weight)
        try:
            solution = solve_box(problem)
        except UserError:
            continue
        solved += 1
        weights_M = solution.weights_M
        assert np.isfinite([*weights_M, solution.value, solution.gap]).all() and abs(weights_M.sum() - 1) < 1e-10
        assert (weights_M >= lower_M).all() and (weights_M <= upper_M).all()
        assert solution.status in (Status.OPTIMAL, Status.MAX_ITERATIONS)
    assert solved > 3000
