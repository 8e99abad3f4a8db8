"""Held-out quality: held out by construction, deterministic, and never a NaN."""

import types

import numpy as np
import pytest
import scipy.stats

from olmix_jax import laws
from olmix_jax.errors import UserError
from olmix_jax.laws import log_linear, quality


def noisy_swarm(runs=36, domains=3, tasks=2, noise=0.02):
    rng = np.random.default_rng(0)
    ratios_KM = rng.dirichlet(np.ones(domains), size=runs)
    params = log_linear.Params(np.log(np.full(tasks, 0.5)), rng.normal(size=(tasks, domains)))
    return ratios_KM, laws.evaluate(log_linear.predict, params, ratios_KM) + noise * rng.normal(size=(runs, tasks))


def test_a_good_law_scores_well():
    result = quality.cross_validate(log_linear, *noisy_swarm(), folds=4, starts=4)
    assert result.predicted_KN.shape == (36, 2)
    assert (np.bincount(result.fold_K) == 9).all()
    assert (result.spearman_N > 0.9).all() and (result.r2_N > 0.9).all() and result.spearman_of_mean > 0.9
    assert (result.rmse_N < 0.04).all() and (result.rmse_N > 0.01).all()


def test_a_run_does_not_influence_its_own_prediction():
    """PITFALL 13: change what one fold measured, and the predictions for that fold stay, the others' move."""
    ratios_KM, bpb_KN = noisy_swarm()
    before = quality.cross_validate(log_linear, ratios_KM, bpb_KN, folds=4, starts=4)
    left_out = before.fold_K == 2
    bpb_KN[left_out] += np.random.default_rng(1).uniform(0.5, 1.5, size=(left_out.sum(), 2))
    after = quality.cross_validate(log_linear, ratios_KM, bpb_KN, folds=4, starts=4)
    np.testing.assert_array_equal(before.predicted_KN[left_out], after.predicted_KN[left_out])
    assert (before.predicted_KN[~left_out] != after.predicted_KN[~left_out]).all()


def test_noise_is_not_predicted():
    """A law with almost as many parameters as runs fits noise in-sample; held out it must not look good."""
    rng = np.random.default_rng(4)
    ratios_KM, bpb_KN = rng.dirichlet(np.ones(16), size=24), rng.uniform(1, 2, size=(24, 2))
    held_out = quality.cross_validate(log_linear, ratios_KM, bpb_KN, folds=4, starts=4)
    params = log_linear.fit_weighted(ratios_KM, bpb_KN, np.ones((4, 24)), starts=4)
    first = log_linear.Params(*(x[0] for x in params))
    seen_N = quality.spearman(laws.evaluate(log_linear.predict, first, ratios_KM), bpb_KN)
    assert (seen_N > 0.6).all()
    assert (held_out.spearman_N < 0.5).all() and (held_out.r2_N < 0.2).all()


def test_leave_one_out_and_any_law():
    """Each prediction comes from the fit of its own fold: here a 'law' that predicts the mean of its rows."""

    def fit_weighted(ratios_KM, bpb_KN, weight_RK, *, starts, seed, tasks):
        return (weight_RK @ bpb_KN) / weight_RK.sum(axis=1)[:, None]

    mean_law = types.SimpleNamespace(
        fit_weighted=fit_weighted, predict=lambda mean_N, ratios_KM: mean_N[None, :] + 0 * ratios_KM[:, :1]
    )
    bpb_KN = np.array([[1.0, 2.0], [2.0, 4.0], [6.0, 0.0]])
    result = quality.cross_validate(mean_law, np.eye(3), bpb_KN, folds=3)
    np.testing.assert_allclose(result.predicted_KN, (bpb_KN.sum(axis=0)[None, :] - bpb_KN) / 2)
    np.testing.assert_allclose(result.spearman_N, -1)


def test_folds_depend_on_the_seed_alone():
    args = noisy_swarm()
    first, again, other = (quality.cross_validate(log_linear, *args, folds=4, starts=4, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.predicted_KN, again.predicted_KN)
    assert (first.fold_K != other.fold_K).any()


@pytest.mark.parametrize("runs, folds, message", [(4, 5, "4 runs.*fit.folds to 4"), (4, 1, "2 folds or more")])
def test_bad_folds(runs, folds, message):
    with pytest.raises(UserError, match=message):
        quality.cross_validate(log_linear, *noisy_swarm(runs=runs), folds=folds)


def test_spearman_agrees_with_scipy_and_shares_ties():
    rng = np.random.default_rng(0)
    a_KN, b_KN = rng.integers(0, 6, size=(30, 5)), rng.normal(size=(30, 5))
    expected_N = [scipy.stats.spearmanr(a_KN[:, i], b_KN[:, i]).statistic for i in range(5)]
    np.testing.assert_allclose(quality.spearman(a_KN, b_KN), expected_N, rtol=1e-12)


def test_constants_score_zero():
    constant_KN, varied_KN = np.ones((4, 1)), np.arange(4.0)[:, None]
    assert quality.spearman(constant_KN, varied_KN) == 0
    spearman_N, r2_N, rmse_N, of_mean = quality.scores(varied_KN, constant_KN)
    assert spearman_N == 0 and r2_N == 0 and of_mean == 0
    np.testing.assert_allclose(rmse_N, np.sqrt(1.5))


def test_scores_on_another_swarm_match_names():
    ratios_KM, bpb_KN = noisy_swarm(noise=0.0)
    params = log_linear.fit(ratios_KM, bpb_KN, starts=4).params
    fitted = types.SimpleNamespace(domains=("a", "b", "c"), tasks=("x", "y"), runs=())
    order = [2, 0, 1]
    other = types.SimpleNamespace(
        domains=("c", "a", "b"),
        tasks=("extra", "y", "x"),
        runs=tuple(range(36)),
        ratios_KM=ratios_KM[:, order],
        bpb_KN=np.column_stack([np.zeros(36), bpb_KN[:, 1], bpb_KN[:, 0]]),
    )
    result = quality.scores_on(log_linear, params, fitted, other)
    assert result["spearman_task_mean"] > 0.999 and result["spearman_of_mean"] > 0.999 and result["runs"] == 36
    other.domains = ("c", "a", "elsewhere")
    with pytest.raises(UserError, match="b, elsewhere"):
        quality.scores_on(log_linear, params, fitted, other)
