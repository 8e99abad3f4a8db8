"""Figure of equivalent compute: lines, natural's final BPB, the crossing and its interval."""

import dataclasses

import numpy as np
import pytest

from olmix_jax.report import compute_plot, style
from tests.report import samples


@pytest.mark.parametrize("width", [style.WIDE, style.NARROW])
def test_lines_cross_natural_at_the_equivalent_compute(small, width):
    scores = samples.scored(small).validation
    axes = compute_plot.bpb_curves(scores, width).axes[0]
    entries = [text.get_text() for text in axes.get_legend().get_texts()]
    assert entries == ["natural", "uniform", "proposed", "natural’s final BPB"]
    lines = {line.get_label(): line for line in axes.lines}
    np.testing.assert_allclose(lines["proposed"].get_xdata(), scores.scored_tokens)
    assert lines["proposed"].get_ydata()[-1] == pytest.approx(0.9) and lines["natural’s final BPB"].get_ydata()[0] == 1
    crossing, interval = axes.lines[-2:]
    # The models of a seed differ by 0.1 BPB, without error.
    assert crossing.get_xydata().tolist() == [[pytest.approx(scores.tokens / 2), 1.0]]
    assert interval.get_xdata() == pytest.approx([scores.tokens / 2] * 2)
    assert "tokens" in axes.get_xlabel() and "BPB" in axes.get_ylabel()


def test_crossing_that_is_not_reached_is_not_drawn(small):
    scores = samples.scored(small, goal=0.8).validation
    assert scores.equivalent_compute.ratio is None
    assert len(compute_plot.bpb_curves(scores, style.WIDE).axes[0].lines) == 4


def test_figure_starts_before_the_crossing(small):
    compute = samples.scored(small).validation.equivalent_compute
    first = compute_plot.first_tokens(dataclasses.replace(compute, ratio=1.1, high=None), 800)
    assert first == 200
    assert compute_plot.first_tokens(dataclasses.replace(compute, ratio=3.0, high=5.0), 800) == pytest.approx(112)
