"""The scripts in launch/, run with stand-ins for gcloud, srun and python that record their arguments."""

import os
import pathlib
import signal
import subprocess
import time
from typing import NamedTuple

import pytest
import yaml

from olmix_jax.pipeline import launchers

ROOT = pathlib.Path(__file__).parents[1]


class Finished(NamedTuple):
    """A finished script: its exit code, the commands it called, one per line, and its output."""

    code: int
    commands: list[str]
    output: str


@pytest.fixture
def run_script(tmp_path, monkeypatch):
    """A function that runs a launch script with arguments and environment variables."""
    for name in ("gcloud", "srun", "python"):
        write_executable(tmp_path / "bin" / name, f'#!/bin/sh\nprintf "%s\\n" "{name} $*" >> {tmp_path}/calls\n')

    def run(script: str, *arguments: str, **environment: str) -> Finished:
        calls = tmp_path / "calls"
        calls.unlink(missing_ok=True)
        environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"} | environment
        done = subprocess.run([ROOT / "launch" / script, *arguments], cwd=ROOT, env=environment, capture_output=True)
        commands = calls.read_text().splitlines() if calls.exists() else []
        return Finished(done.returncode, commands, (done.stdout + done.stderr).decode())

    return run


def write_executable(path: pathlib.Path, content: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    path.chmod(0o755)


SLICE = {"NAME": "swarm", "ZONE": "z"}


def test_cloud_tpu_create_requests_a_spot_slice(run_script):
    code, (command,), _ = run_script("cloud_tpu.sh", "create", **SLICE, TYPE="v5litepod-256", SPOT="1")
    assert code == 0 and "queued-resources create swarm --node-id=swarm --zone=z" in command
    assert command.endswith("--spot")


def test_cloud_tpu_run_starts_every_host_with_quoted_arguments(run_script):
    code, (command,), _ = run_script("cloud_tpu.sh", "run", "--config=configs/paper.py", "--workdir=/mnt/a b", **SLICE)
    assert code == 0 and "ssh swarm --zone=z --worker=all" in command
    assert r"OLMIX_DISTRIBUTED=auto .venv/bin/python run.py --config=configs/paper.py --workdir=/mnt/a\ b" in command
    assert launchers.initialize_arguments({"OLMIX_DISTRIBUTED": "auto"}) == {}


def test_cloud_tpu_setup_copies_the_checkout_and_installs(run_script):
    code, commands, _ = run_script("cloud_tpu.sh", "setup", **SLICE)
    assert code == 0 and "scp" in commands[0] and "requirements.txt" in commands[1]


def test_cloud_tpu_delete_removes_the_slice(run_script):
    expected = ["gcloud compute tpus queued-resources delete swarm --zone=z --force"]
    assert run_script("cloud_tpu.sh", "delete", **SLICE).commands == expected


def test_cloud_tpu_without_command_or_name_explains_itself(run_script):
    code, commands, output = run_script("cloud_tpu.sh")
    assert (code, commands) == (2, []) and "launch/cloud_tpu.sh create" in output and "RUNTIME" in output
    assert "NAME: set it to the name of the slice" in run_script("cloud_tpu.sh", "run").output


def test_slurm_starts_one_run_on_all_nodes(run_script):
    arguments = ("--config=c", "--workdir=d")
    code, (command,), _ = run_script("slurm.sh", *arguments, PYTHON="python", SLURM_SUBMIT_DIR=str(ROOT))
    assert code == 0 and command == "srun --kill-on-bad-exit=1 python run.py --config=c --workdir=d"


def test_slurm_array_trains_one_part_per_job(run_script):
    array = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "16", "PYTHON": "python"}
    code, (command,), _ = run_script("slurm_array.sh", "--config=c", "--workdir=d", **array)
    arguments = "--config=c --workdir=d --stages=train --config.swarm.part=3/16"
    assert code == 0 and command == f"srun --ntasks=1 python run.py {arguments}"


