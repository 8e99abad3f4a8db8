"""Derivatives of a minimiser against differences of the solver, and special cases."""

import dataclasses

import numpy as np
import pytest

from olmix_jax.laws import log_linear
from olmix_jax.solver import sensitivity
from tests.solver.sensitivity_cases import (
    DIRECTIONS,
    SIZE,
    STEP,
    case,
    difference,
    directions,
    minimiser,
    move,
    moved,
    solution,
)

both = pytest.mark.parametrize("kl_weight", [0.05, 0.0])
# Bounds of the two groups that do not bind.
OPEN = {"low_G": np.zeros(2), "high_G": np.ones(2)}


def derivatives(case):
    return sensitivity.derivatives(case.problem, minimiser(case))


def columns(derived):
    return [getattr(derived, field.name) for field in dataclasses.fields(derived)]


@both
@pytest.mark.parametrize("name", DIRECTIONS)
def test_derivatives_agree_with_differences(name, kl_weight):
    tangents = directions(case(kl_weight))[name]
    if kl_weight == 0 and name == "λ":
        # The problem for λ = 0 has no KL term; the next test covers the derivative by λ.
        tangents = tangents.change(kl_weight=np.float64(0.0))
    move_M = move(case(kl_weight), tangents)
    np.testing.assert_allclose(move_M, difference(case(kl_weight), tangents), atol=2e-6)
    still = name == "bounds that do not bind" or (kl_weight == 0 and name == "λ")
    assert abs(move_M.sum()) < 1e-12 and (still or abs(move_M).max() > 0.01)


def test_the_derivative_by_lambda_at_zero_is_the_limit_from_small_lambda():
    tangents = directions(case(0.0))["λ"]
    near_M = minimiser(moved(case(0.0), tangents, STEP))
    np.testing.assert_allclose(move(case(0.0), tangents), (near_M - minimiser(case(0.0))) / STEP, atol=1e-3)


def test_every_column_of_the_sensitivity_sums_to_zero():
    derived = derivatives(case(0.05))
    assert derived.kl_weight_M.shape == (SIZE,)
    assert derived.weights_MN.shape == derived.upper_MM.shape == (SIZE, SIZE)
    assert derived.low_MG.shape == derived.high_MG.shape == (SIZE, 2)
    for x in columns(derived):
        np.testing.assert_allclose(x.sum(axis=0), np.zeros(x.shape[1:]), atol=1e-12)


def test_a_weight_near_zero_has_a_derivative_with_small_relative_error():
    """A domain that all tasks avoid has a weight of 2e-12."""
    params = case(0.05).objective.params
    coef_NM = np.where(np.arange(SIZE) == 6, 2.0, params.coef_NM)
    avoided = case(0.05).change(params=params._replace(coef_NM=coef_NM))
    p_M, tangents = minimiser(avoided), directions(avoided)["λ"]
    assert 0 < p_M[6] < 1e-11
    log_up, log_down = (np.log(minimiser(moved(avoided, tangents, sign * STEP))[6]) for sign in (1, -1))
    assert move(avoided, tangents)[6] / p_M[6] == pytest.approx((log_up - log_down) / (2 * STEP), rel=1e-5)


def test_bounds_that_do_not_bind_have_zero_columns():
    derived = derivatives(case(0.05))
    assert not np.delete(derived.upper_MM, 5, axis=1).any() and not derived.high_MG[:, 1].any()


def test_a_vertex_moves_with_its_cap_and_the_next_best_domain_takes_the_rest():
    """All tasks like domain 0 best and domain 1 second. A vertex needs no curvature to be a strict minimum."""
    params = log_linear.Params(np.zeros(SIZE), np.tile(-np.linspace(1, 0.3, SIZE), (SIZE, 1)))
    vertex = case(0.0).change(params=params, lower_M=np.zeros(SIZE), upper_M=np.full(SIZE, 0.6), **OPEN)
    np.testing.assert_allclose(minimiser(vertex), [0.6, 0.4, *[0] * 6], atol=1e-14)
    derived = derivatives(vertex)
    np.testing.assert_allclose(derived.upper_MM[:, 0], [1, -1, *[0] * 6], atol=1e-12)
    assert not derived.upper_MM[:, 1:].any() and not derived.kl_weight_M.any() and not derived.weights_MN.any()


@both
def test_fixed_domains_have_zero_columns_because_none_can_move_alone(kl_weight):
    p_M = minimiser(case(kl_weight))
    fixed = case(kl_weight).change(lower_M=p_M, upper_M=p_M, **OPEN)
    assert not any(x.any() for x in columns(derivatives(fixed)))


