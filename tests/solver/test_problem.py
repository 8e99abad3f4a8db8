"""Checks of a problem, its convexity, and its values."""

import dataclasses

import numpy as np
import pytest

from olmix_jax.laws import log_linear, warped_gp
from olmix_jax.solver.bounds import box
from olmix_jax.solver.objective import combination
from olmix_jax.solver.problem import Problem, checked
from olmix_jax.utils.errors import UserError

PARAMS = log_linear.Params(np.array([0.1, -0.2]), np.array([[-1.0, 0.3, 0.2], [0.5, -0.6, 0.1]]))
PROBLEM = Problem(
    log_linear.LAW, PARAMS, np.array([0.3, 0.7]), np.array([0.2, 0.3, 0.5]), box(np.zeros(3), np.ones(3)), 0.05
)


def test_convexity_needs_a_convex_law_and_weights_that_are_not_negative():
    assert PROBLEM.convex
    assert not dataclasses.replace(PROBLEM, weights=-PROBLEM.weights).convex
    assert not dataclasses.replace(PROBLEM, law=warped_gp.LAW).convex
    assert dataclasses.replace(PROBLEM, weights=np.array([-1.0, 2.0]), merge=combination).convex


def test_kl_and_values_of_mixtures():
    ratios_KM = np.array([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])
    kl = 0.5 * np.log(0.5 / 0.2) + 0.5 * np.log(0.5 / 0.3)
    np.testing.assert_allclose(PROBLEM.kl(ratios_KM), [kl, 0], atol=1e-16)
    bpb_KN = np.exp(PARAMS.log_c_N) + np.exp(ratios_KM @ PARAMS.coef_NM.T)
    np.testing.assert_allclose(PROBLEM.values(ratios_KM), bpb_KN @ PROBLEM.weights + 0.05 * np.array([kl, 0]))
    absent = dataclasses.replace(PROBLEM, anchor_M=np.array([0.0, 0.5, 0.5]))
    assert absent.values(ratios_KM).tolist() == [np.inf, np.inf]
    assert np.isfinite(dataclasses.replace(absent, kl_weight=0.0).values(ratios_KM)).all()


def test_projection_of_mixtures_is_the_nearest_within_bounds():
    capped = dataclasses.replace(PROBLEM, bounds=box(np.zeros(3), np.array([0.4, 1.0, 1.0])))
    np.testing.assert_allclose(capped.project([[0.6, 0.2, 0.2], [0.1, 0.2, 0.7]]), [[0.4, 0.3, 0.3], [0.1, 0.2, 0.7]])


def test_checked_caps_domains_without_anchor_weight_at_zero_if_lambda_is_positive():
    absent = dataclasses.replace(PROBLEM, anchor_M=[0, 0.5, 0.5])
    assert checked(absent).bounds.upper_M.tolist() == [0, 1, 1]
    assert checked(dataclasses.replace(absent, kl_weight=0)).bounds.upper_M.tolist() == [1, 1, 1]
    assert checked(absent).anchor_M.dtype == np.float64


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"params": PARAMS._replace(log_c_N=np.array([np.nan, 0.0]))}, "contain a number that is not finite"),
        ({"weights": np.array([1.0, 2.0])}, "must sum to 1, not 3"),
        ({"kl_weight": -0.1}, "kl_weight must be 0 or more, not -0.1"),
        ({"kl_weight": np.inf}, "contain a number that is not finite"),
        (
            {"anchor_M": [0, 0.5, 0.5], "bounds": box(np.array([0.1, 0, 0]), np.ones(3))},
            "natural weight 0 has a positive lower bound.*set propose.kl_weight=0",
        ),
    ],
)
def test_invalid_problems_are_errors(changes, message):
    with pytest.raises(UserError, match=message):
        checked(dataclasses.replace(PROBLEM, **changes))