def test_slurm_array_repeats_one_part_of_sixteen(run_script):
    array = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "1", "PARTS": "16", "PYTHON": "python"}
    assert run_script("slurm_array.sh", "--config=c", **array).commands[0].endswith("--config.swarm.part=3/16")


@pytest.mark.parametrize("environment", [{}, {"SLURM_ARRAY_TASK_ID": "3"}])
def test_slurm_array_outside_an_array_explains_itself(run_script, environment):
    assert "submit this script with sbatch --array" in run_script("slurm_array.sh", **environment).output


@pytest.fixture(params=["slurm.sh", "slurm_array.sh"])
def run_job(request, tmp_path):
    """A function that runs a Slurm script whose step executes ``step``, while signals reach the script.

    It returns the exit code and the recorded events. ``step`` is shell code. The file ``sent`` appears after the
    signals are sent.
    """
    calls, sent = tmp_path / "calls", tmp_path / "sent"

    def run(step: str, signals: tuple[int, ...] = ()) -> tuple[int, list[str]]:
        calls.unlink(missing_ok=True)
        sent.unlink(missing_ok=True)
        srun = f"trap 'echo killed >> {calls}; exit 137' TERM\necho begun >> {calls}\n{step}\n"
        write_executable(tmp_path / "bin/srun", f"#!/bin/bash\n{srun}")
        write_executable(tmp_path / "bin/scontrol", f'#!/bin/bash\necho "scontrol $*" >> {calls}\n')
        environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": "77", "PYTHON": "srun"}
        environment |= {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "16"}
        job = subprocess.Popen([ROOT / "launch" / request.param], cwd=ROOT, env=os.environ | environment)
        while not calls.exists():
            time.sleep(0.01)
        for number in signals:
            job.send_signal(number)
        sent.touch()
        return job.wait(60), calls.read_text().splitlines()

    run.save = f"until [ -e {sent} ]; do sleep 0.05; done; echo saved >> {calls}"
    return run


@pytest.mark.parametrize("code", [130, 143])
def test_job_is_requeued_after_a_checkpoint_near_its_time_limit(run_job, code):
    assert run_job(f"{run_job.save}; exit {code}") == (0, ["begun", "saved", "scontrol requeue 77"])


def test_job_that_gets_sigterm_itself_is_not_requeued(run_job):
    """Such a job was cancelled, or it was preempted and Slurm requeues it. The signal must not kill srun."""
    assert run_job(f"{run_job.save}; exit 130", (signal.SIGTERM,)) == (130, ["begun", "saved"])


@pytest.mark.parametrize("code", [0, 3])
def test_job_that_finishes_or_fails_is_not_requeued(run_job, code):
    assert run_job(f"exit {code}") == (code, ["begun"])


@pytest.mark.parametrize("script", ["slurm.sh", "slurm_array.sh"])
def test_slurm_sends_sigterm_two_minutes_before_the_time_limit(script):
    assert "#SBATCH --signal=TERM@120\n" in (ROOT / "launch" / script).read_text()


def test_jobset_sets_the_variables_that_processes_read():
    """The coordinator's address and the number of pods agree with olmix_jax/pipeline/launchers.py."""
    spec = yaml.safe_load((ROOT / "launch/jobset.yaml").read_text())
    job = spec["spec"]["replicatedJobs"][0]
    indexed_job = job["template"]["spec"]
    container = indexed_job["template"]["spec"]["containers"][0]
    environment = {entry["name"]: entry.get("value", "0") for entry in container["env"]}
    arguments = launchers.initialize_arguments(environment)
    assert arguments["num_processes"] == indexed_job["completions"] == indexed_job["parallelism"]
    name = spec["metadata"]["name"]
    assert arguments["coordinator_address"] == f"{name}-{job['name']}-0-0.{name}:1234"
    assert (ROOT / container["command"][2].removeprefix("--config=")).is_file()
