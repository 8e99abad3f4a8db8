"""Figures of the proposal's dependence on its settings."""

import dataclasses

import pytest

from olmix_jax.propose.proposal_parts import Front, FrontPoint
from olmix_jax.report import settings_plots, style
from tests.report import samples


@pytest.fixture
def proposal(small):
    return samples.explored(small.proposal)


def test_paths_go_through_the_proposal(proposal):
    along_lambda, along_repeats = settings_plots.setting_paths(proposal)
    assert along_lambda.symbol == "λ" and along_repeats.symbol == "k"
    assert along_lambda.values_P.tolist() == [0.0, 0.05, 0.5] and along_lambda.used == 0.05
    assert along_lambda.bpb_P.tolist() == [1.1, 1.15, 1.25]
    assert along_repeats.bpb_P.tolist() == [1.2, 1.15] and along_repeats.weights_PM.shape == (2, 3)


def test_no_path_along_k_without_caps(proposal):
    path = proposal.path
    one = {name: tuple(row[1:] for row in getattr(path, name)) for name in ("weights", "predicted", "kl")}
    path = dataclasses.replace(path, max_repeats=(None,), **one, chosen={"kl_weight": 0.05, "max_repeats": None})
    uncapped = dataclasses.replace(proposal, path=path)
    assert [part.setting for part in settings_plots.setting_paths(uncapped)] == ["kl_weight"]
    assert settings_plots.setting_paths(dataclasses.replace(proposal, path=None)) == []


@pytest.mark.parametrize("width", [style.WIDE, style.NARROW])
def test_paths_name_the_domains(proposal, width):
    figure = settings_plots.paths(proposal, width)
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert len(figure.axes) == 4 and len(texts & {style.label(d, 18) for d in proposal.weights}) == 3


def test_choice_marks_selected_and_used(proposal):
    figure = settings_plots.choice(proposal.choice, proposal.kl_weight, style.WIDE)
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "selected: 0.01" in entries and "used by the proposal: 0.05" in entries


def test_choice_of_lambda_zero_is_drawn(proposal):
    choice = dataclasses.replace(proposal.choice, kl_weight=(0.0, 0.05))
    style.render(lambda width: settings_plots.choice(choice, 0.0, width))


def test_front_shows_the_families_that_vary_most(proposal):
    families = tuple("abcdef")
    points = [FrontPoint({}, {f: i * (j + 1) for j, f in enumerate(families)}, {}) for i in range(3)]
    many = Front(families, tuple(points), dict.fromkeys(families, 1.0), dict.fromkeys(families, 1.0))
    assert settings_plots.shown_families(many) == list("cdef")
    assert settings_plots.shown_families(proposal.pareto) == list(proposal.pareto.families)


def test_distant_natural_is_stated_instead_of_drawn(proposal):
    figure = settings_plots.front(proposal.pareto, style.WIDE)
    assert figure.axes[0].get_title() == "natural is outside the axes: 2.000, 2.100"
    near = dataclasses.replace(proposal.pareto, natural=proposal.pareto.proposed)
    assert settings_plots.front(near, style.WIDE).axes[0].get_title() == ""
