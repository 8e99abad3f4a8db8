"""The default law: its floor, and what it shares with the law without one."""

import numpy as np
import pytest

from olmix_jax import laws
from olmix_jax.laws import floored_gp, warped_gp
from tests.laws.test_warped_gp import swarm


def test_law_is_that_of_the_bpb_above_the_floor():
    """The law without a floor, fitted to f − c, plus c."""
    ratios_KM, bpb_KN = swarm()
    params = floored_gp.LAW.fit(ratios_KM, bpb_KN).params
    np.testing.assert_allclose(params.floor_N, floored_gp.FLOOR * bpb_KN.min(axis=0))
    above = warped_gp.fit(ratios_KM, bpb_KN - params.floor_N).params
    new_KM = np.random.default_rng(5).dirichlet(np.ones(4), size=6)
    predicted_KN = laws.evaluate(floored_gp.LAW, params, new_KM)
    np.testing.assert_allclose(predicted_KN, laws.evaluate(warped_gp.LAW, above, new_KM) + params.floor_N, rtol=1e-7)
    np.testing.assert_allclose(
        laws.FittedLaw(floored_gp.LAW, params).spread(new_KM), laws.FittedLaw(warped_gp.LAW, above).spread(new_KM)
    )
    left_out_KN = floored_gp.LAW.leave_one_out(params)
    np.testing.assert_allclose(left_out_KN, warped_gp.leave_one_out(above) + params.floor_N, rtol=1e-7)
    assert floored_gp.LAW.describe(params, 0, tuple("abcd"))["floor"] == pytest.approx(params.floor_N[0])


def test_samples_stay_above_the_floor_and_around_the_mean():
    ratios_KM, bpb_KN = swarm(runs=12, noise=0.1)
    params = floored_gp.LAW.fit(ratios_KM, bpb_KN).params
    drawn_RKN = laws.evaluate_each(floored_gp.LAW, floored_gp.LAW.sample(params, 200, 1), ratios_KM)
    assert (drawn_RKN > params.floor_N).all()
    mean_KN = laws.evaluate(floored_gp.LAW, params, ratios_KM)
    assert np.abs(np.median(drawn_RKN, axis=0) - mean_KN).max() < 0.3 * (mean_KN - params.floor_N).max()


def test_few_runs_have_no_floor():
    ratios_KM, bpb_KN = swarm(runs=9)
    few, enough = (floored_gp.LAW.fit(ratios_KM[:k], bpb_KN[:k]).params for k in (8, 9))
    assert (few.floor_N == 0).all() and (enough.floor_N > 0).all()
    plain = warped_gp.fit(ratios_KM[:8], bpb_KN[:8]).params
    np.testing.assert_array_equal(few.alpha_NK, plain.alpha_NK)


def test_runs_that_are_left_out_do_not_set_the_floor():
    ratios_KM, bpb_KN = swarm(runs=20)
    weight_RK = np.ones((2, 20))
    weight_RK[1, bpb_KN[:, 0].argmin()] = 0
    refit = floored_gp.LAW.fit_weighted(ratios_KM, bpb_KN, weight_RK)
    without = np.delete(bpb_KN[:, 0], bpb_KN[:, 0].argmin())
    np.testing.assert_allclose(refit.floor_N[:, 0], floored_gp.FLOOR * np.array([bpb_KN[:, 0].min(), without.min()]))
    assert np.isfinite(refit.alpha_NK).all()
    # With θ kept, so is the floor.
    near = floored_gp.LAW.fit(ratios_KM, bpb_KN).params
    kept = floored_gp.LAW.fit_weighted(ratios_KM, bpb_KN, weight_RK, near=near)
    np.testing.assert_allclose(kept.floor_N, np.broadcast_to(near.floor_N, kept.floor_N.shape))


def test_tasks_that_are_not_bpb_have_no_floor():
    ratios_KM, bpb_KN = swarm(runs=15)
    bpb_KN[:, 0] -= 2
    params = floored_gp.LAW.fit(ratios_KM, bpb_KN).params
    assert params.floor_N[0] == 0 and params.logged_N[0] == 0 and (params.floor_N[1:] > 0).all()
