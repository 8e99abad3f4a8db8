"""workdir.py: the config, the ancestors of an update, and the tables that a config asks for."""

import dataclasses
import json

import numpy as np
import pytest

from olmix_jax import config
from olmix_jax.config import workdir as workdirs
from olmix_jax.swarm import table
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.swarm.rounds import Round, Rounds, run_digests
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError

DOMAINS, TASKS = ("web", "code"), ("qa", "math", "old")


def write_table(folder, domains=DOMAINS, runs=6, seed=0):
    """Write a swarm of random mixtures and scores, and return its mixtures and scores."""
    random = np.random.default_rng(seed)
    ratios_KM, bpb_KN = random.dirichlet(np.ones(len(domains)), runs), random.uniform(1, 2, (runs, len(TASKS)))
    ids = [f"r{k}" for k in range(runs)]
    sizes = np.arange(1, len(domains) + 1)
    table.write_swarm(folder, ids, ids, domains, TASKS, ratios_KM, bpb_KN, sizes / sizes.sum(), sizes, {})
    return ratios_KM, bpb_KN


def external(folder, **fields):
    paths = {name: str(folder / file) for name, file in (("ratios", "ratios.csv"), ("metrics", "metrics.csv"))}
    return config.Swarm(**paths, **fields)


def write_plan(folder, parent):
    files.write_json(folder / workdirs.UPDATE_PLAN, {"parent": str(parent)})


def test_config_is_read_from_the_workdir(tmp_path):
    resolved = config.Config(seed=3, swarm=config.Swarm(size=12))
    files.write_json(tmp_path / "config.json", dataclasses.asdict(resolved))
    assert workdirs.read_config(tmp_path) == resolved


def test_ancestors_are_listed_youngest_first(tmp_path):
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    write_plan(second, first)
    write_plan(third, second)
    assert workdirs.ancestors(third) == [third, second, first] and workdirs.ancestors(first) == [first]


def test_ancestors_that_form_a_cycle_are_an_error(tmp_path):
    write_plan(tmp_path / "a", tmp_path / "b")
    write_plan(tmp_path / "b", tmp_path / "a")
    with pytest.raises(UserError, match="its parent .*a is an update of this workdir"):
        workdirs.ancestors(tmp_path / "a")


def test_paths_of_an_external_swarm_are_those_of_the_config(tmp_path):
    trained = config.Config()
    assert workdirs.table_path(trained, tmp_path, workdirs.RATIOS) == tmp_path / "swarm/ratios.csv"
    for meta, path in (("m.json", tmp_path / "m.json"), ("", None), ('{"token_counts": {}}', None)):
        given = config.Config(swarm=external(tmp_path, meta=meta and meta.replace("m.json", str(tmp_path / "m.json"))))
        assert workdirs.table_path(given, tmp_path, workdirs.META) == path
        assert workdirs.table_path(given, tmp_path, workdirs.METRICS) == tmp_path / "metrics.csv"
        assert workdirs.table_path(given, tmp_path, workdirs.DOMAINS) == tmp_path / "domains.json"


def test_table_trained_in_the_workdir_is_read_with_its_sizes(tmp_path):
    ratios_KM, bpb_KN = write_table(tmp_path / "swarm")
    got = workdirs.read_table(config.Config(fit=config.Fit(drop_metrics=("old",))), tmp_path)
    assert got.domains == DOMAINS and got.tasks == ("qa", "math") and got.tokens_M.tolist() == [1, 2]
    np.testing.assert_array_equal(got.ratios_KM, ratios_KM)
    np.testing.assert_array_equal(got.bpb_KN, bpb_KN[:, :2])


def test_external_table_is_split_and_grouped_as_the_config_asks(tmp_path):
    write_table(tmp_path)
    families = json.dumps({"a": ["qa", "math"], "b": ["old"]})
    fit = config.Fit(train_split=4, granularity="family", families=families)
    got = workdirs.read_table(config.Config(swarm=external(tmp_path), fit=fit), tmp_path / "work")
    assert got.tasks == ("a", "b") and got.sizes_N.tolist() == [2, 1] and len(got.runs) == 4
    assert got.natural_M is None
    again = workdirs.read_table(config.Config(swarm=external(tmp_path), fit=fit), tmp_path / "work")
    assert again.runs == got.runs


