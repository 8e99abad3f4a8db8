"""The whole page: it is self-contained, escapes names, builds from any part of a workdir, and is reproducible."""

import csv
import dataclasses
import re

import pytest

from olmix_jax import report
from olmix_jax.report import page, sentences, style, tables
from olmix_jax.utils.errors import UserError
from tests.report import samples
from tests.report.samples import HOSTILE, HOSTILE_TASK, Page, page_without_figures

FIRST_RUN = ["mixture", "validation", "validation_tasks", "validation_curves", "gains", "prices"]
LAW = ["predicted", "coverage", "learning", "effects"]


@pytest.fixture(scope="module")
def html(workdir):
    """The page of the sample workdir, with its figures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "DPI", 48)
        return report.build(workdir).read_text(encoding="utf-8")


def test_page_is_self_contained(html, workdir):
    page = Page(html)
    assert page.figures == [*FIRST_RUN, *LAW, "curves"]
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object")
        for name in {"src", "srcset", "href"} & attributes.keys():
            assert attributes[name].startswith("data:image/png;base64,")
        if tag == "img":
            assert len(attributes["alt"]) > 20
    assert "url(" not in html and "http" not in html.replace("http-equiv", "")
    for name in page.figures:
        assert (workdir / "report" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_names_are_escaped(html):
    assert HOSTILE not in html and "<script>" not in html and "<i>task" not in html
    texts = Page(html).texts
    assert HOSTILE in texts and HOSTILE_TASK in texts and "Small <script>warning</script>." in texts


def test_same_files_give_the_same_page(small, tmp_path):
    folder = samples.write(dataclasses.replace(small, curves=None, validation=None, fit=None), tmp_path)
    first = report.build(folder).read_bytes()
    assert report.build(folder).read_bytes() == first


def test_summary_has_three_lines(results, workdir):
    assert report.summary(workdir) == [
        sentences.bpb_line(results),
        sentences.caps_line(results),
        sentences.law_line(results),
    ]


def test_scores_along_the_run_are_shown(small, tmp_path):
    folder = samples.write(dataclasses.replace(samples.scored(small), fit=None), tmp_path)
    page = Page(report.build(folder).read_text(encoding="utf-8"))
    assert page.figures[:4] == ["mixture", "validation", "validation_tasks", "validation_bpb"]
    assert "2.00×" in page.text and "this estimate is conservative" in page.text
    assert "; equivalent compute 2.00× (" in report.summary(folder)[0]


def test_every_field_of_a_proposal_is_shown(small, tmp_path):
    folder = samples.write(dataclasses.replace(small, proposal=samples.explored(small.proposal), fit=None), tmp_path)
    page = Page(report.build(folder).read_text(encoding="utf-8"))
    assert page.figures == [*FIRST_RUN, "paths", "choice", "front", "curves"]
    for part in ("<b>g</b>:*", "(multiplier 0.4)", "propose/handover/<megatron>.json", "worst 10 % of samples"):
        assert part in page.text
    assert not re.search(r"\b(nan|None)\b", page.text) and "WORST" not in page.text


def test_external_swarm_has_neither_curves_nor_validation(results):
    missing = ("curves", "training", "validation", "validation_curves", "domains", "config")
    page = page_without_figures(dataclasses.replace(results, **dict.fromkeys(missing)))
    assert page.figures == ["mixture", "gains", "prices", *LAW]
    assert "All statements about it are predictions" in page.text and "the swarm was trained elsewhere" in page.text
    assert not re.search(r"\b(nan|None)\b", page.text)


def test_missing_stages_are_named(small):
    page = page_without_figures(dataclasses.replace(small, fit=None, proposal=None, validation=None))
    assert page.figures == ["curves"]
    assert "No proposal yet; run --stages=fit,propose,report." in page.text
    assert "No law yet; run --stages=fit,propose,report." in page.text


def test_one_seed_has_no_errors():
    page = page_without_figures(samples.small_run(seeds=1))
    assert "Each mixture was trained with one seed" in page.text and not re.search(r"\b(nan|None)\b", page.text)


def test_worst_mixture_has_a_banner(small, tmp_path):
    worst = samples.with_proposal(small, worst=True)
    page = page_without_figures(worst)
    assert [tag for tag, attributes in page.tags if attributes.get("role") == "alert"] == ["strong"]
    assert sentences.WORST in page.texts
    folder = samples.write(dataclasses.replace(worst, table=None, fit=None, validation=None), tmp_path)
    assert report.summary(folder)[0].startswith(sentences.WORST)


def test_long_sensitivity_table_is_collapsed(results):
    sensitivity = samples.explored(results.proposal).sensitivity
    page = page_without_figures(samples.with_proposal(results, sensitivity=sensitivity))
    # λ, one cap and twelve tasks, of which eight are always shown.
    assert [tag for tag, _ in page.tags if tag in ("details", "summary")] == ["details", "summary"]
    assert "6 rows" in page.text


def test_unwritable_folder_is_an_error(small, tmp_path):
    folder = samples.write(dataclasses.replace(small, table=None, fit=None, validation=None), tmp_path)
    (folder / "report").write_text("a file in the way")
    with pytest.raises(UserError, match="cannot write"):
        report.build(folder)


def test_empty_workdir_is_an_error(tmp_path):
    with pytest.raises(UserError, match="has no results to report"):
        report.build(tmp_path)


@pytest.mark.slow
def test_page_with_many_tasks_is_shortened(tmp_path):
    results = samples.first_run(domains=24, tasks=130, runs=127, steps=700)
    results = samples.with_fit(results, unseen=("source:topic_5:high",))
    page = Page(report.build(samples.write(results, tmp_path)).read_text(encoding="utf-8"))
    assert "Of 130 tasks, only the 4 worst, 3 median and 4 best" in page.text
    assert "Of 130 tasks, only the 120 with the largest changes" in page.text
    assert len(tables.task_table(results).rows) == 130
    assert "Never sampled: source:topic_5:high." in page.text


def test_long_tables_are_cut_and_written_beside_the_page(tmp_path, monkeypatch):
    results = samples.first_run(domains=12, tasks=5, runs=9, steps=3)
    monkeypatch.setattr(page, "MAX_TABLE", 10)
    text = samples.Page(page.html(results, samples.no_figure, tmp_path)).text
    assert text.count("rows; all are in") == 1
    assert "The first 10 of 12 rows; all are in domains.csv beside this page." in text
    with open(tmp_path / "domains.csv", newline="") as f:
        rows = list(csv.reader(f))
    assert rows[0][:3] == ["domain", "unique tokens", "natural, %"] and len(rows) == 13
    assert {row[0] for row in rows[1:]} == set(results.proposal.weights)


def test_failed_part_leaves_the_page(small, monkeypatch, caplog):
    def fail(*_, **__):
        raise ValueError("a defect")

    monkeypatch.setattr(tables, "quality_table", fail)
    text = page_without_figures(small).text
    assert "This part is left out: ValueError in test_page.py" in text
    assert "Weights by domain." in text and "Predicted change by task" in text and "All tasks" in text
    assert caplog.text.count("the part Law is left out") == 1
