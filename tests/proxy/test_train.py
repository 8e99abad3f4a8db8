"""proxy/train.py: training to the end, diverging members, stopping and resuming."""

import dataclasses
import os
import shutil
import signal
import threading

import numpy as np
import pytest

from olmix_jax.proxy import checkpoint, scoring, train
from olmix_jax.proxy.proxy_swarm import ProxySwarm
from olmix_jax.utils.errors import UserError
from tests import toy


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


SCORED = (1, 4, 5)


@pytest.fixture(scope="module")
def scored(trained, tmp_path_factory):
    """The results of a swarm that is scored along the run."""
    swarm = dataclasses.replace(trained[0], score_steps=SCORED)
    return swarm, train.train(swarm, toy.make_tasks(), tmp_path_factory.mktemp("scored"), "toy")


def test_scores_along_the_run_are_those_of_shorter_runs_and_change_nothing_else(trained, scored, toy_tasks, tmp_path):
    _, result = scored
    for name in ("bpb_KN", "loss_KT"):
        np.testing.assert_array_equal(getattr(result, name), getattr(trained[2], name))
    assert trained[2].bpb_KPN is None and result.bpb_KPN.shape == (5, 3, 2)
    # The states at step 4, from a run that is stopped there.
    with pytest.MonkeyPatch.context() as patch:
        saved = {}
        patch.setattr(checkpoint.Checkpoints, "save", lambda self, step, arrays: saved.setdefault(step, arrays))
        train.train(trained[0], toy_tasks, tmp_path, "toy")
    params = trained[0].on_devices(saved[4]["states"], "shard").params
    expected = scoring.score(trained[0], params, toy_tasks, "shard", np.ones(5, bool))
    np.testing.assert_array_equal(result.bpb_KPN[:, SCORED.index(4)], expected)


@pytest.mark.parametrize("step", [1, 3, 4, 5])
def test_scores_along_the_run_survive_a_stop(scored, toy_tasks, tmp_path, monkeypatch, step):
    """A stop at a step with scores saves a checkpoint before the members are scored there."""
    swarm, expected = scored
    write = train.Tracker.write

    def write_and_stop(self, now, *more):
        write(self, now, *more)
        if now == step:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(train.Tracker, "write", write_and_stop)
    with pytest.raises(KeyboardInterrupt):
        train.train(swarm, toy_tasks, tmp_path, "toy")
    assert (tmp_path / f"checkpoints/{step}").is_dir()
    assert_same(train.train(swarm, toy_tasks, tmp_path, "toy"), expected)


def test_scores_along_the_run_survive_a_crash(scored, toy_tasks, tmp_path, monkeypatch, after_saves):
    """The run ends without a checkpoint where it scores the third time, and resumes from one before two scores."""
    swarm, expected = scored
    saved, scores = after_saves(-1, None), []

    def score_twice(*arguments):
        if len(scores) == 2:
            raise RuntimeError("killed")
        scores.append(scoring.score(*arguments))
        return scores[-1]

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(train, "score", score_twice)
        train.train(swarm, toy_tasks, tmp_path, "toy")
    assert saved == [3, 5]
    shutil.rmtree(tmp_path / "checkpoints/5")
    assert_same(train.train(swarm, toy_tasks, tmp_path, "toy"), expected)


def assert_same(result, expected):
    for name in ("bpb_KPN", "bpb_KN", "loss_KT"):
        np.testing.assert_array_equal(getattr(result, name), getattr(expected, name))


def test_diverged_member_has_no_scores_along_the_run(scored, toy_tasks, tmp_path):
    swarm, expected = scored
    poisoned = Poisoned(**{f.name: getattr(swarm, f.name) for f in dataclasses.fields(swarm)})
    result = train.train(poisoned, toy_tasks, tmp_path, "toy")
    assert np.isnan(result.bpb_KPN[1]).all()
    np.testing.assert_array_equal(np.delete(result.bpb_KPN, 1, axis=0), np.delete(expected.bpb_KPN, 1, axis=0))


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
