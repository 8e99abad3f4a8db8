"""More members than a device holds: some at a time, by one program."""

import dataclasses
import pathlib

import jax
import numpy as np

from olmix_jax.progress import log
from olmix_jax.proxy import ahead, sharding, train

# Share of a device's memory that a program may plan with; the rest is the runtime's.
USABLE = 0.92


def in_waves(
    swarm: train.Swarm, tasks, folder: pathlib.Path, what: str, per_device: int | None = None
) -> train.Trained:
    """:func:`olmix_jax.proxy.train.train`, by as many members at once as a device holds; one program serves all waves.

    Args:
      per_device: members on a device; None for as many as fit its memory, where that is known (on a CPU all are taken).

    Raises:
      KeyboardInterrupt, UserError: as that.
    """
    mapping = swarm.train.mapping or sharding.default_mapping()
    devices = sharding.devices_used("shard" if mapping == "auto" else mapping)
    if per_device is None:
        stats = jax.local_devices()[0].memory_stats() or {}
        if "bytes_limit" not in stats:
            return train.train(swarm, tasks, folder, what)
        shape = swarm.chunk_steps, swarm.train.batch, swarm.length + 1
        memory = USABLE * stats["bytes_limit"]
        _, per_device = ahead.fitting(swarm.member, shape, len(swarm.runs), jax.local_devices()[:devices], memory)
    waves = -(-len(swarm.runs) // (per_device * devices))
    if waves == 1:
        return train.train(swarm, tasks, folder, what)
    log.info("%s: %d waves of %d members on each of %d devices", what, waves, per_device, devices)
    chosen = [np.arange(w, len(swarm.runs), waves) for w in range(waves)]
    found = []
    for w, k in enumerate(chosen):
        some = dataclasses.replace(swarm, runs=swarm.runs.taken(k), width=len(chosen[0]))
        found.append(train.train(some, tasks, folder / f"wave-{w + 1:04d}", f"{what}, wave {w + 1} of {waves}"))
    arrays = {name: np.concatenate([getattr(d, name) for d in found]) for name in ("bpb_KN", "loss_KT", "died_K")}
    back = np.argsort(np.concatenate(chosen))
    info = found[0].info | {"members": len(swarm.runs), "waves": waves}
    info["wall_s"] = sum(d.info["wall_s"] for d in found)
    return train.Trained(**{name: x[back] for name, x in arrays.items()}, info=info)