def test_derivatives_are_none_if_the_minimiser_is_not_unique():
    """Domains 0 and 1 have the same effect on all tasks. With λ = 0 their split is arbitrary; KL makes it unique."""
    params = case(0.0).objective.params
    coef_NM = params.coef_NM.copy()
    coef_NM[:, 1] = coef_NM[:, 0]
    flat = case(0.0).change(
        params=params._replace(coef_NM=coef_NM), lower_M=np.zeros(SIZE), upper_M=np.ones(SIZE), **OPEN
    )
    assert (minimiser(flat)[:2] > 0.01).all() and derivatives(flat) is None
    assert derivatives(flat.change(kl_weight=np.float64(0.05))) is not None


@pytest.mark.parametrize("offset, moves_with_upper", [(-0.01, True), (0.01, False)])
def test_a_fixed_domain_moves_with_the_bound_that_has_a_price(offset, moves_with_upper):
    """Fixed below its optimum a domain moves with its cap, and fixed above it with its lower bound."""
    p_M, bounds, j = minimiser(case(0.05)), case(0.05).bounds, 6
    fixed_M = np.where(np.arange(SIZE) == j, p_M[j] + offset, 0.0)
    fixed = case(0.05).change(
        lower_M=np.maximum(bounds.lower_M, fixed_M), upper_M=np.where(fixed_M > 0, fixed_M, bounds.upper_M)
    )
    assert derivatives(fixed).upper_MM[j, j] == moves_with_upper
    # The same for a group of one domain.
    grouped = case(0.05).change(
        member_GM=np.stack([np.arange(SIZE) == j, bounds.member_GM[1]]),
        low_G=np.array([fixed_M[j], bounds.low_G[1]]),
        high_G=np.array([fixed_M[j], 1.0]),
    )
    derived = derivatives(grouped)
    moving, still = derived.high_MG, derived.low_MG
    if not moves_with_upper:
        moving, still = still, moving
    np.testing.assert_allclose(moving[j, 0], 1, atol=1e-12)
    assert not still[:, 0].any()


def test_a_domain_without_anchor_weight_stays_at_zero():
    anchor_M = case(0.05).objective.anchor_M
    anchor_M = np.where(np.arange(SIZE) == 7, 0.0, anchor_M) / (1 - anchor_M[7])
    absent = case(0.05).change(anchor_M=anchor_M)
    p_M, derived = minimiser(absent), derivatives(absent)
    assert p_M[7] == 0 and p_M.sum() == pytest.approx(1, abs=1e-14)
    assert all(np.isfinite(x).all() and not x[7].any() for x in columns(derived))


def test_only_one_of_two_equal_groups_moves_the_mixture():
    bounds = case(0.05).bounds
    twice = case(0.05).change(member_GM=bounds.member_GM[[0, 0]], low_G=np.zeros(2), high_G=bounds.high_G[[0, 0]])
    np.testing.assert_allclose(derivatives(twice).high_MG[:2].sum(axis=0), [1, 0], atol=1e-12)


@both
def test_two_fixed_groups_that_contain_all_domains_exchange_weight(kl_weight):
    """One group's sum follows from the other's, so only the move of one of them counts."""
    member_GM = np.stack([np.arange(SIZE) < 4, np.arange(SIZE) >= 4])
    sum_G = member_GM @ minimiser(case(kl_weight)) + np.array([0.03, -0.03])

    def exchanged(step):
        moved_G = sum_G + step * np.array([1, -1])
        return case(kl_weight).change(member_GM=member_GM, low_G=moved_G, high_G=moved_G)

    derived = derivatives(exchanged(0.0))
    assert all(abs(x.sum(axis=0)).max() < 1e-12 for x in columns(derived))
    move_M = (derived.low_MG + derived.high_MG) @ np.array([1, -1])
    differences_M = (minimiser(exchanged(STEP)) - minimiser(exchanged(-STEP))) / (2 * STEP)
    np.testing.assert_allclose(move_M, differences_M, atol=2e-6)
    assert abs(move_M).max() > 0.1
    multipliers_G = solution(exchanged(0.0)).group_multipliers_G
    fall = (solution(exchanged(-STEP)).value - solution(exchanged(STEP)).value) / (2 * STEP)
    assert multipliers_G.min() == 0 and multipliers_G[0] - multipliers_G[1] == pytest.approx(fall, rel=1e-5)
