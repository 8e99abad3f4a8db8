"""How members are laid over devices and mapped. The only file that knows meshes and `pmap`.

Devices are those of this process: several processes train parts of the swarm (olmix_jax/hosts.py), and say nothing to
each other while they do.
"""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

MAPPINGS = ("vmap", "map", "pmap", "shard")


def default_mapping() -> str:
    """`shard` with several devices; on one, `map` on a CPU (batched small matmuls are slow there), else `vmap`."""
    if jax.local_device_count() > 1:
        return "shard"
    return "map" if jax.default_backend() == "cpu" else "vmap"


def devices_used(mapping: str) -> int:
    """Devices that members are laid over."""
    return jax.local_device_count() if mapping in ("pmap", "shard") else 1


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


def abstract(tree, devices):
    """Shapes with a leading member axis, placed over ``devices`` as ``shard`` would have their arrays."""
    where = NamedSharding(_mesh(devices), PartitionSpec("member"))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree)


def place(tree, mapping: str):
    """Puts arrays with a leading member axis where `mapping` wants them."""
    if mapping not in ("pmap", "shard"):
        return jax.device_put(tree, jax.local_devices()[0])
    return jax.device_put(tree, NamedSharding(_mesh(), PartitionSpec("member")))


def _in_turn(function: Callable, batch: int) -> Callable:
    """Maps members one after another, or `batch` of them at a time, inside one program."""

    def mapped(states, inputs, shared):
        size = jax.tree.leaves((states, inputs))[0].shape[0]
        # batch_size=1 would leave a batch axis of one in every matmul, which the CPU pays for.
        blocks = None if batch == 1 else min(batch or size, size)
        return jax.lax.map(lambda member: function(*member, shared), (states, inputs), batch_size=blocks)

    return mapped


def map_members(function: Callable, mapping: str, batch: int, donate: bool = False, devices=None) -> Callable:
    """Compiles one member's `function(state, inputs, shared)` into the whole swarm's.

    Args:
      function: pure; `state` and `inputs` are pytrees of one member's arrays (or None), `shared` one that all see.
      mapping: one of MAPPINGS.
      batch: members computed together in `map`, and inside a device in `shard` on a CPU; 0: all.
      donate: whether the states' memory may be reused for the result.
      devices: for ``shard`` on other devices than this machine's.

    Returns:
      `mapped(states, inputs, shared)` with a leading axis of :func:`padded` length on every array of the first two and
      of the result. No mapping communicates between members.
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
    if mapping == "pmap":
        devices = jax.local_device_count()
        on_devices = jax.pmap(together, in_axes=(0, 0, None), donate_argnums=donated)

        def mapped(states, inputs, shared):
            split = jax.tree.map(lambda x: x.reshape(devices, x.shape[0] // devices, *x.shape[1:]), (states, inputs))
            return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), on_devices(*split, shared))

        return mapped
    raise ValueError(f"unknown mapping {mapping!r}; one of {', '.join(MAPPINGS)}")


def pad(array_K: np.ndarray, members: int) -> np.ndarray:
    """Repeats the last member until there are `members`."""
    return np.concatenate([array_K, np.repeat(array_K[-1:], members - len(array_K), axis=0)])
