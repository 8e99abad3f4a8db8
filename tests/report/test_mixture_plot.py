"""Bar chart of the natural and the proposed mixture."""

import dataclasses

import numpy as np
import pytest

from olmix_jax.report import mixture_plot, style
from tests.report import samples
from tests.report.samples import HOSTILE


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_text_names_the_limit_of_each_domain(small):
    _, bounded, free = small.proposal.weights
    changes = {"caps": small.proposal.caps | {bounded: small.proposal.weights[bounded]}}
    changes["capped_by"] = small.proposal.capped_by | {bounded: "bound"}
    proposal = dataclasses.replace(small.proposal, **changes)
    assert mixture_plot.weight_text(proposal, HOSTILE).endswith(", 4× (cap)")
    assert mixture_plot.weight_text(proposal, bounded).endswith("× (bound)")
    assert mixture_plot.weight_text(proposal, free).endswith("×")
    entries = legend(mixture_plot.mixture(proposal, style.WIDE))
    assert "repetition cap or bound" in entries and "proposed, at its cap or bound" in entries


def test_text_without_epochs_is_the_weight(small):
    proposal = dataclasses.replace(small.proposal, repeats=None, caps=dict.fromkeys(small.proposal.weights))
    name = small.domains.names[1]
    assert mixture_plot.weight_text(proposal, name) == f"{100 * proposal.weights[name]:.1f} %"


def test_weight_intervals_prefer_quantiles(small):
    names = list(small.proposal.weights)
    weights_M = 100 * np.array(list(small.proposal.weights.values()))
    assert np.isnan(mixture_plot.weight_intervals(small.proposal, names)).all()
    std = dataclasses.replace(small.proposal, weights_std=dict.fromkeys(names, 0.01))
    low_M, high_M = mixture_plot.weight_intervals(std, names)
    np.testing.assert_allclose(low_M, np.maximum(weights_M - 1, 0))
    np.testing.assert_allclose(high_M, weights_M + 1)
    both = dataclasses.replace(samples.explored(small.proposal), weights_std=std.weights_std)
    np.testing.assert_allclose(mixture_plot.weight_intervals(both, names), [weights_M / 2, weights_M * 1.5])


@pytest.mark.parametrize("width", [style.WIDE, style.NARROW])
def test_optional_marks_are_in_the_legend(small, width):
    entries = legend(mixture_plot.mixture(samples.explored(small.proposal), width))
    assert {"lower bound", "anchor", "5–95 %", "repetition cap"} <= set(entries)
    assert not {"lower bound", "anchor", "5–95 %"} & set(legend(mixture_plot.mixture(small.proposal, width)))


def test_many_domains_are_cut_to_the_largest_and_a_row_of_sums(small):
    many = 100
    natural = {f"d{j}": float(w) for j, w in enumerate(np.arange(1, many + 1) / (many * (many + 1) / 2))}
    weights = dict(zip(natural, reversed(natural.values())))
    no_limits = dict.fromkeys(natural)
    changes = {"natural": natural, "weights": weights, "caps": no_limits, "lower": no_limits, "capped_by": no_limits}
    proposal = dataclasses.replace(small.proposal, **changes, repeats=None)
    shown = mixture_plot.shown_domains(proposal)
    # Both the largest natural shares and the largest proposed weights are drawn.
    assert len(shown) == style.MAX_DOMAINS and shown[0] == "d99" and shown[-1] == "d0"
    (axes,) = mixture_plot.mixture(proposal, style.WIDE).axes
    assert [text.get_text() for text in axes.get_yticklabels()][-1] == "sum of 36 other domains"
    rest = 100 * (1 - sum(natural[d] for d in shown))
    assert f"{rest:.1f} → {rest:.1f} %" in [text.get_text() for text in axes.texts]


def test_worst_mixture_is_named_in_the_legend(small):
    worst = dataclasses.replace(small.proposal, worst=True)
    assert "WORST mixture" in legend(mixture_plot.mixture(worst, style.WIDE))
