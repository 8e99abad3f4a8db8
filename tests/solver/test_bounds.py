"""Bounds on domains and groups, and projections onto them, against cvxpy and differences."""

import cvxpy as cp
import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from olmix_jax.laws import cpu
from olmix_jax.solver import bounds as bounds_of
from olmix_jax.solver import kkt, projection
from olmix_jax.solver.bounds import within
from tests.solver.cases import (
    EDGES,
    GROUPS,
    SIZE,
    Z4,
    assert_inside,
    cvxpy_minimum,
    grouped,
    inaccurate,
    padded,
    project_within,
    random_bounds,
)

FUNCTIONS = [projection.project, projection.project_kl, projection.fill, projection.inside]
conditions = jax.jit(kkt.conditions, compiler_options=cpu.QUICK)


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(
    st.integers(0, 2**32 - 1), st.integers(1, SIZE), st.integers(0, GROUPS), st.sampled_from([0.0, 0.3, 1.0])
)
def test_projections_are_feasible_and_satisfy_the_optimality_conditions(seed, size, number, fixed):
    """Feasible to 1e-13, and stationary for ‖p − v‖²/2 and KL(p ‖ e^v), for any groups."""
    rng = np.random.default_rng(seed)
    bounds, v_M = random_bounds(rng, size, number, fixed), rng.normal(size=size) * rng.choice([0.1, 1.0, 5.0])
    projected = {function: project_within(function, v_M, bounds) for function in FUNCTIONS}
    for p_M in projected.values():
        assert_inside(p_M, bounds)
    filled_M = projected[projection.fill]
    np.testing.assert_allclose(project_within(projection.inside, filled_M, bounds), filled_M, atol=1e-15)
    if fixed == 0:
        p_M, q_M = projected[projection.project], projected[projection.project_kl]
        for x_M, slope_M in ((p_M, p_M - v_M), (q_M, np.log(np.maximum(q_M, 1e-300)) - v_M)):
            slope_M, x_M = (np.pad(y_M, (0, SIZE - size)) for y_M in (slope_M, x_M))
            with cpu.float64():
                assert conditions(slope_M, x_M, padded(bounds)).residual < 1e-11


def test_small_entries_of_a_kl_projection_keep_their_digits():
    """Regression: the last bit of the sum was added to an entry of 2e-6, which changed the slope of KL by 3e-11."""
    v_M = np.array([-8.04451447, 4.6361408, 3.28989761])
    bounds = bounds_of.box(np.array([0.0, 0.0, 0.1193919]), np.array([0.3077107, 0.8305816, 0.36358922]))
    slope_M = np.log(project_within(projection.project_kl, v_M, bounds)) - v_M
    assert np.ptp(slope_M) < 1e-14


@inaccurate
@pytest.mark.parametrize("number", [1, 2, 4])
def test_projections_within_groups_agree_with_cvxpy(number):
    for seed in range(4):
        rng = np.random.default_rng(10 * number + seed)
        bounds, v_M = random_bounds(rng, 9, number, 0.2), rng.normal(size=9)
        p = cp.Variable(9)
        cvxpy_minimum(cp.sum_squares(p - v_M), p, bounds)
        np.testing.assert_allclose(project_within(projection.project, v_M, bounds), p.value, atol=1e-6)
        cvxpy_minimum(cp.sum(cp.rel_entr(p, np.exp(v_M))), p, bounds)
        np.testing.assert_allclose(project_within(projection.project_kl, v_M, bounds), p.value, atol=5e-5)
        least = cvxpy_minimum(v_M @ p, p, bounds)
        assert v_M @ project_within(projection.fill, v_M, bounds) == pytest.approx(least, abs=1e-8)


@pytest.mark.parametrize("name", EDGES)
def test_projections_onto_bounds_at_the_edge_of_feasibility(name):
    """KL projections keep the ratios within a group, and those outside all groups."""
    bounds, expected_M = EDGES[name]
    assert bounds_of.overlapping(bounds.member_GM) is None
    projected_M = project_within(projection.project_kl, np.log([0.1, 0.2, 0.3, 0.4]), bounds)
    np.testing.assert_allclose(projected_M, expected_M, rtol=1e-13)
    for function in FUNCTIONS:
        for v_M in ([0.1, 0.2, 0.3, 0.4], [9.0, -9.0, 0.0, 1e3], [0.0] * 4):
            assert_inside(project_within(function, v_M, bounds), bounds)


