"""proxy/train.py: training to the end, diverging members, stopping and resuming."""

import dataclasses
import os
import signal
import threading

import numpy as np
import pytest

from olmix_jax.proxy import checkpoint, train
from olmix_jax.proxy.proxy_swarm import ProxySwarm
from olmix_jax.utils.errors import UserError


def test_trained_members_have_losses_and_scores(trained):
    swarm, _, result = trained
    assert result.loss_KT.shape == (5, 7) and result.bpb_KN.shape == (5, 2)
    assert result.loss_KT[:, -1].mean() < result.loss_KT[:, 0].mean()
    assert np.isfinite(result.bpb_KN).all() and (result.died_K == -1).all()
    assert result.info.members == 5 and result.info.tokens_per_member == 7 * 4 * 8
    assert result.info.parameters == swarm.member.parameters


class Poisoned(ProxySwarm):
    """A swarm whose member 1 starts with an infinite weight."""

    def start(self, mapping):
        states = super().start(mapping)
        head = states.params["head"]["kernel"]
        return states._replace(params={**states.params, "head": {"kernel": head.at[1, 0, 0].set(np.inf)}})


def test_diverged_member_is_reported_and_others_are_unaffected(trained, toy_tasks, tmp_path):
    swarm, _, expected = trained
    poisoned = Poisoned(**{f.name: getattr(swarm, f.name) for f in dataclasses.fields(swarm)})
    result = train.train(poisoned, toy_tasks, tmp_path, "toy")
    assert result.died_K.tolist() == [-1, 0, -1, -1, -1]
    assert np.isnan(result.bpb_KN[1]).all() and np.isnan(result.loss_KT[1]).all()
    others = [0, 2, 3, 4]
    np.testing.assert_array_equal(result.bpb_KN[others], expected.bpb_KN[others])
    np.testing.assert_array_equal(result.loss_KT[others], expected.loss_KT[others])


def test_resume_after_ctrl_c_gives_identical_results(trained, toy_tasks, tmp_path, after_saves):
    swarm, _, expected = trained
    handler = signal.getsignal(signal.SIGINT)
    saved = after_saves(2, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train.train(swarm, toy_tasks, tmp_path, "toy")
    before_stop = len(saved)
    assert saved[-1] < 7
    result = train.train(swarm, toy_tasks, tmp_path, "toy")
    assert saved[before_stop] > saved[before_stop - 1]
    np.testing.assert_array_equal(result.bpb_KN, expected.bpb_KN)
    np.testing.assert_array_equal(result.loss_KT, expected.loss_KT)
    assert signal.getsignal(signal.SIGINT) is handler


def test_full_disk_raises_an_error_that_says_how_to_resume(trained, toy_tasks, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.ocp.CheckpointManager, "save", full)
    with pytest.raises(UserError, match=r"No space left on device.*free disk space. Run the same command again"):
        train.train(trained[0], toy_tasks, tmp_path, "toy")


def test_training_works_outside_the_main_thread(trained, toy_tasks, tmp_path):
    swarm, _, expected = trained
    results = []
    thread = threading.Thread(target=lambda: results.append(train.train(swarm, toy_tasks, tmp_path, "toy")))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(results[0].bpb_KN, expected.bpb_KN)
