"""Figures of training: losses of the swarm, and validation."""

import dataclasses

import numpy as np
import pytest

from olmix_jax.report import style, training_plots
from olmix_jax.report.estimates import Difference
from olmix_jax.report.results import Curves
from tests.report.samples import DIVERGED, TOKENS_PER_STEP


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_smoothed_is_a_mean_over_windows():
    loss_T = np.random.default_rng(0).normal(3, 1, 3000)
    x_P, loss_KP = training_plots.smoothed(Curves(("a",), np.arange(1, 3001), loss_T[None, :], 10))
    steps_P = x_P // 10
    assert len(x_P) <= 120 and steps_P[0] == 1 and steps_P[-1] == 3000 and (np.diff(steps_P) > 0).all()
    for start, end, value in zip([0, *steps_P[:-1]], steps_P, loss_KP[0]):
        assert value == pytest.approx(loss_T[start:end].mean())


def test_diverged_run_ends_in_nan(results):
    x_P, loss_KP = training_plots.smoothed(results.curves)
    assert x_P[-1] == 120 * TOKENS_PER_STEP and np.isfinite(loss_KP[4]).all()
    assert (np.isnan(loss_KP[3]) == (x_P > 60 * TOKENS_PER_STEP)).all()


def test_final_bpb_is_the_mean_over_tasks(results):
    bpb = training_plots.final_bpb(results)
    assert DIVERGED not in bpb and len(bpb) == 26
    assert bpb["run-000"] == pytest.approx(np.mean(results.table.bpb_KN[0]))
    assert training_plots.final_bpb(dataclasses.replace(results, table=None)) == {}


def test_nearest_run_has_the_smallest_distance_to_natural(results):
    natural_M = np.array(list(results.natural.values()))
    distances = {r: abs(row - natural_M).sum() for r, row in zip(results.table.runs, results.table.ratios_KM)}
    assert training_plots.nearest_to_natural(results) == min(distances, key=distances.get)


def test_swarm_curves_distinguish_diverged_and_unused_runs(small):
    nearest = training_plots.nearest_to_natural(small)
    entries = legend(training_plots.swarm_curves(small, small.curves, style.WIDE).axes[0])
    assert entries == ["diverged", f"{nearest}, closest to natural"]
    kept = {name: getattr(small.table, name)[:4] for name in ("runs", "names", "ratios_KM", "bpb_KN")}
    part = dataclasses.replace(small, table=dataclasses.replace(small.table, **kept))
    assert "not used in the fit" in legend(training_plots.swarm_curves(part, small.curves, style.WIDE).axes[0])


@pytest.mark.parametrize("width", [style.WIDE, style.NARROW])
def test_validation_lists_mixtures_with_errors(small, width):
    axes = training_plots.validation(small.validation, width).axes[0]
    ticks = [tick.get_text().split("\n") for tick in axes.get_yticklabels()]
    assert ticks[0] == ["natural", "1.0000 ± 0.0058"] and [name for name, _ in ticks][1:] == ["uniform", "proposed"]


def test_validation_curves_have_a_colour_per_mixture(small):
    axes = training_plots.validation_curves(small.validation_curves, style.WIDE).axes[0]
    assert legend(axes) == ["natural", "uniform", "proposed"] and len(axes.lines) == 9


def test_validation_tasks_are_sorted_by_difference(results):
    axes = training_plots.validation_tasks(results.validation, results.proposal, style.WIDE).axes[0]
    widths = [bar.get_width() for bar in axes.patches]
    assert len(widths) == 12 and widths == sorted(widths)


def test_only_significant_differences_are_coloured():
    colours = {Difference(-0.03, 0.01): style.PROPOSED, Difference(0.03, 0.01): style.BAD}
    colours |= {Difference(0.01, 0.01): style.NATURAL, Difference(0.03, None): style.NATURAL}
    assert [training_plots.difference_colour(difference) for difference in colours] == list(colours.values())
