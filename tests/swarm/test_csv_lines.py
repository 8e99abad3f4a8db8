"""csv_lines.py: tables separated by commas, semicolons or tabs; names in their normal form."""

import unicodedata

import pytest

from olmix_jax.swarm import csv_lines
from olmix_jax.utils.errors import UserError


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_are_recognised(tmp_path, separator):
    path = tmp_path / "t.csv"
    path.write_text("run,t1,t2\nr0,1.1,1.2\n".replace(",", separator))
    read = csv_lines.read(path)
    assert read.header == ["run", "t1", "t2"] and read.lines == [(2, ["r0", "1.1", "1.2"])]


def test_names_with_commas_between_tabs_are_kept(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("run\tbpb,none\tacc,none\nr0\t1.1\t0.2\n")
    assert csv_lines.read(path).header == ["run", "bpb,none", "acc,none"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("run|t1\nr0|1.1\n", r"t.csv: line 1: one column, run\|t1; separate columns by commas, semicolons or tabs"),
        ("r0,.6,.4\nr1,.5,.5\n", "t.csv: line 1: numbers in place of names; add a header"),
    ],
)
def test_files_without_columns_or_header_are_errors(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        csv_lines.read(tmp_path / "t.csv")


def test_names_are_read_in_their_normal_form(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(unicodedata.normalize("NFD", "run,café, zero\u200bwidth\nr0,1,2\n"))
    assert csv_lines.read(path).header == ["run", "café", "zerowidth"]
