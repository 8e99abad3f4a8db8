"""table.py: tables are joined by run id, and written tables are read back bit for bit (PITFALLS 1 and 3)."""

import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix_jax.swarm import table
from olmix_jax.swarm.table import SwarmTable
from olmix_jax.utils.errors import UserError
from tests.swarm.small_swarm import (
    BASE_METRICS,
    BASE_RATIOS,
    META,
    METRICS,
    RATIOS,
    assert_same_table,
    write_and_read,
)


def test_read_returns_the_tables(tmp_path):
    got = write_and_read(tmp_path, meta=META)
    assert got.runs == ("r1", "r2", "r3") and got.names == ("one", "two", "three")
    assert got.domains == ("web", "code") and got.tasks == ("qa", "math") and got.diverged == ()
    np.testing.assert_array_equal(got.ratios_KM, [[0.25, 0.75], [1, 0], [0.5, 0.5]])
    np.testing.assert_array_equal(got.bpb_KN, [[1.5, 2.5], [1.25, 2.25], [1.125, 2.125]])
    np.testing.assert_array_equal(got.natural_M, [0.75, 0.25])
    np.testing.assert_array_equal(got.tokens_M, [300, 100])
    assert got.ratios_KM.dtype == got.bpb_KN.dtype == got.natural_M.dtype == np.float64


def test_rows_are_joined_by_run_id(tmp_path):
    """PITFALL 1: two tables with their rows in different orders."""
    head, *rows = METRICS.splitlines(keepends=True)
    assert_same_table(write_and_read(tmp_path), write_and_read(tmp_path, metrics=head + "".join(rows[::-1])))


def test_rows_with_the_ids_of_other_runs_are_an_error(tmp_path):
    """PITFALL 1: ids were pasted in another order than the rows. The names reveal it."""
    swapped = METRICS.replace("r1,one", "r0,one").replace("r3,three", "r1,three").replace("r0,one", "r3,one")
    with pytest.raises(
        UserError, match=r"metrics.csv: line 4 \(run r1\), column name: 'three', but 'one' on line 2 of"
    ):
        write_and_read(tmp_path, metrics=swapped)


def test_name_and_index_columns_are_optional(tmp_path):
    ratios = ",run,web,code\n0,r1,0.25,0.75\n1,r2,1.0,0.0\n"
    metrics = "qa,run\n1.5,r1\n1.25,r2\n"
    got = write_and_read(tmp_path, ratios, metrics)
    assert got.names == got.runs == ("r1", "r2") and got.domains == ("web", "code") and got.tasks == ("qa",)
    assert got.natural_M is None and got.tokens_M is None
    named = write_and_read(tmp_path, ratios.replace("run", "run_id"), metrics)
    assert_same_table(named, got)


def test_runs_in_only_one_table_are_left_out_and_named(tmp_path):
    got = write_and_read(tmp_path, metrics=METRICS.replace("r2,", "x9,"))
    assert got.runs == ("r1", "r3")
    ratios, metrics = tmp_path / "ratios.csv", tmp_path / "metrics.csv"
    assert got.warnings == (
        f"1 run of {ratios} is left out, because {metrics} has no such run: r2; add the rows to it, or delete these",
        f"1 run of {metrics} is left out, because {ratios} has no such run: x9; add the rows to it, or delete these",
    )


def test_too_few_runs_are_an_error(tmp_path):
    """PITFALL 3: the check must compare the number of runs with the number of parameters, not with itself."""
    with pytest.raises(UserError, match="3 runs for 2 domains, but a fit of this law needs at least 4, better 9"):
        write_and_read(tmp_path).check_enough(0)
    more = RATIOS + "r4,four,3,0.1,0.9\n", METRICS + "r4,four,3,1,2\n"
    four = write_and_read(tmp_path, *more)
    four.check_enough(0)
    four.check_enough(3)
    with pytest.raises(UserError, match="4 runs for 2 domains, .* at least 5, better 9; .*`fit.law` that needs fewer"):
        four.check_enough(4)


def test_domains_in_few_runs_are_reported(tmp_path):
    """PITFALL 14: an unsampled domain is not an error, but it is reported."""
    ratios = "run,web,code,law\n" + "".join(f"r{i},{1 - 0.25 * (i == 2)},0,{0.25 * (i == 2)}\n" for i in range(6))
    got = write_and_read(tmp_path, ratios, "run,qa\n" + "".join(f"r{i},{i + 0.5}\n" for i in range(6)))
    got.check_enough(4)
    rare = {domain: (sampled.runs, sampled.max) for domain, sampled in got.barely_sampled().items()}
    assert rare == {"code": (0, 0.0), "law": (1, 0.25)}
    assert list(got.barely_sampled(1)) == ["code"] and got.barely_sampled(0) == {}


