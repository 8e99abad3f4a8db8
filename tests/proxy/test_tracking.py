"""proxy/tracking.py: metrics that are written while a swarm trains."""

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


def test_every_dispatch_writes_a_line(trained, toy_tasks):
    swarm, folder, result = trained
    written = rows(folder)
    assert [row["step"] for row in written] == [2, 4, 6, 7]
    for row in written:
        loss_K = result.loss_KT[:, row["step"] - 1]
        assert (row["tokens"], row["members"]) == (row["step"] * 4 * 8, 5) and row["tokens_per_second"] > 0
        losses = [row["loss"], row["loss_low"], row["loss_high"]]
        np.testing.assert_allclose(losses, [loss_K.mean(), loss_K.min(), loss_K.max()], atol=1e-5)
    # Running a finished swarm again neither adds nor removes lines.
    train.train(swarm, toy_tasks, folder, "toy")
    assert rows(folder) == written


def test_resumed_run_keeps_lines_up_to_its_step_and_drops_a_partial_line(tmp_path):
    first = Tracker(tmp_path, Track(), "toy", 0)
    for step in (2, 4, 6):
        first.write(step, step, np.array([1.0, np.nan]), 5.0)
    first.close()
    with open(tmp_path / "metrics.jsonl", "a") as f:
        f.write('{"step": 8, "tok')
    resumed = Tracker(tmp_path, Track(), "toy", 4)
    resumed.write(6, 6, np.array([np.nan, np.nan]), 5.0)
    resumed.close()
    written = rows(tmp_path)
    assert [(row["step"], row["members"]) for row in written] == [(2, 1), (4, 1), (6, 0)] and "loss" not in written[2]


@pytest.mark.skipif(importlib.util.find_spec("tensorboardX") is not None, reason="tensorboardX is installed")
def test_missing_library_raises_an_error_with_the_command_to_install_it(tmp_path):
    with pytest.raises(UserError, match="track.tensorboard` needs tensorboardX: pip install -r requirements-track"):
        Tracker(tmp_path, Track(tensorboard=True), "toy", 0)


def test_tensorboard_hides_points_after_the_step_that_a_run_resumes_from(tmp_path, monkeypatch):
    opened = []
    writer = types.SimpleNamespace(add_scalar=lambda *_: None, close=lambda: None)
    library = types.SimpleNamespace(SummaryWriter=lambda folder, purge_step: opened.append(purge_step) or writer)
    monkeypatch.setitem(sys.modules, "tensorboardX", library)
    for step in (0, 4):
        Tracker(tmp_path, Track(tensorboard=True), "toy", step).close()
    assert opened == [1, 5]


def test_resumed_run_keeps_its_wandb_id(tmp_path, monkeypatch):
    started, logged = [], []
    run = types.SimpleNamespace(log=lambda row, step: logged.append(step), finish=lambda: None)
    wandb = types.SimpleNamespace(init=lambda **options: started.append(options) or run)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for folder in (tmp_path / "a", tmp_path / "a", tmp_path / "b"):
        tracker = Tracker(folder, Track(wandb="mixtures"), "toy", 0)
        tracker.write(2, 2, np.array([1.0]), 5.0)
        tracker.close()
    ids = [options["id"] for options in started]
    assert ids[0] == ids[1] != ids[2] and logged == [2, 2, 2]
    assert {(options["project"], options["resume"]) for options in started} == {("mixtures", "allow")}


def test_failed_sink_stops_getting_metrics_and_training_continues(tmp_path, monkeypatch, caplog):
    def fail(row, step):
        raise ConnectionError("no network")

    wandb = types.SimpleNamespace(init=lambda **options: types.SimpleNamespace(log=fail, finish=fail))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    tracker = Tracker(tmp_path, Track(wandb="mixtures"), "toy", 0)
    for step in (2, 4):
        tracker.write(step, step, np.array([1.0]), 5.0)
    tracker.close()
    assert [row["step"] for row in rows(tmp_path)] == [2, 4]
    assert caplog.text.count("Wandb gets no more metrics: ConnectionError") == 1


@pytest.mark.skipif(importlib.util.find_spec("tensorboardX") is None, reason="needs requirements-track.txt")
def test_tensorboard_files_are_written(tmp_path):
    tracker = Tracker(tmp_path, Track(tensorboard=True), "toy", 0)
    tracker.write(2, 2, np.array([1.0]), 5.0)
    tracker.close()
    assert list((tmp_path / "tensorboard").iterdir())
