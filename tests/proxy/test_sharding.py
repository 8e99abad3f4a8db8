"""proxy/sharding.py: members under every mapping, compared with a single member."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from olmix_jax.proxy import sharding
from olmix_jax.proxy.proxy_swarm import map_members
from olmix_jax.utils.errors import UserError
from tests import toy


def train_losses(swarm, mapping):
    """Return the losses of all members at all steps with one mapping, [K, T]."""
    states, run = swarm.start(mapping), swarm.steps(mapping)
    chunks = []
    for tokens in swarm.chunks():
        states, loss_KT = run(states, tokens, swarm.chunk_steps)
        chunks.append(np.asarray(loss_KT)[: len(swarm.runs)])
    return np.concatenate(chunks, axis=1)[:, : swarm.train.steps]


@pytest.fixture(scope="module")
def single():
    """Return a swarm and the losses of members 0, 1 and 4, each trained without any mapping."""
    swarm = toy.make_swarm(seeds=range(5), mapping="shard")
    init, steps = jax.jit(swarm.member.init), jax.jit(swarm.member.steps)
    losses = []
    for k in (0, 1, 4):
        state, chunks = init(jax.random.key(int(swarm.runs.init_seed_K[k]))), []
        for tokens_KTBL1 in swarm.chunks():
            state, loss_T = steps(state, jnp.asarray(tokens_KTBL1[k]), swarm.chunk_steps)
            chunks.append(loss_T)
        losses.append(np.concatenate(chunks)[:7])
    return swarm, np.stack(losses)


@pytest.mark.parametrize("mapping", (*sharding.MAPPINGS, sharding.FSDP))
def test_every_mapping_gives_the_losses_of_single_members(single, mapping):
    swarm, expected_KT = single
    assert expected_KT.shape == (3, 7) and np.isfinite(expected_KT).all()
    np.testing.assert_allclose(train_losses(swarm, mapping)[[0, 1, 4]], expected_KT, atol=1e-5, rtol=0)


def test_members_do_not_communicate(single):
    assert jax.device_count() == 2
    swarm, _ = single
    mapped = map_members(swarm.member.steps, "shard", swarm.train.map_batch, donate=True)
    tokens = sharding.place(sharding.pad(next(swarm.chunks()), 6), "shard")
    program = mapped.lower(swarm.start("shard"), tokens, np.int32(1)).compile().as_text()
    for collective in ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter"):
        assert collective not in program


def test_fsdp_splits_weights_and_moments_over_all_devices(single):
    states = single[0].start(sharding.FSDP)
    for x in jax.tree.leaves((states.params, states.momentum)):
        sizes = [shard.data.size for shard in x.addressable_shards]
        divisible = x.ndim > 1 and any(n % 2 == 0 for n in x.shape[1:])
        assert sizes == [x.size // 2 if divisible else x.size] * 2


def test_number_of_steps_does_not_recompile(single, caplog):
    swarm, _ = single
    tokens, run = next(swarm.chunks()), swarm.steps("vmap")
    with jax.log_compiles(), caplog.at_level("WARNING", logger="jax"):
        for n in (2, 1, 0):
            run(swarm.start("vmap"), tokens, n)
    compiled = [r for r in caplog.records if "Finished XLA compilation of jit(steps" in r.getMessage()]
    assert len(compiled) <= 1


def test_fsdp_is_used_for_members_larger_than_a_device_unless_a_mapping_is_set():
    train = toy.make_swarm().train
    for mapping, member_bytes, memory, devices, expected in (
        (None, 3, 2, 4, True),
        (None, 2, 2, 4, False),
        (None, 3, 2, 1, False),
        (None, 3, None, 4, False),
        ("shard", 3, 2, 4, False),
        (sharding.FSDP, 1, 2, 1, True),
    ):
        settings = dataclasses.replace(train, mapping=mapping)
        assert sharding.needs_fsdp(settings, member_bytes, memory, devices) is expected


def test_fsdp_raises_the_micro_batch_to_a_multiple_of_the_devices():
    train = toy.make_swarm(batch=12).train
    for micro_batch, devices, expected in ((1, 2, 2), (3, 2, 4), (3, 4, 4), (None, 3, 12), (6, 6, 6)):
        settings = sharding.with_fsdp(dataclasses.replace(train, micro_batch=micro_batch), devices)
        assert (settings.micro_batch, settings.mapping) == (expected, sharding.FSDP)
    with pytest.raises(UserError, match="`train.batch` is 12.*multiple of the 8 devices"):
        sharding.with_fsdp(train, 8)


def test_padding_repeats_the_last_member():
    np.testing.assert_array_equal(sharding.pad(np.array([1, 2, 3]), 5), [1, 2, 3, 3, 3])
    assert sharding.padded_size(3, "shard") == 4 and sharding.padded_size(3, "vmap") == 3


@pytest.mark.parametrize(
    ("mapping", "batch", "members"),
    [("vmap", 1, 5), ("pmap", 1, 3), ("map", 2, 2), ("map", 0, 5), ("shard", 1, 1), ("shard", 0, 3), ("shard", 9, 3)],
)
def test_number_of_members_that_a_device_computes_at_the_same_time(mapping, batch, members):
    assert sharding.concurrent_members(5, mapping, batch) == members


def test_unknown_mapping_raises_an_error():
    with pytest.raises(ValueError, match="unknown mapping 'pvmap'; use one of vmap, map, pmap, shard, fsdp"):
        sharding.map_members(lambda a, b, c: a, "pvmap", 1)
