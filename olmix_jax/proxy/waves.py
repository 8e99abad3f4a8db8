"""Train more members than the devices hold, in waves one after another, with one compiled program.

The division into waves is fixed by the first run and stored beside the checkpoints. A wave is itself a swarm, so a run
can resume on any number of devices that can hold a wave.
"""

import dataclasses
import pathlib

import jax
import numpy as np

from olmix_jax.config.schema import Train
from olmix_jax.corpus.task_set import TaskSet
from olmix_jax.proxy import aot, autotune, coordination, jax_errors, sharding, state, train
from olmix_jax.proxy.proxy_swarm import ProxySwarm
from olmix_jax.proxy.train_result import TrainResult, combine
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import counted, log

# File of the division into waves.
RECORD = "waves.json"


def train_in_waves(
    swarm: ProxySwarm, tasks: TaskSet, folder: pathlib.Path, label: str, per_device: int | None = None
) -> TrainResult:
    """Train and score a swarm, in waves if the devices cannot hold all members.

    Args:
      swarm: all members.
      tasks: what they are scored on.
      folder: receives checkpoints and the division into waves.
      label: names the swarm in log lines.
      per_device: members on a device at once. None means as many as its memory holds, or all if that is unknown (as on
        CPUs). If an earlier run in ``folder`` divided the swarm into other waves, these are kept, with a warning.

    Raises:
      KeyboardInterrupt: on ctrl-C or a termination signal, after saving a checkpoint.
      UserError: as for :func:`olmix_jax.proxy.train.train`, or a wave does not fit into memory.
    """
    waves = _read_division(folder / RECORD, swarm)
    if waves is None:
        fit = _members_per_device(swarm, per_device)
        swarm = _with_mapping(swarm, folder, fit)
        waves = _divide(swarm, fit)
        if coordination.ProcessGroup(sharding.spans_processes(_mapping(swarm))).is_writer:
            names = [[swarm.runs.names[k] for k in wave] for wave in waves]
            files.write_json(folder / RECORD, {"waves": len(waves), "members": names})
    else:
        swarm = _with_mapping(swarm, folder, per_device or len(waves[0]))
        _check_division(swarm, waves, folder, label, per_device)
    try:
        return _train_waves(swarm, waves, tasks, folder, label)
    except jax.errors.JaxRuntimeError as e:
        if not jax_errors.is_out_of_memory(e):
            raise
        members = -(-len(waves[0]) // sharding.member_devices(_mapping(swarm)))
        smaller_waves = f", or delete {folder} with its finished waves and lower swarm.members_per_device"
        raise UserError(
            f"{label}: out of memory with {counted(members, 'member')} on a device ({jax_errors.first_line(e)}). Lower "
            "train.micro_batch or set train.remat, and run again to resume. Or use more devices"
            f"{smaller_waves if members > 1 else ''}"
        ) from e


def last_params(swarm: ProxySwarm, folder: pathlib.Path):
    """Return the parameters [K, …] of all members after their last step as NumPy arrays, from their checkpoints.

    The arguments are those of :func:`train_in_waves`, which has trained them.

    Raises:
      UserError: a checkpoint is missing or damaged, or belongs to another swarm.
    """
    waves = _read_division(folder / RECORD, swarm) or [np.arange(len(swarm.runs))]
    folders = [folder / f"wave-{w + 1:04d}" for w in range(len(waves))] if len(waves) > 1 else [folder]
    params = [train.last_params(swarm.subset(wave), place) for wave, place in zip(waves, folders, strict=True)]
    order = np.argsort(np.concatenate(waves))
    return jax.tree.map(lambda *of_waves: np.concatenate(of_waves)[order], *params)


def needs_fsdp(trainer: Train, member: state.Member) -> bool:
    """Return whether members are trained one at a time, each sharded over the devices of all processes."""
    return sharding.needs_fsdp(trainer, member.memory_bytes, sharding.usable_memory(), jax.device_count())


def _train_waves(
    swarm: ProxySwarm, waves: list[np.ndarray], tasks: TaskSet, folder: pathlib.Path, label: str
) -> TrainResult:
    if len(waves) == 1:
        return train.train(swarm, tasks, folder, label)
    width, devices = len(waves[0]), sharding.compute_devices(_mapping(swarm))
    log.info(
        "%s: %s of %s on %s",
        *(label, counted(len(waves), "wave"), counted(width, "member"), counted(devices, "device")),
    )
    results = []
    for w, wave in enumerate(waves):
        wave_label = f"{label}, wave {w + 1} of {len(waves)}"
        results.append(train.train(swarm.subset(wave, width), tasks, folder / f"wave-{w + 1:04d}", wave_label))
    wall_s = sum(result.info.wall_s for result in results)
    info = dataclasses.replace(results[0].info, members=len(swarm.runs), waves=len(waves), wall_s=wall_s)
    return combine(results, waves, info)


def _mapping(swarm: ProxySwarm) -> str:
    return swarm.train.mapping or sharding.default_mapping()


def _with_mapping(swarm: ProxySwarm, folder: pathlib.Path, per_device: int | None) -> ProxySwarm:
    """Return the swarm with the mapping that all waves use."""
    if needs_fsdp(swarm.train, swarm.member):
        return dataclasses.replace(swarm, train=sharding.with_fsdp(swarm.train, jax.device_count()))
    mapping = autotune.choose_mapping(swarm, folder, per_device)
    return dataclasses.replace(swarm, train=dataclasses.replace(swarm.train, mapping=mapping))


def _divide(swarm: ProxySwarm, per_device: int | None) -> list[np.ndarray]:
    """Return the members of each wave: every n-th member, so that sizes of waves differ by one at most."""
    members = len(swarm.runs)
    waves = 1 if per_device is None else -(-members // (per_device * sharding.member_devices(_mapping(swarm))))
    return [np.arange(w, members, waves) for w in range(waves)]


def _read_division(path: pathlib.Path, swarm: ProxySwarm) -> list[np.ndarray] | None:
    """Return the members of each wave of an earlier run, or None if there was none."""
    if not path.exists():
        return None
    waves = files.read_json(path).get("members", [])
    index = {name: k for k, name in enumerate(swarm.runs.names)}
    if sorted(name for wave in waves for name in wave) != sorted(index):
        raise UserError(f"{path}: belongs to another swarm. Delete {path.parent}, or use another --workdir")
    return [np.array([index[name] for name in wave]) for wave in waves]


def _tokens_shape(swarm: ProxySwarm) -> tuple[int, int, int]:
    """Return the shape of one member's tokens of a dispatch."""
    return swarm.chunk_steps, swarm.train.batch, swarm.length + 1


def _members_per_device(swarm: ProxySwarm, requested: int | None) -> int | None:
    """Return the number of members on a device at once: as requested, or as many as fit. None means all members."""
    if needs_fsdp(swarm.train, swarm.member):
        if requested is not None and requested > 1:
            log.warning("swarm.members_per_device=%d has no effect: each member is sharded over all devices", requested)
        return 1
    if requested:
        return requested
    memory, mapping = sharding.usable_memory(), _mapping(swarm)
    if memory is None:
        return None
    # With `auto`, the mapping chosen later may use one device only.
    devices = jax.local_devices()[: 1 if mapping == "auto" else sharding.member_devices(mapping)]
    compiled = aot.largest_fit(swarm.member, _tokens_shape(swarm), len(swarm.runs), devices, memory)
    return int(compiled.members_per_device)


def _check_division(
    swarm: ProxySwarm, waves: list[np.ndarray], folder: pathlib.Path, label: str, requested: int | None
) -> None:
    """Check that the devices can hold the waves of an earlier run. A number that the config requests is not checked."""
    width, memory, devices = len(waves[0]), sharding.usable_memory(), sharding.member_devices(_mapping(swarm))
    per_device = -(-width // devices)
    if requested and per_device != requested and len(waves) != len(_divide(swarm, requested)):
        log.warning(
            "%s: swarm.members_per_device=%d has no effect: %s holds waves of %s, here %d on a device; delete it to "
            "start again",
            *(label, requested, folder, counted(width, "member"), per_device),
        )
    division = f"{folder / RECORD}: the run was started in {counted(len(waves), 'wave')} of {counted(width, 'member')}"
    if swarm.train.mapping == sharding.FSDP:
        if width > 1:
            raise UserError(
                f"{division}, but FSDP trains one member at a time. Resume with the mapping and devices it was started "
                f"with, or delete {folder} to start again"
            )
        return
    if memory is None or per_device <= (requested or 0):
        return
    wave = swarm.subset(np.arange(width), width) if len(waves) > 1 else swarm
    local = jax.local_devices()[:devices]
    compiled = aot.compile_steps(wave.member, _tokens_shape(wave), per_device * devices, local)
    if compiled.memory > memory:
        raise UserError(
            f"{division}. With {devices} devices, {per_device} on each need {compiled.memory / 2**30:.2f} GiB of "
            f"{memory / 2**30:.2f}. Resume on more or larger devices, or delete {folder} to start again in waves that "
            "fit"
        )
