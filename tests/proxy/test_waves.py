"""proxy/waves.py: members that do not fit at once, and other devices than those that a run began on."""

import dataclasses
import json
import logging
import math
import os
import signal

import jax
import numpy as np
import pytest

from olmix_jax.proxy import aot, autotune, sharding, train, waves
from olmix_jax.utils.errors import UserError
from tests.proxy.test_train import stop_after

ARRAYS = ("bpb_KN", "loss_KT", "died_K")


def mapped_by(swarm, mapping):
    return dataclasses.replace(swarm, train=dataclasses.replace(swarm.train, mapping=mapping))


def test_waves_share_one_program_and_are_the_swarm(make_swarm, toy_tasks, tmp_path, caplog):
    """Members that do not fit at once: the same numbers, one compilation."""
    swarm = make_swarm(members=5, steps=6, seeds=range(5))
    whole = train.train(swarm, toy_tasks, tmp_path / "whole", "toy")
    compiled = []
    with jax.log_compiles(), caplog.at_level("WARNING", logger="jax"):
        devices = sharding.devices_used(sharding.default_mapping())
        found = waves.in_waves(swarm, toy_tasks, tmp_path / "waves", "toy", -(-2 // devices))
        compiled = [r.getMessage() for r in caplog.records if "Finished XLA compilation of jit(steps" in r.getMessage()]
    wanted = -(-5 // (-(-2 // devices) * devices))
    assert found.info["waves"] == wanted == len(list((tmp_path / "waves").glob("wave-*"))) > 1
    assert len(compiled) <= 1
    for name in ARRAYS:
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-6)
    # As many as there are need no waves.
    assert "waves" not in waves.in_waves(swarm, toy_tasks, tmp_path / "once", "toy", 5).info


def test_waves_go_on_with_other_devices(make_swarm, toy_tasks, tmp_path, monkeypatch):
    """Begun on two devices, stopped in the second of three waves, gone on with on one: nothing is trained twice."""
    assert jax.device_count() == 2
    swarm = make_swarm(members=5, steps=6, seeds=range(5))
    whole = train.train(swarm, toy_tasks, tmp_path / "whole", "toy")
    # A wave of six steps has three checkpoints.
    written = stop_after(monkeypatch, 4, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        waves.in_waves(mapped_by(swarm, "shard"), toy_tasks, tmp_path / "waves", "toy", 1)
    stopped = len(written)
    record = json.loads((tmp_path / "waves/waves.json").read_text())
    assert record == {"waves": 3, "members": [["run-0", "run-3"], ["run-1", "run-4"], ["run-2"]]}
    found = waves.in_waves(mapped_by(swarm, "map"), toy_tasks, tmp_path / "waves", "toy", 1)
    assert found.info["waves"] == 3
    assert written[stopped:] == [step for step in (2, 4, 6) if step > written[stopped - 1]] + [2, 4, 6]
    for name in ARRAYS:
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-5)


def test_what_began_at_once_goes_on_at_once_or_says_why_not(make_swarm, toy_tasks, tmp_path, monkeypatch, caplog):
    swarm = mapped_by(make_swarm(members=4, seeds=range(4)), "shard")
    waves.in_waves(swarm, toy_tasks, tmp_path, "toy")
    assert json.loads((tmp_path / "waves.json").read_text())["waves"] == 1
    # On devices whose memory is known, and holds one member of the two on each.
    monkeypatch.setattr(sharding, "usable_memory", lambda: 1.5 * 2**30)
    needs = {"temporary": 0, "outputs": 0, "collectives": 0}
    compiled = lambda m, shape, members, devices: needs | {"arguments": members // len(devices) * 2**30}  # noqa: E731
    monkeypatch.setattr(aot, "compile_steps", compiled)
    with pytest.raises(
        UserError, match=r"waves.json: .*1 waves? of 4 members; on 2 devices that is 2 on each, 2.00 GiB"
    ):
        waves.in_waves(swarm, toy_tasks, tmp_path, "toy")
    monkeypatch.setattr(logging.getLogger("olmix_jax"), "propagate", True)
    with pytest.raises(UserError, match="waves.json"):
        waves.in_waves(swarm, toy_tasks, tmp_path, "toy", 1)
    assert "swarm.members_per_device=1 has no effect" in caplog.text
    assert "waves of 4 members, here 2 on a device" in caplog.text
    # Asked for, it is tried; in a folder of its own it is divided.
    waves.in_waves(swarm, toy_tasks, tmp_path, "toy", 2)
    assert waves.in_waves(swarm, toy_tasks, tmp_path / "new", "toy").info["waves"] == 2


def test_a_division_of_other_members_is_refused(make_swarm, toy_tasks, tmp_path):
    waves.in_waves(make_swarm(members=3), toy_tasks, tmp_path, "toy", 1)
    with pytest.raises(UserError, match="waves.json: of another swarm; delete"):
        waves.in_waves(make_swarm(members=4), toy_tasks, tmp_path, "toy", 1)


def test_members_too_large_for_a_device_lie_over_all(make_swarm, toy_tasks, tmp_path, monkeypatch):
    """One after another, and stopped and gone on with as any."""
    swarm = make_swarm(members=3, seeds=range(3))
    whole = train.train(swarm, toy_tasks, tmp_path / "whole", "toy")
    monkeypatch.setattr(sharding, "usable_memory", lambda: swarm.member.memory - 1)
    written = stop_after(monkeypatch, 4, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        waves.in_waves(swarm, toy_tasks, tmp_path / "waves", "toy")
    found = waves.in_waves(swarm, toy_tasks, tmp_path / "waves", "toy")
    assert (found.info["mapping"], found.info["waves"]) == (sharding.ONE, 3) and len(written) == 9
    for name in ARRAYS:
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-5)


def test_large_members_share_out_their_batches_evenly(make_swarm, toy_tasks, tmp_path, caplog):
    swarm = make_swarm(members=2, batch=12)
    trainer = swarm.train
    for micro, devices, wanted in ((1, 2, 2), (3, 2, 4), (3, 4, 4), (None, 3, 12), (6, 6, 6)):
        made = sharding.laid_over_all(dataclasses.replace(trainer, micro_batch=micro), devices)
        assert (made.micro_batch, made.mapping) == (wanted, sharding.ONE)
        # Checkpoints are gone on from with another number of devices.
        assert dataclasses.replace(swarm, train=made).identity == swarm.identity
    with pytest.raises(UserError, match="`train.batch` is 12; .*multiple of the 8 devices"):
        sharding.laid_over_all(trainer, 8)
    # Begun several at a time, all would lie there at once.
    waves.in_waves(mapped_by(make_swarm(members=2), "vmap"), toy_tasks, tmp_path / "two", "toy")
    with pytest.raises(UserError, match="waves.json: .*1 wave of 2 members, which by fsdp go one at a time"):
        waves.in_waves(mapped_by(make_swarm(members=2), sharding.ONE), toy_tasks, tmp_path / "two", "toy")
    # However many are asked for, one is there at a time.
    swarm = mapped_by(make_swarm(members=2), sharding.ONE)
    with caplog.at_level("WARNING", logger="olmix_jax"):
        assert waves.in_waves(swarm, toy_tasks, tmp_path, "toy", 2).info["waves"] == 2
    assert "swarm.members_per_device=2 has no effect: a member lies over all devices" in caplog.text


@pytest.mark.parametrize(("best", "wanted"), [pytest.param("map", 5, marks=pytest.mark.slow), ("shard", 3)])
def test_auto_is_settled_once_for_all_waves(make_swarm, toy_tasks, tmp_path, monkeypatch, best, wanted):
    """And waves are as many as the devices of that mapping make them: one device with `map`, two with `shard`."""
    timed = []

    def seconds(swarm, mapping, steps):
        timed.append((mapping, len(swarm.runs)))
        return 0.001 if mapping == best else 1.0

    monkeypatch.setattr(autotune, "_seconds", seconds)
    swarm = make_swarm(members=5, mapping="auto")
    done = waves.in_waves(swarm, toy_tasks, tmp_path, "toy", 1)
    assert done.info["waves"] == wanted == math.ceil(5 / sharding.devices_used(best))
    assert done.info["mapping"] == best
    # No mapping was tried with more members than it holds, and none twice.
    assert timed == [("vmap", 1), ("map", 1), ("pmap", 2), ("shard", 2)]
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("mapping.json")] == ["mapping.json"]
    assert json.loads((tmp_path / "mapping.json").read_text())["seconds_per_step"]["vmap"] == 5.0
    waves.in_waves(swarm, toy_tasks, tmp_path, "toy", 1)
    assert len(timed) == 4


def test_want_of_memory_while_it_runs_says_what_to_do(make_swarm, toy_tasks, tmp_path, monkeypatch):
    """As on a device whose free memory lies in pieces: the compiler's figure held, and there is no room for it."""

    def full(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 64.06GiB\nmore")

    monkeypatch.setattr(train, "train", full)
    with pytest.raises(UserError, match=r"2 members on a device \(RESOURCE.*64.06GiB\); .*members_per_device to less"):
        waves.in_waves(mapped_by(make_swarm(members=3), "vmap"), toy_tasks, tmp_path, "toy", 2)
    # Where one is too many already, to hold fewer is no help.
    with pytest.raises(UserError, match="1 member on a device .*train.micro_batch, or train.remat, .*more devices$"):
        waves.in_waves(mapped_by(make_swarm(members=1), "vmap"), toy_tasks, tmp_path / "one", "toy", 1)
    monkeypatch.setattr(train, "train", lambda *_: (_ for _ in ()).throw(jax.errors.JaxRuntimeError("INTERNAL: x")))
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        waves.in_waves(mapped_by(make_swarm(members=3), "vmap"), toy_tasks, tmp_path / "other", "toy", 2)
