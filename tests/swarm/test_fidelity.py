"""fidelity.py: cheap runs are read apart from real ones, follow every change of a table, and are written."""

import dataclasses

import numpy as np
import pytest

from olmix_jax.swarm import csv_files, fidelity, table, task_groups
from olmix_jax.swarm.table import SwarmTable
from olmix_jax.utils.errors import UserError
from tests.swarm.small_swarm import BASE_METRICS, BASE_RATIOS, write_and_read

KINDS = ("real", "cheap", "", "Cheap", "real", "", "cheap", "real")
REAL, CHEAP = [0, 2, 4, 5, 7], [1, 3, 6]


def marked(kinds=KINDS, text=BASE_RATIOS):
    """Return the text of a table with a column ``fidelity`` in the second place."""
    rows = [line.split(",") for line in text.splitlines()]
    return "".join(",".join([row[0], kind, *row[1:]]) + "\n" for row, kind in zip(rows, ("fidelity", *kinds)))


def both(folder, **options):
    """Return the table with cheap runs, and the table of the same runs without the column."""
    for name in ("marked", "plain"):
        (folder / name).mkdir()
    return (
        write_and_read(folder / "marked", marked(), BASE_METRICS, **options),
        write_and_read(folder / "plain", BASE_RATIOS, BASE_METRICS, **options),
    )


def test_runs_are_the_real_ones_and_cheap_ones_stand_apart(tmp_path):
    found, plain = both(tmp_path)
    assert plain.cheap is None and found.domains == plain.domains and found.warnings == plain.warnings == ()
    assert found.runs == ("r0", "r2", "r4", "r5", "r7") == found.names and found.cheap.runs == ("r1", "r3", "r6")
    np.testing.assert_array_equal(found.ratios_KM, plain.ratios_KM[REAL])
    np.testing.assert_array_equal(found.bpb_KN, plain.bpb_KN[REAL])
    np.testing.assert_array_equal(found.cheap.ratios_JM, plain.ratios_KM[CHEAP])
    np.testing.assert_array_equal(found.cheap.bpb_JN, plain.bpb_KN[CHEAP])


def test_column_without_cheap_runs_changes_nothing(tmp_path):
    for kinds in (("real",) * 8, ("",) * 8):
        assert write_and_read(tmp_path, marked(kinds), BASE_METRICS).cheap is None


def test_name_of_the_column_is_read_in_any_case(tmp_path):
    """Cheap runs must not be fitted as real ones because of a capital letter."""
    found = write_and_read(tmp_path, marked().replace("fidelity", "Fidelity"), BASE_METRICS)
    assert found.cheap.runs == ("r1", "r3", "r6") and found.warnings == ()
    twice = marked(KINDS, marked()).replace("fidelity", "Fidelity", 1)
    with pytest.raises(UserError, match="the columns Fidelity, fidelity have one name"):
        write_and_read(tmp_path, twice, BASE_METRICS)


def test_scores_of_both_kinds_are_checked_apart(tmp_path):
    """A column that is constant among real runs says nothing, even if cheap runs have another level and length."""
    header, *rows = BASE_METRICS.splitlines()
    cells = [("90", "2.5") if k in CHEAP else ("900", "1.5") for k in range(8)]
    text = "".join(f"{row},{','.join(more)}\n" for row, more in zip((header, *rows), (("step", "k"), *cells)))
    with pytest.raises(UserError, match="run r0.*column k: 1.5: the column is the same in every run"):
        write_and_read(tmp_path, marked(), text)
    found = write_and_read(tmp_path, marked(), text, drop_metrics=["k"])
    assert len(found.runs) == 5 and not [w for w in found.warnings if "trained to the end" in w]
    crashed = text.replace("900,1.5", "100,1.5", 1)
    (warning,) = write_and_read(tmp_path, marked(), crashed, drop_metrics=["k"]).warnings[-1:]
    assert "trained to the end: r0 (step 100)" in warning


def test_domain_called_fidelity_is_a_domain(tmp_path):
    found = write_and_read(tmp_path, BASE_RATIOS.replace("wiki", "fidelity"), BASE_METRICS)
    assert found.domains == ("web", "code", "fidelity") and found.cheap is None


