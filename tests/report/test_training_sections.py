"""Sections about training."""

import dataclasses

from olmix_jax.report import training_sections
from tests.report.samples import no_figure


def test_validation_has_three_figures(small):
    section = training_sections.validation_section(small, no_figure)
    assert [figure.name for figure in section.figures] == ["validation", "validation_tasks", "validation_curves"]
    assert "proposed 0.9000 ± 0.0058" in section.figures[0].alt


def test_validation_without_curves_has_two_figures(small):
    section = training_sections.validation_section(dataclasses.replace(small, validation_curves=None), no_figure)
    assert [figure.name for figure in section.figures] == ["validation", "validation_tasks"]


def test_missing_validation_has_a_note(small):
    missing = training_sections.validation_section(dataclasses.replace(small, validation=None), no_figure)
    assert missing.note.startswith("No models were trained on the proposal (stage validate).")
    mixtures = {"proposed": small.validation.mixtures["proposed"]}
    alone = dataclasses.replace(small, validation=dataclasses.replace(small.validation, mixtures=mixtures))
    note = training_sections.validation_section(alone, no_figure).note
    assert note == "validate/validation.json lacks the natural or the proposed mixture."


def test_swarm_trained_elsewhere_has_no_curves(small):
    assert training_sections.swarm_section(small, no_figure).figures[0].name == "curves"
    external = training_sections.swarm_section(dataclasses.replace(small, curves=None, training=None), no_figure)
    assert external.note == "There are no training curves: the swarm was trained elsewhere."


def test_caption_of_curves_says_what_branches_share(results):
    info = dataclasses.replace(results.training, trunk_tokens=384_000)
    for training, shared in ((results.training, False), (info, True)):
        section = training_sections.swarm_section(dataclasses.replace(results, training=training), no_figure)
        assert ("All proxies share the first 384k tokens." in section.figures[0].caption) is shared
