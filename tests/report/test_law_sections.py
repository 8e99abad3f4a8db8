"""Sections about the law."""

import dataclasses

from olmix_jax.laws.cheap_result import CheapRuns
from olmix_jax.laws.fit_result import Over
from olmix_jax.propose.next_kinds import NextKinds
from olmix_jax.report import law_sections
from tests.report import samples
from tests.report.samples import no_figure


def sections(results):
    return {section.title: section for section in law_sections.sections(results, no_figure)}


def test_all_sections_of_a_fit(results):
    figures = [section.figures[0].name for section in sections(results).values()]
    assert figures == ["predicted", "coverage", "learning", "effects"]


def test_missing_law_names_the_stages(small):
    (section,) = law_sections.sections(dataclasses.replace(small, fit=None), no_figure)
    assert section.note == "No law yet; run --stages=fit,propose,report."


def test_learning_text_states_the_expected_change(results):
    # 26 of 27 runs finished.
    curve = results.fit.learning_curve
    text = (
        "With 10 more runs than the present 26, Spearman is expected to go from 0.876 to 0.879 and RMSE from 0.0147 to "
        "0.0142 BPB"
    )
    within = f"{text}; the change in Spearman is within the standard error of the curve."
    assert law_sections.learning_text(curve) == within
    certain = dataclasses.replace(curve, spearman_mean_error=(0.03, 0.02, 0.001))
    assert law_sections.learning_text(certain) == f"{text}."
    caption = sections(results)["Expected benefit of more runs"].figures[0].caption
    assert caption.startswith(within) and "mean over 4 random subsets" in caption


def test_next_runs_state_the_remaining_uncertainty(small):
    proposal = dataclasses.replace(small.proposal, next_runs={"next-0000": 0.97, "next-0001": 0.91})
    text = "Training 2 mixtures of propose/next.csv would reduce the law’s standard deviation to 91 %"
    assert text in law_sections.next_runs_text(proposal)
    longer = dataclasses.replace(proposal, next_tokens=2.5e9)
    assert "present value, if each is trained on 2.5B tokens, as the median run." in law_sections.next_runs_text(longer)
    assert law_sections.next_runs_text(small.proposal) == law_sections.next_runs_text(None) == ""


def test_next_runs_of_both_kinds_are_counted(small):
    kinds = NextKinds(1, 1, True, 0.1, 0.91, 0.95)
    proposal = dataclasses.replace(small.proposal, next_runs={"next-0000": 0.97, "cheap-0001": 0.91}, next_kinds=kinds)
    assert "present value. The next runs are 1 real run and 1 cheap run, at" in law_sections.next_runs_text(proposal)


def test_coverage_text_names_the_lowest_tasks(results):
    text = law_sections.coverage_text(results.fit)
    lowest = min(results.fit.tasks, key=lambda task: results.fit.tasks[task].coverage_cv)
    assert f"Lowest: {lowest} (" in text
    # √(0.9·0.1/26) = 0.059.
    assert text.endswith("With 26 runs, the coverage of one task has a standard error of 6 points.")


def test_missing_learning_curve_and_effects_have_notes(small):
    tasks = {name: dataclasses.replace(task, effects={}) for name, task in small.fit.tasks.items()}
    bare = sections(samples.with_fit(small, learning_curve=None, tasks=tasks))
    assert bare["Expected benefit of more runs"].note == "fit.json has no learning curve."
    assert bare["Effect of each domain on each task"].note == "fit.json has no effects of domains on tasks."


def test_effects_caption_explains_colours(small):
    title = "Effect of each domain on each task"
    caption = sections(small)[title].figures[0].caption
    assert caption.startswith("Change in BPB when a tenth of the natural mixture is replaced by the domain, according")
    assert "Grey" not in caption and "kept" not in caption
    changed = samples.with_fit(small, unseen=("a",), over=Over.BLOCKS)
    caption = sections(changed)[title].figures[0].caption
    assert "Grey: domains that were never sampled" in caption and "“kept”: the block of domains" in caption


def test_omitted_panels_are_counted():
    many = samples.first_run(domains=3, tasks=20, runs=9, steps=3)
    caption = sections(many)[law_sections.PREDICTED_TITLE].figures[0].caption
    assert caption.endswith("Of 20 tasks, only the 4 worst, 3 median and 4 best by Spearman are shown.")


def test_cheap_runs_have_a_sentence_in_the_first_section(small):
    record = CheapRuns(40, True, 2.0, 0.05, 0.012, 0.034, 0.9, 0.5, 0.06, 0.11)
    captions = [
        sections(samples.with_fit(small, cheap=cheap))[law_sections.PREDICTED_TITLE].figures[0].caption
        for cheap in (None, record)
    ]
    assert captions[1] == f"{captions[0]} T{str(record)[1:]}."
