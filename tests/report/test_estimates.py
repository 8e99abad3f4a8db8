"""Means over seeds with standard errors, and their comparison."""

import numpy as np
import pytest

from olmix_jax.report import estimates
from olmix_jax.report.estimates import Difference, compare, estimate


def test_comparison_adds_the_errors_of_both():
    a, b = estimate([1.0, 2.0, 3.0]), estimate([4.0, 6.0])
    assert a.error == pytest.approx(1 / np.sqrt(3)) and b.error == pytest.approx(1.0)
    comparison = compare(a, b)
    assert comparison.percent == pytest.approx(60) and comparison.errors == pytest.approx(3 / np.sqrt(4 / 3))


def test_losses_below_zero_have_no_percentages():
    for this, other in ((-0.03, 0.01), (0.01, -0.03), (-0.02, -0.01)):
        assert compare(estimate([this]), estimate([other])).percent is None


def test_no_standard_errors_without_spread():
    assert compare(estimate([1.0, 1.0]), estimate([2.0, 2.0])).errors is None
    assert estimate([1.0]).error is None


def test_difference_is_significant_beyond_two_errors():
    assert Difference(0.03, 0.01).worse and not Difference(0.01, 0.01).significant
    assert Difference(-0.03, 0.01).significant and not Difference(-0.03, 0.01).worse
    assert not Difference(0.03, None).significant


def test_task_differences_have_the_error_of_two_means(results):
    differences = estimates.task_differences(results.validation)
    proposed, natural = (results.validation.mixtures[m] for m in ("proposed", "natural"))
    for task, difference in differences.items():
        assert difference.mean == proposed.tasks[task].mean - natural.tasks[task].mean
        # Both standard deviations are 0.02, from three seeds.
        assert difference.error == pytest.approx(0.02 * np.sqrt(2 / 3))


def test_predictions_are_means_over_tasks(results):
    proposed, natural = estimates.predicted(results.proposal)
    assert proposed.mean == pytest.approx(np.mean(list(results.proposal.predicted.values())))
    differences = estimates.predicted_differences(results.proposal)
    assert proposed.mean - natural.mean == pytest.approx(np.mean(list(differences.values())))
    assert estimates.predicted_differences(None) == {}