def test_subsampled_keeps_a_random_subset_in_order(tmp_path):
    whole = write_and_read(tmp_path, meta=META)
    assert_same_table(whole.subsampled(1.0, 0), whole)
    two = whole.subsampled(2, 0)
    assert two.runs == whole.subsampled(0.67, 0).runs and two.natural_M is whole.natural_M
    assert len({whole.subsampled(2, seed).runs for seed in range(20)}) == 3
    for k, run in enumerate(two.runs):
        i = whole.runs.index(run)
        assert two.names[k] == whole.names[i] and (k == 0 or i > whole.runs.index(two.runs[k - 1]))
        np.testing.assert_array_equal(two.ratios_KM[k], whole.ratios_KM[i])
        np.testing.assert_array_equal(two.bpb_KN[k], whole.bpb_KN[i])
    with pytest.raises(
        UserError,
        match="`fit.train_split` asks for 4 runs, and the swarm has 3; a value up to 1 is a share of the runs",
    ):
        whole.subsampled(4, 0)
    more = write_and_read(tmp_path, BASE_RATIOS, BASE_METRICS)
    with pytest.raises(UserError, match="`fit.train_split` keeps 1 of 8 runs, and a fit needs at least 4; raise it"):
        more.subsampled(0.1, 0)
    with pytest.raises(UserError, match="`fit.train_split` asks for 0 runs, .*a value above 1 a number of runs"):
        whole.subsampled(0.1, 0)


def write(folder, **changes):
    content = dict(
        runs=["r0", "r1", "r2"],
        names=["natural", 'a "name", quoted', "r2"],
        domains=["web", "code, C++"],
        tasks=["qa:rc::olmes", "math"],
        ratios_KM=np.array([[1 / 3, 2 / 3], [0.1, 0.9], [1, 0]]),
        bpb_KN=np.array([[0.1 + 0.2, 1e-17], [np.nan, np.inf], [2 / 7, 1.5]]),
        natural_M=np.array([1 / 7, 6 / 7]),
        tokens_M=np.array([10**12 + 1, 3]),
        diverged={"r1": 17},
    )
    table.write_swarm(folder, **{**content, **changes})
    return SwarmTable.read(folder / "ratios.csv", folder / "metrics.csv", folder / "meta.json")


def test_written_swarm_is_read_back_bit_for_bit(tmp_path, logged):
    got = write(tmp_path)
    assert got.runs == ("r0", "r2") and got.names == ("natural", "r2") and got.diverged == ("r1",)
    assert got.domains == ("web", "code, C++") and got.tasks == ("qa:rc::olmes", "math")
    np.testing.assert_array_equal(got.ratios_KM, [[1 / 3, 2 / 3], [1, 0]])
    np.testing.assert_array_equal(got.bpb_KN, [[0.1 + 0.2, 1e-17], [2 / 7, 1.5]])
    np.testing.assert_array_equal(got.natural_M, [1 / 7, 6 / 7])
    np.testing.assert_array_equal(got.tokens_M, [10**12 + 1, 3])
    assert any("diverged in training: r1" in line for line in logged)
    assert (tmp_path / "ratios.csv").read_text().splitlines()[:2] == [
        'run,name,index,web,"code, C++"',
        "r0,natural,0,0.3333333333333333,0.6666666666666666",
    ]
    assert (tmp_path / "metrics.csv").read_text().splitlines()[2] == 'r1,"a ""name"", quoted",1,,'
    assert json.loads((tmp_path / "meta.json").read_text())["diverged"] == {"r1": 17}


