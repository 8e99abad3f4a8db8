"""csv_values.py: missing scores, rounded mixtures, and the choice of columns."""

import numpy as np
import pytest

from olmix_jax.utils.errors import UserError
from tests.swarm.small_swarm import META, METRICS, RATIOS, assert_same_table, write_and_read


def test_missing_scores_drop_their_run_or_task(tmp_path):
    holed = METRICS.replace("1.25,2.25", "1.25,")
    by_run = write_and_read(tmp_path, metrics=holed, missing="drop_run")
    assert by_run.runs == ("r1", "r3") and by_run.names == ("one", "three") and by_run.tasks == ("qa", "math")
    np.testing.assert_array_equal(by_run.ratios_KM, [[0.25, 0.75], [0.5, 0.5]])
    np.testing.assert_array_equal(by_run.bpb_KN, [[1.5, 2.5], [1.125, 2.125]])
    by_task = write_and_read(tmp_path, metrics=holed, missing="drop_task")
    assert by_task.runs == ("r1", "r2", "r3") and by_task.tasks == ("qa",)
    np.testing.assert_array_equal(by_task.bpb_KN, [[1.5], [1.25], [1.125]])
    assert "column math: empty, the first of 1 missing scores; drop_run leaves out 1: r2" in by_run.warnings[0]
    assert "drop_task leaves out 1: math" in by_task.warnings[0]
    with pytest.raises(
        UserError, match="drop_run leaves nothing; complete them, or set --config.fit.missing=drop_task"
    ):
        write_and_read(tmp_path, metrics="run,qa\nr1,\nr2,\n", missing="drop_run")
    with pytest.raises(UserError, match="`missing` must be"):
        write_and_read(tmp_path, missing="ignore")


@pytest.mark.parametrize("word", ["NaN", "nan", "NA", "N/A", "#N/A", "<NA>", "null", "NULL", "None"])
def test_markers_of_missing_scores_count_as_empty_cells(tmp_path, word):
    """pandas, R, JSON and spreadsheets write missing values in these forms."""
    holed = METRICS.replace("1.25,2.25", f"1.25,{word}")
    with pytest.raises(UserError) as caught:
        write_and_read(tmp_path, metrics=holed)
    assert str(caught.value) == (
        f"{tmp_path / 'metrics.csv'}: line 3 (run r2), column math: '{word}', the first of 1 missing scores; "
        "complete them, or set --config.fit.missing=drop_run or drop_task"
    )
    assert_same_table(
        write_and_read(tmp_path, metrics=holed, missing="drop_run"),
        write_and_read(tmp_path, RATIOS, METRICS.replace("r2,", "r9,")),
    )
    assert write_and_read(tmp_path, metrics=holed, missing="drop_task").tasks == ("qa",)


@pytest.mark.parametrize("missing", ["error", "drop_run", "drop_task"])
def test_infinite_score_is_an_error_not_a_missing_score(tmp_path, missing):
    with pytest.raises(UserError, match="column math: '-inf' is not a finite number"):
        write_and_read(tmp_path, metrics=METRICS.replace("2.25", "-inf"), missing=missing)


def test_rounded_rows_are_renormalised_and_logged(tmp_path, logged):
    got = write_and_read(tmp_path, RATIOS.replace("0.25,0.75", "0.25,0.746"))
    np.testing.assert_allclose(got.ratios_KM[0], [0.25 / 0.996, 0.746 / 0.996], rtol=1e-15)
    np.testing.assert_array_equal(got.ratios_KM[1:], [[1, 0], [0.5, 0.5]])
    assert any("1 rows renormalised" in line and "run r1 by 0.004" in line for line in logged)


