"""The report of an update: what changed, what reuse costs, how the mixture evolved; and plans that are damaged."""

import json
import re

import pytest

from olmix_jax import report
from olmix_jax.report import caveats, update_plots, update_sections
from olmix_jax.report import results as read
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from tests.report.test_page import HOSTILE, edited, read_page

OLD = {"web": 0.3, "code": 0.2, "books": 0.1, "wiki": 0.25, "forum": 0.05, HOSTILE: 0.1}
NATURAL = {"web": 0.5, "source": 0.1, "books": 0.1, "wiki:a": 0.12, "wiki:b": 0.04, HOSTILE: 0.1, "new": 0.04}
NEW = {"web": 0.36, "source": 0.24, "books": 0.1, "wiki:a": 0.1, "wiki:b": 0.05, HOSTILE: 0.05, "new": 0.1}
AFFECTED = ("books", "wiki:a", "wiki:b", "new")
UPDATES = [
    {"rename": {"code": "source"}},
    {"revise": ["books"]},
    {"partition": {"wiki": ["wiki:a", "wiki:b"]}},
    {"remove": ["forum"]},
    {"add": ["new"]},
]


def spread(mean):
    return {"mean": mean, "low": mean / 2, "high": 2 * mean}


def plan():
    """Of an update of every kind, that keeps web and source, and recomputes one unaffected domain."""
    recomputed = [*AFFECTED, HOSTILE]
    return {
        **{"strategy": "auto", "parent": "/somewhere/parent", "updates": UPDATES, "why": "so it <is>"},
        **{"old": list(OLD), "new": list(NEW), "kept": {"kept": {"web": 0.3, "source": 0.2}}},
        **{"recomputed": recomputed, "proxies": 16, "proxies_full": 32, "predicted_loss": spread(0.01)},
        **{"predicted_gain": {"gain": 0.05, "low": 0.01, "high": 0.09}, "old_runs": [{"age": 1, "runs": 20}]},
        "candidates": [
            {"recomputed": list(AFFECTED), "proxies": 8, "loss": spread(0.02)},
            {"recomputed": list(NEW), "proxies": 32, "loss": spread(0.015)},
            {"recomputed": recomputed, "proxies": 16, "loss": spread(0.01)},
        ],
        "history": [
            {
                **{"strategy": "first swarm", "updates": [], "validated": True, "natural": 1.0, "proposed": 0.9},
                **{"weights": OLD, "proxies": 20, "proxies_full": 20},
            }
        ],
    }


def synthesise(folder, **changes):
    """A workdir of an update up to its proposal; ``changes`` are to the plan."""
    files.write_json(folder / "update/plan.json", plan() | changes)
    fit = {"law": "log_linear", "tasks": {"task": {"spearman_cv": 0.9}}, "over": "domains", "trust": 0.3, "wall_s": 1.0}
    files.write_json(folder / "fit/fit.json", fit)
    proposal = {
        **{"weights": NEW, "natural": NATURAL, "caps": {}, "predicted": {"task": 0.95}},
        **{"predicted_natural": {"task": 1.0}, "objective": 0.96, "objective_natural": 1.0},
        "reuse": {"predicted_loss": spread(0.01), "loss": 0.002, "free": NEW},
    }
    files.write_json(folder / "propose/proposal.json", proposal)
    return folder


def without_runs(folder):
    """A workdir of an update that only removes a domain."""
    new = {name: weight / 0.95 for name, weight in OLD.items() if name != "forum"}
    nothing = {"updates": [{"remove": ["forum"]}], "new": list(new), "kept": {}, "recomputed": list(new), "proxies": 0}
    only = [{"recomputed": list(new), "proxies": 0, "loss": spread(0.01)}]
    synthesise(folder, **nothing, candidates=only)
    edited(folder, "propose/proposal.json", lambda p: p.update(weights=new, natural=new, reuse={"loss": 0.0}))
    (folder / "fit/fit.json").unlink()
    return folder


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return synthesise(tmp_path_factory.mktemp("update"))


@pytest.fixture(scope="module")
def page(workdir):
    return read_page(report.build(workdir).read_text(encoding="utf-8"))


def test_page_shows_the_update(page):
    figures = [a["id"] for t, a in page.seen if t == "figure"]
    assert figures == ["mixture", "update_mixture", "update_loss", "update_history", "gains"]
    for tag, attributes in page.seen:
        assert tag != "img" or len(attributes["alt"]) > 20
    text = " ".join(" ".join(page.text).split())
    for told in (
        "The reason: so it <is>.",
        "code to source",
        "wiki into wiki:a, wiki:b",
        "16 runs where full recomputation takes 32",
        "20 can be expressed on the new domains (20 of the parent)",
        "at most 0.3 of a new run",
        "By the new law, the kept ratios alone cost 0.0020 BPB, 5.0 % of the gain over natural.",
        "So far 36 runs instead of 52 (−31 %).",
        "Update: rename code to source; revise books; partition wiki into wiki:a, wiki:b; remove forum; add new; 16",
    ):
        assert told in text
    assert not re.search(r"\b(nan|None)\b", text) and HOSTILE in text
    # The parent is named in words, and its place on disk is nobody else's.
    assert "/somewhere" not in text


