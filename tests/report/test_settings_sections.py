"""Sections about the proposal's dependence on its settings."""

import dataclasses

import pytest

from olmix_jax.propose.proposal_parts import Sensitivity
from olmix_jax.report import settings_sections
from tests.report import samples
from tests.report.samples import HOSTILE, no_figure


@pytest.fixture
def everything(small):
    return dataclasses.replace(small, proposal=samples.explored(small.proposal))


def captions(results):
    sections = settings_sections.sections(results, no_figure)
    return {section.title: section.figures[0].caption for section in sections if section.figures}


def test_sections_depend_on_the_data(small, everything):
    assert list(settings_sections.sections(small, no_figure)) == []
    assert [section.title for section in settings_sections.sections(everything, no_figure)] == [
        "Mixture for other λ and other repetition limits",
        "Sensitivity to settings",
        "Selecting λ from the data",
        "Trade-offs between families of tasks",
    ]


def test_path_caption_states_both_ends(everything):
    caption = captions(everything)["Mixture for other λ and other repetition limits"]
    assert "1.1000 BPB at λ = 0, 1.2500 BPB at λ = 0.5 (proposal: λ = 0.05)" in caption
    assert "1.2000 BPB at k = 2, 1.1500 BPB at k = 4 (proposal: k = 4)" in caption


def test_ignored_settings_are_named(everything):
    without = samples.with_proposal(everything, explored_without=("guard", "tail"))
    text = "These optima ignore propose.guard and propose.tail, which the proposal respects."
    shown = captions(without)
    assert text in shown["Trade-offs between families of tasks"]
    assert text in shown["Mixture for other λ and other repetition limits"]
    assert not any(text in caption for caption in captions(everything).values())


def test_choice_caption_says_which_lambda_is_used(everything):
    title = "Selecting λ from the data"
    assert captions(everything)[title].startswith(
        "Held-out data select λ = 0.01; the proposal uses λ = 0.05, as configured."
    )
    choice = dataclasses.replace(everything.proposal.choice, used=True)
    used = samples.with_proposal(everything, choice=choice, kl_weight=0.01)
    assert captions(used)[title].startswith("Held-out data select λ = 0.01, and the proposal uses it.")


def test_choice_caption_has_the_gain_that_did_not_select(everything):
    title = "Selecting λ from the data"
    assert "other splits" not in captions(everything)[title]
    choice = dataclasses.replace(everything.proposal.choice, held_out_gain=0.09, held_out_gain_error=0.03)
    caption = captions(samples.with_proposal(everything, choice=choice))[title]
    assert "has a gain of 0.1000 BPB by the splits that selected it" in caption
    assert caption.endswith("at the λ that the other splits select is 0.0900 ± 0.0300 BPB.")


def test_sensitivity_is_scaled_to_small_changes(everything):
    first, second, third = everything.proposal.weights
    sensitivity = Sensitivity(
        kl_weight={first: 4.0, second: -3.0, third: -1.0},
        caps={HOSTILE: {first: 1.0, second: 0.0, third: -1.0}},
        task_weights=dict.fromkeys(("task", "other"), {first: 0.0, second: 0.0, third: 0.0}),
    )
    (table,) = settings_sections.sensitivity_tables(
        dataclasses.replace(everything.proposal, sensitivity=sensitivity, kl_weight=0.05)
    )
    # λ changes by 0.005, caps and task weights by 0.01; moves are in percentage points.
    assert [row.cells for row in table.rows] == [
        ("λ from 0.05 to 0.055", f"{first} +2.00", f"{second} −1.50, {third} −0.50"),
        (f"cap of {HOSTILE} + 1 point", f"{first} +1.00", f"{third} −1.00"),
        ("weight of task task + 1 point", "none", "none"),
        ("weight of task other + 1 point", "none", "none"),
    ]
    assert not table.collapsed
    one = dataclasses.replace(sensitivity, task_weights={"task": {first: 0.0, second: 0.0, third: 0.0}})
    (table,) = settings_sections.sensitivity_tables(dataclasses.replace(everything.proposal, sensitivity=one))
    assert len(table.rows) == 2


def test_settings_with_smaller_effects_are_collapsed(everything):
    move = dict.fromkeys(everything.proposal.weights, 0.0)
    sensitivity = Sensitivity(kl_weight=move, caps={}, task_weights={f"task {i}": move for i in range(20)})
    proposal = dataclasses.replace(everything.proposal, sensitivity=sensitivity)
    largest, others = settings_sections.sensitivity_tables(proposal)
    assert (len(largest.rows), len(others.rows)) == (8, 13)
    assert others.collapsed and not largest.collapsed
