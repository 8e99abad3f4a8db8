"""csv_lines.py: tables separated by commas, semicolons or tabs; names in their normal form."""

import unicodedata

import pytest

from olmix_jax.swarm import csv_lines


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


def test_names_are_read_in_their_normal_form(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(unicodedata.normalize("NFD", "run,café, zero\u200bwidth\nr0,1,2\n"))
    assert csv_lines.read(path).header == ["run", "café", "zerowidth"]
