"""proxy/trunk.py: members that continue from the last state of one trunk."""

import dataclasses
import os
import signal

import jax
import numpy as np
import pytest

from olmix_jax.proxy import checkpoint, data, sharding, train, waves
from olmix_jax.proxy.trunk import Trunk
from olmix_jax.utils.errors import UserError
from tests import toy

STEPS, SHARED, DECAY = 8, 4, 3
TRUNK_COUNTS = np.array([12, 4])
# The first branch has the mixture of the trunk.
COUNTS = np.array([[12, 4], [4, 12], [16, 0], [0, 16], [8, 8]])


def swarm_of(counts_KM, **changes):
    seed_K = np.zeros(len(counts_KM), int)
    runs = data.Runs(tuple(f"run-{k}" for k in range(len(counts_KM))), np.asarray(counts_KM), seed_K, seed_K)
    settings = {"mapping": "shard", "warmup": 2 / STEPS}
    return dataclasses.replace(toy.make_swarm(steps=STEPS, **settings), runs=runs, **changes)


@pytest.fixture(scope="module")
def trunk_swarm():
    swarm = swarm_of(TRUNK_COUNTS[None], decay=0)
    settings = dataclasses.replace(swarm.train, steps=SHARED, warmup=2 / SHARED, mapping=sharding.one_device_mapping())
    return dataclasses.replace(swarm, train=settings)


@pytest.fixture(scope="module")
def trunk(trunk_swarm, tmp_path_factory):
    """A trained trunk."""
    folder = tmp_path_factory.mktemp("trunk")
    train.train(trunk_swarm, toy.make_tasks(), folder, "trunk")
    return Trunk(folder / "checkpoints", trunk_swarm.identity, SHARED, TRUNK_COUNTS, 0)


@pytest.fixture(scope="module")
def branched(trunk, tmp_path_factory):
    """The branches and their results."""
    swarm = swarm_of(COUNTS, decay=DECAY, trunk=trunk)
    return swarm, train.train(swarm, toy.make_tasks(), tmp_path_factory.mktemp("branched"), "toy")


def assert_same(result, expected, rtol=0.0):
    for name in ("bpb_KN", "loss_KT", "died_K"):
        np.testing.assert_allclose(getattr(result, name), getattr(expected, name), rtol=rtol)


def last_state(swarm, folder):
    """The states in the checkpoint of the last step."""
    checkpoints = checkpoint.Checkpoints(folder / "checkpoints", swarm.identity)
    restored = checkpoints.restore({"states": swarm.host_template(swarm.start("map"))})
    checkpoints.close()
    assert restored.step == STEPS
    return restored.arrays["states"]


def test_trunk_and_branch_of_its_mixture_equal_one_uninterrupted_run(trunk, toy_tasks, tmp_path):
    whole, branch = swarm_of(2 * TRUNK_COUNTS[None], decay=DECAY), swarm_of(COUNTS[:1], decay=DECAY, trunk=trunk)
    read = [np.concatenate([chunk[0].reshape(-1, 9) for chunk in swarm.chunks()]) for swarm in (whole, branch)]
    read = [tokens[tokens.any(axis=1)] for tokens in read]
    assert len(read[1]) == (STEPS - SHARED) * 4
    np.testing.assert_array_equal(read[0][-len(read[1]) :], read[1])
    results = [train.train(swarm, toy_tasks, tmp_path / n, n) for swarm, n in ((whole, "whole"), (branch, "branch"))]
    assert_same(*results, rtol=1e-6)
    states = [last_state(swarm, tmp_path / n) for swarm, n in ((whole, "whole"), (branch, "branch"))]
    assert states[0].step == states[1].step == STEPS
    for one, other in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_branches_differ_only_after_the_trunk(branched):
    swarm, result = branched
    assert (result.loss_KT[:, :SHARED] == result.loss_KT[:1, :SHARED]).all()
    assert len(np.unique(result.loss_KT[:, -1])) == len(np.unique(result.bpb_KN[:, 0])) == len(COUNTS)
    info = result.info
    assert (info.trunk_tokens, info.tokens_per_member) == (SHARED * 4 * 8, STEPS * 4 * 8)
    assert info.own_tokens == 5 * 4 * 4 * 8 and info.full_proxies == (4 + 5 * 4) / 8
    assert swarm.dispatch_ends() == [6, 8] and swarm.first_step == SHARED


