"""Figures of an update."""

import pytest

from olmix_jax.report import style, update_plots, update_rows
from tests.report.update_samples import plan, update, with_reuse


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize("width", [style.WIDE, style.NARROW])
def test_mixture_has_a_colour_per_kind(width):
    results = update()
    figure = update_plots.mixture(update_rows.domain_rows(results, results.update), width)
    assert legend(figure) == [
        "old",
        "new, in the kept block",
        "new, recomputed although unaffected",
        "new, affected by the update",
        "natural",
    ]
    assert [text.get_text() for text in figure.axes[0].texts][-2:] == ["– → 10.0", "5.0 → –"]


@pytest.mark.parametrize("width", [style.WIDE, style.NARROW])
def test_loss_marks_the_chosen_candidate_and_the_new_law(width):
    results, rows = update(), update_rows.candidate_rows(plan())
    figure = update_plots.loss(rows, 0.05, results.proposal.reuse, width)
    assert legend(figure) == ["chosen", "not chosen", "kept ratios only, according to the new law"]
    unknown = with_reuse(results, loss=None)
    assert legend(update_plots.loss(rows, 0.05, unknown.proposal.reuse, width)) == ["chosen", "not chosen"]


def test_loss_without_gain_has_no_percent_axis():
    figure = update_plots.loss(update_rows.candidate_rows(plan())[2:], 0.0, None, style.WIDE)
    assert legend(figure) == ["chosen"] and not figure.axes[0].child_axes


def test_history_stacks_to_one_hundred_percent():
    results = update()
    rows = update_rows.history_rows(results, results.update)
    figure = update_plots.history(rows, style.WIDE)
    for y in range(2):
        bars = [bar for bar in figure.axes[0].patches if round(bar.get_y() + bar.get_height() / 2) == y]
        assert sum(bar.get_width() for bar in bars) == pytest.approx(100)
    assert "all others" in legend(figure)
