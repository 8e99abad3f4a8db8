"""Levenberg–Marquardt over many lanes: minima, bounds, starts, and checks of arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from olmix_jax.laws import descent, inputs
from olmix_jax.utils.errors import UserError


def residual(x_K, theta_P, y_K):
    return theta_P[0] * jnp.exp(-theta_P[1] * x_K) + theta_P[2] - y_K


def jacobian(x_K, theta_P):
    decay_K = jnp.exp(-theta_P[1] * x_K)
    return jnp.stack([decay_K, -theta_P[0] * x_K * decay_K, jnp.ones_like(x_K)], axis=1)


def problem(tasks=20, seed=0):
    rng = np.random.default_rng(seed)
    x_K = np.linspace(0, 3, 25)
    true_NP = np.stack([rng.uniform(0.5, 3, tasks), rng.uniform(0.3, 2, tasks), rng.normal(size=tasks)], axis=1)
    with jax.enable_x64(True):
        return x_K, true_NP, np.stack([residual(x_K, theta_P, 0.0) for theta_P in true_NP], axis=1)


def begin(tasks, starts=3, low=-10.0, high=10.0):
    starts_SP = np.stack([np.ones(starts), np.linspace(0.1, 3, starts), np.zeros(starts)], axis=1)
    low_NP, high_NP = (np.full((tasks, 3), x) for x in (low, high))
    return lambda weight_K, _: (np.broadcast_to(starts_SP, (tasks, starts, 3)), low_NP, high_NP)


def test_more_lanes_than_slots_are_all_solved(monkeypatch):
    x_K, true_NP, y_KN = problem()
    law = descent.least_squares(residual, jacobian, 200)
    wide = descent.minimise(law, x_K, y_KN, np.ones((2, 25)), None, begin(20))
    np.testing.assert_allclose(wide.theta_RNP, np.stack([true_NP] * 2), rtol=1e-6, atol=1e-6)
    monkeypatch.setattr(descent, "SLOTS", 7)
    narrow = descent.minimise(
        descent.least_squares(residual, jacobian, 200), x_K, y_KN, np.ones((2, 25)), None, begin(20)
    )
    np.testing.assert_allclose(narrow.theta_RNP, wide.theta_RNP, rtol=1e-7, atol=1e-7)
    np.testing.assert_array_equal(narrow.steps_RN, wide.steps_RN)


def test_further_rounds_start_only_lanes_whose_minimum_was_reached_once():
    x_K, _, y_KN = problem(tasks=2)
    y_KN = y_KN + 0.1 * np.random.default_rng(0).normal(size=y_KN.shape)
    law, asked = descent.least_squares(residual, jacobian, 200), []

    def rounds_of(starts):
        asked.clear()

        def one(weight_K, number):
            asked.append(number)
            return begin(2, starts)(weight_K, number)

        return descent.minimise(law, x_K, y_KN, np.ones((1, 25)), None, one, rounds=3)

    agreed = rounds_of(starts=3)
    assert asked == [0]
    np.testing.assert_allclose(rounds_of(starts=1).loss_RN, agreed.loss_RN, rtol=1e-6)
    assert asked == [0, 1]  # the second round agrees with the first


def test_jacobian_matches_the_residual():
    x_K, true_NP, _ = problem(tasks=2)
    with jax.enable_x64(True):
        theta_P = jnp.asarray(true_NP[0])
        given_KP, found_KP = jacobian(x_K, theta_P), jax.jacfwd(lambda t: residual(x_K, t, 0.0))(theta_P)
    np.testing.assert_allclose(given_KP, found_KP, rtol=1e-12)


@pytest.mark.parametrize("delta", [None, 0.05])
def test_minimum_with_noise_and_bounds_is_as_low_as_that_of_scipy(delta):
    x_K, _, y_KN = problem(tasks=4, seed=1)
    y_KN = y_KN + 0.1 * np.random.default_rng(2).standard_t(2, size=y_KN.shape)
    law = descent.least_squares(residual, jacobian, 300, delta)
    found = descent.minimise(law, x_K, y_KN, np.ones((1, 25)), None, begin(4, low=0.0, high=1.5))
    assert (found.theta_RNP >= 0).all() and (found.theta_RNP <= 1.5).all()

    def loss(theta_P, y_K):
        r_K = abs(theta_P[0] * np.exp(-theta_P[1] * x_K) + theta_P[2] - y_K)
        return (r_K**2 / 2 if delta is None else np.where(r_K <= delta, r_K**2 / 2, delta * (r_K - delta / 2))).sum()

    for i in range(4):
        others = [
            scipy.optimize.minimize(loss, [1, b, 0.5], y_KN[:, i], bounds=[(0, 1.5)] * 3).fun for b in (0.1, 1, 1.4)
        ]
        assert loss(found.theta_RNP[0, i], y_KN[:, i]) == pytest.approx(found.loss_RN[0, i], rel=1e-9)
        assert found.loss_RN[0, i] <= min(others) * (1 + 1e-5)


def test_near_is_the_only_start():
    x_K, true_NP, y_KN = problem()
    law = descent.least_squares(residual, jacobian, 200)
    found = descent.minimise(law, x_K, y_KN, np.ones((3, 25)), None, begin(20), near_NP=true_NP)
    np.testing.assert_allclose(found.theta_RNP, np.stack([true_NP] * 3), atol=1e-9)
    assert found.loss_RN.max() < 1e-20


def test_inputs_are_checked():
    ratios_KM, bpb_KN = np.eye(3), np.ones((3, 2))
    assert inputs.check(ratios_KM, bpb_KN)[2].shape == (1, 3)
    for weight_RK, message in ((np.ones(3), "resamples × 3"), (np.full((1, 3), -1.0), "at least 0")):
        with pytest.raises(UserError, match=message):
            inputs.check(ratios_KM, bpb_KN, weight_RK)
    with pytest.raises(UserError, match="web, code"):
        inputs.refuse(np.array([True, False, True]), ("web", "law", "code"), "bad:")
    ratios_KM = np.array([[1.0, 0, 0], [0.5, 0.5, 0]])
    np.testing.assert_array_equal(inputs.seen(ratios_KM, np.array([[1, 1], [1, 0]])), [[1, 1, 0], [1, 0, 0]])
    assert inputs.unseen(ratios_KM) == (2,)
