"""proxy/waves.py: members trained in waves, and resuming on other devices."""

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
from olmix_jax.proxy.train_result import TrainInfo, TrainResult
from olmix_jax.utils.errors import UserError

ARRAYS = ("bpb_KN", "loss_KT", "died_K")


def with_mapping(swarm, mapping):
    return dataclasses.replace(swarm, train=dataclasses.replace(swarm.train, mapping=mapping))


@pytest.fixture
def fake_training(monkeypatch):
    """Replace training by a function that takes no time. Return a list of (members, size) of its calls."""
    calls = []

    def fake(swarm, tasks, folder, label):
        members = len(swarm.runs)
        calls.append((members, swarm.size))
        info = TrainInfo(swarm.train.mapping, "2 × cpu", members, 100, 10, 1.0, 1.0, 1.0)
        return TrainResult(np.zeros((members, 2)), np.zeros((members, 7)), np.full(members, -1), info)

    monkeypatch.setattr(train, "train", fake)
    return calls


def test_waves_share_one_program_and_give_the_results_of_training_at_once(trained, toy_tasks, tmp_path, caplog):
    swarm, _, expected = trained
    with jax.log_compiles(), caplog.at_level("WARNING", logger="jax"):
        result = waves.train_in_waves(swarm, toy_tasks, tmp_path, "toy", 1)
    compiled = [r for r in caplog.records if "Finished XLA compilation of jit(steps" in r.getMessage()]
    assert jax.device_count() == 2 and result.info.waves == 3 == len(list(tmp_path.glob("wave-*")))
    assert len(compiled) <= 1
    for name in ARRAYS:
        np.testing.assert_allclose(getattr(result, name), getattr(expected, name), rtol=1e-6)


