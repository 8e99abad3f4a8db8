"""What launchers of several processes (Slurm, MPI, Cloud TPU) say about them in environment variables."""

import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from olmix_jax.utils.errors import UserError

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
# Lists of the GPUs that a process may use, in the order in which they take precedence.
VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")


def initialize_arguments(environment: Mapping[str, str] = os.environ) -> dict[str, Any] | None:
    """Return the arguments for ``jax.distributed.initialize``; None for a run of one process.

    There are several processes if JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID are set, in a Slurm
    step with several tasks, on a Cloud TPU slice with several hosts, or if OLMIX_DISTRIBUTED is "auto". In all but the
    first case JAX finds the addresses itself.

    Raises:
      UserError: only some of the three variables are set, or one is not a number; or a node has fewer GPUs than tasks.
    """
    given = [name for name in VARIABLES if environment.get(name)]
    if given and len(given) < len(VARIABLES):
        missing = [name for name in VARIABLES if name not in given]
        raise UserError(f"environment: {given[0]} is set but {', '.join(missing)} is not; set all three or none")
    if given:
        address, count, index = (environment[name] for name in VARIABLES)
        if not (count.isdecimal() and index.isdecimal() and int(index) < int(count)):
            raise UserError(f"environment: JAX_PROCESS_ID must be less than JAX_NUM_PROCESSES={count}, not {index}")
        arguments = {"coordinator_address": address, "num_processes": int(count), "process_id": int(index)}
        return arguments | _local_devices(environment)
    tasks = environment.get("SLURM_STEP_NUM_TASKS", "1")
    hosts = [name for name in environment.get("TPU_WORKER_HOSTNAMES", "").split(",") if name]
    automatic = environment.get("OLMIX_DISTRIBUTED") == "auto"
    several = automatic or (tasks.isdecimal() and int(tasks) > 1) or len(hosts) > 1
    return _local_devices(environment) if several else None


class _Place(NamedTuple):
    """A process among those on its node."""

    rank: int
    size: int


def _local_devices(environment: Mapping[str, str]) -> dict[str, list[int]]:
    """Return the argument ``local_device_ids``; empty to leave the choice to JAX.

    In a Slurm or MPI job JAX gives each process one GPU: the one whose number is the process's index on its node. With
    fewer processes than GPUs the others would stay idle, so each process takes an equal share here. An empty list
    means all GPUs that the process sees.
    """
    place = _slurm_place(environment) or _mpi_place(environment)
    if place is None or environment.get("JAX_LOCAL_DEVICE_IDS"):
        return {}
    # Slurm has already given each task its own GPUs.
    bound = environment.get("SLURM_GPUS_PER_TASK") or "per_task" in environment.get("SLURM_GPU_BIND", "")
    if place.size == 1 or bound:
        return {"local_device_ids": []}
    gpus = _count_gpus(environment)
    if gpus is None:
        return {}
    if gpus < place.size:
        raise UserError(
            f"environment: {place.size} processes on this node share {gpus} GPUs; start at most one per GPU, or one "
            "per node, which uses all of them"
        )
    return {"local_device_ids": list(range(place.rank * gpus // place.size, (place.rank + 1) * gpus // place.size))}


def _slurm_place(environment: Mapping[str, str]) -> _Place | None:
    """Return the place of a Slurm task; SLURM_STEP_TASKS_PER_NODE looks like ``8(x3),4``."""
    names = ("SLURM_LOCALID", "SLURM_NODEID", "SLURM_STEP_TASKS_PER_NODE")
    index, node, layout = (environment.get(name, "") for name in names)
    if not (index.isdecimal() and node.isdecimal() and re.fullmatch(r"\d+(\(x\d+\))?(,\d+(\(x\d+\))?)*", layout)):
        return None
    counts = [
        int(tasks) for tasks, nodes in re.findall(r"(\d+)(?:\(x(\d+)\))?", layout) for _ in range(int(nodes or 1))
    ]
    return _Place(int(index), counts[int(node)]) if int(node) < len(counts) else None


def _mpi_place(environment: Mapping[str, str]) -> _Place | None:
    """Return the place of a process that Open MPI or MPICH started."""
    for index, count in (
        ("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
        ("MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    ):
        if environment.get(index, "").isdecimal() and environment.get(count, "").isdecimal():
            return _Place(int(environment[index]), int(environment[count]))
    return None


def _count_gpus(environment: Mapping[str, str]) -> int | None:
    """Return the number of GPUs that this process sees, or None if nothing says it."""
    for name in VISIBLE:
        if environment.get(name):
            return len(environment[name].split(","))
    text = environment.get("SLURM_GPUS_ON_NODE", "")
    return int(text) if text.isdecimal() else None
