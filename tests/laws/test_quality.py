"""Held-out quality: held out by construction, deterministic, and never a NaN."""

import dataclasses

import numpy as np
import pytest

from olmix_jax import laws
from olmix_jax.laws import intervals, log_linear, quality, scores, warped_gp
from olmix_jax.utils.errors import UserError
from tests.laws.synthetic import noisy_swarm


def test_a_good_law_scores_well():
    result = quality.cross_validate(log_linear.LAW, *noisy_swarm(), folds=4, starts=4)
    assert result.predicted_KN.shape == (36, 2)
    assert (np.bincount(result.fold_K) == 9).all()
    assert (result.spearman_N > 0.9).all() and (result.r2_N > 0.9).all() and result.spearman_of_mean > 0.9
    assert (result.rmse_N < 0.04).all() and (result.rmse_N > 0.01).all()


def test_a_run_does_not_influence_its_own_prediction():
    """PITFALL 13: new measurements in one fold change the predictions of all other folds, but not of that fold."""
    ratios_KM, bpb_KN = noisy_swarm()
    before = quality.cross_validate(log_linear.LAW, ratios_KM, bpb_KN, folds=4, starts=4)
    left_out = before.fold_K == 2
    bpb_KN[left_out] += np.random.default_rng(1).uniform(0.5, 1.5, size=(left_out.sum(), 2))
    after = quality.cross_validate(log_linear.LAW, ratios_KM, bpb_KN, folds=4, starts=4)
    np.testing.assert_array_equal(before.predicted_KN[left_out], after.predicted_KN[left_out])
    assert (before.predicted_KN[~left_out] != after.predicted_KN[~left_out]).all()


def test_fitted_noise_scores_badly_on_held_out_runs():
    """A law with almost as many parameters as runs fits noise in-sample. Its held-out scores must be bad."""
    rng = np.random.default_rng(4)
    ratios_KM, bpb_KN = rng.dirichlet(np.ones(16), size=24), rng.uniform(1, 2, size=(24, 2))
    held_out = quality.cross_validate(log_linear.LAW, ratios_KM, bpb_KN, folds=4, starts=4)
    params = log_linear.fit_weighted(ratios_KM, bpb_KN, np.ones((4, 24)), starts=4)
    first = log_linear.Params(*(x[0] for x in params))
    seen_N = scores.spearman(laws.evaluate(log_linear.LAW, first, ratios_KM), bpb_KN)
    assert (seen_N > 0.6).all()
    assert (held_out.spearman_N < 0.5).all() and (held_out.r2_N < 0.2).all()


def test_each_prediction_comes_from_the_fit_without_its_fold():
    """The law of this test predicts the mean of the runs that it was fitted to."""

    def fit_weighted(ratios_KM, bpb_KN, weight_RK, *, starts, seed, tasks):
        return (weight_RK @ bpb_KN) / weight_RK.sum(axis=1)[:, None]

    mean_law = dataclasses.replace(
        log_linear.LAW,
        fit_weighted=fit_weighted,
        predict=lambda mean_N, ratios_KM: mean_N[None, :] + 0 * ratios_KM[:, :1],
    )
    bpb_KN = np.array([[1.0, 2.0], [2.0, 4.0], [6.0, 0.0]])
    result = quality.cross_validate(mean_law, np.eye(3), bpb_KN, folds=3)
    np.testing.assert_allclose(result.predicted_KN, (bpb_KN.sum(axis=0)[None, :] - bpb_KN) / 2)
    np.testing.assert_allclose(result.spearman_N, -1)


