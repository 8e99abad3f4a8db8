"""More members than a device holds: some at a time, by one program.

Who goes with whom is settled once and kept beside the checkpoints: a wave is a swarm of its own, so a run goes on with
any number of devices, as long as they hold a wave.
"""

import dataclasses
import pathlib

import jax
import numpy as np

from olmix_jax.config.schema import Train
from olmix_jax.proxy import aot, autotune, coordination, sharding, state, train
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import counted, log

RECORD = "waves.json"


def in_waves(
    swarm: train.Swarm, tasks, folder: pathlib.Path, what: str, per_device: int | None = None
) -> train.Trained:
    """:func:`olmix_jax.proxy.train.train`, by as many members at once as a device holds; one program serves all waves.

    Args:
      per_device: members on a device; None for as many as fit its memory, where that is known (on a CPU all are taken).
        What an earlier run in `folder` settled on stays, as its checkpoints are of its waves; a warning says so.

    Raises:
      KeyboardInterrupt, UserError: as that; UserError too where a wave does not fit.
    """
    chosen = _recorded(folder / RECORD, swarm)
    if chosen is None:
        held = _held(swarm, per_device)
        swarm = _mapped(swarm, folder, held)
        chosen = _divided(swarm, held)
        waves = [[swarm.runs.names[k] for k in wave] for wave in chosen]
        if coordination.Company(sharding.spread(swarm.train.mapping)).writes:
            files.write_json(folder / RECORD, {"waves": len(waves), "members": waves})
    else:
        swarm = _mapped(swarm, folder, per_device or len(chosen[0]))
        on_one = -(-len(chosen[0]) // _devices(swarm))
        if per_device and on_one != per_device and len(chosen) != len(_divided(swarm, per_device)):
            log.warning(
                "%s: swarm.members_per_device=%d has no effect: %s was begun in waves of %s, here %d on a "
                "device; delete it to begin again",
                *(what, per_device, folder, counted(len(chosen[0]), "member"), on_one),
            )
        _check_fits(swarm, len(chosen), len(chosen[0]), folder, per_device)
    try:
        return _trained(swarm, chosen, tasks, folder, what)
    except jax.errors.JaxRuntimeError as e:
        if aot.NO_MEMORY not in str(e):
            raise
        held, more = -(-len(chosen[0]) // _devices(swarm)), ""
        if held > 1:
            more = f"; or delete {folder}, with the waves that are done, and set swarm.members_per_device to less"
        raise UserError(
            f"{what}: memory does not hold {counted(held, 'member')} on a device ({str(e).splitlines()[0]}); set a "
            f"smaller train.micro_batch, or train.remat, and go on; or use more devices{more}"
        ) from e


def _trained(swarm: train.Swarm, chosen: list[np.ndarray], tasks, folder: pathlib.Path, what: str) -> train.Trained:
    if len(chosen) == 1:
        return train.train(swarm, tasks, folder, what)
    devices = sharding.at_work(swarm.train.mapping)
    log.info(
        "%s: %s of %s on %s",
        *(what, counted(len(chosen), "wave"), counted(len(chosen[0]), "member"), counted(devices, "device")),
    )
    found = []
    for w, k in enumerate(chosen):
        some = swarm.taken(k, width=len(chosen[0]))
        name = f"{what}, wave {w + 1} of {len(chosen)}"
        found.append(train.train(some, tasks, folder / f"wave-{w + 1:04d}", name))
    return _together(found, chosen)


def is_large(trainer: Train, member: state.Member) -> bool:
    """Whether members lie over all devices that there are, one at a time."""
    return sharding.lies_over_all(trainer, member.memory, sharding.usable_memory(), jax.device_count())


def _together(found: list[train.Trained], chosen: list[np.ndarray]) -> train.Trained:
    """What came of all waves, in the members' own order."""
    back = np.argsort(np.concatenate(chosen))
    arrays = {name: np.concatenate([getattr(d, name) for d in found]) for name in ("bpb_KN", "loss_KT", "died_K")}
    info = found[0].info | {"members": len(back), "waves": len(chosen)}
    info["wall_s"] = sum(d.info["wall_s"] for d in found)
    return train.Trained(**{name: x[back] for name, x in arrays.items()}, info=info)


def _mapped(swarm: train.Swarm, folder: pathlib.Path, held: int | None) -> train.Swarm:
    """The swarm with the mapping that all of its waves share."""
    if is_large(swarm.train, swarm.member):
        return dataclasses.replace(swarm, train=sharding.laid_over_all(swarm.train, jax.device_count()))
    mapping = autotune.choose(swarm, folder, held)
    return dataclasses.replace(swarm, train=dataclasses.replace(swarm.train, mapping=mapping))


def _devices(swarm: train.Swarm) -> int:
    return sharding.devices_used(swarm.train.mapping)


def _divided(swarm: train.Swarm, held: int | None) -> list[np.ndarray]:
    """Members of each wave: every n-th, so that waves differ by one member at most."""
    members = len(swarm.runs)
    waves = 1 if held is None else -(-members // (held * _devices(swarm)))
    return [np.arange(w, members, waves) for w in range(waves)]


def _recorded(path: pathlib.Path, swarm: train.Swarm) -> list[np.ndarray] | None:
    """Members of each wave of an earlier run; None where there was none."""
    if not path.exists():
        return None
    waves, at = files.read_json(path).get("members", []), {name: k for k, name in enumerate(swarm.runs.names)}
    if sorted(name for wave in waves for name in wave) != sorted(at):
        raise UserError(f"{path}: of another swarm; delete {path.parent}, or use another --workdir")
    return [np.array([at[name] for name in wave]) for wave in waves]


def _step(swarm: train.Swarm) -> tuple:
    """One member's code, and the shape of its tokens of a dispatch."""
    return swarm.member, (swarm.chunk_steps, swarm.train.batch, swarm.length + 1)


def _held(swarm: train.Swarm, asked_for: int | None) -> int | None:
    """Members on a device at once: as asked for, or what its memory holds; None for all. A large one is alone."""
    if is_large(swarm.train, swarm.member):
        if asked_for is not None and asked_for > 1:
            log.warning("swarm.members_per_device=%d has no effect: a member lies over all devices", asked_for)
        return 1
    if asked_for:
        return asked_for
    memory, asked = sharding.usable_memory(), swarm.train.mapping or sharding.default_mapping()
    if memory is None:
        return None
    # Under `auto` it may be one device that takes all.
    devices = 1 if asked == "auto" else sharding.devices_used(asked)
    return aot.fitting(*_step(swarm), len(swarm.runs), jax.local_devices()[:devices], memory)[1]


def _check_fits(swarm: train.Swarm, waves: int, width: int, folder: pathlib.Path, per_device: int | None) -> None:
    """Refuses waves of an earlier run that this one's devices do not hold; what was asked for is taken on trust."""
    memory, devices = sharding.usable_memory(), _devices(swarm)
    on_one = -(-width // devices)
    begun = f"{folder / RECORD}: {folder} was begun in {counted(waves, 'wave')} of {counted(width, 'member')}"
    if swarm.train.mapping == sharding.ONE and width > 1:
        raise UserError(
            f"{begun}, which by fsdp go one at a time; go on with the mapping and the devices that it was "
            f"begun with, or delete {folder} to begin again"
        )
    if memory is None or on_one <= (per_device or 0) or swarm.train.mapping == sharding.ONE:
        return
    wave = swarm.taken(np.arange(width), width) if waves > 1 else swarm
    need = aot.needed(aot.compile_steps(*_step(wave), on_one * devices, jax.local_devices()[:devices]))
    if need > memory:
        raise UserError(
            f"{begun}; on {devices} devices that is {on_one} on each, {need / 2**30:.2f} GiB of "
            f"{memory / 2**30:.2f}; go on with more devices, or larger ones, or delete {folder} to begin again in "
            "waves that fit"
        )