def test_branch_in_a_swarm_equals_the_branch_alone(branched, toy_tasks, tmp_path):
    swarm, expected = branched
    alone = train.train(swarm.subset(np.array([3])), toy_tasks, tmp_path, "toy")
    np.testing.assert_allclose(alone.loss_KT[0], expected.loss_KT[3], rtol=1e-6)
    np.testing.assert_allclose(alone.bpb_KN[0], expected.bpb_KN[3], rtol=1e-6)


@pytest.mark.parametrize("mapping", ["fsdp", *(pytest.param(m, marks=pytest.mark.slow) for m in ("vmap", "pmap"))])
def test_every_mapping_gives_the_same_branches(branched, toy_tasks, tmp_path, mapping):
    swarm = dataclasses.replace(branched[0], train=dataclasses.replace(branched[0].train, mapping=mapping))
    assert_same(train.train(swarm, toy_tasks, tmp_path, "toy"), branched[1], rtol=1e-5)


def test_branches_in_waves_and_after_a_stop_are_those_trained_at_once(
    branched, toy_tasks, tmp_path, monkeypatch, after_saves
):
    """The run stops after the first of two dispatches of the second wave."""
    swarm, expected = branched
    saved, steps, write = after_saves(-1, None), [], train.Tracker.write

    def write_and_stop(self, step, *more):
        write(self, step, *more)
        steps.append(step)
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train.Tracker, "write", write_and_stop)
        waves.train_in_waves(swarm, toy_tasks, tmp_path, "toy", 1)
    assert saved == steps == [6, 8, 6]
    result = waves.train_in_waves(swarm, toy_tasks, tmp_path, "toy", 1)
    assert result.info.waves == 3 and saved[3:] == [8, 6, 8]
    assert_same(result, expected, rtol=1e-6)
    assert result.info.full_proxies == expected.info.full_proxies


def test_identity_depends_on_the_trunk_and_that_of_full_proxies_is_unchanged(branched, trunk):
    swarm = branched[0]
    others = [
        dataclasses.replace(swarm, decay=2),
        dataclasses.replace(swarm, trunk=None),
        dataclasses.replace(swarm, trunk=None, decay=None),
        dataclasses.replace(swarm, trunk=dataclasses.replace(trunk, identity="another")),
        dataclasses.replace(swarm, trunk=dataclasses.replace(trunk, read_M=np.array([11, 5]))),
    ]
    assert len({swarm.identity, *(other.identity for other in others)}) == 6
    # Checkpoints written before there were trunks are still resumed.
    full = toy.make_swarm()
    assert full.identity == "3ebff4c5329dbb82"
    assert dataclasses.replace(full, score_steps=(3, 4)).identity == "64bb36378c3ecbcf"


def test_missing_or_foreign_state_is_an_error_that_says_how_to_go_on(branched, trunk, tmp_path):
    for changed in (dataclasses.replace(trunk, folder=tmp_path / "none"), dataclasses.replace(trunk, identity="x")):
        swarm = dataclasses.replace(branched[0], trunk=changed)
        with pytest.raises(UserError, match="the trunk's last state in .* cannot be read: .*run --stages=trunk"):
            swarm.start("map")


def test_counts_that_include_the_trunk_are_an_error(trunk):
    swarm = swarm_of(2 * COUNTS, decay=DECAY, trunk=trunk)
    with pytest.raises(UserError, match=r"has 32 sequences, but \(train.steps − 4 of the trunk\) × train.batch is 16"):
        swarm.chunks()