def test_table_of_an_update_has_the_order_of_its_domain_set(tmp_path):
    ratios_KM, _ = write_table(tmp_path)
    DomainSet(DOMAINS[::-1], (5, 7), (1, 1)).write(tmp_path / "work/domains.json")
    first = config.Config(swarm=external(tmp_path))
    update = dataclasses.replace(first, update=config.Update(parent=str(tmp_path / "parent")))
    assert workdirs.read_table(first, tmp_path / "work").domains == DOMAINS
    got = workdirs.read_table(update, tmp_path / "work")
    assert got.domains == DOMAINS[::-1]
    np.testing.assert_array_equal(got.ratios_KM, ratios_KM[:, ::-1])
    DomainSet(("web", "law"), (5, 7), (1, 1)).write(tmp_path / "work/domains.json")
    with pytest.raises(UserError, match="the swarm's domains and the domain set differ in code, law"):
        workdirs.read_table(update, tmp_path / "work")


def test_held_out_table_has_the_tasks_of_the_fitted_one(tmp_path):
    write_table(tmp_path)
    write_table(tmp_path / "held_out", runs=3, seed=1)
    held_out = {"test_ratios": "ratios.csv", "test_metrics": "metrics.csv"}
    swarm = external(tmp_path, **{name: str(tmp_path / "held_out" / file) for name, file in held_out.items()})
    settings = config.Config(swarm=swarm, fit=config.Fit(drop_metrics=("math",), missing="drop_task"))
    fitted = workdirs.read_table(settings, tmp_path)
    got = workdirs.read_test_table(settings, fitted)
    assert got.tasks == fitted.tasks == ("qa", "old") and len(got.runs) == 3
    path = tmp_path / "held_out/metrics.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:-1], lines[-1].rpartition(",")[0] + ","]) + "\n")
    assert workdirs.read_test_table(settings, fitted).runs == ("r0", "r1"), "the run is dropped, not the task"


def test_external_swarm_without_any_run_of_a_rounds_swarm_is_an_error(tmp_path):
    write_table(tmp_path)
    settings, work = config.Config(swarm=external(tmp_path)), tmp_path / "work"
    digests = run_digests(workdirs.read_swarm(settings, work))
    Rounds((Round({}, {}, {}, 0.1, swarm=digests),)).write(work)
    assert len(workdirs.read_table(settings, work).runs) == 6
    write_table(tmp_path, seed=1)
    with pytest.raises(UserError, match="rounds/1 belongs to another swarm: .*ratios.csv has none of its runs; give"):
        workdirs.read_table(settings, work)


def test_table_has_the_runs_of_the_rounds(tmp_path):
    ratios_KM, bpb_KN = write_table(tmp_path / "swarm")
    more_KM, scores_KN = np.array([[0.3, 0.7], [0.6, 0.4], [1.0, 0.0]]), np.array([[1, 2, 3.0]] * 3) + 0.5
    sizes = np.array([1 / 3, 2 / 3]), np.array([1, 2])
    ids, died = ["proposal-1", "next-1", "next-2"], {"next-2": 4}
    Rounds((Round({}, {}, {}, 0.1),)).write(tmp_path)
    table.write_swarm(tmp_path / "rounds/1", ids, ids, DOMAINS, TASKS, more_KM, scores_KN, *sizes, died)
    fit = config.Fit(drop_metrics=("old",), train_split=4)
    got = workdirs.read_table(config.Config(fit=fit), tmp_path)
    assert got.runs[4:] == ("proposal-1", "next-1") and got.diverged == ("next-2",) and got.tasks == ("qa", "math")
    np.testing.assert_array_equal(got.ratios_KM[4:], more_KM[:2])
    np.testing.assert_array_equal(got.bpb_KN[4:], [[1.5, 2.5]] * 2)
    assert workdirs.table_files(tmp_path)[3:] == ("rounds/1/ratios.csv", "rounds/1/metrics.csv")
    other = ids[:2], ids[:2], ("web", "law"), TASKS, more_KM[:2], scores_KN[:2]
    table.write_swarm(tmp_path / "rounds/1", *other, *sizes, {})
    with pytest.raises(
        UserError,
        match="rounds/1/ratios.csv: its domains and those of the swarm differ in code, law. Or delete .*rounds",
    ):
        workdirs.read_table(config.Config(), tmp_path)


def test_update_leaves_out_cheap_runs(tmp_path):
    ratios_KM, bpb_KN = write_table(tmp_path)
    ids, sizes = [f"r{k}" for k in range(6)], np.array([1, 2])
    table.write_swarm(tmp_path, ids, ids, DOMAINS, TASKS, ratios_KM, bpb_KN, sizes / 3, sizes, {}, cheap=ids[4:])
    settings = config.Config(swarm=external(tmp_path))
    assert workdirs.read_table(settings, tmp_path).cheap.runs == ("r4", "r5")
    found = workdirs.read_table(dataclasses.replace(settings, update=config.Update(parent="p")), tmp_path)
    assert found.runs == ("r0", "r1", "r2", "r3") and found.cheap is None
    assert found.warnings == ("an update is fitted to real runs alone; 2 cheap runs left out",)
