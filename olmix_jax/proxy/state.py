"""One member: its state, how it starts, one step, and many."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from olmix_jax.config import Train
from olmix_jax.proxy import model, optimizer


class State(NamedTuple):
    """What a member carries from step to step."""

    params: dict
    momentum: optax.OptState
    # int32: steps taken; and whether all of them had a finite loss and gradient.
    step: jax.Array
    alive: jax.Array


class Member(NamedTuple):
    """One member's code, as pure functions; nothing here knows of other members.

    init:   key → State
    steps:  (State, tokens_TBL1, n) → (State, loss_T): n ≤ T steps; losses past the n-th are 0
    score:  (params, tokens_EL1, answer_EL) → nats_E of the answers' tokens
    """

    init: callable
    steps: callable
    score: callable
    parameters: int


def member(shape: model.Shape, vocabulary: int, train: Train, dtype: str = "float32") -> Member:
    """The member of a swarm with this decoder and trainer."""
    decoder = model.Decoder(shape, vocabulary, jnp.dtype(dtype))
    blank = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    abstract = jax.eval_shape(lambda t: decoder.init(jax.random.key(0), t), blank)
    size = model.parameters(abstract["params"])
    update = optimizer.optimizer(train, size)
    step = functools.partial(_step, decoder, update, train.z_loss)

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
        nats_EL, _ = _token_losses(decoder, params, tokens_EL1)
        return jnp.sum(jnp.where(answer_EL, nats_EL, 0.0), axis=-1)

    return Member(init, steps, score, size)


def _token_losses(decoder, params, tokens_BL1):
    """−ln P of every next token, and log Z², both [B, L]."""
    logits_BLV = decoder.apply({"params": params}, tokens_BL1[:, :-1])
    log_z_BL = jax.nn.logsumexp(logits_BLV, axis=-1)
    target_BL = jnp.take_along_axis(logits_BLV, tokens_BL1[:, 1:, None], axis=-1)[..., 0]
    return log_z_BL - target_BL, jnp.square(log_z_BL)


def _step(decoder, update, z_loss, state: State, tokens_BL1):
    """One AdamW step. A member whose loss or gradient is not finite stays as it was and is dead from then on."""

    def objective(params):
        nats_BL, z_BL = _token_losses(decoder, params, tokens_BL1)
        loss = jnp.mean(nats_BL)
        return loss + z_loss * jnp.mean(z_BL), loss

    (total, loss), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
    alive = state.alive & jnp.isfinite(total) & jnp.isfinite(optax.tree.norm(grads))
    changes, momentum = update.update(grads, state.momentum, state.params)
    params = optax.apply_updates(state.params, changes)
    kept = jax.tree.map(lambda new, old: jnp.where(alive, new, old), (params, momentum), (state.params, state.momentum))
    return State(*kept, state.step + alive, alive), jnp.where(alive, loss, jnp.nan)
