"""launch/: the scripts, with what they call replaced by what writes its arguments down."""

import os
import pathlib
import signal
import subprocess
import time

import pytest
import yaml

from olmix_jax.pipeline import processes

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def called(tmp_path, monkeypatch):
    """A folder of stand-ins; the lines that they were called with."""
    for name in ("gcloud", "srun", "python"):
        stand_in = tmp_path / "bin" / name
        stand_in.parent.mkdir(exist_ok=True)
        stand_in.write_text(f'#!/bin/sh\nprintf "%s\\n" "{name} $*" >> {tmp_path}/calls\n')
        stand_in.chmod(0o755)

    def run(script, *arguments, **environment):
        (tmp_path / "calls").unlink(missing_ok=True)
        environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"} | environment
        done = subprocess.run([ROOT / "launch" / script, *arguments], cwd=ROOT, env=environment, capture_output=True)
        lines = (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []
        return done.returncode, lines, (done.stdout + done.stderr).decode()

    return run


def test_every_host_of_a_slice(called):
    known = {"NAME": "swarm", "ZONE": "z"}
    code, (line,), _ = called("cloud_tpu.sh", "create", **known, TYPE="v5litepod-256", SPOT="1")
    assert code == 0 and "queued-resources create swarm --node-id=swarm --zone=z" in line and line.endswith("--spot")
    code, (line,), _ = called("cloud_tpu.sh", "run", "--config=configs/paper.py", "--workdir=/mnt/a b", **known)
    assert code == 0 and "ssh swarm --zone=z --worker=all" in line
    assert r"OLMIX_DISTRIBUTED=auto .venv/bin/python run.py --config=configs/paper.py --workdir=/mnt/a\ b" in line
    code, lines, _ = called("cloud_tpu.sh", "setup", **known)
    assert code == 0 and "scp" in lines[0] and "requirements.txt" in lines[1]
    assert called("cloud_tpu.sh", "delete", **known)[1] == [
        "gcloud compute tpus queued-resources delete swarm --zone=z --force"
    ]
    code, lines, said = called("cloud_tpu.sh")
    assert (code, lines) == (2, []) and "launch/cloud_tpu.sh create" in said
    assert "the name of the slice" in called("cloud_tpu.sh", "run")[2]
    assert processes.initialize_arguments({"OLMIX_DISTRIBUTED": "auto"}) == {}


def test_slurm(called):
    code, (line,), _ = called("slurm.sh", "--config=c", "--workdir=d", PYTHON="python", SLURM_SUBMIT_DIR=str(ROOT))
    assert code == 0 and line == "srun --kill-on-bad-exit=1 python run.py --config=c --workdir=d"
    array = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "16", "PYTHON": "python"}
    code, (line,), _ = called("slurm_array.sh", "--config=c", "--workdir=d", **array)
    own = "--config=c --workdir=d --stages=train --config.swarm.part=3/16"
    assert code == 0 and line == f"srun --ntasks=1 python run.py {own}"
    # The lost one again, alone in its array.
    line = called("slurm_array.sh", "--config=c", **array | {"SLURM_ARRAY_TASK_COUNT": "1", "PARTS": "16"})[1][0]
    assert line.endswith("--config.swarm.part=3/16")
    for known in ({}, {"SLURM_ARRAY_TASK_ID": "3"}):
        assert "run this with sbatch --array" in called("slurm_array.sh", **known)[2]


def test_near_the_time_limit_a_job_checkpoints_and_is_queued_again(tmp_path, called):
    """Slurm tells the step's tasks, never srun, which would kill them; an end of its own is the job's end."""
    calls, near = tmp_path / "calls", tmp_path / "near"
    for script in ("slurm.sh", "slurm_array.sh"):
        assert "#SBATCH --signal=TERM@120\n" in (ROOT / "launch" / script).read_text()

    def ended(script, own, signals=()):
        calls.unlink(missing_ok=True)
        near.unlink(missing_ok=True)
        for name, body in {
            "srun": f"trap 'echo killed >> {calls}; exit 137' TERM\necho begun >> {calls}\n{own}\n",
            "scontrol": f'echo "scontrol $*" >> {calls}\n',
        }.items():
            (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{body}")
            (tmp_path / "bin" / name).chmod(0o755)
        environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": "77", "PYTHON": "srun"}
        environment |= {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "16"}
        job = subprocess.Popen([ROOT / "launch" / script], cwd=ROOT, env=os.environ | environment)
        while not calls.exists():
            time.sleep(0.01)
        for number in signals:
            job.send_signal(number)
        near.touch()
        return job.wait(60), calls.read_text().split("\n")[:-1]

    told = f"until [ -e {near} ]; do sleep 0.05; done; echo saved >> {calls}"
    for script in ("slurm.sh", "slurm_array.sh"):
        for code in (130, 143):
            assert ended(script, f"{told}; exit {code}") == (0, ["begun", "saved", "scontrol requeue 77"])
        # Ended as a whole, or preempted: Slurm queues again by itself, or somebody wants it to end.
        assert ended(script, f"{told}; exit 130", [signal.SIGTERM]) == (130, ["begun", "saved"])
        assert ended(script, "exit 3") == (3, ["begun"])
        assert ended(script, "exit 0") == (0, ["begun"])


def test_jobset():
    """What the pods are told is what olmix_jax/pipeline/processes.py reads, and as many as there are."""
    spec = yaml.safe_load((ROOT / "launch/jobset.yaml").read_text())
    job = spec["spec"]["replicatedJobs"][0]
    inner = job["template"]["spec"]
    container = inner["template"]["spec"]["containers"][0]
    told = {entry["name"]: entry.get("value", "0") for entry in container["env"]}
    found = processes.initialize_arguments(told)
    assert found["num_processes"] == inner["completions"] == inner["parallelism"]
    name = spec["metadata"]["name"]
    assert found["coordinator_address"] == f"{name}-{job['name']}-0-0.{name}:1234"
    assert (ROOT / container["command"][2].removeprefix("--config=")).is_file()
