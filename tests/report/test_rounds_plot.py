"""The figure of promised and measured gains by round."""

import numpy as np
import pytest

from olmix_jax.report import rounds_plot, style
from olmix_jax.swarm.rounds import Round


def a_round(promised, measured=None, **more) -> Round:
    return Round({"a": 1.0}, {"a": 1.0}, {"t": 1.0}, promised, measured=measured, **more)


def ends(container) -> np.ndarray:
    """Ends of the vertical error bars, a row per point."""
    (lines,) = container.lines[2]
    return np.array([segment[:, 1] for segment in lines.get_segments()])


@pytest.mark.parametrize("width", [style.WIDE, style.NARROW])
def test_intervals_and_errors_are_drawn_in_bpb(width):
    rounds = [a_round(0.05, 0.02, low=0.03, high=0.09, error=0.01), a_round(0.04), a_round(0.03, 0.04, high=0.0)]
    axes = rounds_plot.gains(rounds, width).axes[0]
    promised, measured = axes.containers
    np.testing.assert_allclose(ends(promised)[:2], [[0.03, 0.09], [0.04, 0.04]])
    np.testing.assert_allclose(ends(measured), [[0.01, 0.03], [0.04, 0.04]])
    np.testing.assert_allclose(measured.lines[0].get_xdata(), [1.1, 3.1])
    assert axes.get_ylabel() == "gain over natural, BPB" and axes.get_xticks().tolist() == [1, 2, 3]


def test_rounds_without_a_measurement_are_drawn():
    promised, measured = rounds_plot.gains([a_round(0.05)], style.WIDE).axes[0].containers
    assert len(ends(promised)) == 1 and len(measured.lines[0].get_xdata()) == 0