def test_folds_depend_on_the_seed_alone():
    args = noisy_swarm()
    first, again, other = (quality.cross_validate(log_linear.LAW, *args, folds=4, starts=4, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.predicted_KN, again.predicted_KN)
    assert (first.fold_K != other.fold_K).any()


@pytest.mark.parametrize(
    "runs, folds, message", [(4, 5, "4 different mixtures.*fit.folds to 4"), (4, 1, "at least 2 folds, not 1")]
)
def test_impossible_numbers_of_folds_are_refused(runs, folds, message):
    with pytest.raises(UserError, match=message):
        quality.cross_validate(log_linear.LAW, *noisy_swarm(runs=runs), folds=folds)


def test_intervals_are_calibrated_on_other_folds():
    """The measurements of a fold do not change the stretch of its intervals, so coverage is held-out."""
    ratios_KM, bpb_KN = noisy_swarm(runs=120)
    before = quality.cross_validate(log_linear.LAW, ratios_KM, bpb_KN, folds=4, starts=4)
    assert (np.abs(before.coverage_N - intervals.LEVEL) < 0.07).all()
    assert (before.spread_KN == 1).all()
    law = dataclasses.replace(
        log_linear.LAW,
        fit_weighted=lambda r, y, w, **_: np.zeros((len(w), y.shape[1])),
        predict=lambda p_N, r_KM: p_N[None, :] + 0 * r_KM[:, :1],
        spread=lambda p_N, r_KM: 1 + r_KM[:, :1] + 0 * p_N[None, :],
    )
    first = quality.cross_validate(law, ratios_KM, bpb_KN, folds=4)
    bpb_KN[first.fold_K == 1] *= 100
    second = quality.cross_validate(law, ratios_KM, bpb_KN, folds=4)
    mine_K = first.fold_K == 1
    np.testing.assert_array_equal(first.reach_KN[mine_K], second.reach_KN[mine_K])
    assert (second.reach_KN[~mine_K] > first.reach_KN[~mine_K]).all()


@pytest.mark.parametrize("law", [log_linear.LAW, warped_gp.LAW])
def test_quick_leave_one_out_is_a_refit_near_the_full_fit(law):
    ratios_KM, bpb_KN = noisy_swarm(runs=14)
    params = law.fit(ratios_KM, bpb_KN, starts=4).params
    found_KN = quality.leave_one_out(law, params, ratios_KM, bpb_KN)
    for k in (0, 5):
        weight_RK = np.ones((1, 14))
        weight_RK[0, k] = 0
        refit = law.fit_weighted(ratios_KM, bpb_KN, weight_RK, near=params)
        alone_KN = laws.evaluate_each(law, refit, ratios_KM)[0]
        # The closed form keeps the offset and scale of the measurements.
        np.testing.assert_allclose(found_KN[k], alone_KN[k], rtol=1e-9 if law == log_linear.LAW else 5e-3)
    # Errors are smaller than with complete refits, but only slightly here.
    cold = quality.cross_validate(law, ratios_KM, bpb_KN, folds=14, starts=4)
    quick_N = scores.score(found_KN, bpb_KN).rmse_N
    assert (quick_N < 1.05 * cold.rmse_N).all() and (quick_N > 0.5 * cold.rmse_N).all()


def test_replicates_of_a_mixture_are_left_out_together():
    """Twelve mixtures of three runs each, with BPB that no law explains: a replicate in the fit would reveal it."""
    rng = np.random.default_rng(0)
    ratios_KM = np.repeat(rng.dirichlet(np.ones(3), size=12), 3, axis=0)
    bpb_KN = np.repeat(rng.uniform(1, 2, size=(12, 3)), 3, axis=0) + 0.001 * rng.normal(size=(36, 3))
    np.testing.assert_array_equal(quality.mixtures(ratios_KM), np.repeat(np.arange(12), 3))
    held_out = quality.cross_validate(warped_gp.LAW, ratios_KM, bpb_KN, folds=4)
    assert (np.ptp(held_out.fold_K.reshape(12, 3), axis=1) == 0).all() and (held_out.r2_N < 0.5).all()
    params = warped_gp.fit(ratios_KM, bpb_KN).params
    left_out_KN = quality.leave_one_out(warped_gp.LAW, params, ratios_KM, bpb_KN)
    assert (scores.score(left_out_KN, bpb_KN).r2_N < 0.5).all()
    with pytest.raises(UserError, match="12 different mixtures"):
        quality.folds_of(ratios_KM, 13)


@pytest.mark.parametrize("name", ["log_linear", "bimix", "autoscale"])
def test_positive_laws_refuse_negative_losses(name):
    ratios_KM, bpb_KN = noisy_swarm()
    bpb_KN[3, 1] = -0.01
    with pytest.raises(UserError, match=f"{name} cannot predict negative losses.*fit.law=warped_gp.*: y$"):
        laws.LAWS[name].fit(ratios_KM, bpb_KN, tasks=("x", "y"))


def test_advice_on_folds_can_be_followed():
    """Two folds cannot be lowered to two: equal mixtures are the fault."""
    with pytest.raises(UserError, match="all runs have the same mixture, which determines no law"):
        quality.folds_of(np.full((5, 2), 0.5), 2)
    with pytest.raises(
        UserError, match="2 different mixtures cannot be split into 3 folds; set fit.folds to 2 or less"
    ):
        quality.folds_of(np.array([[0.5, 0.5], [0.4, 0.6], [0.4, 0.6]]), 3)