def test_faulty_column_is_refused(tmp_path):
    with pytest.raises(UserError, match="line 3 .run r1., column fidelity: 'low' is neither real nor cheap"):
        write_and_read(tmp_path, marked(("real", "low", *KINDS[2:])), BASE_METRICS)
    with pytest.raises(UserError, match="all 8 runs are cheap.*add real runs"):
        write_and_read(tmp_path, marked(("cheap",) * 8), BASE_METRICS)
    with pytest.raises(UserError, match="metrics.csv: move the column fidelity to .*ratios.csv"):
        write_and_read(tmp_path, BASE_RATIOS, marked(text=BASE_METRICS))


def test_cheap_runs_follow_domains_tasks_and_subsets(tmp_path):
    found, plain = both(tmp_path)
    turned = found.ordered(("wiki", "web", "code")).cheap
    np.testing.assert_array_equal(turned.ratios_JM, plain.ordered(("wiki", "web", "code")).ratios_KM[CHEAP])
    options = {"mmlu_groups": False, "granularity": "family", "families": {"all": ["t*"]}}
    grouped = task_groups.grouped(found, **options)
    np.testing.assert_array_equal(grouped.cheap.bpb_JN, task_groups.grouped(plain, **options).bpb_KN[CHEAP])
    assert len(found.subsampled(4, 0).runs) == 4 and found.subsampled(4, 0).cheap is found.cheap


def test_lengths_are_those_of_the_real_runs(tmp_path):
    """Shorter runs are cheap runs, so the real ones are alike."""
    tokens = tmp_path / "tokens.csv"
    for long in (100, 300):
        rows = [f"r{k},{50 if k in CHEAP else (long if k == 0 else 100)},10,20,30" for k in range(8)]
        tokens.write_text("\n".join(["run,tokens,web,code,wiki", *rows]))
        found = write_and_read(tmp_path, marked(), BASE_METRICS, tokens=tokens)
        assert found.cheap.runs == ("r1", "r3", "r6")
        assert (found.lengths is None) if long == 100 else (found.lengths.tokens_K.tolist() == [300, *[100] * 4])


def test_missing_scores_of_cheap_runs_are_missing_scores(tmp_path):
    metrics = BASE_METRICS.replace("r1,1.21,.90", "r1,,.90")
    with pytest.raises(UserError, match="run r1.*fit.missing"):
        write_and_read(tmp_path, marked(), metrics)
    found = write_and_read(tmp_path, marked(), metrics, missing="drop_run")
    assert found.cheap.runs == ("r3", "r6") and len(found.runs) == 5


def test_written_cheap_runs_are_read_back(tmp_path):
    draw = np.random.default_rng(0)
    ratios_KM, bpb_KN = draw.dirichlet(np.ones(2), size=5), 1 + draw.random((5, 2))
    runs, sizes = ["a", "b", "c", "d", "e"], (np.array([0.5, 0.5]), np.array([10, 10]))
    content = runs, runs, ["x", "y"], ["t", "u"], ratios_KM, bpb_KN, *sizes
    table.write_swarm(tmp_path, *content, {"e": 3}, cheap=["b", "e", "d"])
    assert (tmp_path / "ratios.csv").read_text().splitlines()[0] == "run,name,index,x,y,fidelity"
    found = SwarmTable.read(*(tmp_path / name for name in ("ratios.csv", "metrics.csv", "meta.json")))
    assert found.runs == ("a", "c") and found.cheap.runs == ("b", "d") and found.diverged == ("e",)
    np.testing.assert_array_equal(found.cheap.ratios_JM, ratios_KM[[1, 3]])
    np.testing.assert_array_equal(found.cheap.bpb_JN, bpb_KN[[1, 3]])
    table.write_swarm(tmp_path / "plain", *content, {})
    assert "fidelity" not in (tmp_path / "plain/ratios.csv").read_text()


