"""Figures of predicted changes by task and of the value of more data."""

import dataclasses

import numpy as np
import pytest

from olmix_jax.report import proposal_plots, style
from tests.report import samples


def test_changes_are_sorted_and_have_intervals(small):
    rows = proposal_plots.changes(samples.explored(small.proposal))
    assert [row.mean for row in rows.values()] == sorted(row.mean for row in rows.values())
    for task, row in rows.items():
        assert row.mean == small.proposal.predicted[task] - small.proposal.predicted_natural[task]
        assert row.high - row.low == pytest.approx(0.02)
    assert np.isnan([row.low for row in proposal_plots.changes(small.proposal).values()]).all()


def test_ranked_drops_zeros():
    assert proposal_plots.ranked({"a": 0.0, "b": 1.0, "c": 2.0}) == {"c": 2.0, "b": 1.0}
    assert proposal_plots.ranked(None) == {}


def test_binding_guard_is_bold(small):
    proposal = samples.explored(small.proposal)
    axes = proposal_plots.task_changes(proposal, style.WIDE).axes[0]
    bold = [tick.get_text() for tick in axes.get_yticklabels() if tick.get_fontweight() == "bold"]
    assert bold == list(proposal.guard.binding)


@pytest.mark.parametrize("width", [style.WIDE, style.NARROW])
def test_prices_have_a_panel_per_kind(small, width):
    both = proposal_plots.prices(samples.explored(small.proposal), width)
    units = ["BPB per billion more unique tokens", "BPB per additional allowed epoch"]
    assert [ax.get_xlabel() for ax in both.axes] == units
    assert [ax.get_xlabel() for ax in proposal_plots.prices(small.proposal, width).axes] == units[:1]


def test_prices_of_domains_that_do_not_bind_are_not_drawn(small):
    prices = dict.fromkeys(small.proposal.weights, 0.0) | {"source:topic_1:high": 2.0}
    figure = proposal_plots.prices(dataclasses.replace(small.proposal, shadow_prices=prices), style.WIDE)
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["source:topic_1:high"]
