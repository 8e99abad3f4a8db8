"""Sections about the proposal: captions, and which sections there are."""

import dataclasses

from olmix_jax.report import proposal_sections
from tests.report import samples
from tests.report.samples import HOSTILE_TASK, no_figure


def mixture_caption(results):
    return proposal_sections.mixture_section(results, no_figure).figures[0].caption


def test_mixture_without_a_proposal_names_the_stages(small):
    section = proposal_sections.mixture_section(dataclasses.replace(small, proposal=None), no_figure)
    assert section.note == "No proposal yet; run --stages=propose,report." and not section.figures


def test_mixture_caption_explains_what_is_drawn(small):
    everything = mixture_caption(dataclasses.replace(small, proposal=samples.explored(small.proposal)))
    assert "Thin lines: 5–95 %" in everything and "Green marks: lower bounds." in everything
    assert "Hollow diamonds: the anchor" in everything
    assert not any(mark in mixture_caption(small) for mark in ("Thin lines", "Green marks", "Hollow diamonds"))


def test_mixture_caption_says_why_there_are_no_intervals(small):
    caption = mixture_caption(samples.with_proposal(small, no_weight_intervals="a search gives none"))
    assert "Weights have no intervals: a search gives none." in caption


def test_mixture_caption_names_the_configured_bounds(small):
    bounded = samples.with_proposal(small, capped_by=dict.fromkeys(small.proposal.weights, "bound"))
    assert "the repetition limit or propose.bounds allows" in mixture_caption(bounded)
    assert "propose.bounds" not in mixture_caption(small)


def test_alternative_text_names_the_largest_weights(results):
    text = proposal_sections.mixture_alt(results.proposal)
    largest = max(results.proposal.weights, key=results.proposal.weights.get)
    assert text.startswith(f"Bars: natural and proposed weight of 8 domains. Largest: {largest} ")


def test_sections_depend_on_the_data(small):
    titles = [section.title for section in proposal_sections.sections(small, no_figure)]
    assert titles == ["Predicted change by task", "Which data to collect next"]
    without = samples.with_proposal(small, shadow_prices=None)
    assert [section.title for section in proposal_sections.sections(without, no_figure)] == titles[:1]
    assert list(proposal_sections.sections(dataclasses.replace(small, proposal=None), no_figure)) == []


def test_task_changes_count_and_name_worse_tasks(small):
    predicted = {task: bpb + 1 for task, bpb in small.proposal.predicted_natural.items()}
    worse = samples.with_proposal(small, predicted=predicted | {HOSTILE_TASK: 0.0})
    caption = next(proposal_sections.sections(worse, no_figure)).figures[0].caption
    assert caption.startswith("Predicted equal to or better than natural: 1 of 2 tasks; 1 worse, led by minerva")


def test_task_changes_explain_the_guard(small):
    proposal = samples.explored(small.proposal)
    by_task = dataclasses.replace(small, proposal=proposal)
    by_family = samples.with_proposal(by_task, guard=dataclasses.replace(proposal.guard, by="family"))
    captions = [next(proposal_sections.sections(r, no_figure)).figures[0].caption for r in (by_task, by_family)]
    assert "the largest rise that the BPB of every task may have. Bold" in captions[0]
    assert "the largest rise that the mean of every family may have." in captions[1] and "Bold" not in captions[1]


def test_files_for_trainers_are_listed_if_there_are_any(small):
    assert list(proposal_sections.export_section(small)) == []
    everything = dataclasses.replace(small, proposal=samples.explored(small.proposal))
    (section,) = proposal_sections.export_section(everything)
    assert section.tables[0].rows[0].cells == ("megatron", "propose/handover/<megatron>.json", "0.012")
