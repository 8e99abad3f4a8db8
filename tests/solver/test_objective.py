"""The objective: its parts, its slopes, and its behaviour as a pytree."""

import jax
import numpy as np
import pytest

from olmix_jax.laws import cpu, log_linear
from olmix_jax.solver.objective import Objective, combination, mean

PARAMS = log_linear.Params(np.array([0.1, -0.2]), np.array([[-1.0, 0.3, 0.2], [0.5, -0.6, 0.1]]))
WEIGHTS_N, ANCHOR_M, P_M = np.array([0.3, 0.7]), np.array([0.2, 0.3, 0.5]), np.array([0.5, 0.4, 0.1])


def objective(kl_weight=0.05, anchor_M=ANCHOR_M):
    return Objective(log_linear.predict, mean, PARAMS, WEIGHTS_N, anchor_M, kl_weight)


def test_value_is_weighted_bpb_plus_kl_penalty():
    bpb_N = np.exp(PARAMS.log_c_N) + np.exp(PARAMS.coef_NM @ P_M)
    kl = (P_M * np.log(P_M / ANCHOR_M)).sum()
    with cpu.float64():
        assert float(objective().law(P_M)) == pytest.approx(WEIGHTS_N @ bpb_N, rel=1e-14)
        assert float(objective().kl(P_M)) == pytest.approx(kl, rel=1e-14)
        values = np.asarray(objective().values(np.stack([P_M, ANCHOR_M])))
    np.testing.assert_allclose(values[0], WEIGHTS_N @ bpb_N + 0.05 * kl, rtol=1e-14)
    assert values.shape == (2,)


def test_penalty_is_zero_for_lambda_zero_even_if_the_divergence_is_infinite():
    anchor_M = np.array([0.0, 0.5, 0.5])
    with cpu.float64():
        assert float(objective(0.0, anchor_M).kl(P_M)) == np.inf
        assert float(objective(0.0, anchor_M).penalty(P_M)) == 0
        assert float(objective(0.1, anchor_M).penalty(P_M)) == np.inf


def test_penalty_slope_is_the_gradient_and_finite_at_zero():
    with cpu.float64():
        np.testing.assert_allclose(objective().penalty_slope(P_M), jax.grad(objective().penalty)(P_M), rtol=1e-14)
        assert np.isfinite(objective().penalty_slope(np.array([0.0, 0.5, 0.5]))).all()


def test_functions_are_static_and_arrays_are_leaves():
    leaves, treedef = jax.tree.flatten(objective())
    assert len(leaves) == 5 and jax.tree.unflatten(treedef, leaves) == objective()
    assert treedef == jax.tree.structure(objective(0.3))
    other = Objective(log_linear.predict, combination, PARAMS, WEIGHTS_N, ANCHOR_M, 0.05)
    assert treedef != jax.tree.structure(other)


def test_combination_sums_over_all_axes():
    weights_SN, bpb_SN = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[0.5, 1.0], [0.25, 2.0]])
    assert combination(weights_SN, bpb_SN) == 0.5 + 2 + 0.75 + 8
