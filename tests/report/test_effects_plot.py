"""Heat map of the effect of each domain on each task."""

import dataclasses

import numpy as np
import pytest

from olmix_jax.report import effects_plot, style
from tests.report import samples


@pytest.fixture
def fit(small):
    """A fit whose three tasks have effects for two domains, for none, and for three."""
    row = next(iter(small.fit.tasks.values()))
    effects = {"a": {"x": -0.01, "y": 0.02}, "b": {}, "c": {"x": 0.03, "z": 0.0}}
    tasks = {task: dataclasses.replace(row, effects=values) for task, values in effects.items()}
    return dataclasses.replace(small.fit, tasks=tasks, base={"z": 0.5, "x": 0.3, "y": 0.2})


def test_effects_are_sorted_by_natural_share(fit):
    domains, effect_NM = effects_plot.effects_NM(fit, {"y": 0.7, "x": 0.2, "z": 0.1})
    assert domains == ["y", "x", "z"]
    np.testing.assert_array_equal(effect_NM, [[0.02, -0.01, np.nan], [np.nan, 0.03, 0.0]])


def test_effects_are_sorted_by_base_if_natural_is_unknown(fit):
    assert effects_plot.effects_NM(fit)[0] == ["z", "x", "y"]


def test_numbers_in_cells_are_short():
    expected = {0.0123: "+.012", -0.0004: "0", -0.5: "−.500", 1.23: "+1.2", -0.9999: "−1.0"}
    assert [effects_plot.short_number(value) for value in expected] == list(expected.values())


def test_many_tasks_are_cut_to_those_with_large_changes():
    change_NM = np.arange(150.0)[:, None]
    rows = effects_plot.shown_rows(change_NM)
    assert rows == [0, *range(30, 150)]
    assert effects_plot.shown_rows(change_NM[:121]) == list(range(121))


def test_many_domains_are_cut_to_those_with_large_effects():
    effect_NM = np.arange(100.0)[None] * np.array([[1.0], [-1.0]])
    assert effects_plot.shown_columns(effect_NM) == list(range(100 - style.MAX_DOMAINS, 100))
    assert effects_plot.shown_columns(effect_NM[:, :64]) == list(range(64))


def test_never_sampled_domains_have_no_numbers(small):
    unseen = samples.with_fit(small, unseen=(small.domains.names[0],)).fit
    figure = effects_plot.effects(unseen, small.natural, {}, style.WIDE)
    assert sum("(never sampled)" in tick.get_text() for tick in figure.axes[0].get_xticklabels()) == 1
    # A mean and two tasks, for the two other domains.
    assert len(figure.axes[0].texts) == 6
    everything = samples.with_fit(small, unseen=small.domains.names).fit
    style.render(lambda width: effects_plot.effects(everything, small.natural, {}, width))


def test_narrow_figure_keeps_legible_cells():
    fit = samples.first_run(domains=24, tasks=3, runs=9, steps=3).fit
    assert effects_plot.effects(fit, None, {}, style.NARROW).get_size_inches()[0] > style.NARROW
