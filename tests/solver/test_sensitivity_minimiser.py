"""The differentiable minimiser of sensitivity.py, against differences of the solver."""

import jax
import numpy as np
import pytest

from olmix_jax.laws import cpu
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


@both
def test_the_minimiser_is_the_solution_of_the_solver(kl_weight):
    np.testing.assert_allclose(minimiser(case(kl_weight)), solution(case(kl_weight)).weights_M, atol=1e-12)


@both
@pytest.mark.parametrize("name", DIRECTIONS)
def test_derivatives_agree_with_differences(name, kl_weight):
    tangents = directions(case(kl_weight))[name]
    if kl_weight == 0:
        # The program for λ = 0 has no KL term; the next test covers the derivative by λ.
        tangents = tangents.change(kl_weight=np.float64(0.0))
    move_M = move(case(kl_weight), tangents)
    np.testing.assert_allclose(move_M, difference(case(kl_weight), tangents), atol=2e-6)
    still = name == "bounds that do not bind" or (kl_weight == 0 and name in ("λ", "anchor"))
    assert abs(move_M.sum()) < 1e-12 and (still or abs(move_M).max() > 0.01)


def test_the_derivative_by_lambda_at_zero_is_the_limit_from_small_lambda():
    tangents = directions(case(0.0))["λ"]
    near_M = minimiser(moved(case(0.0), tangents, STEP))
    np.testing.assert_allclose(move(case(0.0), tangents), (near_M - minimiser(case(0.0))) / STEP, atol=1e-3)


def test_forward_and_reverse_mode_agree():
    def of(inputs):
        changed = case(0.05).change(**inputs)
        return sensitivity.minimiser(*changed, case(0.05).objective.anchor_M, entropic=True)

    names = "params weights anchor_M kl_weight".split()
    inputs = {name: getattr(case(0.05).objective, name) for name in names}
    inputs |= {name: getattr(case(0.05).bounds, name) for name in ("upper_M", "low_G", "high_G")}
    with cpu.float64():
        forward, reverse = (
            jax.tree.map(np.asarray, jax.jit(jac(of), compiler_options=cpu.QUICK)(inputs))
            for jac in (jax.jacfwd, jax.jacrev)
        )
    for a, b in zip(jax.tree.leaves(forward), jax.tree.leaves(reverse), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    by = directions(case(0.05))
    np.testing.assert_allclose(forward["kl_weight"], move(case(0.05), by["λ"]), atol=1e-12)
    np.testing.assert_allclose(forward["upper_M"][:, 5], move(case(0.05), by["cap"]), atol=1e-12)
    np.testing.assert_allclose(forward["high_G"][:, 0], move(case(0.05), by["inner group"]), atol=1e-12)
    np.testing.assert_allclose(forward["low_G"][:, 1], move(case(0.05), by["outer group"]), atol=1e-12)


def test_gradients_work_under_vmap():
    """The gradient of one weight by λ, for three λ at once."""

    def first_weight(kl_weight):
        changed = case(0.05).change(kl_weight=kl_weight)
        return sensitivity.minimiser(*changed, case(0.05).objective.anchor_M, entropic=True)[0]

    kl_weights = np.array([0.03, 0.05, 0.08])
    with cpu.float64():
        gradients = jax.jit(jax.vmap(jax.grad(first_weight)), compiler_options=cpu.QUICK)(kl_weights)
    tangents = directions(case(0.05))["λ"]
    expected = [move(case(0.05).change(kl_weight=x), tangents)[0] for x in kl_weights]
    np.testing.assert_allclose(np.asarray(gradients), expected, atol=1e-9)


def test_fixed_domains_move_when_their_bounds_move_together():
    p_M, exchange_M = minimiser(case(0.05)), np.eye(SIZE)[0] - np.eye(SIZE)[1]
    fixed = case(0.05).change(lower_M=p_M, upper_M=p_M, low_G=np.zeros(2), high_G=np.ones(2))
    tangents = directions(fixed)["cap"].change(lower_M=exchange_M, upper_M=exchange_M)
    np.testing.assert_allclose(move(fixed, tangents), exchange_M, atol=1e-14)


def test_a_weight_near_zero_has_a_derivative_with_small_relative_error():
    """A domain that all tasks avoid has a weight of 2e-12."""
    params = case(0.05).objective.params
    coef_NM = np.where(np.arange(SIZE) == 6, 2.0, params.coef_NM)
    avoided = case(0.05).change(params=params._replace(coef_NM=coef_NM))
    p_M, tangents = minimiser(avoided), directions(avoided)["λ"]
    assert 0 < p_M[6] < 1e-11
    log_up, log_down = (np.log(minimiser(moved(avoided, tangents, sign * STEP))[6]) for sign in (1, -1))
    assert move(avoided, tangents)[6] / p_M[6] == pytest.approx((log_up - log_down) / (2 * STEP), rel=1e-5)
