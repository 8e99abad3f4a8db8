"""proxy/sharding.py and proxy/state.py: mapped members against a single one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from olmix_jax.proxy import sharding, train
from tests import toy


def losses(swarm, mapping):
    """Losses of all members over all steps, through one mapping: [K, T]."""
    states, run = swarm.start(mapping), swarm.steps(mapping)
    rows = []
    for tokens in swarm.chunks():
        states, loss_KT = run(states, tokens, swarm.chunk_steps)
        rows.append(np.asarray(loss_KT)[: len(swarm.runs)])
    return np.concatenate(rows, axis=1)[:, : swarm.train.steps]


@pytest.fixture(scope="module")
def alone():
    """Losses of a swarm's members, each stepped by itself with no mapping at all."""
    swarm = toy.make_swarm(members=3, steps=20, checkpoint_every=20)
    init, steps = jax.jit(swarm.member.init), jax.jit(swarm.member.steps)
    tokens_KTBL1 = next(swarm.chunks())
    rows = []
    for k in range(3):
        state = init(jax.random.key(int(swarm.runs.init_seed_K[k])))
        rows.append(steps(state, jnp.asarray(tokens_KTBL1[k]), 20)[1])
    return swarm, np.stack(rows)


@pytest.mark.parametrize("mapping", (*sharding.MAPPINGS, sharding.ONE))
def test_every_mapping_gives_the_losses_of_members_alone(alone, mapping):
    swarm, expected_KT = alone
    assert expected_KT.shape == (3, 20) and np.isfinite(expected_KT).all()
    assert expected_KT[:, -1].mean() < expected_KT[:, 0].mean()
    np.testing.assert_allclose(losses(swarm, mapping), expected_KT, atol=1e-5, rtol=0)


def test_members_do_not_communicate(make_swarm):
    assert jax.device_count() == 2
    swarm = make_swarm(members=4)
    mapped = sharding.map_members(swarm.member.steps, "shard", 1)
    tokens = sharding.place(next(swarm.chunks()), "shard")
    program = mapped.lower(swarm.start("shard"), tokens, np.int32(1)).compile().as_text()
    for collective in ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter"):
        assert collective not in program


def test_one_large_member_lies_over_all_devices(make_swarm, toy_tasks, tmp_path):
    """Its weights are split, and its scores and losses those of the member on one device."""
    swarm = make_swarm(members=1)
    states = swarm.start(sharding.ONE)
    for x in jax.tree.leaves((states.params, states.momentum)):
        held = [shard.data.size for shard in x.addressable_shards]
        split = x.ndim > 1 and any(n % 2 == 0 for n in x.shape[1:])
        assert held == [x.size // 2 if split else x.size] * 2
    ends = []
    for mapping in ("map", sharding.ONE):
        one = dataclasses.replace(swarm, train=dataclasses.replace(swarm.train, mapping=mapping))
        ends.append(train.train(one, toy_tasks, tmp_path / mapping, "toy"))
    np.testing.assert_allclose(ends[1].loss_KT, ends[0].loss_KT, rtol=1e-5)
    np.testing.assert_allclose(ends[1].bpb_KN, ends[0].bpb_KN, rtol=1e-5)


def test_a_step_is_compiled_once_whatever_the_number_of_steps(make_swarm):
    swarm = make_swarm(members=2, steps=7, checkpoint_every=4)
    mapped = sharding.map_members(swarm.member.steps, "vmap", 1)
    for n, tokens in zip((4, 3, 0), (*swarm.chunks(), next(swarm.chunks()))):
        mapped(swarm.start("vmap"), tokens, np.int32(n))
    assert mapped._cache_size() == 1


def test_padding_repeats_the_last_member():
    np.testing.assert_array_equal(sharding.pad(np.array([1, 2, 3]), 5), [1, 2, 3, 3, 3])
    assert sharding.padded(3, "shard") == 4 and sharding.padded(3, "vmap") == 3


def test_members_computed_together():
    counts = [
        sharding.at_once(5, mapping, batch) for mapping, batch in (("vmap", 1), ("pmap", 1), ("map", 2), ("map", 0))
    ]
    assert counts == [5, 3, 2, 5]
    assert [sharding.at_once(5, "shard", batch) for batch in (1, 0, 9)] == [1, 3, 3]


def test_an_unknown_mapping_is_an_error():
    with pytest.raises(ValueError, match="unknown mapping 'pvmap'; one of vmap, map, pmap, shard, fsdp"):
        sharding.map_members(lambda a, b, c: a, "pvmap", 1)
