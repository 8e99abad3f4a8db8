"""Compiles a swarm's training step for a machine that is not at hand, and reads off what the compiler says of it."""

import importlib.util
import math
import os
import re

import jax
import jax.numpy as jnp
import numpy as np

from olmix_jax.proxy import sharding, state
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import counted, log

_COLLECTIVE = re.compile(
    r"\s(all-reduce|all-gather|reduce-scatter|all-to-all|ragged-all-to-all|collective-permute|collective-broadcast)"
    r"(-start)?\("
)

# How XLA begins an error that is for want of memory, compiling or running.
NO_MEMORY = "RESOURCE_EXHAUSTED"


def devices_of(topology: str):
    """The devices of a TPU topology such as ``v5e:16x16``, without any of them.

    Raises:
      UserError: the compiler is not installed, or there is no such topology.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"config field `plan.topology`: to compile for {topology} takes libtpu: pip install -r requirements-tpu.txt"
        )
    if jax.default_backend() == "gpu":
        raise UserError(
            "config field `plan.topology`: on a machine with a GPU, set JAX_PLATFORMS=cpu to compile for TPUs"
        )
    # There is no machine to ask for its metadata, and none that only one process may have.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental import topologies

    # JAX has the two cores of a v4 chip as one device; the compiler has to be told.
    options = {"chip_config_name": "megacore"} if topology.startswith("v4:") else {}
    # What the compiler raises of a name that it does not know depends on the name.
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology, **options).devices
    except Exception as e:
        said = (str(e).splitlines() or [type(e).__name__])[0]
        raise UserError(
            f"config field `plan.topology`: {topology!r} is none that the compiler knows ({said}); as v4:2x2x4, "
            "v5e:16x16, v5p:2x2x2 or v6e:8x8"
        ) from e


def fitting(member: state.Member, tokens_shape, members: int, devices, memory: float | None) -> tuple[dict, int]:
    """What the compiler says of as many members on a device as fit, and how many; of one, where none does.

    Args:
      member, tokens_shape, devices: as for :func:`compile_steps`.
      members: there are in all.
      memory: of a device that a program may plan with [bytes]; None where that is not known, and all are to fit.
    """
    per_device = -(-members // len(devices))
    if memory is not None:
        per_device = min(per_device, max(1, int(memory // member.memory)))
    while True:
        log.info("compiling %s on each of %s", counted(per_device, "member"), counted(len(devices), "device"))
        found = compile_steps(member, tokens_shape, per_device * len(devices), devices)
        if per_device == 1 or memory is None or needed(found) <= memory:
            return found, per_device
        # Of what the compiler gave up there is no figure to go by.
        share = memory / needed(found) if np.isfinite(needed(found)) else 0.5
        per_device = min(per_device - 1, max(1, int(per_device * share)))


def needed(found: dict) -> float:
    """Memory of a device that a compiled program takes [bytes]."""
    return sum(found[part] for part in ("arguments", "temporary", "outputs"))


def untuned(lowered, devices):
    """Compiled to be looked at: to try which matrix products are fastest is most of the time that a GPU's compiler
    takes, and is of no use here."""
    return lowered.compile({"xla_gpu_autotune_level": 0} if devices[0].platform == "gpu" else None)


def compile_steps(
    member: state.Member, tokens_shape: tuple[int, ...], members: int, devices, mapping: str = "shard"
) -> dict:
    """Compiles ``members`` members' steps over the devices: what a device needs, and what devices say to each other.

    Args:
      member: one member's code.
      tokens_shape: (T, B, L + 1) of a dispatch.
      members: a multiple of the devices, under ``shard``.
      devices: of this machine, or of :func:`devices_of`.
      mapping: ``shard``, or ``fsdp`` for one member over all devices.

    Returns:
      ``arguments``, ``temporary`` and ``outputs`` [bytes on a device; what outputs share with arguments is counted
      once], and ``collectives``, the number of operations by which devices communicate. Where the compiler gives up for
      want of memory, ``temporary`` is what it asked for, or infinite, and ``collectives`` None.
    """
    states = jax.eval_shape(jax.vmap(lambda seed: member.init(jax.random.key(seed))), jnp.zeros(members, jnp.int32))
    tokens = jax.ShapeDtypeStruct((members, *tokens_shape), jnp.int32)
    states, tokens = sharding.abstract((states, tokens), mapping, devices)
    mapped = sharding.map_members(member.steps, mapping, 1, donate=True, devices=devices)
    lowered = mapped.lower(states, tokens, jax.ShapeDtypeStruct((), jnp.int32))
    given = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves((states, tokens))) // len(devices)
    try:
        compiled = untuned(lowered, devices)
    except jax.errors.JaxRuntimeError as e:
        if NO_MEMORY not in str(e):
            raise
        asked = re.search(r"required for HLO temporaries \(([\d.]+)([KMGT]?)\)", str(e))
        temporary = float(asked[1]) * 1024 ** " KMGT".index(asked[2] or " ") if asked else math.inf
        return {"arguments": given, "temporary": temporary, "outputs": 0, "collectives": None}
    memory = compiled.memory_analysis()
    return {
        "arguments": int(memory.argument_size_in_bytes),
        "temporary": int(memory.temp_size_in_bytes),
        "outputs": int(memory.output_size_in_bytes - memory.alias_size_in_bytes),
        "collectives": len(_COLLECTIVE.findall(compiled.as_text())),
    }
