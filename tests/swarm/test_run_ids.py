"""run_ids.py: the columns by which tables are joined, and ids that are written differently."""

import pytest

from olmix_jax.utils.errors import UserError
from tests.swarm.small_swarm import METRICS, RATIOS, assert_same_table, write_and_read

PLAIN = "run,qa,math\nr1,1.5,2.5\nr2,1.25,2.25\nr3,1.125,2.125\n"


@pytest.mark.parametrize("key", ["Run", "run_id", "RUN ID", "id", "Name", "name", "index", "Unnamed: 0", "", "mixture"])
def test_usual_names_of_the_key_column_are_accepted(tmp_path, key):
    got = write_and_read(tmp_path, metrics=PLAIN.replace("run", key, 1))
    assert_same_table(got, write_and_read(tmp_path))
    got = write_and_read(tmp_path, ratios=f"{key},web,code\nr1,0.25,0.75\nr2,1,0\nr3,0.5,0.5\n", metrics=PLAIN)
    assert got.runs == ("r1", "r2", "r3") and got.domains == ("web", "code")


@pytest.mark.parametrize("key", ["run", "index", "", "name"])
def test_id_with_fractions_is_a_domain_and_a_task(tmp_path, key):
    """Indonesian has the code `id`."""
    ratios = f"{key},en,id\n0,0.25,0.75\n1,1,0\n2,0.5,0.5\n"
    got = write_and_read(tmp_path, ratios=ratios, metrics=f"{key},id,en\n0,1.5,1\n1,1.25,1.1\n2,1.125,1.2\n")
    assert got.domains == ("en", "id") and got.tasks == ("id", "en") and got.runs == ("0", "1", "2")
    assert got.bpb_KN[:, 0].tolist() == [1.5, 1.25, 1.125] and not got.warnings


def test_export_of_a_tracker_is_joined_by_its_names(tmp_path):
    """The columns ID, State and Created of the tracker are no scores."""
    head, *rows = PLAIN.splitlines()
    metrics = [
        f"Name,State,Created,ID,{head[4:]}",
        *(f"{r[:2]},finished,2026-01-0{r[1]},x{r[1]},{r[3:]}" for r in rows),
    ]
    got = write_and_read(tmp_path, metrics="\n".join(metrics))
    assert got.runs == ("r1", "r2", "r3") and got.tasks == ("qa", "math")
    assert "State (data about the run), Created (data about the run), ID (an id)" in got.warnings[0]


@pytest.mark.parametrize(
    "ratios, metrics, message",
    [
        (
            RATIOS,
            "task,r1,r2,r3\nqa,1.5,1.25,1.1\n",
            "metrics.csv: line 1: the table is transposed: .* runs of .*ratios",
        ),
        (RATIOS, ",r1,r2,r3\nqa,1.5,1.25,1.1\n", "metrics.csv: line 1: the table is transposed"),
        (RATIOS, "run,r1,r2,r3\nqa,1.5,1.25,1.1\n", "metrics.csv: line 1: the table is transposed"),
        ("domain,r1,r2\nweb,0.5,1\ncode,0.5,0\n", PLAIN, "ratios.csv: line 1: the table is transposed"),
        (",r1,r2\nweb,0.5,1\ncode,0.5,0\n", ",r1,r2\nqa,1,2\nmath,1,2\n", "metrics.csv: both tables are transposed"),
        (RATIOS, "qa,math\n1,2\n2,3\n", "metrics.csv: line 1: no column to join by: it needs a column `run`"),
        ("web,code\n1,0\n0,1\n", METRICS, "ratios.csv: line 1: no column to join by"),
        (
            "run,web\n0,1\n1,1\n",
            ",qa\n0,1.5\n1,1.6\n",
            "metrics.csv: line 1: .* only numbered, and those of .*ratios.csv",
        ),
        (
            "run,web\n001,1\n010,1\n100,1\n",
            "run,qa\n1,1.5\n10,1.6\n100,1.5\n",
            "has the run 001, and .* has 1, which may",
        ),
        ("run,web\nR_1,1\nr2,1\n", "run,qa\nr1,1.5\nr2,1.6\n", "ratios.csv has the run R_1, and .*metrics.csv has r1,"),
        (
            "index,web\n0,1\n1,1\n2,1\n",
            "index,qa\n1,1.5\n2,1.6\n3,1.6\n",
            "has runs 0 to 2, and .* has 1 to 3: they may",
        ),
        ("run,web\n1,1\n1.0,1\n", "run,qa\n1,1.5\n", "ratios.csv: line 3: run 1 is already on line 2"),
    ],
)
def test_tables_that_cannot_be_joined_name_the_file_at_fault(tmp_path, ratios, metrics, message):
    with pytest.raises(UserError, match=message):
        write_and_read(tmp_path, ratios, metrics)


def test_whole_numbers_are_the_same_with_and_without_a_decimal(tmp_path):
    got = write_and_read(tmp_path, "run,web\n1,1\n2,1\n3,1\n", "run,qa\n1.0,1.5\n2.0,1.6\n3.0,1.7\n")
    assert got.runs == ("1", "2", "3") and not got.warnings
    versions = write_and_read(tmp_path, "run,web\n1.0,1\n1.1,1\n", "run,qa\n1.0,1.5\n1.1,1.6\n")
    assert versions.runs == ("1.0", "1.1")
