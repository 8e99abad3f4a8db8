"""How members are laid over devices and mapped. The only file that knows meshes and `pmap`.

Devices are those of this process: several processes train parts of the swarm (olmix_jax/pipeline/processes.py), and
say nothing to
each other while they do. A member that lies over all devices does so over those of all processes.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from olmix_jax.config.schema import Train
from olmix_jax.utils.errors import UserError

MAPPINGS = ("vmap", "map", "pmap", "shard")
# The mapping of members too large for a device: one lies over all of them, its weights split and its batch too.
ONE = "fsdp"
# Share of a device's memory that a program may plan with; the rest is the runtime's.
USABLE = 0.92
# Devices that weights are split over at most; more have copies, and other parts of the batch.
_SPLIT = 16


def default_mapping() -> str:
    """`shard` with several devices; on one, `map` on a CPU (batched small matmuls are slow there), else `vmap`."""
    if jax.local_device_count() > 1:
        return "shard"
    return "map" if jax.default_backend() == "cpu" else "vmap"


def usable_memory() -> float | None:
    """What a program may plan with on a device [bytes]; None where it does not say."""
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    return None if limit is None else USABLE * limit


def devices_used(mapping: str) -> int:
    """Devices that members are laid over."""
    return jax.local_device_count() if mapping in ("pmap", "shard") else 1


def at_work(mapping: str) -> int:
    """Devices that compute: those that members are laid over, or that one lies over."""
    return jax.device_count() if mapping == ONE else devices_used(mapping)


def lies_over_all(train: Train, size: int, memory: float | None, devices: int) -> bool:
    """Whether a member of ``size`` [bytes] lies over all devices: asked for, or as none of them holds it and nothing
    else is asked for; ``memory`` is of a device, None where that is not known."""
    return train.mapping == ONE or (train.mapping is None and devices > 1 and memory is not None and size > memory)


def padded(members: int, mapping: str) -> int:
    """Members after padding to a whole number on every device."""
    devices = devices_used(mapping)
    return -(-members // devices) * devices


def at_once(members: int, mapping: str, batch: int) -> int:
    """Members that one device computes together, and so holds the activations of."""
    on_one = padded(members, mapping) // devices_used(mapping)
    in_turn = mapping == "map" or (mapping == "shard" and jax.default_backend() == "cpu")
    return min(batch or on_one, on_one) if in_turn else on_one


def _mesh(devices=None):
    """One axis, ``member``, over the devices: all of this machine's, or those of another that is compiled for."""
    devices = jax.local_devices() if devices is None else devices
    return jax.make_mesh((len(devices),), ("member",), axis_types=(AxisType.Auto,), devices=devices)


def _mesh_of_one(devices=None):
    """Two axes for one large member: ``data`` × ``fsdp``, the second a power of two, by which widths and vocabularies
    can be split, as large as can be up to `_SPLIT`."""
    devices = jax.devices() if devices is None else devices
    split = math.gcd(len(devices), _SPLIT)
    types = (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh((len(devices) // split, split), ("data", "fsdp"), axis_types=types, devices=devices)


def _weights(x, mesh) -> NamedSharding:
    """Weights and moments [K, …] are split along their longest axis that can be; integers are of no size."""
    spec = [None] * x.ndim
    axes = [a for a in range(1, x.ndim) if x.shape[a] % mesh.shape["fsdp"] == 0]
    if axes and jax.dtypes.issubdtype(x.dtype, np.floating):
        spec[max(axes, key=lambda a: x.shape[a])] = "fsdp"
    return NamedSharding(mesh, PartitionSpec(*spec))


def _wanted(x, mapping: str, devices=None) -> NamedSharding:
    """Where an array with a leading member axis is, under ``shard`` or ``fsdp``."""
    if mapping == ONE:
        return _weights(x, _mesh_of_one(devices))
    return NamedSharding(_mesh(devices), PartitionSpec("member"))


def abstract(tree, mapping: str, devices):
    """Shapes with a leading member axis, placed over ``devices`` as ``shard`` or ``fsdp`` would have their arrays."""

    def placed(x):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=_wanted(x, mapping, devices))

    return jax.tree.map(placed, tree)


def place(tree, mapping: str):
    """Puts arrays with a leading member axis where `mapping` wants them."""
    if mapping in ("vmap", "map"):
        return jax.device_put(tree, jax.local_devices()[0])
    where = "shard" if mapping == "pmap" else mapping
    if spread(mapping):
        # Every process has the whole array, and gives its own devices' parts of it.
        return jax.tree.map(lambda x: jax.make_array_from_callback(x.shape, _wanted(x, where), lambda i: x[i]), tree)
    return jax.tree.map(lambda x: jax.device_put(x, _wanted(x, where)), tree)


def spread(mapping: str) -> bool:
    """Whether members lie over the devices of several processes, which then have to go in step."""
    return mapping == ONE and jax.process_count() > 1


def fetched(x) -> np.ndarray:
    """An array as this process has it whole, wherever its parts are; all processes that have a part ask together."""
    return np.asarray(x if x.is_fully_addressable or x.is_fully_replicated else _gathering(x.sharding.mesh)(x))


# Kept, or every array of every checkpoint would be a program to compile.
@functools.lru_cache(maxsize=8)
def _gathering(mesh):
    return jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, PartitionSpec()))


