"""csv_files.py: malformed files raise errors that name file, line, run and column (PITFALL 2)."""

import pytest

from olmix_jax.swarm.table import SwarmTable
from olmix_jax.utils.errors import UserError
from tests.swarm.small_swarm import META, METRICS, RATIOS, assert_same_table, write_and_read


def test_byte_order_mark_and_windows_line_ends_are_accepted(tmp_path):
    """PITFALL 2: spreadsheets write both."""
    dressed = b"\xef\xbb\xbf" + RATIOS.replace("\n", "\r\n").encode() + b"\r\n\r\n"
    assert_same_table(
        write_and_read(tmp_path),
        write_and_read(tmp_path, dressed, b"\xef\xbb\xbf" + METRICS.replace(",", " , ").encode()),
    )


@pytest.mark.parametrize(
    "ratios, message",
    [
        (RATIOS.replace("r3,", "r1,"), r"ratios.csv: line 4: run r1 is already on line 2"),
        (RATIOS.replace("web,code", "web,web"), r"line 1: repeated column: web"),
        (RATIOS.replace("web,code", "web,index"), r"line 1: repeated column: index"),
        (RATIOS.replace("name,index,web,code", "name,,index,web"), r"line 1: column 3 has no name"),
        (RATIOS.replace("name,index,web,code", "name,index,w"), r"line 2 \(r1\) has 5 cells and the header 4"),
        (RATIOS[: RATIOS.index("r3") + 6], r"line 4 \(r3\) has 2 cells and the header 5"),
        (RATIOS.replace("0.25,0.75", "0,25,0,75"), r"line 2 \(r1\) has 7 cells.*decimals written with a comma"),
        (
            RATIOS.replace("0.25,0.75", '"0,25","0,75"'),
            r"line 2 \(run r1\), column web: '0,25' is not a finite number; write decimals with a point",
        ),
        (
            RATIOS.replace(",", ";").replace(".", ","),
            r"line 2 \(run r1\), column web: '0,25' is not a finite number; write decimals with a point",
        ),
        (RATIOS.replace("0.25", "abc"), r"line 2 \(run r1\), column web: 'abc' is not a finite number$"),
        (RATIOS.replace("0.25", "1_0"), r"column web: '1_0' is not"),
        (
            RATIOS.replace("0.25", "nan"),
            r"column web: 'nan'; write a weight, or 0 if the domain is not in",
        ),
        (RATIOS.replace("0.25", "-inf"), r"column web: '-inf' is not a finite number"),
        (RATIOS.replace("0.25", "1e999"), r"column web: '1e999' is not a finite number"),
        (RATIOS.replace("0.25,0.75", "-0.25,1.25"), r"line 2 \(run r1\), column web: negative weight -0.25"),
        (
            RATIOS.replace("0.25,0.75", "0.25,"),
            r"line 2 \(run r1\), column code: empty; write a weight, or 0 if the",
        ),
        (
            RATIOS.replace("0.25", "0.35"),
            r"line 2 \(run r1\): weights sum to 1.1, not to 1; give every domain its share",
        ),
        (
            RATIOS.replace("0.25,0.75", "24.9,74.9"),
            r"weights sum to 99.8, not to 1; divide percentages by 100",
        ),
        (RATIOS.replace("r2,", "nan,"), r"line 3, column run: nan; every row needs its run"),
        (RATIOS + ",,,,\n", r"line 5: an empty row"),
        (RATIOS + ",four,3,0.5,0.5\n", r"line 5, column run: empty"),
        (RATIOS.splitlines()[0], r"ratios.csv: no rows"),
        ("", r"ratios.csv: no rows"),
        ("a,b\n1,2\n", r"line 1: no column to join by"),
        ("run,name\nr1,one\n", r"line 1: no columns besides run, name"),
        (b"run,web\nr1,\xff\xfe\n", r"ratios.csv: not UTF-8"),
        (RATIOS + '"r4', r"ratios.csv: line 5: not valid CSV"),
        (
            RATIOS.replace("r1", "a").replace("r2", "b").replace("r3", "c"),
            r"have no usable run in common: .* for example, a, the second r1; use the",
        ),
    ],
)
def test_malformed_ratios_raise_an_error_with_the_place(tmp_path, ratios, message):
    """PITFALL 2."""
    with pytest.raises(UserError, match=message):
        write_and_read(tmp_path, ratios)


