"""The fastest mapping of a swarm on the devices at hand, by trying them."""

import pathlib
import time

import jax
import numpy as np

from olmix_jax.proxy import sharding
from olmix_jax.proxy.train import Swarm
from olmix_jax.utils import files
from olmix_jax.utils.progress import log


def choose(swarm: Swarm, folder: pathlib.Path, held: int | None = None) -> str:
    """The mapping asked for; under `auto` the fastest on a few real steps, remembered for a run that goes on.

    Args:
      held: members on a device at once; None for all.
    """
    asked = swarm.train.mapping or sharding.default_mapping()
    if asked != "auto":
        return asked
    memory = folder / "mapping.json"
    if not memory.exists():
        seconds = timings(swarm, held)
        files.write_json(memory, {"mapping": min(seconds, key=seconds.get), "seconds_per_step": seconds})
    choice = files.read_json(memory)
    for name, s in choice["seconds_per_step"].items():
        log.info("mapping %-5s %8.1f ms per step of all members", name, 1e3 * s)
    log.info("mapping %s is the fastest here", choice["mapping"])
    return choice["mapping"]


def timings(swarm: Swarm, held: int | None = None, steps: int = 2) -> dict[str, float]:
    """Seconds per step of the whole swarm for each mapping: the better of two runs of a few steps on real data. Of
    members that go in waves, `held` on a device, one wave is run, and stands for all."""
    result = {}
    for mapping in sharding.MAPPINGS:
        waves = 1 if held is None else -(-len(swarm.runs) // (held * sharding.devices_used(mapping)))
        some = swarm if waves == 1 else swarm.taken(np.arange(0, len(swarm.runs), waves))
        result[mapping] = waves * _seconds(some, mapping, min(steps, some.chunk_steps))
    return result


def _seconds(swarm: Swarm, mapping: str, steps: int) -> float:
    """Seconds per step, the better of two runs."""
    tokens, states, run = next(swarm.chunks()), swarm.start(mapping), swarm.steps(mapping)
    states, _ = run(states, tokens, 0)
    seconds = []
    for _ in range(2):
        begun = time.monotonic()
        states, loss_KT = run(states, tokens, steps)
        jax.block_until_ready(loss_KT)
        seconds.append((time.monotonic() - begun) / steps)
    return min(seconds)