def test_waves_are_scored_along_the_run_and_resume_on_fewer_devices(trained, toy_tasks, tmp_path, after_saves):
    swarm = dataclasses.replace(trained[0], score_steps=(1, 4))
    expected = train.train(swarm, toy_tasks, tmp_path / "at once", "toy").bpb_KPN
    after_saves(4, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        waves.train_in_waves(swarm, toy_tasks, tmp_path, "toy", 1)
    assert len(list(tmp_path.glob("wave-*"))) == 2
    result = waves.train_in_waves(with_mapping(swarm, "map"), toy_tasks, tmp_path, "toy", 1)
    assert result.bpb_KPN.shape == (5, 2, 2)
    np.testing.assert_allclose(result.bpb_KPN, expected, rtol=1e-5)


def test_members_that_fit_at_once_need_no_waves(make_swarm, toy_tasks, tmp_path, fake_training):
    assert waves.train_in_waves(make_swarm(), toy_tasks, tmp_path, "toy", 5).info.waves is None
    assert fake_training == [(5, 5)]


def test_resume_of_waves_on_fewer_devices_trains_no_wave_twice(trained, toy_tasks, tmp_path, after_saves):
    """The run starts on two devices, stops in the second of three waves, and resumes on one device."""
    swarm, _, expected = trained
    saved = after_saves(5, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        waves.train_in_waves(swarm, toy_tasks, tmp_path, "toy", 1)
    division = json.loads((tmp_path / "waves.json").read_text())
    assert division == {"waves": 3, "members": [["run-0", "run-3"], ["run-1", "run-4"], ["run-2"]]}
    before_stop = len(saved)
    result = waves.train_in_waves(with_mapping(swarm, "map"), toy_tasks, tmp_path, "toy", 1)
    assert result.info.waves == 3
    assert saved[before_stop:] == [step for step in (2, 4, 6, 7) if step > saved[before_stop - 1]] + [2, 4, 6, 7]
    for name in ARRAYS:
        np.testing.assert_allclose(getattr(result, name), getattr(expected, name), rtol=1e-5)


def test_resume_keeps_the_waves_or_raises_an_error_if_they_do_not_fit(
    make_swarm, toy_tasks, tmp_path, monkeypatch, caplog, fake_training
):
    swarm = with_mapping(make_swarm(members=4), "shard")
    waves.train_in_waves(swarm, toy_tasks, tmp_path, "toy")
    assert json.loads((tmp_path / "waves.json").read_text())["waves"] == 1
    # Resume on two devices that can hold one member each.
    monkeypatch.setattr(sharding, "usable_memory", lambda: 1.5 * 2**30)

    def compile_steps(member, shape, members, devices):
        per_device = members // len(devices)
        return aot.CompiledStep(per_device, per_device * 2**30, 0, 0, 0)

    monkeypatch.setattr(aot, "compile_steps", compile_steps)
    with pytest.raises(UserError, match=r"waves.json: .* 1 wave of 4 members. With 2 devices, 2 on each need 2.00 GiB"):
        waves.train_in_waves(swarm, toy_tasks, tmp_path, "toy")
    monkeypatch.setattr(logging.getLogger("olmix_jax"), "propagate", True)
    with pytest.raises(UserError, match="waves.json"):
        waves.train_in_waves(swarm, toy_tasks, tmp_path, "toy", 1)
    assert "swarm.members_per_device=1 has no effect" in caplog.text
    assert "waves of 4 members, here 2 on a device" in caplog.text
    # A requested number is not checked. In a new folder, the members are divided into waves that fit.
    waves.train_in_waves(swarm, toy_tasks, tmp_path, "toy", 2)
    assert waves.train_in_waves(swarm, toy_tasks, tmp_path / "new", "toy").info.waves == 2
    assert fake_training == [(4, 4), (4, 4), (2, 2), (2, 2)]


def test_division_of_another_swarm_is_refused(make_swarm, toy_tasks, tmp_path, fake_training):
    waves.train_in_waves(make_swarm(members=3), toy_tasks, tmp_path, "toy", 1)
    with pytest.raises(UserError, match=r"waves.json: belongs to another swarm\. Delete"):
        waves.train_in_waves(make_swarm(members=4), toy_tasks, tmp_path, "toy", 1)


def test_members_larger_than_a_device_are_sharded_and_resumed(trained, toy_tasks, tmp_path, monkeypatch, after_saves):
    swarm, expected = with_mapping(trained[0], None), trained[2]
    monkeypatch.setattr(sharding, "usable_memory", lambda: swarm.member.memory_bytes - 1)
    saved = after_saves(5, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        waves.train_in_waves(swarm, toy_tasks, tmp_path, "toy")
    result = waves.train_in_waves(swarm, toy_tasks, tmp_path, "toy")
    assert (result.info.mapping, result.info.waves) == (sharding.FSDP, 5) and len(saved) == 5 * 4
    for name in ARRAYS:
        np.testing.assert_allclose(getattr(result, name), getattr(expected, name), rtol=1e-5)


def test_fsdp_keeps_the_identity_of_the_swarm(make_swarm):
    swarm = make_swarm()
    assert dataclasses.replace(swarm, train=sharding.with_fsdp(swarm.train, 2)).identity == swarm.identity


def test_fsdp_trains_one_member_at_a_time(make_swarm, toy_tasks, tmp_path, caplog, fake_training):
    # A run that was started with two members at once cannot resume with FSDP.
    waves.train_in_waves(with_mapping(make_swarm(members=2), "vmap"), toy_tasks, tmp_path / "two", "toy")
    fsdp = with_mapping(make_swarm(members=2), sharding.FSDP)
    with pytest.raises(UserError, match="waves.json: .* 1 wave of 2 members, but FSDP trains one member at a time"):
        waves.train_in_waves(fsdp, toy_tasks, tmp_path / "two", "toy")
    # A larger requested number is ignored.
    with caplog.at_level("WARNING", logger="olmix_jax"):
        assert waves.train_in_waves(fsdp, toy_tasks, tmp_path, "toy", 2).info.waves == 2
    assert "swarm.members_per_device=2 has no effect: each member is sharded over all devices" in caplog.text


@pytest.mark.parametrize(("fastest", "expected"), [("map", 5), ("shard", 3)])
def test_auto_chooses_one_mapping_for_all_waves(
    make_swarm, toy_tasks, tmp_path, monkeypatch, fake_training, fastest, expected
):
    """`map` uses one device and `shard` two, so the number of waves depends on the mapping."""
    timed = []

    def seconds(swarm, mapping, steps):
        timed.append((mapping, len(swarm.runs)))
        return 0.001 if mapping == fastest else 1.0

    monkeypatch.setattr(autotune, "seconds_per_step", seconds)
    swarm = make_swarm(mapping="auto")
    info = waves.train_in_waves(swarm, toy_tasks, tmp_path, "toy", 1).info
    assert info.waves == expected == math.ceil(5 / sharding.member_devices(fastest)) and info.mapping == fastest
    # Each mapping was timed once, with no more members than fit.
    assert timed == [("vmap", 1), ("map", 1), ("pmap", 2), ("shard", 2)]
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("mapping.json")] == ["mapping.json"]
    assert json.loads((tmp_path / "mapping.json").read_text())["seconds_per_step"]["vmap"] == 5.0
    waves.train_in_waves(swarm, toy_tasks, tmp_path, "toy", 1)
    assert len(timed) == 4


def test_out_of_memory_error_says_what_to_change(make_swarm, toy_tasks, tmp_path, monkeypatch):
    """The compiler's figure fits, but the device's free memory is fragmented."""

    def fail(message):
        def train_fails(*_):
            raise jax.errors.JaxRuntimeError(message)

        monkeypatch.setattr(train, "train", train_fails)

    fail("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 64.06GiB\nmore")
    several, one = (with_mapping(make_swarm(members=n), "vmap") for n in (3, 1))
    with pytest.raises(UserError, match=r"2 members on a device \(RESOURCE.*64.06GiB\).*swarm.members_per_device$"):
        waves.train_in_waves(several, toy_tasks, tmp_path, "toy", 2)
    # With one member per device, smaller waves do not help.
    with pytest.raises(UserError, match="1 member on a device .*train.micro_batch or set train.remat.*more devices$"):
        waves.train_in_waves(one, toy_tasks, tmp_path / "one", "toy", 1)
    fail("INTERNAL: x")
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        waves.train_in_waves(several, toy_tasks, tmp_path / "other", "toy", 2)