@pytest.mark.parametrize(
    "metrics, message",
    [
        (
            METRICS.replace("1.25,2.25", "1.25,"),
            r"metrics.csv: line 3 \(run r2\), column math: empty, the first of 1 missing",
        ),
        (
            METRICS.replace("1.25,2.25", ","),
            r"metrics.csv: line 3 \(run r2\), column qa: empty, the first of 2 missing",
        ),
        (METRICS.replace("r3,three", "r2,two"), r"metrics.csv: line 4: run r2 is already on line 3"),
        (METRICS.replace("2.25", "n/a"), r"metrics.csv: line 3 \(run r2\), column math: 'n/a', .*fit.missing=drop_run"),
        (
            METRICS.replace("2.25", "nan."),
            r"metrics.csv: line 3 \(run r2\), column math: 'nan.' is not a finite number",
        ),
        (METRICS.replace("2.25", "inf"), r"metrics.csv: line 3 \(run r2\), column math: 'inf'"),
        (METRICS.replace("2.25", "2,25"), r"metrics.csv: line 3 \(r2\) has 6 cells and the header 5.*comma"),
        (METRICS.replace("r2,two,1,1.25,2.25", "r2,two"), r"metrics.csv: line 3 \(r2\) has 2 cells and the header 5"),
        (METRICS.replace("r2,two,1,1.25,2.25", ",,,,"), r"metrics.csv: line 3: an empty row"),
        (
            METRICS.replace("r2,two,1,1.25,2.25", "r2,,,,"),
            r"metrics.csv: line 3 \(run r2\), column qa: empty, the first of 2 missing",
        ),
        (METRICS.replace(",math", ",qa"), r"metrics.csv: line 1: repeated column: qa"),
        (METRICS.replace(",math", ","), r"metrics.csv: line 1: column 5 has no name; the header may be cut short"),
        (METRICS.replace(",math", ""), r"metrics.csv: line 2 \(r1\) has 5 cells and the header 4"),
    ],
)
def test_malformed_metrics_raise_an_error_with_the_place(tmp_path, metrics, message):
    with pytest.raises(UserError, match=message):
        write_and_read(tmp_path, metrics=metrics)


def test_header_cut_inside_its_last_name_is_an_error(tmp_path):
    """PITFALL 2: no cell is missing, so only the expected names reveal it."""
    with pytest.raises(UserError, match=r"meta.json: `token_counts` lacks co and has unknown code"):
        write_and_read(tmp_path, RATIOS.replace("web,code", "web,co"), meta=META)
    with pytest.raises(UserError, match=r"metrics.csv: line 1: no column math, which `keep_metrics` names; .* is ma$"):
        write_and_read(tmp_path, metrics=METRICS.replace("math", "ma"), keep_metrics=("qa", "math"))


def test_row_numbers_from_pandas_are_not_a_task(tmp_path):
    """pandas calls the column "Unnamed: 0" when a table is read without `index_col` and written again."""
    numbered = ["Unnamed: 0," + METRICS.splitlines()[0], *(f"{k},{r}" for k, r in enumerate(METRICS.splitlines()[1:]))]
    assert_same_table(write_and_read(tmp_path, metrics="\n".join(numbered)), write_and_read(tmp_path))


def test_prefix_is_kept_if_a_name_without_it_is_an_id_column(tmp_path):
    """`train_name` is a domain; without its prefix it would be mistaken for the names of the runs."""
    got = write_and_read(tmp_path, "index,train_web,train_name\n0,0.25,0.75\n", "index,metric/a,metric/index\n0,1,2\n")
    assert got.domains == ("train_web", "train_name") and got.tasks == ("metric/a", "metric/index")


def test_missing_files_are_errors(tmp_path):
    with pytest.raises(UserError, match="ratios.csv: no such file"):
        SwarmTable.read(tmp_path / "ratios.csv", tmp_path / "metrics.csv")
    with pytest.raises(UserError, match="cannot be read"):
        SwarmTable.read(tmp_path, tmp_path)
