"""Sections about an update, the summary's fourth line, and plans that are damaged."""

import dataclasses
import re

import pytest

from olmix_jax import report
from olmix_jax.laws.fit_result import Over
from olmix_jax.report import caveats, update_rows, update_sections
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from tests.report import samples
from tests.report.samples import HOSTILE, no_figure, page_without_figures
from tests.report.update_samples import NEW, plan, update, update_without_runs, with_reuse


def test_page_of_an_update_shows_plan_and_history():
    page = page_without_figures(update())
    assert page.figures[:4] == ["mixture", "update_mixture", "update_loss", "update_history"]
    for part in (
        "Reason: the reason <is> this.",
        "code to source",
        "wiki into wiki:a, wiki:b",
        "16 new runs instead of 32",
        "20 can be expressed on the new domains (20 from the parent)",
        "a weight of at most 0.3, a new run 1",
        "According to the new law, the kept ratios alone cost 0.0020 BPB, 5.0 % of the gain over natural.",
        "In total 36 runs instead of 52 with full recomputation (−31 %).",
        "Update: rename code to source; revise books; partition wiki into wiki:a, wiki:b; remove forum; add new; 16",
    ):
        assert part in page.text
    assert not re.search(r"\b(nan|None)\b", page.text) and HOSTILE in page.text
    # The page must not show the parent's path.
    assert "/somewhere" not in page.text


def test_figures_are_drawn_in_a_workdir(tmp_path):
    folder = samples.write(dataclasses.replace(update(), fit=None), tmp_path)
    report.build(folder)
    assert {path.stem for path in (folder / "report").glob("update_*.png")} == {
        *("update_mixture", "update_loss", "update_history")
    }


def test_summary_has_a_fourth_line(tmp_path):
    lines = report.summary(samples.write(update(), tmp_path))
    assert len(lines) == 4
    assert lines[3].startswith("update: rename code to source; ")
    assert lines[3].endswith("; 16 new runs instead of 32; predicted loss against the optimum 0.0100 BPB")


def test_first_run_has_no_update_sections(small):
    assert list(update_sections.sections(small, no_figure)) == []


def test_domain_table_shows_the_block_first():
    results = update()
    rows = update_rows.domain_rows(results, results.update)
    table = update_sections.domain_table(results.update, results.proposal, rows)
    assert table.rows[0].cells == ("block “kept”", "2 domains", "100.00", "50.00", "60.00", "60.00", "60.00")
    assert table.rows[0].mark and table.rows[-1].cells == ("forum", "removed", "–", "5.00", "–", "–", "–")
    assert "Shaded: the block of domains that keep their ratios" in table.caption


def test_proposal_with_other_ratios_than_the_plan_is_reported():
    results = samples.with_proposal(update(), weights=NEW | {"web": 0.34, "source": 0.26})
    rows = update_rows.domain_rows(results, results.update)
    caption = update_sections.domain_table(results.update, results.proposal, rows).caption
    assert "does not keep the ratios of the plan’s block" in caption


def test_candidate_table_shades_the_chosen_row():
    table = update_sections.candidate_table(plan(), update_rows.candidate_rows(plan()))
    assert table.rows[2].cells[1:] == ("16", "0.0100", "0.0050 to 0.0200", "20") and table.rows[2].mark


def test_predicted_loss_that_did_not_make_the_choice_stands_beside_the_other():
    first, *others = plan().candidates
    candidates = (dataclasses.replace(first, loss_if_form_known=0.006), *others)
    told = update(candidates=candidates, predicted_loss_if_form_known=0.004)
    text = page_without_figures(told).text
    assert "predicted again on other swarms: 0.0100 BPB. It would be 0.0040 BPB if the fit knew the form" in text
    table = update_sections.candidate_table(told.update, update_rows.candidate_rows(told.update))
    assert table.head[-1] == "if the form of the law were known, BPB"
    assert [row.cells[-1] for row in table.rows] == ["0.0060", "–", "–"]


