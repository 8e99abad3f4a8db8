"""Multipliers of caps and groups against differences of the minimum; residuals."""

import jax
import numpy as np
import pytest

from olmix_jax.laws import cpu, log_linear
from olmix_jax.solver import kkt
from olmix_jax.solver.bounds import box
from tests.solver.cases import TASKS, grouped, solve_padded

STEP = 1e-5
both = pytest.mark.parametrize("kl_weight", [0.0, 0.05])


def curved_law(rng, size):
    """Return (params, task weights, anchor) of a law whose minimum is inside the simplex."""
    coef_NM = 0.3 * rng.normal(size=(TASKS, size)) - 3 * np.eye(TASKS, size)
    return log_linear.Params(np.zeros(TASKS), coef_NM), np.full(TASKS, 1 / TASKS), np.full(size, 1 / size)


@both
def test_multiplier_of_a_cap_is_the_fall_of_the_minimum_per_unit_of_the_cap(kl_weight):
    law = curved_law(np.random.default_rng(3), 6)
    free_M, _ = solve_padded(*law, box(np.zeros(6), np.ones(6)), kl_weight)
    upper_M = np.where(np.arange(6) < 2, 0.8 * free_M, 1.0)
    multipliers_M = solve_padded(*law, box(np.zeros(6), upper_M), kl_weight)[1].multipliers_M
    assert (multipliers_M[:2] > 1e-3).all() and not multipliers_M[2:].any()
    for j in range(2):
        step_M = STEP * (np.arange(6) == j)
        down, up = (solve_padded(*law, box(np.zeros(6), upper_M + s * step_M), kl_weight)[1].value for s in (-1, 1))
        assert multipliers_M[j] == pytest.approx((down - up) / (2 * STEP), rel=1e-5)


@both
def test_multiplier_of_a_group_is_the_fall_of_the_minimum_per_unit_of_its_bound(kl_weight):
    """Nested groups, the inner one at its upper and the outer one at its lower bound; and a group that is fixed."""
    law = curved_law(np.random.default_rng(5), 6)
    free_M, _ = solve_padded(*law, grouped([0] * 6, [1] * 6), kl_weight)
    inner, outer = free_M[:2].sum() - 0.05, free_M[:4].sum() + 0.03
    groups = ([0, 1], 0, inner), ([4], free_M[4] + 0.02, free_M[4] + 0.02), ([0, 1, 2, 3], outer, 1)
    bounds = grouped([0] * 6, [1] * 6, *groups)
    multipliers_G = solve_padded(*law, bounds, kl_weight)[1].group_multipliers_G[-3:]
    assert multipliers_G[0] > 1e-3 and multipliers_G[2] < -1e-3 and abs(multipliers_G[1]) > 1e-3
    for g, ends in enumerate((["high_G"], ["low_G", "high_G"], ["low_G"])):
        step_G = STEP * (np.arange(3) == g)
        down, up = (
            solve_padded(*law, bounds._replace(**{e: getattr(bounds, e) + s * step_G for e in ends}), kl_weight)[1]
            for s in (-1, 1)
        )
        assert multipliers_G[g] == pytest.approx((down.value - up.value) / (2 * STEP), rel=1e-5)


compiled = jax.jit(kkt.conditions, compiler_options=cpu.QUICK)


def conditions(slope_M, p_M, bounds):
    with cpu.float64():
        return compiled(np.array(slope_M, float), np.array(p_M, float), bounds)


def test_residual_is_zero_at_a_stationary_point_and_the_multiplier_is_the_slope_difference():
    """F = ⟨slope, p⟩: the cheapest domain is at its cap, the next takes the rest, the last is at 0."""
    bounds = box(np.zeros(3), np.array([0.4, 1.0, 1.0]))
    at_optimum = conditions([1.0, 2.0, 3.0], [0.4, 0.6, 0.0], bounds)
    assert float(at_optimum.residual) == 0
    np.testing.assert_allclose(at_optimum.multipliers_M, [1, 0, 0])
    assert float(conditions([1.0, 2.0, 3.0], [0.3, 0.7, 0.0], bounds).residual) > 0.05


def test_residual_counts_a_group_whose_bound_pulls_the_wrong_way():
    """At its upper bound a group should hold cheaper domains; here they are dearer by 1 BPB."""
    bounds = grouped([0] * 4, [1] * 4, ([0, 1], 0, 0.5))
    right, wrong = conditions([1, 1, 2, 2], [0.25] * 4, bounds), conditions([2, 2, 1, 1], [0.25] * 4, bounds)
    assert float(right.residual) == 0 and float(right.group_multipliers_G[0]) == 1
    assert float(wrong.residual) == 1


def test_a_cap_of_zero_has_no_multiplier():
    """The KL term keeps out a domain without anchor weight, so its cap of 0 has no price."""
    at_optimum = conditions([-5.0, 1.0, 1.0], [0.0, 0.5, 0.5], box(np.zeros(3), np.array([0.0, 1.0, 1.0])))
    assert float(at_optimum.residual) == 0 and not np.asarray(at_optimum.multipliers_M).any()
