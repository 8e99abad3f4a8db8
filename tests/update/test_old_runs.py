"""Old runs: expressed on the new domains, and weighted by how well they predict the new runs (PITFALL 24)."""

import dataclasses

import numpy as np

from olmix_jax.config.workdir import read_config, read_table
from olmix_jax.laws import log_linear
from olmix_jax.laws.fit_result import Over
from olmix_jax.swarm import table
from olmix_jax.update import changes, history, old_runs
from tests.update.test_update_plan import PLAN
from tests.update.workdirs import (
    ADDED,
    NOISE,
    OLD,
    TASKS,
    TOKENS,
    begin_update,
    finish_update,
    measure,
    true_bpb,
)


def table_of(workdir):
    return read_table(read_config(workdir), workdir)


def make_runs(ratios_KM, bpb_KN, age=1):
    return old_runs.Runs(ratios_KM, bpb_KN, np.zeros(len(ratios_KM)), age)


def test_scores_are_corrected_for_a_lost_domain(parent):
    """The correction comes from the old law and brings the scores to those of the mixtures without the domain."""
    change, swarm = changes.change(OLD, [changes.remove("wiki")]), table_of(parent)
    (runs,) = old_runs.read_runs(parent, change, np.array([50e9, 20e9, 10e9]), TASKS)
    keep_K = swarm.ratios_KM[:, 3] < 1 - old_runs.MIN_EXPRESSIBLE
    assert len(runs) == keep_K.sum() and runs.age == 1
    remaining_KM = swarm.ratios_KM[keep_K, :3]
    remaining_KM = remaining_KM / remaining_KM.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(runs.ratios_KM, remaining_KM)
    truth_KN, measured_KN = true_bpb(OLD[:3], remaining_KM), swarm.bpb_KN[keep_K]
    error, error_before = (np.sqrt(np.mean((bpb_KN - truth_KN) ** 2)) for bpb_KN in (runs.bpb_KN, measured_KN))
    assert error_before > 10 * NOISE and error < 3 * NOISE


def test_doubt_is_the_squared_correction_in_units_of_the_noise(parent):
    change, swarm = changes.change(OLD, [changes.remove("wiki")]), table_of(parent)
    (runs,) = old_runs.read_runs(parent, change, np.array([50e9, 20e9, 10e9]), TASKS)
    correction_KN = runs.bpb_KN - swarm.bpb_KN[swarm.ratios_KM[:, 3] < 0.5]
    noise_N = np.array([history.read_noise(parent).std[task] for task in TASKS])
    np.testing.assert_allclose(runs.doubt_K, ((correction_KN / noise_N) ** 2).mean(axis=1), rtol=1e-9, atol=1e-9)
    # The first three runs have no weight on the lost domain.
    np.testing.assert_allclose(runs.doubt_K[:3], 0, atol=1e-12)
    assert (runs.doubt_K[3:] > 0).all()


def test_runs_without_lost_domains_are_unchanged(parent):
    change, swarm = changes.change(OLD, [changes.add("new")]), table_of(parent)
    (runs,) = old_runs.read_runs(parent, change, np.array([TOKENS[d] for d in ADDED]), TASKS)
    np.testing.assert_array_equal(runs.bpb_KN, swarm.bpb_KN)
    np.testing.assert_allclose(runs.ratios_KM, np.pad(swarm.ratios_KM, ((0, 0), (0, 1))), rtol=1e-12)
    assert not runs.doubt_K.any()


def test_trust_falls_with_doubt_and_halves_with_each_update():
    runs = old_runs.Runs(np.ones((2, 1)), np.ones((2, 1)), np.array([0.0, 5.0]), age=1)
    np.testing.assert_allclose(runs.trust(0.3), [0.3, 1 / (1 / 0.3 + 5)])
    np.testing.assert_allclose(dataclasses.replace(runs, age=3).trust(0.4)[0], 0.1)


