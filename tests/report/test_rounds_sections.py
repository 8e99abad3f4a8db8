"""The section about rounds: its table, its figure, and its absence without rounds."""

import dataclasses

import pytest

from olmix_jax import report
from olmix_jax.report import rounds_sections
from olmix_jax.swarm.rounds import Round, Rounds
from tests.report import samples
from tests.report.samples import no_figure

WEIGHTS = {"a": 0.5, "b": 0.5}


@pytest.fixture
def rounds():
    first = Round(WEIGHTS, WEIGHTS, {"t": 1.0}, 0.05, 0.04, 0.06, 0.01, 8, 1_200_000, 0.021, 0.0071, False)
    last = Round(WEIGHTS, WEIGHTS, {"t": 1.0}, 0.03, runs=5)
    return first, last


def test_table_has_promise_and_measurement_of_every_round(rounds):
    table = rounds_sections.round_table(rounds)
    first, last = table.rows
    assert first.cells == ("1", "8", "1.2M", "+0.0500", "+0.0400 to +0.0600", "+0.0210 ± 0.0071", "disagree")
    assert last.cells == ("2", "5", "–", "+0.0300", "–", "–", "not measured")
    assert [row.mark for row in table.rows] == [True, False] and len(table.head) == len(first.cells)


def test_table_says_that_an_error_is_too_large_to_tell(rounds):
    (row,) = rounds_sections.round_table([dataclasses.replace(rounds[0], measured=0.005, agrees=True)]).rows
    assert row.cells[-1] == "compatible, error too large" and not row.mark


def test_page_has_the_section_only_with_rounds(small, rounds, tmp_path):
    assert list(rounds_sections.sections(small, no_figure)) == []
    (section,) = rounds_sections.sections(dataclasses.replace(small, rounds=rounds), no_figure)
    assert section.figures[0].name == "rounds"
    folder = samples.write(dataclasses.replace(small, curves=None, validation=None), tmp_path)
    Rounds(rounds).write(folder)
    page = samples.Page(report.build(folder).read_text(encoding="utf-8"))
    assert "rounds" in page.figures and "Rounds: promise and measurement" in page.text
    assert report.summary(folder)[-1] == "round 2: promised a gain of +0.0300 BPB, not measured"