def _in_turn(function: Callable, batch: int) -> Callable:
    """Maps members one after another, or `batch` of them at a time, inside one program."""

    def mapped(states, inputs, shared):
        size = jax.tree.leaves((states, inputs))[0].shape[0]
        # batch_size=1 would leave a batch axis of one in every matmul, which the CPU pays for.
        blocks = None if batch == 1 else min(batch or size, size)
        return jax.lax.map(lambda member: function(*member, shared), (states, inputs), batch_size=blocks)

    return mapped


def _laid_over_all(function: Callable, devices) -> Callable:
    """One member over all devices, member by member where there are several; the compiler has them communicate."""
    mesh = _mesh_of_one(devices)

    def split(tree, axis: int):
        """Examples go to devices along an axis of the arrays that have it."""
        where = NamedSharding(mesh, PartitionSpec(*[None] * axis, ("data", "fsdp")))

        def placed(x):
            even = x.ndim > axis and x.shape[axis] % mesh.size == 0
            return jax.lax.with_sharding_constraint(x, where) if even else x

        return jax.tree.map(placed, tree)

    def weights(tree):
        return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, _weights(x, mesh)), tree)

    def mapped(states, inputs, shared):
        states, inputs, shared = weights(states), split(inputs, 2), split(shared, 1)
        return weights(jax.vmap(function, in_axes=(0, 0, None))(states, inputs, shared))

    return mapped


def laid_over_all(train: Train, devices: int) -> Train:
    """The trainer of a large member, in micro-batches that its devices share out evenly: as asked for, or next above.

    Raises:
      UserError: the batch cannot be shared so.
    """
    if train.batch % devices:
        raise UserError(
            f"config field `train.batch` is {train.batch}; of a model that lies over several devices it must be a "
            f"multiple of the {devices} devices; on fewer, as an array of jobs has them (swarm.part), it may be less"
        )
    asked = train.micro_batch or train.batch
    micro = next(m for m in range(devices, train.batch + 1, devices) if m >= asked and train.batch % m == 0)
    return dataclasses.replace(train, mapping=ONE, micro_batch=micro)


def map_members(function: Callable, mapping: str, batch: int, donate: bool = False, devices=None) -> Callable:
    """Compiles one member's `function(state, inputs, shared)` into the whole swarm's.

    Args:
      function: pure; `state` and `inputs` are pytrees of one member's arrays (or None), `shared` one that all see.
        Examples are along the second axis of the arrays in `inputs` and `shared` that have two or more.
      mapping: one of MAPPINGS, or ONE.
      batch: members computed together in `map`, and inside a device in `shard` on a CPU; 0: all.
      donate: whether the states' memory may be reused for the result.
      devices: for ``shard`` and ``fsdp`` on other devices than this machine's.

    Returns:
      `mapped(states, inputs, shared)` with a leading axis of :func:`padded` length on every array of the first two and
      of the result. No mapping communicates between members; ``fsdp`` does within one.
    """
    donated = (0,) if donate else ()
    together = jax.vmap(function, in_axes=(0, 0, None))
    if mapping == "vmap":
        return jax.jit(together, donate_argnums=donated)
    if mapping == "map":
        return jax.jit(_in_turn(function, batch), donate_argnums=donated)
    if mapping == "shard":
        mesh, rows, everywhere = _mesh(devices), PartitionSpec("member"), PartitionSpec()
        inner = _in_turn(function, batch) if mesh.devices.flat[0].platform == "cpu" else together
        return jax.jit(
            jax.shard_map(inner, mesh=mesh, in_specs=(rows, rows, everywhere), out_specs=rows, check_vma=False),
            donate_argnums=donated,
        )
    if mapping == ONE:
        return jax.jit(_laid_over_all(function, devices), donate_argnums=donated)
    if mapping == "pmap":
        devices = jax.local_device_count()
        on_devices = jax.pmap(together, in_axes=(0, 0, None), donate_argnums=donated)

        def mapped(states, inputs, shared):
            split = jax.tree.map(lambda x: x.reshape(devices, x.shape[0] // devices, *x.shape[1:]), (states, inputs))
            return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), on_devices(*split, shared))

        return mapped
    raise ValueError(f"unknown mapping {mapping!r}; one of {', '.join((*MAPPINGS, ONE))}")


def pad(array_K: np.ndarray, members: int) -> np.ndarray:
    """Repeats the last member until there are `members`."""
    return np.concatenate([array_K, np.repeat(array_K[-1:], members - len(array_K), axis=0)])
