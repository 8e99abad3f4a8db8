"""CSV is read right or not at all: PITFALL 2, each with the error that names the place."""

import pytest

from olmix_jax.swarm.table import SwarmTable
from olmix_jax.utils.errors import UserError
from tests.swarm.test_table import META, METRICS, RATIOS, read, same


def test_byte_order_mark_windows_lines_and_blank_ends(tmp_path):
    """PITFALL 2."""
    dressed = b"\xef\xbb\xbf" + RATIOS.replace("\n", "\r\n").encode() + b"\r\n\r\n"
    same(read(tmp_path), read(tmp_path, dressed, b"\xef\xbb\xbf" + METRICS.replace(",", " , ").encode()))


@pytest.mark.parametrize(
    "ratios, message",
    [
        (RATIOS.replace("r3,", "r1,"), r"ratios.csv: line 4: run r1 is on line 2 already"),
        (RATIOS.replace("web,code", "web,web"), r"line 1: column more than once: web"),
        (RATIOS.replace("web,code", "web,index"), r"line 1: column more than once: index"),
        (RATIOS.replace("name,index,web,code", "name,,index,web"), r"line 1: column 3 has no name"),
        (RATIOS.replace("name,index,web,code", "name,index,w"), r"line 2 \(r1\) has 5 cells and the header 4"),
        (RATIOS[: RATIOS.index("r3") + 6], r"line 4 \(r3\) has 2 cells and the header 5"),
        (RATIOS.replace("0.25,0.75", "0,25,0,75"), r"line 2 \(r1\) has 7 cells.*decimals written with a comma"),
        (RATIOS.replace("0.25,0.75", '"0,25","0,75"'), r"line 2 \(run r1\), column web: '0,25'.*with a point"),
        (RATIOS.replace(",", ";").replace(".", ","), r"line 1: columns must be separated by commas"),
        (RATIOS.replace("0.25", "abc"), r"line 2 \(run r1\), column web: 'abc' is not a finite number$"),
        (RATIOS.replace("0.25", "1_0"), r"column web: '1_0' is not"),
        (
            RATIOS.replace("0.25", "nan"),
            r"column web: 'nan', which is no weight; write 0 for a domain that the run has",
        ),
        (RATIOS.replace("0.25", "-inf"), r"column web: '-inf' is not a finite number"),
        (RATIOS.replace("0.25", "1e999"), r"column web: '1e999' is not a finite number"),
        (RATIOS.replace("0.25,0.75", "-0.25,1.25"), r"line 2 \(run r1\), column web: negative weight -0.25"),
        (RATIOS.replace("0.25,0.75", "0.25,"), r"line 2 \(run r1\), column code: empty, .*; write 0 for a domain that"),
        (
            RATIOS.replace("0.25", "0.35"),
            r"line 2 \(run r1\): weights sum to 1.1, not to 1; they are shares of the run",
        ),
        (
            RATIOS.replace("0.25,0.75", "24.9,74.9"),
            r"weights sum to 99.8, not to 1; percentages must be divided by 100",
        ),
        (
            RATIOS.replace("run,name,index,web", "Run,name,index,web"),
            r"line 1: column Run is neither a domain nor a task",
        ),
        (RATIOS.replace("name,", "Name,"), r"line 1: column Name is neither a domain nor a task"),
        (RATIOS.replace("name,", "Unnamed: 1,"), r"line 1: column 2 has no name"),
        (RATIOS.replace("r2,", "nan,"), r"line 3, column run: nan; every row needs its run"),
        (RATIOS + ",,,,\n", r"line 5: an empty row"),
        (RATIOS + ",four,3,0.5,0.5\n", r"line 5, column run: empty"),
        (RATIOS.splitlines()[0], r"ratios.csv: no rows"),
        ("", r"ratios.csv: no rows"),
        ("a,b\n1,2\n", r"line 1: no column to join by"),
        ("run,name\nr1,one\n", r"line 1: no columns beside run, name"),
        (b"run,web\nr1,\xff\xfe\n", r"ratios.csv: not UTF-8"),
        (RATIOS + '"r4', r"ratios.csv: line 5: not valid CSV"),
        (
            RATIOS.replace("r1", "a").replace("r2", "b").replace("r3", "c"),
            r"have no run in common .* for example, a, the other r1; write the",
        ),
    ],
)
def test_bad_ratios_name_the_place(tmp_path, ratios, message):
    """PITFALL 2."""
    with pytest.raises(UserError, match=message):
        read(tmp_path, ratios)


