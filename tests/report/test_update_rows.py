"""Rows about an update: domains, candidates and the history."""

import dataclasses

import pytest

from olmix_jax.report import update_rows
from olmix_jax.report.update_rows import StepRow
from olmix_jax.update.strategies import Strategy
from tests.report.samples import HOSTILE
from tests.report.update_samples import NEW, interval, plan, update


def test_domain_rows_of_every_kind():
    results = update()
    rows = {row.name: row for row in update_rows.domain_rows(results, results.update)}
    assert list(rows) == ["web", "source", HOSTILE, "wiki:a", "books", "wiki:b", "new", "forum"]
    assert {name: row.status for name, row in rows.items()} == {
        **{"web": "kept", "source": "kept, renamed from code", HOSTILE: "recomputed, though unaffected"},
        **{"books": "revised", "wiki:a": "part of wiki", "wiki:b": "part of wiki", "new": "added", "forum": "removed"},
    }
    assert (rows["web"].share, rows["source"].share, rows["new"].share) == (0.6, 0.4, None)
    # Parts have their natural share of 0.25: 0.12 and 0.04 of 0.16.
    old = {"wiki:a": 0.1875, "wiki:b": 0.0625, "source": 0.2, "books": 0.1, "forum": 0.05}
    assert {name: rows[name].old for name in old} == pytest.approx(old)
    assert rows["new"].old is None and rows["forum"].new is None


def test_affected_domains_in_the_block_have_fixed_shares():
    """The strategy carry puts all domains in the block, affected ones at their natural share."""
    results = update(strategy=Strategy.CARRY, kept={"kept": NEW}, recomputed=(), proxies=0, candidates=())
    rows = {row.name: row.status for row in update_rows.domain_rows(results, results.update)}
    assert (rows["web"], rows["new"], rows["wiki:a"]) == ("kept", "fixed share, added", "fixed share, part of wiki")


def test_candidates_are_named_by_what_they_recompute():
    rows = update_rows.candidate_rows(plan())
    assert [row.name for row in rows] == ["affected only", "all domains", f"affected and {HOSTILE}"]
    assert [row.chosen for row in rows] == [False, False, True]


def test_chosen_candidate_is_added_if_it_is_missing():
    (row,) = update_rows.candidate_rows(dataclasses.replace(plan(), candidates=()))
    assert row.chosen and (row.runs, row.mean) == (16, 0.01)
    nothing = dataclasses.replace(plan(), candidates=(), recomputed=(), predicted_loss=interval(0.03))
    assert update_rows.candidate_rows(nothing)[0].name == "none"


def test_history_ends_with_this_workdir():
    results = update()
    first, this = update_rows.history_rows(results, results.update)
    assert (first.text, first.runs, first.domains, first.validated) == ("first swarm", 20, 6, True)
    assert first.gain == pytest.approx(10) and this.gain == pytest.approx(5) and not this.validated
    assert this.text.startswith("rename code to source; revise books; ")
    without = dataclasses.replace(results, proposal=None)
    assert update_rows.history_rows(without, plan())[-1].gain is None


def test_domains_with_the_largest_weights_are_named():
    step = StepRow("", 12, "", 1, 1, 0.0, True, {f"d{i}": (i + 1) / 78 for i in range(12)})
    assert update_rows.named_domains([step], 8) == [f"d{i}" for i in range(4, 12)]


def test_update_text_names_few_domains_per_step():
    many = dataclasses.replace(plan(), updates=({"add": list("abcdef")},))
    assert update_rows.update_text(many.steps) == "add a, b, c and 3 more"
