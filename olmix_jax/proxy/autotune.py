"""Choose the fastest mapping on this machine by timing each one."""

import pathlib
import time

import jax
import numpy as np

from olmix_jax.proxy import sharding
from olmix_jax.proxy.proxy_swarm import ProxySwarm
from olmix_jax.utils import files
from olmix_jax.utils.progress import log


def choose_mapping(swarm: ProxySwarm, folder: pathlib.Path, per_device: int | None = None) -> str:
    """Return the configured mapping, or with `auto` the fastest one on a few real steps.

    The measurement is stored in ``folder/mapping.json``, so that a resumed run uses the same mapping.

    Args:
      swarm: all members.
      folder: receives the measurement.
      per_device: members on a device at once; None for all.
    """
    configured = swarm.train.mapping or sharding.default_mapping()
    if configured != "auto":
        return configured
    path = folder / "mapping.json"
    if not path.exists():
        seconds = time_mappings(swarm, per_device)
        files.write_json(path, {"mapping": min(seconds, key=seconds.__getitem__), "seconds_per_step": seconds})
    choice = files.read_json(path)
    for name, s in choice["seconds_per_step"].items():
        log.info("mapping %-5s %8.1f ms per step of all members", name, 1e3 * s)
    log.info("mapping %s is the fastest on this machine", choice["mapping"])
    return choice["mapping"]


def time_mappings(swarm: ProxySwarm, per_device: int | None = None, steps: int = 2) -> dict[str, float]:
    """Return each mapping's time for one step of the whole swarm [seconds].

    The time is the better of two runs of ``steps`` steps on real data. If only ``per_device`` members fit on a device,
    one wave is timed and multiplied by the number of waves.
    """
    result = {}
    for mapping in sharding.MAPPINGS:
        waves = 1 if per_device is None else -(-len(swarm.runs) // (per_device * sharding.member_devices(mapping)))
        wave = swarm if waves == 1 else swarm.subset(np.arange(0, len(swarm.runs), waves))
        result[mapping] = waves * seconds_per_step(wave, mapping, min(steps, wave.chunk_steps))
    return result


def seconds_per_step(swarm: ProxySwarm, mapping: str, steps: int) -> float:
    """Return the time for one step of all members: the better of two runs of ``steps`` steps [seconds]."""
    tokens, states, run = next(swarm.chunks()), swarm.start(mapping), swarm.steps(mapping)
    states, _ = run(states, tokens, 0)
    seconds = []
    for _ in range(2):
        start = time.monotonic()
        states, loss_KT = run(states, tokens, steps)
        jax.block_until_ready(loss_KT)
        seconds.append((time.monotonic() - start) / steps)
    return min(seconds)