def test_a_fourth_line_of_the_summary(workdir):
    *_, last = report.summary(workdir)
    assert len(report.summary(workdir)) == 4
    assert last.startswith("update: rename code to source; ")
    assert last.endswith(
        "; 16 runs where full recomputation takes 32; predicted to lose 0.0100 BPB against the optimum"
    )


def test_domains_of_every_kind(workdir):
    results = read.read(workdir)
    rows = {d.name: d for d in update_plots.domains(results)}
    assert list(rows) == ["web", "source", HOSTILE, "wiki:a", "books", "wiki:b", "new", "forum"]
    assert {name: d.status for name, d in rows.items()} == {
        **{"web": "kept", "source": "kept, renamed from code", HOSTILE: "recomputed, though unaffected"},
        **{"books": "revised", "wiki:a": "part of wiki", "wiki:b": "part of wiki", "new": "added", "forum": "removed"},
    }
    assert (rows["web"].share, rows["source"].share, rows["new"].share) == (0.6, 0.4, None)
    # Parts have their natural share of 0.25: 0.12 and 0.04 of 0.16.
    old = {"wiki:a": 0.1875, "wiki:b": 0.0625, "source": 0.2, "books": 0.1, "forum": 0.05}
    assert {name: rows[name].old for name in old} == pytest.approx(old)
    assert rows["new"].old is None and rows["forum"].new is None
    table = update_sections.domain_table(results, list(rows.values()))
    assert table.rows[0].cells == ("block “kept”", "2 domains", "100.00", "50.00", "60.00", "60.00", "60.00")
    assert table.rows[0].mark and table.rows[-1].cells == ("forum", "removed", "–", "5.00", "–", "–", "–")


def test_a_proposal_with_other_ratios_is_said_to_have_them(workdir, tmp_path):
    folder = synthesise(tmp_path)
    assert (
        "Shaded: what keeps"
        in update_sections.domain_table(read.read(folder), update_plots.domains(read.read(folder))).caption
    )
    edited(folder, "propose/proposal.json", lambda p: p["weights"].update(web=0.34, source=0.26))
    results = read.read(folder)
    assert "does not keep the ratios" in update_sections.domain_table(results, update_plots.domains(results)).caption


def test_choices(workdir):
    rows = update_plots.choices(read.read(workdir).update)
    assert [row.name for row in rows] == ["the affected alone", "all domains", f"affected and {HOSTILE}"]
    assert [row.chosen for row in rows] == [False, False, True]
    table = update_sections.choice_table(read.read(workdir).update, rows)
    assert table.rows[2].cells[1:] == ("16", "0.0100", "0.0050 to 0.0200", "20")


def test_history_counts_runs(workdir):
    first, own = update_plots.history(read.read(workdir))
    assert (first.text, first.runs, first.domains, first.validated) == ("first swarm", 20, 6, True)
    assert first.gain == pytest.approx(10) and own.gain == pytest.approx(5) and not own.validated
    cells = update_sections.history_table([first, own]).rows[1].cells
    assert cells[1:] == ("7", "auto", "16", "36", "52", "+5.00", "predicted")


def test_few_domains_have_colours():
    steps = [update_plots.Step("", 12, "", 1, 1, 0.0, True, {f"d{i}": (i + 1) / 78 for i in range(12)})]
    assert update_plots.largest(steps) == [f"d{i}" for i in range(4, 12)]


@pytest.mark.parametrize(
    ("reuse", "told"),
    [
        ({"loss": None}, "not known: it is fitted over the block"),
        ({"loss": 0.0}, "No ratios are kept"),
        ({"loss": 0.03, "free": NEW}, "above the predicted interval"),
        ({}, "not known yet"),
    ],
)
def test_what_the_new_law_says(tmp_path, reuse, told):
    folder = synthesise(tmp_path)
    edited(folder, "propose/proposal.json", lambda p: p.update(reuse=reuse))
    assert told in update_sections.realised(read.read(folder))


def test_ratios_that_cost_too_much_are_a_warning(tmp_path):
    folder = synthesise(tmp_path)
    assert not any("keeping old ratios" in text for text in caveats.warnings(read.read(folder)))
    edited(folder, "propose/proposal.json", lambda p: p["reuse"].update(loss=0.03))
    assert any("keeping old ratios costs more" in text for text in caveats.warnings(read.read(folder)))


def test_a_strategy_that_solves_for_nothing(tmp_path):
    """All domains are of the block, affected ones at their natural share, and no law is fitted."""
    nothing = {"strategy": "carry", "kept": {"kept": NEW}, "recomputed": [], "proxies": 0, "candidates": []}
    results = read.read(synthesise(tmp_path, **nothing))
    rows = {d.name: d.status for d in update_plots.domains(results)}
    assert (rows["web"], rows["new"], rows["wiki:a"]) == ("kept", "fixed share, added", "fixed share, part of wiki")
    assert [row.name for row in update_plots.choices(results.update)] == ["none"]
    assert update_sections.line(results).split("; ")[-2] == "no runs where full recomputation takes 32"


