"""Scores of predictions: rank correlation, R², RMSE, and the scores on a held-out swarm."""

import types

import numpy as np
import pytest
import scipy.stats

from olmix_jax.laws import FittedLaw, log_linear, scores
from olmix_jax.utils.errors import UserError
from tests.laws.synthetic import noisy_swarm


def test_spearman_agrees_with_scipy_with_ties():
    rng = np.random.default_rng(0)
    a_KN, b_KN = rng.integers(0, 6, size=(30, 5)), rng.normal(size=(30, 5))
    expected_N = [scipy.stats.spearmanr(a_KN[:, i], b_KN[:, i]).statistic for i in range(5)]
    np.testing.assert_allclose(scores.spearman(a_KN, b_KN), expected_N, rtol=1e-12)


def test_constant_columns_score_zero():
    constant_KN, varied_KN = np.ones((4, 1)), np.arange(4.0)[:, None]
    assert scores.spearman(constant_KN, varied_KN) == 0
    result = scores.score(varied_KN, constant_KN)
    assert result.spearman_N == 0 and result.r2_N == 0 and result.spearman_of_mean == 0
    np.testing.assert_allclose(result.rmse_N, np.sqrt(1.5))


def test_scores_of_the_mean_differ_from_the_mean_of_scores():
    """Two tasks with opposite errors: each is predicted badly, their average exactly."""
    error_K = np.array([1.0, -3.0, 2.0])
    bpb_KN = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    result = scores.score(bpb_KN + np.stack([error_K, -error_K], axis=1), bpb_KN)
    assert result.spearman_of_mean == pytest.approx(1) and result.spearman_N.mean() < 0.8
    np.testing.assert_allclose(result.rmse_N, np.sqrt(14 / 3))
    np.testing.assert_allclose(result.r2_N, 1 - 14 / 2)


def test_score_swarm_matches_domains_and_tasks_by_name(caplog):
    ratios_KM, bpb_KN = noisy_swarm(noise=0.0)
    law = FittedLaw(log_linear.LAW, log_linear.fit(ratios_KM, bpb_KN, starts=4).params)
    table = types.SimpleNamespace(domains=("a", "b", "c"), tasks=("x", "y"), ratios_KM=ratios_KM, bpb_KN=bpb_KN)
    other = types.SimpleNamespace(
        domains=("c", "a", "b"),
        tasks=("extra", "y", "x"),
        runs=tuple(range(36)),
        ratios_KM=ratios_KM[:, [2, 0, 1]],
        bpb_KN=np.column_stack([np.zeros(36), bpb_KN[:, 1], bpb_KN[:, 0]]),
    )
    result = scores.score_swarm(law, table, other, np.full(2, 0.01))
    assert result.coverage == 1 and result.runs == result.runs_also_fitted == 36
    assert "36 of 36 held-out runs are also among the fitted runs" in caplog.text
    assert result.spearman_task_mean > 0.999 and result.spearman_of_mean > 0.999
    assert list(result.tasks) == ["x", "y"] and result.tasks["y"].r2 > 0.999
    other.domains = ("c", "a", "elsewhere")
    with pytest.raises(UserError, match="has b, elsewhere; make their columns agree"):
        scores.score_swarm(law, table, other, np.full(2, 0.01))
