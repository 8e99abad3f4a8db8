"""proxy/state.py: one member's gradient and steps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from olmix_jax.config.schema import Train
from olmix_jax.proxy import model, state


@pytest.mark.parametrize(
    "changes",
    [
        {"micro_batch": 2, "remat": True},
        pytest.param({"micro_batch": 1}, marks=pytest.mark.slow),
        pytest.param({"remat": True}, marks=pytest.mark.slow),
    ],
)
def test_micro_batches_and_remat_give_the_same_gradient(changes):
    train = Train(batch=4)
    tokens_BL1 = jax.random.randint(jax.random.key(1), (4, 9), 0, 40)
    params = None
    results = []
    for t in (train, dataclasses.replace(train, **changes)):
        decoder = model.Decoder(model.Shape(16, 1, 4, 24), 40, remat=t.remat)
        if params is None:
            params = jax.jit(decoder.init)(jax.random.key(0), tokens_BL1[:, :-1])["params"]
        gradient = jax.jit(lambda params, tokens, decoder=decoder, t=t: state.gradient(decoder, t, params, tokens))
        results.append(gradient(params, tokens_BL1))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), *results)
    assert all(float(jnp.abs(x).max()) > 0 for x in jax.tree.leaves(results[0]))


def test_gradient_in_bfloat16_is_that_in_float32_for_tokens_as_frequent_as_in_text():
    """Token 0 occurs some 800 times. Summed in bfloat16, its row of the embedding's gradient would be 15 % short."""
    share_V = 1 / np.arange(1, 101)
    tokens_BL1 = np.random.default_rng(0).choice(100, (16, 257), p=share_V / share_V.sum()).astype(np.int32)
    assert (tokens_BL1 == 0).sum() > 700
    params, results = None, []
    for dtype in (jnp.float32, jnp.bfloat16):
        decoder = model.Decoder(model.Shape(16, 1, 2, 32), 100, dtype)
        if params is None:
            params = jax.jit(decoder.init)(jax.random.key(0), tokens_BL1[:, :-1])["params"]
        gradient = jax.jit(
            lambda params, tokens, decoder=decoder: state.gradient(decoder, Train(batch=16), params, tokens)
        )
        results.append(gradient(params, tokens_BL1)[1])

    def check(expected, actual):
        assert actual.dtype == jnp.float32
        assert np.linalg.norm(actual - expected) < 0.02 * np.linalg.norm(expected)

    jax.tree.map(check, *results)
    rows_VD = [np.asarray(gradient["embedding"]["embedding"])[:5] for gradient in results]
    np.testing.assert_allclose(*(np.linalg.norm(x, axis=1) for x in rows_VD), rtol=0.01)


def test_member_with_infinite_loss_is_frozen_in_its_last_state(make_swarm):
    swarm = make_swarm(mapping="shard")
    init, steps = jax.jit(swarm.member.init), jax.jit(swarm.member.steps)
    tokens_TBL1 = next(swarm.chunks())[0]
    good, _ = steps(init(jax.random.key(0)), tokens_TBL1, 1)
    broken = good._replace(params=jax.tree.map(lambda x: x, good.params))
    broken.params["head"]["kernel"] = good.params["head"]["kernel"].at[0, 0].set(np.nan)
    after, loss_T = steps(broken, tokens_TBL1, 2)
    assert good.alive and not after.alive and after.step == good.step and np.isnan(loss_T).all()
    np.testing.assert_array_equal(after.params["block_0"]["q"]["kernel"], good.params["block_0"]["q"]["kernel"])