def test_scores_of_a_chain_are_joined_by_task_name(parent, tmp_path, caplog):
    """The update's scores list the tasks in another order than the parent's."""
    caplog.set_level("INFO", logger="olmix_jax")
    given, _ = begin_update(parent, tmp_path, [{"add": ["new"]}], ADDED, update_strategy="full")
    finish_update(tmp_path, given, ADDED, tasks=TASKS[::-1])
    workdir, change = tmp_path / "run", changes.change(ADDED, [])
    tokens_M = np.array([TOKENS[d] for d in ADDED])
    young, old = old_runs.read_runs(workdir, change, tokens_M, TASKS)
    assert (young.age, old.age) == (1, 2)
    ratios_KM = table_of(workdir).ratios_KM
    np.testing.assert_allclose(young.bpb_KN, measure(ADDED, ratios_KM, seed=1), atol=1e-9)
    np.testing.assert_array_equal(old.bpb_KN, table_of(parent).bpb_KN)
    _, reversed_old = old_runs.read_runs(workdir, change, tokens_M, TASKS[::-1])
    np.testing.assert_array_equal(reversed_old.bpb_KN, old.bpb_KN[:, ::-1])
    assert old_runs.read_runs(workdir, change, tokens_M, (*TASKS, "law")) == []
    assert "have no scores for law" in caplog.text


def test_runs_in_the_new_table_count_once(parent):
    """The user may append new runs to the old table."""
    swarm = table_of(parent)
    first = dataclasses.replace(swarm, runs=swarm.runs[:9], names=swarm.names[:9])
    first = dataclasses.replace(first, ratios_KM=swarm.ratios_KM[:9], bpb_KN=swarm.bpb_KN[:9])
    (rest,) = old_runs.without_new([make_runs(swarm.ratios_KM, swarm.bpb_KN)], first)
    np.testing.assert_array_equal(rest.bpb_KN, swarm.bpb_KN[9:])
    assert old_runs.without_new([rest], swarm) == []
    joined = old_runs.with_old(first, [make_runs(swarm.ratios_KM, swarm.bpb_KN)], 0.3)
    np.testing.assert_array_equal(joined.inherited.ratios_JM, swarm.ratios_KM[9:])
    np.testing.assert_allclose(joined.inherited.trust_J, 0.3)


def new_swarm():
    """Eight new runs over blocks: web and code keep their ratio 6 : 4, new is alone."""
    draw = np.random.default_rng(3)
    block_K = draw.uniform(0.2, 0.8, 8)
    ratios_KM = np.stack([0.6 * block_K, 0.4 * block_K, 1 - block_K], axis=1)
    domains, runs = ("web", "code", "new"), tuple(f"r{k}" for k in range(8))
    return table.SwarmTable(runs, domains, TASKS, ratios_KM, measure(domains, ratios_KM, 4), None, None, runs)


def choose(runs):
    plan = dataclasses.replace(PLAN, kept={"kept": {"web": 0.6, "code": 0.4}})
    return old_runs.choose_table(plan, new_swarm(), runs, log_linear.LAW, seed=0)


def test_old_runs_that_predict_new_ones_are_used():
    ratios_KM = np.random.default_rng(5).dirichlet(np.ones(3), size=40)
    chosen = choose([make_runs(ratios_KM, measure(("web", "code", "new"), ratios_KM, 6))])
    assert chosen.trust > 0 and chosen.over is Over.DOMAINS
    assert chosen.error[chosen.trust] == min(chosen.error.values()) and set(chosen.error) == {0.0, *old_runs.TRUSTS}
    assert len(chosen.table.inherited.ratios_JM) == 40 and chosen.table.domains == ("web", "code", "new")


def test_misleading_old_runs_are_left_out():
    """With no old runs the law is over the blocks."""
    ratios_KM = np.random.default_rng(5).dirichlet(np.ones(3), size=40)
    wrong_KN = measure(("new", "web", "code"), ratios_KM, 6)
    chosen = choose([make_runs(ratios_KM, wrong_KN)])
    assert chosen.trust == 0 and chosen.over is Over.BLOCKS and chosen.table.inherited is None
    assert chosen.table.domains == ("kept", "new")
    np.testing.assert_allclose(chosen.table.ratios_KM.sum(axis=1), 1)


def test_without_old_runs_there_is_one_candidate():
    assert choose([]).error.keys() == {0.0}
