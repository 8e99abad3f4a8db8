"""Map members over devices, and shard them. The only file that uses meshes and `pmap`.

Every mapping but FSDP uses the devices of this process only. If there are several processes, each trains a part of the
swarm without communication (olmix_jax/pipeline/processes.py). FSDP shards one member over the devices of all
processes.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from olmix_jax.config.schema import Train
from olmix_jax.utils.errors import UserError

MAPPINGS = ("vmap", "map", "pmap", "shard")
# The mapping of members too large for one device: weights and batch of one member are sharded over all devices.
FSDP = "fsdp"
# Share of a device's memory that a program may use. The rest is left to the runtime.
USABLE = 0.92
# Maximum number of devices that weights are split over. Further devices hold copies and take other parts of the batch.
MAX_WEIGHT_SHARDS = 16


def default_mapping() -> str:
    """Return `shard` on several devices, `map` on one CPU (batched small matmuls are slow there), else `vmap`."""
    return "shard" if jax.local_device_count() > 1 else one_device_mapping()


def one_device_mapping() -> str:
    """Return the mapping for members on a single device: `map` on a CPU, else `vmap`."""
    return "map" if jax.default_backend() == "cpu" else "vmap"


def usable_memory() -> float | None:
    """Return the usable memory of one device [bytes], or None if the device does not report it."""
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    return None if limit is None else USABLE * limit


def member_devices(mapping: str) -> int:
    """Return the number of devices that the member axis is split over."""
    return jax.local_device_count() if mapping in ("pmap", "shard") else 1


def compute_devices(mapping: str) -> int:
    """Return the number of devices that compute: under FSDP all devices of all processes."""
    return jax.device_count() if mapping == FSDP else member_devices(mapping)


def needs_fsdp(train: Train, member_bytes: int, memory: float | None, devices: int) -> bool:
    """Return whether a member is sharded over all devices.

    This is the case if the config asks for it, or if it names no mapping and no single device can hold the member.

    Args:
      train: the trainer's settings.
      member_bytes: size of a member [bytes].
      memory: usable memory of one device [bytes], None if unknown.
      devices: number of devices.
    """
    if train.mapping is not None:
        return train.mapping == FSDP
    return devices > 1 and memory is not None and member_bytes > memory


def padded_size(members: int, mapping: str) -> int:
    """Return the number of members after padding to the same number on every device."""
    devices = member_devices(mapping)
    return -(-members // devices) * devices


def concurrent_members(members: int, mapping: str, batch: int) -> int:
    """Return how many members one device computes at the same time, and so holds the activations of."""
    per_device = padded_size(members, mapping) // member_devices(mapping)
    sequential = mapping == "map" or (mapping == "shard" and jax.default_backend() == "cpu")
    return min(batch or per_device, per_device) if sequential else per_device


def member_mesh(devices: Sequence | None = None) -> Mesh:
    """Return a mesh with one axis, ``member``, over ``devices`` (default: this process's devices)."""
    devices = jax.local_devices() if devices is None else devices
    return jax.make_mesh((len(devices),), ("member",), axis_types=(AxisType.Auto,), devices=devices)


def _fsdp_mesh(devices: Sequence | None = None) -> Mesh:
    """Return a mesh ``data`` × ``fsdp`` for one large member, over ``devices`` (default: those of all processes).

    The size of ``fsdp`` is the largest power of two that divides the number of devices, up to MAX_WEIGHT_SHARDS:
    widths and vocabularies are divisible by powers of two.
    """
    devices = jax.devices() if devices is None else devices
    split = math.gcd(len(devices), MAX_WEIGHT_SHARDS)
    types = (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh((len(devices) // split, split), ("data", "fsdp"), axis_types=types, devices=devices)


def _fsdp_sharding(x, mesh: Mesh) -> NamedSharding:
    """Split an array [K, …] of weights or moments along its longest divisible axis; replicate integers."""
    spec: list[str | None] = [None] * x.ndim
    axes = [a for a in range(1, x.ndim) if x.shape[a] % mesh.shape["fsdp"] == 0]
    if axes and jax.dtypes.issubdtype(x.dtype, np.floating):
        spec[max(axes, key=lambda a: x.shape[a])] = "fsdp"
    return NamedSharding(mesh, PartitionSpec(*spec))


def _array_sharding(x, mapping: str, devices: Sequence | None = None) -> NamedSharding:
    """Return the sharding of an array with a leading member axis under ``shard`` or ``fsdp``."""
    if mapping == FSDP:
        return _fsdp_sharding(x, _fsdp_mesh(devices))
    return NamedSharding(member_mesh(devices), PartitionSpec("member"))


def abstract(tree, mapping: str, devices: Sequence):
    """Add to shapes with a leading member axis the sharding that ``shard`` or ``fsdp`` gives them on ``devices``."""

    def with_sharding(x):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=_array_sharding(x, mapping, devices))

    return jax.tree.map(with_sharding, tree)


def place(tree, mapping: str):
    """Put arrays with a leading member axis on the devices that ``mapping`` uses."""
    if mapping in ("vmap", "map"):
        return jax.device_put(tree, jax.local_devices()[0])
    layout = "shard" if mapping == "pmap" else mapping

    def put(x):
        sharding = _array_sharding(x, layout)
        if spans_processes(mapping):
            # Every process has the whole array and provides the shards of its local devices.
            return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])
        return jax.device_put(x, sharding)

    return jax.tree.map(put, tree)


def spans_processes(mapping: str) -> bool:
    """Return whether a member is sharded over the devices of several processes, which then run in lockstep."""
    return mapping == FSDP and jax.process_count() > 1


def to_host(x) -> np.ndarray:
    """Return the whole of a sharded array as a NumPy array. All processes that hold a shard must call it together."""
    whole = x if x.is_fully_addressable or x.is_fully_replicated else _replicate(x.sharding.mesh)(x)
    # On a CPU the array may share the memory of x, which the next step reuses.
    return np.array(whole) if jax.default_backend() == "cpu" else np.asarray(whole)


# Cached, or every array of every checkpoint would compile a program.
@functools.lru_cache(maxsize=8)
def _replicate(mesh: Mesh) -> Callable:
    return jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, PartitionSpec()))


