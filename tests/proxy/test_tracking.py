"""proxy/tracking.py: what is written while a swarm trains."""

import importlib.util
import json
import sys
import types

import numpy as np
import pytest

from olmix_jax.config.schema import Track
from olmix_jax.proxy import train
from olmix_jax.proxy.tracking import Tracker
from olmix_jax.utils.errors import UserError


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_every_dispatch_is_a_line(make_swarm, toy_tasks, tmp_path):
    swarm = make_swarm(members=3, steps=7)
    done = train.train(swarm, toy_tasks, tmp_path, "toy")
    found = rows(tmp_path)
    assert [row["step"] for row in found] == [2, 4, 6, 7]
    for row in found:
        loss_K = done.loss_KT[:, row["step"] - 1]
        assert (row["tokens"], row["members"]) == (row["step"] * 4 * 8, 3) and row["tokens_per_second"] > 0
        ends = [row["loss"], row["loss_low"], row["loss_high"]]
        np.testing.assert_allclose(ends, [loss_K.mean(), loss_K.min(), loss_K.max()], atol=1e-5)
    # A finished run has nothing to add, and loses nothing.
    train.train(swarm, toy_tasks, tmp_path, "toy")
    assert rows(tmp_path) == found


def test_a_run_that_goes_on_keeps_what_it_was_and_no_torn_line(tmp_path):
    first = Tracker(tmp_path, Track(), "toy", 0)
    for step in (2, 4, 6):
        first.write(step, step, np.array([1.0, np.nan]), 5.0)
    first.close()
    with open(tmp_path / "metrics.jsonl", "a") as f:
        f.write('{"step": 8, "tok')
    again = Tracker(tmp_path, Track(), "toy", 4)
    again.write(6, 6, np.array([np.nan, np.nan]), 5.0)
    again.close()
    found = rows(tmp_path)
    assert [(row["step"], row["members"]) for row in found] == [(2, 1), (4, 1), (6, 0)] and "loss" not in found[2]


@pytest.mark.skipif(importlib.util.find_spec("tensorboardX") is not None, reason="it is installed")
def test_a_library_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="track.tensorboard` takes tensorboardX: pip install -r requirements-track"):
        Tracker(tmp_path, Track(tensorboard=True), "toy", 0)


def test_a_run_that_goes_on_is_the_same_one_at_wandb(tmp_path, monkeypatch):
    begun, logged = [], []
    run = types.SimpleNamespace(log=lambda row, step: logged.append(step), finish=lambda: None)
    stand_in = types.SimpleNamespace(init=lambda **options: begun.append(options) or run)
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    for folder in (tmp_path / "a", tmp_path / "a", tmp_path / "b"):
        tracker = Tracker(folder, Track(wandb="mixtures"), "toy", 0)
        tracker.write(2, 2, np.array([1.0]), 5.0)
        tracker.close()
    ids = [options["id"] for options in begun]
    assert ids[0] == ids[1] != ids[2] and logged == [2, 2, 2]
    assert {(options["project"], options["resume"]) for options in begun} == {("mixtures", "allow")}


@pytest.mark.skipif(importlib.util.find_spec("tensorboardX") is None, reason="requirements-track.txt")
def test_tensorboard(tmp_path):
    tracker = Tracker(tmp_path, Track(tensorboard=True), "toy", 0)
    tracker.write(2, 2, np.array([1.0]), 5.0)
    tracker.close()
    assert list((tmp_path / "tensorboard").iterdir())