def test_cheap_runs_of_other_files_join_on_the_domains_and_tasks_of_the_table(tmp_path):
    found, plain = both(tmp_path)
    folder = tmp_path / "cheap"
    folder.mkdir()
    # Other orders of columns, and one task more.
    order, names = [2, 0, 1], found.cheap.runs
    domains = [plain.domains[j] for j in order]
    table.write_ratios(folder / "ratios.csv", names, names, domains, found.cheap.ratios_JM[:, order], names)
    scores_JN = np.column_stack([np.ones(len(names)), found.cheap.bpb_JN[:, ::-1]])
    csv_files.write_sheet(folder / "metrics.csv", names, names, ["more", *found.tasks[::-1]], scores_JN.tolist())
    real = dataclasses.replace(found, cheap=None)
    again = fidelity.joined(real, folder / "ratios.csv", folder / "metrics.csv")
    assert again.runs == found.runs and again.cheap.runs == names
    np.testing.assert_allclose(again.cheap.ratios_JM, found.cheap.ratios_JM)
    np.testing.assert_array_equal(again.cheap.bpb_JN, found.cheap.bpb_JN)
    csv_files.write_sheet(folder / "metrics.csv", names, names, ["more"], scores_JN[:, :1].tolist())
    with pytest.raises(UserError, match=r"metrics.csv: line 1: no column .*; make the file again"):
        fidelity.joined(real, folder / "ratios.csv", folder / "metrics.csv")


def test_cost_of_a_cheap_run_is_its_share_of_the_tokens_of_a_real_one(tmp_path):
    tokens = tmp_path / "tokens.csv"
    for cheap, cost in ((25, 0.25), (300, None)):
        rows = [f"r{k},{cheap if k in CHEAP else 100},10,20,30" for k in range(8)]
        tokens.write_text("\n".join(["run,tokens,web,code,wiki", *rows]))
        assert write_and_read(tmp_path, marked(), BASE_METRICS, tokens=tokens).cheap.cost == cost
    assert write_and_read(tmp_path, marked(), BASE_METRICS).cheap.cost is None


def test_all_runs_may_be_cheap_where_a_table_joins_another(tmp_path):
    found = write_and_read(tmp_path, marked(("cheap",) * 8), BASE_METRICS, all_cheap=True)
    assert found.runs == () and found.ratios_KM.shape == (0, 3) and len(found.cheap.runs) == 8


def test_cheap_runs_of_two_tables_join_on_the_tasks_of_the_first(tmp_path):
    one = both(tmp_path)[0].cheap._replace(cost=0.5)
    other = one._replace(runs=("r3", "r8", "r9"), bpb_JN=one.bpb_JN[:, ::-1], cost=None)
    tasks = range(one.bpb_JN.shape[1])[::-1]
    found = fidelity.both(one, other, tasks)
    assert found.runs == ("r1", "r3", "r6", "r8", "r9") and found.cost == 0.5
    np.testing.assert_array_equal(found.bpb_JN, one.bpb_JN[[0, 1, 2, 1, 2]])
    np.testing.assert_array_equal(found.ratios_JM, one.ratios_JM[[0, 1, 2, 1, 2]])
    assert fidelity.both(one, None, tasks) is one
    np.testing.assert_array_equal(fidelity.both(None, other, tasks).bpb_JN, one.bpb_JN)


def test_mixtures_without_scores_keep_their_kinds(tmp_path):
    draw, runs = np.random.default_rng(0), ["a", "b", "c"]
    mixtures = table.Planned(tuple(runs), tuple(runs), ("x", "y"), draw.dirichlet(np.ones(2), size=3), ["b"])
    table.write_ratios(tmp_path / "next.csv", *mixtures)
    found = table.read_planned(tmp_path / "next.csv")
    assert found.runs == mixtures.runs and found.domains == ("x", "y") and set(found.cheap) == {"b"}
    assert found.real().runs == ("a", "c") and not found.real().cheap
    np.testing.assert_array_equal(found.real().ratios_KM, mixtures.ratios_KM[[0, 2]])
    table.write_ratios(tmp_path / "next.csv", *found.real())
    assert "fidelity" not in (tmp_path / "next.csv").read_text()