def _sequential(function: Callable, batch: int) -> Callable:
    """Map members one after another, or ``batch`` at a time, inside one program."""

    def mapped(states, inputs, shared):
        size = jax.tree.leaves((states, inputs))[0].shape[0]
        # batch_size=1 would add a batch axis of one to every matmul, which is slow on CPUs.
        batch_size = None if batch == 1 else min(batch or size, size)
        return jax.lax.map(lambda member: function(*member, shared), (states, inputs), batch_size=batch_size)

    return mapped


def _fsdp(function: Callable, devices: Sequence | None) -> Callable:
    """Map members with each one sharded over all devices. The compiler inserts the communication."""
    mesh = _fsdp_mesh(devices)

    def shard_examples(tree, axis: int):
        sharding = NamedSharding(mesh, PartitionSpec(*[None] * axis, ("data", "fsdp")))

        def constrain(x):
            divisible = x.ndim > axis and x.shape[axis] % mesh.size == 0
            return jax.lax.with_sharding_constraint(x, sharding) if divisible else x

        return jax.tree.map(constrain, tree)

    def shard_weights(tree):
        return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, _fsdp_sharding(x, mesh)), tree)

    def mapped(states, inputs, shared):
        states, inputs, shared = shard_weights(states), shard_examples(inputs, 2), shard_examples(shared, 1)
        return shard_weights(jax.vmap(function, in_axes=(0, 0, None))(states, inputs, shared))

    return mapped


def with_fsdp(train: Train, devices: int) -> Train:
    """Return the settings for FSDP on ``devices`` devices.

    ``micro_batch`` is raised to the next size that divides the batch and is a multiple of the number of devices.

    Raises:
      UserError: the batch is not a multiple of the number of devices.
    """
    if train.batch % devices:
        raise UserError(
            f"config field `train.batch` is {train.batch}. For a model that is sharded over several devices (FSDP) it "
            f"must be a multiple of the {devices} devices. Change it, or use fewer devices, for example with an array "
            "of jobs (swarm.part)"
        )
    smallest = train.micro_batch or train.batch
    sizes = range(devices, train.batch + 1, devices)
    micro_batch = next(size for size in sizes if size >= smallest and train.batch % size == 0)
    return dataclasses.replace(train, mapping=FSDP, micro_batch=micro_batch)


def map_members(
    function: Callable, mapping: str, batch: int, donate: bool = False, devices: Sequence | None = None
) -> Callable[[Any, Any, Any], Any]:
    """Compile one member's `function(state, inputs, shared)` into a function of the whole swarm.

    Args:
      function: a pure function. `state` and `inputs` are pytrees of one member's arrays (or None). `shared` is a
        pytree that all members see. In `inputs` and `shared`, the second axis of arrays with two or more axes runs over
        examples.
      mapping: one of MAPPINGS, or FSDP.
      batch: members computed together by `map`, and on each device by `shard` on a CPU; 0 means all.
      donate: whether the result may reuse the memory of the states.
      devices: devices to compile for under ``shard`` and ``fsdp`` (default: this machine's).

    Returns:
      `mapped(states, inputs, shared)`. Arrays of states, inputs and result have a leading axis of length
      :func:`padded_size`. No mapping communicates between members; ``fsdp`` communicates within one.
    """
    donated = (0,) if donate else ()
    vmapped = jax.vmap(function, in_axes=(0, 0, None))
    if mapping == "vmap":
        return jax.jit(vmapped, donate_argnums=donated)
    if mapping == "map":
        return jax.jit(_sequential(function, batch), donate_argnums=donated)
    if mapping == "shard":
        mesh, by_member, replicated = member_mesh(devices), PartitionSpec("member"), PartitionSpec()
        per_device = _sequential(function, batch) if mesh.devices.flat[0].platform == "cpu" else vmapped
        specs = (by_member, by_member, replicated)
        sharded = jax.shard_map(per_device, mesh=mesh, in_specs=specs, out_specs=by_member, check_vma=False)
        return jax.jit(sharded, donate_argnums=donated)
    if mapping == FSDP:
        return jax.jit(_fsdp(function, devices), donate_argnums=donated)
    if mapping == "pmap":
        return _pmap(vmapped, donated)
    raise ValueError(f"unknown mapping {mapping!r}; use one of {', '.join((*MAPPINGS, FSDP))}")


def _pmap(vmapped: Callable, donated: tuple[int, ...]) -> Callable:
    devices = jax.local_device_count()
    on_devices = jax.pmap(vmapped, in_axes=(0, 0, None), donate_argnums=donated)

    def mapped(states, inputs, shared):
        split = jax.tree.map(lambda x: x.reshape(devices, x.shape[0] // devices, *x.shape[1:]), (states, inputs))
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), on_devices(*split, shared))

    return mapped


def pad(array_K: np.ndarray, members: int) -> np.ndarray:
    """Repeat the last row until the array has ``members`` rows."""
    return np.concatenate([array_K, np.repeat(array_K[-1:], members - len(array_K), axis=0)])