def test_kl_projection_leaves_a_domain_of_weight_zero_out_of_its_group():
    bounds = grouped(Z4, [0.4, 1, 1, 1], ([0, 1, 2], 0.6, 1))
    p_M = project_within(projection.project_kl, [0.0, -np.inf, -1e3, 10.0], bounds)
    np.testing.assert_allclose(p_M, [0.4, 0, 0.2, 0.4], rtol=1e-13)


@pytest.mark.parametrize("function", [projection.project, projection.project_kl])
def test_derivatives_of_projections_agree_with_differences(function):
    """By v, by caps and by groups' bounds. The inner group is at its upper bound, the outer one at its lower bound."""
    v_M = np.log([0.25, 0.3, 0.05, 0.1, 0.2, 0.1])
    if function is projection.project:
        v_M = np.exp(v_M)
    bounds = grouped([0] * 6, [1, 1, 0.2, 1, 0.1, 1], ([0, 1], 0.1, 0.4), ([0, 1, 2, 3], 0.75, 0.9))
    direction = np.random.default_rng(0).normal(size=(4, 6))
    d_bounds = bounds._replace(
        lower_M=np.zeros(6),
        upper_M=direction[2],
        low_G=direction[3, :2],
        high_G=direction[3, 2:4],
        member_GM=np.zeros(bounds.member_GM.shape, jax.dtypes.float0),
    )

    def at(step):
        low_G, high_G = (x + step * d for x, d in zip(bounds[3:], d_bounds[3:]))
        moved = bounds._replace(upper_M=bounds.upper_M + step * direction[2], low_G=low_G, high_G=high_G)
        return project_within(function, v_M + step * direction[0], moved)

    np.testing.assert_allclose(bounds.member_GM @ at(0), [0.4, 0.75], atol=1e-14)
    with cpu.float64():
        push = jax.jit(
            lambda v, b, dv, db: jax.jvp(lambda v, b: within(function, v, b), (v, b), (dv, db))[1],
            compiler_options=cpu.QUICK,
        )
        moved_M = np.asarray(push(v_M, bounds, direction[0], d_bounds))
    np.testing.assert_allclose(moved_M, (at(1e-6) - at(-1e-6)) / 2e-6, atol=1e-8)
    assert abs(moved_M).max() > 0.1 and abs(moved_M.sum()) < 1e-13


def test_classes_are_the_innermost_groups_at_a_bound():
    bounds = grouped([0] * 5, [1] * 5, ([0, 1], 0, 0.3), ([4], 0.2, 1), ([0, 1, 2], 0.5, 0.9))

    def classes(p_M):
        with cpu.float64():
            return np.asarray(bounds_of.classes(bounds, np.array(p_M))).argmax(axis=0).tolist()

    assert classes([0.1, 0.2, 0.2, 0.3, 0.2]) == [0, 0, 2, 3, 1]
    assert classes([0.1, 0.1, 0.3, 0.3, 0.2]) == [2, 2, 2, 3, 1]
    assert classes([0.1, 0.1, 0.4, 0.1, 0.3]) == [3, 3, 3, 3, 3]
    # A group is at its bound up to rounding. Bounds of 0 and 1 never bind.
    assert classes([0.1, 0.2 + 1e-15, 0.4, 0.05, 0.25]) == [0, 0, 3, 3, 3]
    assert classes([0, 0, 0.5, 0, 0.5]) == [2, 2, 2, 3, 3]


def test_overlapping_groups_are_found_and_nested_ones_sorted():
    a, b, c, d = [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]
    assert bounds_of.overlapping([a, b, d, a, [0] * 5]) is None
    assert bounds_of.overlapping(np.zeros((0, 5), bool)) is None
    assert bounds_of.overlapping([a, b, c]) == (1, 2)
    assert bounds_of.inner_first([b, a, [1] * 5, d]).tolist() == [3, 1, 0, 2]


def test_holds_allows_slack_and_rounding_of_sums():
    bounds = grouped([0.1, 0, 0], [1, 0.5, 1], ([0, 1], 0, 0.3))
    ratios_KM = [[0.1, 0.2, 0.7], [0.1, 0.2 + 1e-15, 0.7], [0.2, 0.2, 0.6], [0.05, 0.2, 0.75], [0.09, 0.2, 0.71]]
    assert bounds_of.holds(bounds, ratios_KM).tolist() == [True, True, False, False, False]
    assert bounds_of.holds(bounds, ratios_KM, slack=0.02).tolist() == [True, True, False, False, True]
