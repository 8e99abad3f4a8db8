"""Prediction intervals: the conformal quantile, calibration on other folds, and laws without a spread."""

import numpy as np

from olmix_jax.laws import intervals, log_linear, warped_gp
from tests.laws.synthetic import noisy_swarm


def test_stretch_is_the_conformal_quantile():
    error_KN = np.arange(1.0, 20.0)[:, None]
    zero_KN, one_KN = np.zeros((19, 1)), np.ones((19, 1))
    assert intervals.stretch(zero_KN, error_KN, one_KN) == 18
    assert intervals.stretch(zero_KN, error_KN, 2 * one_KN) == 9
    # With three runs the level is out of reach: the largest error.
    assert intervals.stretch(zero_KN, error_KN, one_KN, error_KN[:, 0] < 4) == 3


def test_reach_of_a_fold_ignores_its_own_errors():
    """Errors are 1 in fold 0 and 5 in fold 1: each fold gets the other fold's stretch."""
    fold_K = np.repeat([0, 1], 10)
    bpb_K1 = np.where(fold_K == 0, 1.0, 5.0)[:, None]
    reach_K1 = intervals.reach(np.zeros((20, 1)), bpb_K1, np.ones((20, 1)), fold_K)
    np.testing.assert_allclose(reach_K1[:, 0], np.where(fold_K == 0, 5.0, 1.0))


def test_reach_scales_with_the_spread():
    fold_K, spread_K1 = np.repeat([0, 1], 10), np.linspace(1, 2, 20)[:, None]
    reach_K1 = intervals.reach(np.zeros((20, 1)), 3 * spread_K1, spread_K1, fold_K)
    np.testing.assert_allclose(reach_K1, 3 * spread_K1)


def test_scale_is_one_for_a_law_without_a_spread():
    ratios_KM, bpb_KN = noisy_swarm(runs=12)
    params = log_linear.fit(ratios_KM, bpb_KN, starts=1).params
    np.testing.assert_array_equal(intervals.scale(log_linear.LAW, params, ratios_KM, 2), np.ones((12, 2)))
    params = warped_gp.fit(ratios_KM, bpb_KN).params
    std_KN = intervals.scale(warped_gp.LAW, params, ratios_KM, 2)
    assert std_KN.shape == (12, 2) and (std_KN > 0).all() and np.ptp(std_KN) > 0
