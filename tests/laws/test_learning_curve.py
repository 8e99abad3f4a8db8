"""The learning curve: sizes, extrapolation, and the predicted gain of ten more runs."""

import numpy as np
import pytest

from olmix_jax import laws
from olmix_jax.laws import learning_curve, log_linear, quality, scores, warped_gp
from tests.laws.synthetic import noisy_swarm


def test_curve_has_subsets_folds_and_a_better_extrapolation():
    data = noisy_swarm(runs=60, noise=0.1)
    held_out = quality.cross_validate(log_linear.LAW, *data, folds=5, starts=4)
    curve = learning_curve.measure(log_linear.LAW, *data, held_out, starts=4)
    assert curve.runs == (24, 36, 48) and curve.now.runs == 60 and curve.next.runs == 70
    assert curve.next.spearman_mean >= curve.now.spearman_mean > 0.5
    assert curve.next.rmse_mean <= curve.now.rmse_mean
    assert len(curve.spearman_mean_error) == 3 and min(curve.spearman_mean_error) > 0


def test_extrapolation_recovers_a_floor_and_a_variance():
    sizes = [10, 20, 40]
    squares = [0.5 + 3 / k for k in sizes]
    assert learning_curve.extrapolate(sizes, squares, 90) == pytest.approx(0.5 + 3 / 90)


def test_extrapolation_is_constant_if_quality_does_not_improve():
    assert learning_curve.extrapolate([10, 20, 40], [1.0, 2.0, 4.0], 80) == pytest.approx(7 / 3)


def test_predicted_gain_of_ten_more_runs_is_the_measured_one():
    """The predicted ratio of RMSE is within 0.05 of the ratio that is measured on fresh runs."""
    ratios_KM, bpb_KN = noisy_swarm(runs=260, noise=0.1, tasks=6)
    promised, brought = [], []
    for first in range(0, 160, 40):
        few, more, fresh = slice(first, first + 30), slice(first, first + 40), slice(200, 260)
        held_out = quality.cross_validate(warped_gp.LAW, ratios_KM[few], bpb_KN[few])
        curve = learning_curve.measure(warped_gp.LAW, ratios_KM[few], bpb_KN[few], held_out)
        promised.append(curve.next.rmse_mean / curve.now.rmse_mean)
        rmse = []
        for part in (few, more):
            params = warped_gp.fit(ratios_KM[part], bpb_KN[part]).params
            predicted_KN = laws.evaluate(warped_gp.LAW, params, ratios_KM[fresh])
            rmse.append(scores.score(predicted_KN, bpb_KN[fresh]).rmse_N.mean())
        brought.append(rmse[1] / rmse[0])
    assert abs(np.mean(promised) - np.mean(brought)) < 0.05


def test_replicates_of_a_mixture_are_not_scored_by_each_other():
    """Unexplainable measurements, three runs per mixture: knowing one replicate would reveal the others."""
    rng = np.random.default_rng(0)
    ratios_KM = np.repeat(rng.dirichlet(np.ones(3), size=12), 3, axis=0)
    bpb_KN = np.repeat(rng.uniform(1, 2, size=(12, 3)), 3, axis=0) + 0.001 * rng.normal(size=(36, 3))
    held_out = quality.cross_validate(warped_gp.LAW, ratios_KM, bpb_KN, folds=4)
    assert max(learning_curve.measure(warped_gp.LAW, ratios_KM, bpb_KN, held_out).spearman_mean) < 0.7
