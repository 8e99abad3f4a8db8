"""One member: its state, how it starts, one step, and many."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from olmix_jax.config.schema import Train
from olmix_jax.proxy import losses, model, optimizer, sharding


class State(NamedTuple):
    """What a member carries from step to step."""

    params: dict
    momentum: optax.OptState
    # int32: steps taken; and whether all of them had a finite loss and gradient.
    step: jax.Array
    alive: jax.Array


class Member(NamedTuple):
    """One member's code, as pure functions that know of no other member, and its size.

    init:   key → State
    steps:  (State, tokens_TBL1, n) → (State, loss_T): n ≤ T steps; losses past the n-th are 0
    score:  (params, tokens_EL1, answer_EL) → nats_E of the answers' tokens
    parameters: all but the input embedding
    memory: weights, two moments and gradient of all parameters in float32 [bytes]
    """

    init: callable
    steps: callable
    score: callable
    parameters: int
    memory: int


@functools.lru_cache(maxsize=8)
def member(shape: model.Shape, vocabulary: int, train: Train, dtype: str = "float32") -> Member:
    """The member of a swarm with this decoder and trainer."""
    decoder = model.Decoder(shape, vocabulary, jnp.dtype(dtype), train.remat, train.mapping != sharding.ONE)
    blank = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    abstract = jax.eval_shape(lambda t: decoder.init(jax.random.key(0), t), blank)
    size = model.parameters(abstract["params"])
    update = optimizer.optimizer(train, size)
    step = functools.partial(_step, decoder, update, train)

    def init(key):
        params = decoder.init(key, jnp.zeros((1, 2), jnp.int32))["params"]
        return State(params, update.init(params), jnp.zeros((), jnp.int32), jnp.ones((), bool))

    def steps(state, tokens_TBL1, n):
        def body(t, carry):
            state, loss_T = carry
            state, loss = step(state, tokens_TBL1[t])
            return state, loss_T.at[t].set(loss)

        return jax.lax.fori_loop(0, n, body, (state, jnp.zeros(tokens_TBL1.shape[0], jnp.float32)))

    def score(params, tokens_EL1, answer_EL):
        x_ELD = decoder.apply({"params": params}, tokens_EL1[:, :-1], logits=False)
        flat_SD = x_ELD.reshape(-1, x_ELD.shape[-1])
        nats_S = losses.token_nats(flat_SD, model.head_of(params), tokens_EL1[:, 1:].reshape(-1), decoder.kernels)
        return jnp.sum(jnp.where(answer_EL, nats_S.reshape(answer_EL.shape), 0.0), axis=-1)

    return Member(init, steps, score, size, 16 * (size + vocabulary * shape.width))


def _loss(decoder, z_loss: float, params, tokens_BL1):
    """(loss to minimise, mean nats per token) of some sequences."""
    x_BLD = decoder.apply({"params": params}, tokens_BL1[:, :-1], logits=False)
    flat_SD = x_BLD.reshape(-1, x_BLD.shape[-1])
    return losses.mean_loss(flat_SD, model.head_of(params), tokens_BL1[:, 1:].reshape(-1), z_loss, decoder.kernels)


def gradient(decoder, train: Train, params, tokens_BL1):
    """((loss to minimise, mean nats), gradient) of a batch, by ``train.micro_batch`` sequences at a time."""
    both = jax.value_and_grad(functools.partial(_loss, decoder, train.z_loss), has_aux=True)
    parts = train.batch // (train.micro_batch or train.batch)
    if parts == 1:
        return both(params, tokens_BL1)

    def add(carry, tokens_bL1):
        return jax.tree.map(lambda sum_, x: sum_ + x / parts, carry, both(params, tokens_bL1)), None

    begin = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(both, params, tokens_BL1))
    # Every parts-th sequence, so that where the batch lies over several devices each has its share of every part.
    return jax.lax.scan(add, begin, tokens_BL1.reshape(-1, parts, tokens_BL1.shape[1]).swapaxes(0, 1))[0]


def _step(decoder, update, train: Train, state: State, tokens_BL1):
    """One AdamW step. A member whose loss or gradient is not finite stays as it was and is dead from then on."""
    (total, loss), grads = gradient(decoder, train, state.params, tokens_BL1)
    alive = state.alive & jnp.isfinite(total) & jnp.isfinite(optax.tree.norm(grads))
    changes, momentum = update.update(grads, state.momentum, state.params)
    params = optax.apply_updates(state.params, changes)
    kept = jax.tree.map(lambda new, old: jnp.where(alive, new, old), (params, momentum), (state.params, state.momentum))
    return State(*kept, state.step + alive, alive), jnp.where(alive, loss, jnp.nan)