def test_drop_metrics_and_keep_metrics_choose_the_columns(tmp_path, logged):
    got = write_and_read(tmp_path, meta={**META, "drop_metrics": ["math", "ghost", "ghost"]})
    assert got.tasks == ("qa",) and got.bpb_KN.shape == (3, 1)
    assert any(line.endswith("no such columns to drop: ghost") for line in logged)
    # Swarms may share the list in meta.json; an unknown name in the argument is a mistake.
    with pytest.raises(
        UserError, match=r"line 1: no column maths, x, which `drop_metrics` names; the nearest to maths is math"
    ):
        write_and_read(tmp_path, drop_metrics=("maths", "qa", "x"))
    # A missing score in a dropped column does not matter.
    assert write_and_read(tmp_path, metrics=METRICS.replace("2.25", ""), drop_metrics=("math",)).tasks == ("qa",)
    kept = write_and_read(tmp_path, keep_metrics=("math",))
    assert kept.tasks == kept.columns == ("math",) and kept.sizes_N.tolist() == [1]
    got = write_and_read(tmp_path, meta={"drop_metrics": ["qa", "old"]}, keep_metrics=("math", "qa", "old"))
    assert got.tasks == ("math",)
    with pytest.raises(
        UserError, match="metrics.csv: line 1: no column qq, which `keep_metrics` names; the nearest to qq is qa"
    ):
        write_and_read(tmp_path, keep_metrics=("math", "qq"))
    with pytest.raises(UserError, match="every task is dropped"):
        write_and_read(tmp_path, drop_metrics=("math", "qa"))


def test_columns_may_be_named_with_or_without_the_prefix(tmp_path):
    ratios = "index,train_web,train_code\n" + "".join(f"{k},0.25,0.75\n" for k in range(3))
    metrics = "index,metric/a,metric/b,metric/c\n" + "".join(f"{k},{k}.1,{k}.2,{k}.3\n" for k in range(3))
    whole = write_and_read(tmp_path, ratios, metrics)
    assert whole.domains == ("web", "code") and whole.tasks == ("a", "b", "c")
    for name in ("b", "metric/b"):
        dropped = write_and_read(tmp_path, ratios, metrics, drop_metrics=(name,))
        assert dropped.tasks == ("a", "c")
        np.testing.assert_array_equal(dropped.bpb_KN, whole.bpb_KN[:, [0, 2]])
        assert write_and_read(tmp_path, ratios, metrics, {"drop_metrics": [name]}).tasks == ("a", "c")
        kept = write_and_read(tmp_path, ratios, metrics, keep_metrics=("metric/c", name))
        assert kept.tasks == kept.columns == ("b", "c"), "in the order of the file, not of the list"
        np.testing.assert_array_equal(kept.bpb_KN, whole.bpb_KN[:, 1:])
    with pytest.raises(UserError, match="no column metric/d, which `drop_metrics` names; the nearest to metric/d is "):
        write_and_read(tmp_path, ratios, metrics, drop_metrics=("metric/d",))
    # If no prefix was removed, it is a part of the name.
    plain = write_and_read(tmp_path, metrics="run,metric/a,metric/b\nr1,1,2\n", drop_metrics=("metric/a",))
    assert plain.tasks == ("metric/b",)
    with pytest.raises(UserError, match="no column a, which `drop_metrics` names"):
        write_and_read(tmp_path, metrics="run,metric/a,metric/b\nr1,1,2\n", drop_metrics=("a",))


@pytest.mark.parametrize(
    "column, cell", [("lr", 0.001), ("_step", 100), ("seed", 3), ("Unnamed: 0.1", 7), ("Notes", "x")]
)
def test_columns_of_mixtures_that_are_no_domains_are_left_out_and_named(tmp_path, column, cell):
    ratios = "\n".join(f"{line},{column if k == 0 else cell}" for k, line in enumerate(RATIOS.splitlines()))
    got = write_and_read(tmp_path, ratios)
    assert got.domains == ("web", "code") and f"are no domains and are left out: {column} (" in got.warnings[0]


def test_domain_with_a_name_of_bookkeeping_is_kept(tmp_path):
    got = write_and_read(tmp_path, RATIOS.replace("web,code", "time,_code"))
    assert got.domains == ("time", "_code") and not got.warnings
    tiny = "run,web,time\n" + "".join(f"r{k},0.995,0.005\n" for k in (1, 2, 3))
    assert write_and_read(tmp_path, tiny).domains == ("web", "time")
