"""Compile a swarm's training step ahead of time to measure its memory, also for TPUs that this machine lacks."""

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from olmix_jax.proxy import jax_errors, sharding, state
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import counted, log

_COLLECTIVE = re.compile(
    r"\s(all-reduce|all-gather|reduce-scatter|all-to-all|ragged-all-to-all|collective-permute|collective-broadcast)"
    r"(-start)?\("
)


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """What the compiler reports about a training step. Sizes are bytes on one device.

    Attributes:
      members_per_device: members on each device; below 1 if one member is sharded over several devices.
      arguments: size of the arguments.
      temporary: size of temporaries. If the compiler ran out of memory: the size that it requested, or infinity.
      outputs: size of outputs that do not reuse the arguments' memory.
      collectives: number of operations by which devices communicate; None if the compiler ran out of memory.
    """

    members_per_device: float
    arguments: int
    temporary: float
    outputs: int
    collectives: int | None

    @property
    def memory(self) -> float:
        """Memory of one device that the program needs [bytes]."""
        return self.arguments + self.temporary + self.outputs


def topology_devices(topology: str) -> Sequence:
    """Return abstract devices of a TPU topology such as ``v5e:16x16``. No TPU is needed.

    Raises:
      UserError: libtpu is not installed, or the topology is unknown.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"config field `plan.topology`: compiling for {topology} needs libtpu: pip install -r requirements-tpu.txt"
        )
    if jax.default_backend() == "gpu":
        raise UserError("config field `plan.topology`: on a machine with a GPU, set JAX_PLATFORMS=cpu")
    # Without a TPU, libtpu must not query the metadata server, and several processes may load it.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    try:
        from jax.experimental import topologies
    except ImportError as e:
        raise UserError(
            f"config field `plan.topology`: JAX {jax.__version__} does not offer TPU topologies ({e}). Install the "
            "version of JAX in requirements.txt"
        ) from e

    # JAX treats the two cores of a v4 chip as one device; the compiler needs this option to do the same.
    options = {"chip_config_name": "megacore"} if topology.startswith("v4:") else {}
    # The type of the compiler's error depends on the name.
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology, **options).devices
    except Exception as e:
        raise UserError(
            f"config field `plan.topology`: the compiler does not know {topology!r} ({jax_errors.first_line(e)}). "
            "Examples: v4:2x2x4, v5e:16x16, v5p:2x2x2, v6e:8x8"
        ) from e


def largest_fit(
    member: state.Member, tokens_shape: tuple[int, ...], members: int, devices: Sequence, memory: float | None
) -> CompiledStep:
    """Compile the step with as many members per device as fit, at least one.

    Args:
      member, tokens_shape, devices: as for :func:`compile_steps`.
      members: number of members in total.
      memory: usable memory of one device [bytes]. None if unknown; then all members are placed at once.
    """
    per_device = -(-members // len(devices))
    if memory is not None:
        per_device = min(per_device, max(1, int(memory // member.memory_bytes)))
    while True:
        log.info("compiling %s on each of %s", counted(per_device, "member"), counted(len(devices), "device"))
        compiled = compile_steps(member, tokens_shape, per_device * len(devices), devices)
        if per_device == 1 or memory is None or compiled.memory <= memory:
            return compiled
        # The compiler gave no figure: try half as many members.
        ratio = memory / compiled.memory if math.isfinite(compiled.memory) else 0.5
        per_device = min(per_device - 1, max(1, int(per_device * ratio)))


def compile_for_analysis(lowered: jax.stages.Lowered, devices: Sequence) -> jax.stages.Compiled:
    """Compile without autotuning of matrix products, which takes most of a GPU's compile time."""
    options: Any = {"xla_gpu_autotune_level": 0} if devices[0].platform == "gpu" else None
    return lowered.compile(options)


def count_collectives(program: str) -> int:
    """Return the number of operations in compiled HLO text by which devices communicate."""
    return len(_COLLECTIVE.findall(program))


def compile_steps(
    member: state.Member, tokens_shape: tuple[int, ...], members: int, devices: Sequence, mapping: str = "shard"
) -> CompiledStep:
    """Compile the training step of ``members`` members and return its memory per device and its collectives.

    Args:
      member: one member's functions.
      tokens_shape: (T, B, L + 1) of a dispatch.
      members: under ``shard`` a multiple of the number of devices.
      devices: devices of this machine, or of :func:`topology_devices`.
      mapping: ``shard``, or ``fsdp`` for one member sharded over all devices.
    """
    states = jax.eval_shape(jax.vmap(lambda seed: member.init(jax.random.key(seed))), jnp.zeros(members, jnp.int32))
    tokens = jax.ShapeDtypeStruct((members, *tokens_shape), jnp.int32)
    states, tokens = sharding.abstract((states, tokens), mapping, devices)
    mapped = sharding.map_members(member.steps, mapping, 1, donate=True, devices=devices)
    lowered = mapped.lower(states, tokens, jax.ShapeDtypeStruct((), jnp.int32))  # type: ignore[attr-defined]
    per_device: float = members / len(devices) if mapping == sharding.FSDP else members // len(devices)
    try:
        compiled = compile_for_analysis(lowered, devices)
    except jax.errors.JaxRuntimeError as e:
        if not jax_errors.is_out_of_memory(e):
            raise
        arguments = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves((states, tokens))) // len(devices)
        return CompiledStep(per_device, arguments, jax_errors.requested_memory(e), 0, None)
    memory: Any = compiled.memory_analysis()
    return CompiledStep(
        members_per_device=per_device,
        arguments=int(memory.argument_size_in_bytes),
        temporary=int(memory.temp_size_in_bytes),
        outputs=int(memory.output_size_in_bytes - memory.alias_size_in_bytes),
        collectives=count_collectives(str(compiled.as_text())),
    )
