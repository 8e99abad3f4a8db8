"""The slope of measured on predicted BPB over held-out runs."""

import numpy as np
import pytest

from olmix_jax.laws import quality, warped_gp
from olmix_jax.laws.held_out import PRIOR, HeldOut, slope

ONE = np.ones(1)


def runs(truth, error, number=40, seed=0):
    """Return runs in five folds whose predictions have another mean in each fold."""
    draw = np.random.default_rng(seed)
    predicted_K, fold_K = draw.normal(size=number), np.arange(number) % 5
    measured_K = truth * predicted_K + error * draw.normal(size=number)
    return HeldOut(measured_K[:, None], (predicted_K + 3 * fold_K)[:, None], fold_K)


def test_slope_is_that_of_least_squares_within_folds_under_its_prior():
    held_out = runs(0.7, 0.3)
    columns = np.c_[held_out.predicted_KN, held_out.fold_K[:, None] == np.arange(5)]
    coefficient, (rest,), *_ = np.linalg.lstsq(columns, held_out.measured_KN[:, 0], rcond=None)
    variance = rest / 34 * np.linalg.inv(columns.T @ columns)[0, 0]
    precision = PRIOR[1] ** -2 + 1 / variance
    found = slope(held_out, ONE)
    assert found.value == pytest.approx((PRIOR[0] * PRIOR[1] ** -2 + coefficient[0] / variance) / precision)
    assert found.error == pytest.approx(precision**-0.5) and found.degrees == 34


def test_level_is_taken_out_by_least_squares_and_small_differences_are_none():
    held_out, level_K = runs(0.7, 0.3), np.linspace(-1, 1, 40)
    level_KC = np.stack([level_K, level_K, 1e-3 * level_K**2], axis=1)
    moved = HeldOut(
        held_out.measured_KN + 5 * level_K[:, None],
        held_out.predicted_KN - 4 * level_K[:, None],
        held_out.fold_K,
        level_KC,
    )
    columns = np.c_[moved.predicted_KN, level_K, held_out.fold_K[:, None] == np.arange(5)]
    coefficient, (rest,), *_ = np.linalg.lstsq(columns, moved.measured_KN[:, 0], rcond=None)
    variance = rest / 33 * np.linalg.inv(columns.T @ columns)[0, 0]
    precision = PRIOR[1] ** -2 + 1 / variance
    found = slope(moved, ONE)
    assert found.value == pytest.approx((PRIOR[0] * PRIOR[1] ** -2 + coefficient[0] / variance) / precision, rel=1e-3)
    assert found.degrees == 33


@pytest.mark.parametrize("truth, expected", [(1.0, 1.0), (2.0, 1.0), (0.4, 0.4), (-1.0, 0.0)])
def test_slope_of_much_data_is_the_truth_between_0_and_1(truth, expected):
    found = slope(runs(truth, 0.01, number=200), ONE)
    assert found.value == pytest.approx(expected, abs=0.01) and found.error < 0.01


def test_tasks_are_weighted():
    good, bad = runs(1.0, 0.01), runs(0.0, 0.01, seed=1)
    both = HeldOut(
        *(np.hstack([a, b]) for a, b in zip(*((h.measured_KN, h.predicted_KN) for h in (good, bad)))), good.fold_K
    )
    assert slope(both, np.array([1.0, 0.0])).value > 0.95 and slope(both, np.array([0.0, 1.0])).value < 0.05


@pytest.mark.parametrize("folds", [np.arange(6), np.zeros(2)], ids=["each run alone", "two runs"])
def test_too_few_runs_leave_the_prior(folds):
    bpb_KN = np.random.default_rng(0).normal(size=(len(folds), 1))
    assert slope(HeldOut(bpb_KN, 2 * bpb_KN, folds), ONE)[:2] == pytest.approx(PRIOR)


def test_equal_predictions_leave_the_prior():
    held_out = HeldOut(np.random.default_rng(0).normal(size=(9, 1)), np.full((9, 1), 0.3), np.arange(9) % 2)
    assert slope(held_out, ONE)[:2] == pytest.approx(PRIOR)


@pytest.mark.parametrize("spread", [0.6, 200.0], ids=["wide", "near natural"])
def test_without_a_signal_the_slope_is_not_sure(spread):
    """A law that predicts the mean of its training runs is anticorrelated with the runs that it leaves out."""
    for seed in range(4):
        draw = np.random.default_rng(seed)
        ratios_KM, bpb_KN = draw.dirichlet(np.full(8, spread), size=27), 1 + 0.02 * draw.normal(size=(27, 12))
        judged = quality.cross_validate(warped_gp.LAW, ratios_KM, bpb_KN, seed=seed)
        found = slope(HeldOut(bpb_KN, judged.predicted_KN, judged.fold_K), np.full(12, 1 / 12))
        assert 0 <= found.value < 0.9 and found.error > 0.2