@pytest.mark.parametrize(
    "metrics, message",
    [
        (METRICS.replace("1.25,2.25", "1.25,"), r"metrics.csv: line 3 \(run r2\), column math: empty, one of 1"),
        (METRICS.replace("1.25,2.25", ","), r"metrics.csv: line 3 \(run r2\), column qa: empty, one of 2"),
        (METRICS.replace("r3,three", "r2,two"), r"metrics.csv: line 4: run r2 is on line 3 already"),
        (METRICS.replace("2.25", "n/a"), r"metrics.csv: line 3 \(run r2\), column math: 'n/a', .*fit.missing=drop_run"),
        (
            METRICS.replace("2.25", "nan."),
            r"metrics.csv: line 3 \(run r2\), column math: 'nan.' is not a finite number",
        ),
        (METRICS.replace("run,name", "run,Index"), r"metrics.csv: line 1: column Index is neither .*; rename it"),
        (METRICS.replace(",name", ",run_id"), r"metrics.csv: line 1: column run_id is neither a domain nor a task"),
        (METRICS.replace("2.25", "inf"), r"metrics.csv: line 3 \(run r2\), column math: 'inf'"),
        (METRICS.replace("2.25", "2,25"), r"metrics.csv: line 3 \(r2\) has 6 cells and the header 5.*comma"),
        (METRICS.replace("r2,two,1,1.25,2.25", "r2,two"), r"metrics.csv: line 3 \(r2\) has 2 cells and the header 5"),
        (METRICS.replace("r2,two,1,1.25,2.25", ",,,,"), r"metrics.csv: line 3: an empty row"),
        (
            METRICS.replace("r2,two,1,1.25,2.25", "r2,,,,"),
            r"metrics.csv: line 3 \(run r2\), column qa: empty, one of 2",
        ),
        (METRICS.replace(",math", ",qa"), r"metrics.csv: line 1: column more than once: qa"),
        (METRICS.replace(",math", ","), r"metrics.csv: line 1: column 5 has no name; the header may be torn"),
        (METRICS.replace(",math", ""), r"metrics.csv: line 2 \(r1\) has 5 cells and the header 4"),
        (METRICS.replace(",", ";"), r"metrics.csv: line 1: columns must be separated by commas"),
        (METRICS.replace(",", "\t"), r"metrics.csv: line 1: columns must be separated by commas"),
    ],
)
def test_bad_metrics_name_the_place(tmp_path, metrics, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, metrics=metrics)


def test_a_header_cut_inside_its_last_name(tmp_path):
    """PITFALL 2: the cell is there, so only those who know the names can tell."""
    with pytest.raises(UserError, match=r"meta.json: `token_counts` lacks co and has unknown code"):
        read(tmp_path, RATIOS.replace("web,code", "web,co"), meta=META)
    with pytest.raises(UserError, match=r"metrics.csv: line 1: no column math that .* is ma$"):
        read(tmp_path, metrics=METRICS.replace("math", "ma"), keep_metrics=("qa", "math"))


def test_row_numbers_of_pandas_are_no_task(tmp_path):
    """Read without `index_col` and written again, they come with a name."""
    numbered = ["Unnamed: 0," + METRICS.splitlines()[0], *(f"{k},{r}" for k, r in enumerate(METRICS.splitlines()[1:]))]
    same(read(tmp_path, metrics="\n".join(numbered)), read(tmp_path))


def test_a_prefix_that_hides_an_id_is_kept(tmp_path):
    """`train_name` is a domain; without its prefix it would be the names of the runs, and no domain."""
    got = read(tmp_path, "index,train_web,train_name\n0,0.25,0.75\n", "index,metric/a,metric/index\n0,1,2\n")
    assert got.domains == ("train_web", "train_name") and got.tasks == ("metric/a", "metric/index")


def test_missing_files(tmp_path):
    with pytest.raises(UserError, match="ratios.csv: no such file"):
        SwarmTable.read(tmp_path / "ratios.csv", tmp_path / "metrics.csv")
    with pytest.raises(UserError, match="cannot be read"):
        SwarmTable.read(tmp_path, tmp_path)
