"""Figures of the law's quality."""

import dataclasses

import numpy as np
import pytest

from olmix_jax.report import law_plots, style
from olmix_jax.report.law_plots import HeldOut
from tests.report import samples


def test_held_out_runs_match_the_stated_coverage(results):
    for task, row in results.fit.tasks.items():
        assert law_plots.held_out(results.fit, task).inside_K.mean() == pytest.approx(row.coverage_cv)


def test_average_has_its_own_intervals(results):
    average = law_plots.held_out_average(results.fit)
    np.testing.assert_allclose(average.measured_K, np.mean(list(results.fit.measured.values()), axis=0))
    np.testing.assert_allclose(average.high_K - average.low_K, 0.02)


def test_panel_title_states_all_scores():
    measured_K = np.array([1.0, 2.0, 3.0, 4.0])
    runs = HeldOut(measured_K, measured_K + 0.5, measured_K - 1, np.array([9, 9, 9, 0.0]))
    # R² = 1 − 4·0.25 / (2·1.5² + 2·0.5²) = 0.8.
    assert law_plots.score_lines(runs, 1.0) == ["Spearman 1.00, R² 0.80", "RMSE 0.5, 75 % inside"]
    constant = HeldOut(np.ones(4), measured_K, np.zeros(4), 9 * np.ones(4))
    assert law_plots.score_lines(constant, 0.0)[0] == "Spearman 0.00"


def test_panels_show_worst_median_and_best_tasks():
    fit = samples.first_run(domains=3, tasks=130, runs=9, steps=3).fit
    ranks = {task: row.spearman_cv for task, row in fit.tasks.items()}
    ordered = sorted(ranks, key=ranks.get)
    assert law_plots.panels(fit) == ordered[:4] + ordered[64:67] + ordered[-4:]


def test_few_tasks_all_have_panels(small):
    spearman = [small.fit.tasks[task].spearman_cv for task in law_plots.panels(small.fit)]
    assert len(spearman) == 2 and spearman == sorted(spearman)


@pytest.mark.parametrize("width", [style.WIDE, style.NARROW])
def test_predicted_has_a_panel_for_the_average_and_each_task(small, width):
    titles = [ax.get_title().split("\n")[0] for ax in law_plots.predicted(small.fit, width).axes if ax.axison]
    assert titles[0] == "average of tasks" and len(titles) == 3


def test_single_fits_stand_at_the_runs_of_their_laws(results):
    # Cross-validation fits on four fifths of the 26 runs, leave-one-out on all but one.
    cv, loo = law_plots.single_fits(results.fit, 0.8, 0.9)
    assert (cv.runs, cv.value, loo.runs, loo.value) == (pytest.approx(20.8), 0.8, 25, 0.9)
    assert len(law_plots.single_fits(results.fit, 0.8, None)) == 1


@pytest.mark.parametrize("width", [style.WIDE, style.NARROW])
def test_learning_shows_both_scores_and_the_extrapolation(small, width):
    curve = small.fit.learning_curve
    figure = law_plots.learning(small.fit, curve, width)
    assert [ax.get_ylabel() for ax in figure.axes] == ["held-out Spearman", "held-out RMSE, mean over tasks, BPB"]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert f"extrapolated to {curve.next.runs} runs" in legend and "quick leave-one-out" in legend


def test_learning_curve_with_one_point_is_drawn(small):
    one = {"runs": (6,), "spearman_mean": (0.7,), "spearman_mean_error": (0.1,)}
    curve = dataclasses.replace(small.fit.learning_curve, **one, spearman_of_mean=(0.8,), rmse_mean=(0.02,))
    style.render(lambda width: law_plots.learning(small.fit, curve, width))


def test_task_coverage_is_sorted(results):
    shares = list(law_plots.task_coverage(results.fit).values())
    assert shares == sorted(shares) and len(shares) == 12


def test_coverage_draws_a_curve_and_a_dot_per_task(results):
    curve, dots = law_plots.coverage(results.fit, style.WIDE).axes
    assert curve.get_xlabel() == "nominal level of the interval, %"
    assert len(dots.collections[0].get_offsets()) == 12
