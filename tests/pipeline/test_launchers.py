"""Processes and GPUs that the environment of a launcher describes."""

import os
import subprocess
import sys

import pytest

from olmix_jax.pipeline import launchers
from olmix_jax.utils.errors import UserError

arguments = launchers.initialize_arguments
PLAIN = dict(zip(launchers.VARIABLES, ("10.0.0.1:1234", "4", "3")))


def slurm(layout, node="0", index="0", **more):
    names = {"SLURM_STEP_NUM_TASKS": "16", "SLURM_STEP_TASKS_PER_NODE": layout}
    return names | {"SLURM_NODEID": node, "SLURM_LOCALID": index} | more


def test_the_environment_selects_the_processes():
    assert arguments({}) is None and arguments({"SLURM_STEP_NUM_TASKS": "1"}) is None
    assert arguments(PLAIN) == {"coordinator_address": "10.0.0.1:1234", "num_processes": 4, "process_id": 3}
    assert arguments({"SLURM_STEP_NUM_TASKS": "2"}) == {}
    assert arguments({"TPU_WORKER_HOSTNAMES": "a,b"}) == {} and arguments({"TPU_WORKER_HOSTNAMES": "a"}) is None
    with pytest.raises(UserError, match="JAX_PROCESS_ID is not; set all three"):
        arguments({k: v for k, v in PLAIN.items() if k != "JAX_PROCESS_ID"})
    with pytest.raises(UserError, match="JAX_PROCESS_ID must be less than JAX_NUM_PROCESSES=4, not 4"):
        arguments(PLAIN | {"JAX_PROCESS_ID": "4"})


@pytest.mark.parametrize(
    "environment, devices",
    [
        (slurm("1(x16)", node="3"), []),
        (slurm("1(x16)", SLURM_GPUS_ON_NODE="8"), []),
        (slurm("8(x2)", index="5", SLURM_GPUS_ON_NODE="8"), [5]),
        (slurm("2(x8)", index="1", SLURM_GPUS_ON_NODE="8"), [4, 5, 6, 7]),
        (slurm("3,8", index="1", CUDA_VISIBLE_DEVICES="0,1,2,3,4,5,6,7"), [2, 3, 4]),
        (slurm("3,1", node="1", SLURM_GPUS_ON_NODE="8"), []),
        # Each task sees only its own GPU, which has the number 0 there.
        (slurm("8(x2)", index="5", SLURM_GPUS_PER_TASK="1", CUDA_VISIBLE_DEVICES="0"), []),
        (slurm("8(x2)", index="5", SLURM_GPU_BIND="verbose,per_task:1", CUDA_VISIBLE_DEVICES="0"), []),
        ({"OLMIX_DISTRIBUTED": "auto", "OMPI_COMM_WORLD_LOCAL_RANK": "0", "OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, []),
        (PLAIN | slurm("1(x4)"), []),
    ],
)
def test_processes_divide_the_gpus_of_a_node(environment, devices):
    assert arguments(environment)["local_device_ids"] == devices


def test_jax_chooses_devices_where_their_number_is_unknown_or_given():
    assert "local_device_ids" not in arguments(slurm("8(x2)"))
    assert "local_device_ids" not in arguments(slurm("1(x2)", JAX_LOCAL_DEVICE_IDS="0,1"))
    assert "local_device_ids" not in arguments(slurm("8(x2", SLURM_GPUS_ON_NODE="8"))


def test_more_processes_than_gpus_on_a_node_is_an_error():
    with pytest.raises(UserError, match="8 processes on this node share 4 GPUs; start at most one per GPU"):
        arguments(slurm("8(x2)", SLURM_GPUS_ON_NODE="4"))


def test_jax_takes_all_gpus_for_an_empty_list():
    code = (
        "import jax, sys\n"
        "from olmix_jax.pipeline import launchers\n"
        "found = launchers.initialize_arguments()\n"
        "jax.distributed.initialize(**found)\n"
        "print(jax.config.values['jax_cuda_visible_devices'], jax.process_count())\n"
    )
    step = slurm("1", SLURM_JOB_ID="7", SLURM_STEP_NODELIST="localhost", SLURM_NTASKS="1", SLURM_PROCID="0")
    plain = dict(zip(launchers.VARIABLES, ("localhost:0", "1", "0")))
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | step | plain
    environment["JAX_COORDINATOR_ADDRESS"] = f"localhost:{_free_port()}"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["all", "1"], done.stderr


def _free_port() -> int:
    import socket

    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]