def test_what_old_runs_count_for(tmp_path):
    folder = synthesise(tmp_path)
    edited(folder, "fit/fit.json", lambda f: f.update(trust=0.0, over="blocks"))
    assert "a law over the block as one predicts new runs better" in update_sections.old_runs(read.read(folder))
    edited(folder, "fit/fit.json", lambda f: f.pop("trust"))
    assert "decided at the fit" in update_sections.old_runs(read.read(folder))
    edited(folder, "update/plan.json", lambda p: p.pop("old_runs"))
    assert "none can be expressed" in update_sections.old_runs(read.read(folder))


def test_an_update_that_needed_no_runs(tmp_path):
    folder = without_runs(tmp_path)
    text = " ".join(read_page(report.build(folder).read_text(encoding="utf-8")).text)
    assert "The law is the old one, as the update needs no runs; see the report of parent." in text
    assert "no runs where full recomputation takes 32" in text and "the old law is used as it is" in text
    assert "run --stages" not in text and not re.search(r"\b(nan|None)\b", text)
    assert report.summary(folder)[2].startswith("the law is the old one")


def test_a_plan_without_candidates_or_proposal(tmp_path):
    folder = synthesise(tmp_path, candidates=[])
    edited(folder, "update/plan.json", lambda p: p.pop("old_runs"))
    (row,) = update_plots.choices(read.read(folder).update)
    assert row.chosen and (row.runs, row.mean) == (16, 0.01)
    (folder / "propose/proposal.json").unlink()
    reader = read_page(report.build(folder).read_text(encoding="utf-8"))
    assert [a["id"] for t, a in reader.seen if t == "figure"] == ["update_loss", "update_history"]
    assert not re.search(r"\b(nan|None)\b", " ".join(reader.text))


def test_a_proposal_of_other_domains_is_left_out(tmp_path):
    folder = synthesise(tmp_path)
    edited(folder, "propose/proposal.json", lambda p: [p[k].pop("new") for k in ("weights", "natural")])
    edited(folder, "propose/proposal.json", lambda p: p.pop("reuse"))
    assert read.read(folder).proposal is None


def test_a_first_run_has_none_of_it(tmp_path):
    folder = synthesise(tmp_path)
    (folder / "update/plan.json").unlink()
    assert list(update_sections.sections(read.read(folder), None)) == [] and len(report.summary(folder)) == 3


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"why": None}, ": why must be text"),
        ({"proxies": "8"}, ": proxies must be a finite number"),
        ({"predicted_loss": {"mean": 1.0, "low": 0.0}}, ": predicted_loss must be a number for each name, 'high'"),
        ({"kept": {"kept": {"web": 0.0}}}, ": kept.kept.web must be a positive number"),
        ({"kept": {"kept": {"nobody": 1.0}}}, ": kept.kept must be of domains that `new` has, and 'nobody' is none"),
        ({"candidates": [{"recomputed": ["web"], "proxies": 8}]}, ": candidates[0].loss must be an object"),
        ({"old_runs": [{"age": 1}]}, ": old_runs[0] must be a number for each name, 'runs'"),
        ({"updates": None}, ": updates must be a list, not null"),
        ({"updates": [{"melt": ["web"]}]}, ": updates[0]: must be one of add, remove"),
        ({"updates": [{"remove": ["nobody"]}]}, ": update `remove nobody`: no domain nobody"),
        ({"updates": [{"remove": ["web"]}]}, ": the update leads to other domains than there are"),
        ({"history": []}, ": history must be a list of one entry or more"),
        ({"history": [plan()["history"][0] | {"natural": 0}]}, ": history[0].natural must be a positive number"),
        ({"history": [plan()["history"][0] | {"updates": [1]}]}, ": history[0].updates[0]: must be one of"),
        ({"history": [plan()["history"][0] | {"weights": {"web": 1.0}}]}, ": history[0].weights must be a number for"),
    ],
)
def test_a_damaged_plan_names_its_field(workdir, tmp_path, change, named):
    folder = synthesise(tmp_path, **change)
    with pytest.raises(UserError, match=re.escape(f"plan.json{named}")) as e:
        report.build(folder)
    assert str(e.value).endswith("; delete the file and run --stages=update again")
    assert str(e.value).count("plan.json") == 1


def test_a_plan_that_lacks_a_field(tmp_path):
    folder = synthesise(tmp_path)
    edited(folder, "update/plan.json", lambda p: p.pop("history"))
    with pytest.raises(UserError, match=r"plan\.json: history must be a list"):
        report.summary(folder)
    (folder / "update/plan.json").write_text(json.dumps([]))
    with pytest.raises(UserError, match=r"plan\.json"):
        report.summary(folder)
