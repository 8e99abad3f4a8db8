"""proxy/train.py: going on, one bad member, and a choice of mapping."""

import dataclasses
import os
import signal
import threading

import jax
import numpy as np
import pytest

from configs import paper
from olmix_jax import config
from olmix_jax.corpus.tasks import bits_per_byte_N
from olmix_jax.proxy import checkpoint, model, train
from olmix_jax.utils.errors import UserError


def test_losses_fall_and_scores_are_the_members_own(make_swarm, toy_tasks, tmp_path):
    swarm = make_swarm(members=3, steps=30, checkpoint_every=20)
    done = train.train(swarm, toy_tasks, tmp_path, "toy")
    assert done.loss_KT.shape == (3, 30) and done.bpb_KN.shape == (3, 2)
    assert (done.loss_KT[:, -5:].mean(1) < done.loss_KT[:, :5].mean(1)).all()
    assert (done.died_K == -1).all()
    # The same tasks, one member, no mapping.
    states = swarm.start("vmap")
    params = jax.tree.map(lambda x: x[1], states.params)
    nats_E = swarm.member.score(params, toy_tasks.tokens_EL, toy_tasks.answer_EL)
    expected_N = bits_per_byte_N(np.asarray(nats_E, np.float64), toy_tasks)
    bpb_KN = train.score(swarm, states.params, toy_tasks, "vmap", np.array([False, True, True]))
    assert np.isnan(bpb_KN[0]).all()
    np.testing.assert_allclose(bpb_KN[1], expected_N, rtol=1e-6)


def test_a_member_that_diverges_is_frozen_and_the_others_are_not_touched(make_swarm, toy_tasks, tmp_path):
    swarm = make_swarm(members=3, steps=6, seeds=[0, 1, 2])
    whole = train.train(swarm, toy_tasks, tmp_path / "whole", "toy")
    poisoned = Poisoned(**{f: getattr(swarm, f) for f in swarm.__dataclass_fields__})
    done = train.train(poisoned, toy_tasks, tmp_path / "poisoned", "toy")
    assert done.died_K.tolist() == [-1, 0, -1]
    assert np.isnan(done.bpb_KN[1]).all() and np.isnan(done.loss_KT[1]).all()
    np.testing.assert_array_equal(done.bpb_KN[[0, 2]], whole.bpb_KN[[0, 2]])
    np.testing.assert_array_equal(done.loss_KT[[0, 2]], whole.loss_KT[[0, 2]])


class Poisoned(train.Swarm):
    """A toy swarm whose member 1 starts with an infinite weight."""

    def start(self, mapping):
        states = super().start(mapping)
        head = states.params["head"]["kernel"]
        params = {**states.params, "head": {"kernel": head.at[1, 0, 0].set(np.inf)}}
        return states._replace(params=params)


def test_a_frozen_member_keeps_its_last_good_state(make_swarm):
    swarm = make_swarm(members=3)
    member = swarm.member
    tokens_TBL1 = next(swarm.chunks())[0]
    good, _ = jax.jit(member.steps)(jax.jit(member.init)(jax.random.key(0)), tokens_TBL1, 1)
    bad = good._replace(params=jax.tree.map(lambda x: x, good.params))
    bad.params["head"]["kernel"] = good.params["head"]["kernel"].at[0, 0].set(np.nan)
    after, loss_T = jax.jit(member.steps)(bad, tokens_TBL1, 2)
    assert not after.alive and after.step == good.step and np.isnan(loss_T[:2]).all()
    np.testing.assert_array_equal(after.params["block_0"]["q"]["kernel"], good.params["block_0"]["q"]["kernel"])


def stop_after(monkeypatch, saves, action):
    """Calls `action` once that many checkpoints are written."""
    written = []
    save = checkpoint.Checkpoints.save

    def counting(self, step, arrays, batches):
        save(self, step, arrays, batches)
        written.append(step)
        if len(written) == saves:
            action()

    monkeypatch.setattr(checkpoint.Checkpoints, "save", counting)
    return written


def test_a_second_ctrl_c_stops_at_once_and_a_second_termination_signal_does_not():
    with train._heard() as stop:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_checkpoints_and_the_next_run_goes_on_bit_for_bit(make_swarm, toy_tasks, tmp_path, monkeypatch):
    swarm, handler = make_swarm(members=3, steps=12), signal.getsignal(signal.SIGINT)
    whole = train.train(swarm, toy_tasks, tmp_path / "whole", "toy")
    written = stop_after(monkeypatch, 2, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train.train(swarm, toy_tasks, tmp_path / "stopped", "toy")
    assert written[-1] < 12
    resumed_from = len(written)
    again = train.train(swarm, toy_tasks, tmp_path / "stopped", "toy")
    assert written[resumed_from] > written[resumed_from - 1]
    np.testing.assert_array_equal(again.bpb_KN, whole.bpb_KN)
    np.testing.assert_array_equal(again.loss_KT, whole.loss_KT)
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_full_disk_is_a_clear_error(make_swarm, toy_tasks, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.ocp.CheckpointManager, "save", full)
    with pytest.raises(UserError, match="No space left on device.*free space, then run the same command again"):
        train.train(make_swarm(members=3), toy_tasks, tmp_path, "toy")


def test_training_works_outside_the_main_thread(make_swarm, toy_tasks, tmp_path):
    results = []
    worker = threading.Thread(
        target=lambda: results.append(train.train(make_swarm(members=3), toy_tasks, tmp_path, "toy"))
    )
    worker.start()
    worker.join()
    assert np.isfinite(results[0].bpb_KN).all()


def test_a_dispatch_is_short_enough_to_be_stopped(make_swarm):
    """Of the 1B target, whose steps take half a minute on eight chips, each is a dispatch; of 30M many are."""
    for preset, steps in (("1B", 1), ("190M", 13), ("30M", 20)):
        made = config.from_dict(paper.get_config(preset))
        swarm = make_swarm(members=1)
        swarm = dataclasses.replace(
            swarm, shape=model.PRESETS[preset], vocabulary=100_352, length=made.proxy.length, train=made.train
        )
        assert swarm.chunk_steps == steps