def test_equal_tables_give_equal_files(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b")
    for name in ("ratios.csv", "metrics.csv", "meta.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_any_table_is_read_back_bit_for_bit(tmp_path_factory, data):
    runs, domains, tasks = (data.draw(st.integers(1, 4)) for _ in range(3))
    counts = np.array(data.draw(st.lists(st.integers(1, 10**6), min_size=runs * domains, max_size=runs * domains)))
    counts = counts.reshape(runs, domains)
    finite = st.floats(allow_nan=False, allow_infinity=False)
    bpb = np.array(data.draw(st.lists(finite, min_size=runs * tasks, max_size=runs * tasks))).reshape(runs, tasks)
    named = [
        [f"{kind}{i}" for i in range(n)] for kind, n in (("train_", runs), ("train_", domains), ("metric/", tasks))
    ]
    ratios = counts / counts.sum(axis=1, keepdims=True)
    folder = tmp_path_factory.mktemp("any")
    table.write_swarm(folder, named[0], named[0], named[1], named[2], ratios, bpb, ratios[0], counts[0], {})
    paths = folder / "ratios.csv", folder / "metrics.csv", folder / "meta.json"
    got = SwarmTable.read(*paths, every_column=True)
    assert (got.runs, got.domains, got.tasks) == tuple(map(tuple, named))
    np.testing.assert_array_equal(got.ratios_KM, ratios)
    np.testing.assert_array_equal(got.bpb_KN, bpb)
    np.testing.assert_array_equal(got.natural_M, ratios[0])
    np.testing.assert_array_equal(got.tokens_M, counts[0])


def test_tables_that_could_not_be_read_back_are_not_written(tmp_path):
    with pytest.raises(UserError, match="run r1: the score of task qa:rc::olmes is not finite"):
        write(tmp_path, diverged={})
    with pytest.raises(UserError, match="'r0' cannot be a run id"):
        write(tmp_path, runs=["r0", "r1", "r0"])
    for name in ("run", "", " web", "web", "Index"):
        with pytest.raises(UserError, match="cannot be a column"):
            write(tmp_path, domains=["web", name])


def test_ratios_without_scores_are_read_back(tmp_path):
    path = tmp_path / "swarm" / "ratios.csv"
    counts = np.array([[1, 2], [7, 0]])
    table.write_ratios(path, ["r0", "r1"], ["natural", ""], ["web", "code"], counts / counts.sum(axis=1, keepdims=True))
    text = "run,name,index,web,code\nr0,natural,0,0.3333333333333333,0.6666666666666666\nr1,,1,1.0,0.0\n"
    assert path.read_text() == text and [p.name for p in path.parent.iterdir()] == ["ratios.csv"]
    got = table.read_ratios(path)
    assert got[:3] == (("r0", "r1"), ("natural", "r1"), ("web", "code"))
    np.testing.assert_array_equal(got.ratios_KM, [[1 / 3, 2 / 3], [1, 0]])


def test_published_dclm_swarm_is_read(published, tmp_path):
    """METHOD §4: 127 runs over 24 topics, 110 metric columns, some of them dropped."""
    folder = published / "olmix_dclm"
    paths = folder / "ratios.csv", folder / "metrics.csv", folder / "meta.json"
    got = SwarmTable.read(*paths)
    meta = json.loads(paths[2].read_text())
    assert got.ratios_KM.shape == (127, 24) and len(set(got.runs)) == 127 and got.runs[0] == "19g3guks"
    header = paths[1].read_text().splitlines()[0].split(",")[4:]
    assert len(header) == 110 and got.tasks == tuple(h for h in header if h not in meta["drop_metrics"])
    assert dict(zip(got.domains, got.natural_M)) == pytest.approx(meta["relative_sizes"], rel=1e-12)
    assert dict(zip(got.domains, got.tokens_M)) == meta["token_counts"]
    got.check_enough(len(got.domains) + 1)
    shuffled = []
    for path in paths[:2]:
        head, *rows = path.read_text().splitlines()
        random.Random(path.name).shuffle(rows)
        shuffled.append(tmp_path / path.name)
        shuffled[-1].write_text("\n".join([head, *rows]))
    assert_same_table(got, SwarmTable.read(paths[0], shuffled[1], paths[2]))
    mixed = SwarmTable.read(*shuffled, paths[2])
    order = [mixed.runs.index(run) for run in got.runs]
    np.testing.assert_array_equal(mixed.ratios_KM[order], got.ratios_KM)
    np.testing.assert_array_equal(mixed.bpb_KN[order], got.bpb_KN)


@pytest.mark.parametrize("part, runs", [("train", 512), ("test", 256)])
def test_published_regmix_swarm_is_read(published, part, runs, logged):
    folder = published / "regmix_1m"
    got = SwarmTable.read(folder / f"{part}_mixture_1m.csv", folder / f"{part}_pile_loss_1m.csv")
    assert got.ratios_KM.shape == (runs, 17) and got.bpb_KN.shape == (runs, 13)
    assert got.domains[0] == "the_pile_arxiv" and got.tasks[0] == "the_pile_arxiv_val_loss" and got.runs[0] == "1"
    np.testing.assert_allclose(got.ratios_KM.sum(axis=1), 1, atol=1e-14)
    assert any("renormalised" in line for line in logged)
    got.check_enough(len(got.domains) + 1)
