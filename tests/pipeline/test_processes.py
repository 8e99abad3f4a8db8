"""pipeline/processes.py: a swarm trained by several processes or independent jobs, also after a kill."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from configs import paper
from olmix_jax import config
from olmix_jax.pipeline import launchers, runner
from olmix_jax.propose.proposal import Proposal
from olmix_jax.propose.proposal_parts import Certificate
from olmix_jax.solver.status import Status
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from tests.xla import fast_compile_flags

ROOT = pathlib.Path(__file__).parents[2]


def settings(**changes):
    c = paper.get_config("smoke")
    c.train.steps, c.swarm.size, c.train.checkpoint_every, c.train.remat = 8, 12, 2, False
    c.proxy.preset, c.validate.steps, c.validate.seeds, c.train.match_repeats = "tiny", 4, 1, False
    for name, value in changes.items():
        section, field = name.split("_", 1)
        c[section][field] = value
    return c


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A workdir whose swarm and validation models were trained by one process."""
    workdir = tmp_path_factory.mktemp("hosts") / "whole"
    runner.run(config.from_dict(settings()), workdir, ("prepare", "sample", "train"))
    write_proposal(workdir)
    runner.run(config.from_dict(settings()), workdir, ("validate",))
    return workdir


@pytest.fixture
def prepared(whole, tmp_path):
    """A workdir that is ready for training."""
    for name in ("corpus", "tasks"):
        shutil.copytree(whole / name, tmp_path / name)
    for name in ("domains.json", "swarm/ratios.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(whole / name, tmp_path / name)
    stamps = files.read_json(whole / "stamps.json")
    files.write_json(tmp_path / "stamps.json", {name: stamps[name] for name in ("prepare", "sample")})
    return tmp_path


def started(workdir, number: int, stages: str, devices: int = 2, **more):
    """Start the processes of one run on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    settings_ = [f"--config.{'.'.join(name.split('_', 1))}={value}" for name, value in more.items()]
    command = [
        sys.executable,
        "run.py",
        "--config=configs/paper.py:smoke",
        f"--workdir={workdir}",
        f"--stages={stages}",
    ]
    command += ["--config.train.steps=8", "--config.swarm.size=12", "--config.train.checkpoint_every=2"]
    command += ["--config.train.remat=False", "--config.proxy.preset=tiny"]
    command += ["--config.validate.steps=4", "--config.validate.seeds=1", "--config.train.match_repeats=False"]
    running = []
    for index in range(number):
        environment = os.environ | dict(zip(launchers.VARIABLES, (address, str(number), str(index))))
        environment["OLMIX_HEARTBEAT"] = "15"
        environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices} {fast_compile_flags()}"
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        running.append(subprocess.Popen([*command, *settings_], cwd=ROOT, env=environment, **pipes))
    return running


def finish(running):
    return [(p.communicate(timeout=240), p.returncode) for p in running]


@pytest.mark.parametrize(
    ("number", "stages"),
    [(2, "train,validate"), pytest.param(4, "prepare,sample,train,validate", marks=pytest.mark.slow)],
)
def test_several_processes_give_the_table_and_the_validation_of_one(whole, proposed, number, stages):
    tmp_path = proposed
    ends = finish(started(tmp_path, number, stages))
    assert [code for _, code in ends] == [0] * number, ends[0][0][1][-2000:]
    for name in ("swarm/ratios.csv", "swarm/metrics.csv"):
        ours, theirs = ((folder / name).read_text().splitlines() for folder in (tmp_path, whole))
        assert ours[0] == theirs[0] and len(ours) == len(theirs) == 13
        for one, other in zip(ours[1:], theirs[1:]):
            assert one.split(",")[:3] == other.split(",")[:3]
            np.testing.assert_allclose(*(np.array(row.split(",")[3:], float) for row in (one, other)), rtol=1e-5)
    assert len(json.loads((tmp_path / "train/info.json").read_text())["parts"]) == number
    assert (tmp_path / "log-0001.txt").is_file()
    np.testing.assert_allclose(validated(tmp_path), validated(whole), rtol=1e-5)
    ours, theirs = (files.read_json(w / "validate/validation.json")["mixtures"] for w in (tmp_path, whole))
    for name in theirs:
        assert ours[name]["per_seed"] == pytest.approx(theirs[name]["per_seed"], rel=1e-5)
        np.testing.assert_allclose(ours[name]["curves"], theirs[name]["curves"], rtol=1e-5)
        assert np.shape(ours[name]["curves"]) == (1, 4)
    # The models were divided among the processes, and no checkpoints remain.
    assert len(list((tmp_path / "validate/parts").glob("*.npz"))) == min(number, 3)
    assert list(tmp_path.glob("**/checkpoints")) == []


def test_resume_with_fewer_processes_after_one_is_killed(whole, prepared):
    """The surviving process ends as well. The same command with one process resumes from the checkpoints."""
    tmp_path = prepared
    running = started(tmp_path, 2, "train", train_checkpoint_every=1)
    deadline = time.monotonic() + 200
    folder = tmp_path / "train/0002-of-0002/checkpoints"
    while not (folder.is_dir() and any(p.name.isdecimal() for p in folder.iterdir())):
        assert time.monotonic() < deadline and running[1].poll() is None
        time.sleep(0.05)
    running[1].send_signal(signal.SIGKILL)
    ends = finish(running)
    assert ends[0][1] != 0 and ends[1][1] == -signal.SIGKILL
    assert "process 1 has sent no heartbeat" in ends[0][0][1]
    assert not (tmp_path / "swarm/metrics.csv").exists()
    ends = finish(started(tmp_path, 1, "train", train_checkpoint_every=1))
    assert ends[0][1] == 0, ends[0][0][1][-2000:]
    log_text = (tmp_path / "log.txt").read_text()
    assert "part 2/2: resuming from step" in log_text and "damaged" not in log_text
    ours, theirs = ((w / "swarm/metrics.csv").read_text().splitlines() for w in (tmp_path, whole))
    for one, other in zip(ours[1:], theirs[1:]):
        np.testing.assert_allclose(*(np.array(row.split(",")[3:], float) for row in (one, other)), rtol=1e-5)


def proposal(weights: dict[str, float], tasks: list[str]) -> Proposal:
    """A proposal of these weights, with caps of 1 and tasks of equal weight."""
    ones, nothing = dict.fromkeys(weights, 1.0), dict.fromkeys(weights)
    return Proposal(
        status=Status.OPTIMAL,
        weights=weights,
        natural=dict.fromkeys(weights, 1 / len(weights)),
        caps=ones,
        lower=dict.fromkeys(weights, 0.0),
        predicted=dict.fromkeys(tasks, 1.0),
        predicted_natural=dict.fromkeys(tasks, 1.0),
        objective=None,
        objective_natural=None,
        kl=None,
        certificate=Certificate(0.0),
        task_weights=dict.fromkeys(tasks, 1 / len(tasks)),
        worse_tasks=(),
        warnings=(),
        kl_weight=0.0,
        max_repeats=1.0,
        target_tokens=None,
        capped_by=nothing,
    )


@pytest.fixture
def proposed(prepared):
    """A workdir that is ready for training, and then for the validation of three models."""
    write_proposal(prepared)
    return prepared


def write_proposal(workdir):
    names = [domain["name"] for domain in files.read_json(workdir / "domains.json")["domains"]]
    tasks = [task["name"] for task in files.read_json(workdir / "tasks/tasks.json")["tasks"]]
    proposal({name: float(i == 1) for i, name in enumerate(names)}, tasks).write(workdir / "propose/proposal.json")


LARGE = {"train_mapping": "fsdp", "proxy_dtype": "float32"}


def validated(workdir):
    return np.load(workdir / "validate/curves.npz")["loss_KT"]


@pytest.mark.slow
@pytest.mark.parametrize("interruption", [signal.SIGTERM, signal.SIGKILL])
def test_resume_of_a_model_sharded_over_two_processes(proposed, tmp_path_factory, interruption):
    """One of two processes is stopped or killed in the second model. Resumed losses equal those of one process."""
    alone = tmp_path_factory.mktemp("alone") / "run"
    shutil.copytree(proposed, alone)
    runner.run(config.from_dict(settings(**LARGE)), alone, ("validate",))
    more = LARGE | {"train_checkpoint_every": 1}
    running = started(proposed, 2, "validate", 1, **more)
    deadline = time.monotonic() + 200
    while not (proposed / "validate/wave-0002/checkpoints/1").is_dir():
        assert time.monotonic() < deadline and running[1].poll() is None, running[1].communicate()
        time.sleep(0.05)
    running[1].send_signal(interruption)
    ends = finish(running)
    if interruption == signal.SIGTERM:
        assert [code for _, code in ends] == [130, 130], ends
    else:
        assert ends[0][1] not in (0, 2) and "process 1 has sent no heartbeat" in ends[0][0][1]
    ends = finish(started(proposed, 2, "validate", 1, **more))
    assert [code for _, code in ends] == [0, 0], ends
    log_text = (proposed / "log.txt").read_text()
    assert "wave 2 of 3: resuming from step" in log_text and "damaged" not in log_text
    np.testing.assert_allclose(validated(proposed), validated(alone), rtol=1e-5)
    ours, theirs = (files.read_json(folder / "validate/validation.json")["mixtures"] for folder in (proposed, alone))
    for name in ours:
        assert ours[name]["bpb_mean"] == pytest.approx(theirs[name]["bpb_mean"], rel=1e-5)
    lines = (proposed / "validate/wave-0003/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]


@pytest.mark.slow
def test_jobs_of_an_array_share_a_workdir(whole, prepared):
    tmp_path = prepared
    for number in (3, 1):
        runner.run(config.from_dict(settings(swarm_part=f"{number}/3")), tmp_path, ("train",))
    with pytest.raises(UserError, match="1 of 3 parts are missing: 2/3"):
        runner.run(config.from_dict(settings()), tmp_path, ("train",))
    runner.run(config.from_dict(settings(swarm_part="2/3")), tmp_path, ("train",))
    runner.run(config.from_dict(settings()), tmp_path, ("train",))
    ours, theirs = ((folder / "swarm/metrics.csv").read_text() for folder in (tmp_path, whole))
    assert ours == theirs
    with pytest.raises(UserError, match="made with train.lr"):
        runner.run(config.from_dict(settings(swarm_part="2/3", train_lr=0.5)), tmp_path, ("train",))
    assert files.read_json(tmp_path / "stamps.json")["train"]["finished"]