def test_loss_of_a_plan_without_trial_fits_is_said_to_be_too_small():
    text = "true losses were two to three times as large"
    assert text in page_without_figures(update()).text
    assert text not in page_without_figures(update_without_runs()).text


def test_history_table_sums_runs():
    results = update()
    cells = update_sections.history_table(update_rows.history_rows(results, results.update)).rows[1].cells
    assert cells[1:] == ("7", "auto", "16", "36", "52", "+5.00", "predicted")


@pytest.mark.parametrize(
    ("reuse", "text"),
    [
        ({"loss": None}, "is unknown: the law treats the block as one domain"),
        ({"loss": 0.0, "free": None}, "No ratios are kept, so keeping ratios costs nothing."),
        ({"loss": 0.03}, "this exceeds the predicted interval, so recompute more domains."),
        ({"by": "old runs"}, "According to a law fitted on earlier and new runs over all domains, the kept ratios"),
    ],
)
def test_realised_loss_states_cost_and_law(reuse, text):
    assert text in update_sections.realised_loss(with_reuse(update(), **reuse).proposal, plan())


def test_realised_loss_before_the_proposal():
    assert update_sections.realised_loss(None, plan()) == "The new law’s estimate is not available yet."


def test_costly_ratios_are_a_warning():
    warning = "According to the new law, keeping the old ratios costs more than predicted. Recompute more domains."
    assert warning not in caveats.warnings(update())
    assert warning in caveats.warnings(with_reuse(update(), loss=0.03))


def test_earlier_runs_state_their_weight_in_the_fit():
    def text(**fit):
        results = samples.with_fit(update(), **fit)
        return update_sections.earlier_runs(results.update, results.fit)

    assert "a run of the parent has a weight of at most 0.3, a new run 1" in text()
    assert "a law with the kept block as one domain predicts held-out new runs better" in text(
        trust=0.0, over=Over.BLOCKS
    )
    assert "a law fitted on new runs only predicts held-out new runs better" in text(trust=0.0)
    assert "their weight is decided by the fit" in text(trust=None)
    none = dataclasses.replace(plan(), old_runs=())
    assert update_sections.earlier_runs(none, None).startswith("none can be expressed on the new domains")


def test_update_without_runs_uses_the_law_of_the_parent():
    page = page_without_figures(update_without_runs())
    assert (
        "The parent's law is used unchanged, because the update needs no runs; see the report of parent." in page.text
    )
    assert "no new runs instead of 32" in page.text
    assert "run --stages" not in page.text and not re.search(r"\b(nan|None)\b", page.text)


def test_update_without_a_proposal_shows_loss_and_history():
    results = dataclasses.replace(update(candidates=(), old_runs=()), proposal=None)
    page = page_without_figures(results)
    assert [name for name in page.figures if name.startswith("update")] == ["update_loss", "update_history"]
    assert not re.search(r"\b(nan|None)\b", page.text)


def test_proposal_for_other_domains_is_ignored(tmp_path):
    results = update()
    weights = {name: weight for name, weight in NEW.items() if name != "new"}
    folder = samples.write(samples.with_proposal(results, weights=weights, reuse=None), tmp_path)
    assert report.summary(folder)[0].startswith("no proposal yet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"why": None}, "why must be text"),
        ({"predicted_loss": {"mean": 1.0, "low": 0.0}}, "predicted_loss.high is missing"),
        ({"candidates": [{"recomputed": ["web"], "proxies": 8}]}, "candidates[0].loss is missing"),
        ({"kept": {"kept": {"nobody": 1.0}}}, "kept.kept has the domain 'nobody'"),
        ({"history": []}, "history must have at least one entry"),
    ],
)
def test_damaged_plan_names_its_field(tmp_path, change, message):
    folder = samples.write(update(), tmp_path)
    path = folder / "update/plan.json"
    files.write_json(path, files.read_json(path) | change)
    with pytest.raises(UserError, match=re.escape(f"plan.json: {message}")) as error:
        report.summary(folder)
    assert str(error.value).endswith("rerun --stages=update")
