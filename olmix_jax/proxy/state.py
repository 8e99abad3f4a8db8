"""One member: its state, initialisation, training steps and scores."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from olmix_jax.config.schema import Train
from olmix_jax.proxy import losses, model, optimizer, sharding


class State(NamedTuple):
    """What a member carries from step to step.

    Attributes:
      params: the decoder's parameters.
      momentum: the optimiser's state.
      step: int32, number of steps taken.
      alive: bool, whether loss and gradient were finite at every step.
    """

    params: dict
    momentum: optax.OptState
    step: jax.Array
    alive: jax.Array


class Member(NamedTuple):
    """One member's pure functions, which use no other member's arrays, and its size.

    Attributes:
      init: key → State.
      steps: (State, tokens_TBL1, n) → (State, loss_T). Takes n ≤ T steps; losses after the n-th are 0.
      score: (params, tokens_EL1, answer_EL, answers=None) → nats_E of each example's answer tokens. With ``answers``, a
        bound on their number, logits are computed for at most that many tokens.
      token_nats: as ``score``, but nats_EL of every token, 0 outside answers.
      parameters: number of parameters without the input embedding, with the padding of the vocabulary.
      memory_bytes: weights, two moments and gradient of all parameters in float32 [bytes].
    """

    init: Callable[[jax.Array], State]
    steps: Callable[[State, jax.Array, Any], tuple[State, jax.Array]]
    score: Callable[..., jax.Array]
    token_nats: Callable[..., jax.Array]
    parameters: int
    memory_bytes: int


@functools.lru_cache(maxsize=8)
def parameters(shape: model.Shape, vocabulary: int) -> int:
    """Return the number of parameters of a decoder without its input embedding, with the padding of the vocabulary."""
    decoder = model.Decoder(shape, vocabulary, jnp.dtype(jnp.float32), False, True)
    tokens_BL = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    return model.parameters(jax.eval_shape(lambda t: decoder.init(jax.random.key(0), t), tokens_BL)["params"])


@functools.lru_cache(maxsize=8)
def member(
    shape: model.Shape, vocabulary: int, train: Train, dtype: str = "float32", decay: int | None = None
) -> Member:
    """Return the member with this decoder and trainer; ``decay`` as for :func:`olmix_jax.proxy.optimizer.schedule`."""
    decoder = model.Decoder(shape, vocabulary, jnp.dtype(dtype), train.remat, train.mapping != sharding.FSDP)
    size = parameters(shape, vocabulary)
    update = optimizer.optimizer(train, size, decay)
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

    def token_nats(params, tokens_EL1, answer_EL, answers=None):
        x_SD = _last_layer(decoder, params, tokens_EL1)
        head_DV, target_S = model.output_embedding(params), tokens_EL1[:, 1:].reshape(-1)
        # The positions of answer tokens, filled up with a position after the last token.
        place_A = jnp.flatnonzero(answer_EL, size=answers or answer_EL.size, fill_value=answer_EL.size)
        x_AD, target_A = (y.at[place_A].get(mode="clip") for y in (x_SD, jnp.asarray(target_S)))
        nats_A = losses.token_nats(x_AD, head_DV, target_A, decoder.kernels, vocabulary)
        nats_S = jnp.zeros(answer_EL.size, nats_A.dtype).at[place_A].set(nats_A, mode="drop")
        return nats_S.reshape(answer_EL.shape)

    def score(params, tokens_EL1, answer_EL, answers=None):
        return jnp.sum(token_nats(params, tokens_EL1, answer_EL, answers), axis=-1)

    return Member(init, steps, score, token_nats, size, 16 * (size + model.padded(vocabulary) * shape.width))


def _last_layer(decoder: model.Decoder, params, tokens_BL1) -> jax.Array:
    """Return the last layer's output, x_SD with S = B · L, for every token except the last of each sequence."""
    x_BLD: Any = decoder.apply({"params": params}, tokens_BL1[:, :-1], logits=False)
    return x_BLD.reshape(-1, x_BLD.shape[-1])


def _loss(decoder: model.Decoder, z_loss: float, params, tokens_BL1):
    """Return (loss to minimise, mean nats per token) of a batch."""
    x_SD = _last_layer(decoder, params, tokens_BL1)
    target_S = tokens_BL1[:, 1:].reshape(-1)
    head_DV = model.output_embedding(params)
    return losses.mean_loss(x_SD, head_DV, target_S, z_loss, decoder.kernels, decoder.vocabulary)


def gradient(decoder: model.Decoder, train: Train, params, tokens_BL1):
    """Return ((loss to minimise, mean nats per token), gradient) of a batch.

    The gradient is accumulated over micro-batches of ``train.micro_batch`` sequences.
    """
    value_and_grad = jax.value_and_grad(functools.partial(_loss, decoder, train.z_loss), has_aux=True)
    parts = train.batch // (train.micro_batch or train.batch)
    if parts == 1:
        return value_and_grad(params, tokens_BL1)

    def add(carry, tokens_bL1):
        return jax.tree.map(lambda total, x: total + x / parts, carry, value_and_grad(params, tokens_bL1)), None

    shapes = jax.eval_shape(value_and_grad, params, tokens_BL1)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    # A micro-batch is every parts-th sequence: if the batch is sharded, every device holds a share of each one.
    return jax.lax.scan(add, zeros, tokens_BL1.reshape(-1, parts, tokens_BL1.shape[1]).swapaxes(0, 1))[0]


def _step(decoder: model.Decoder, update: optax.GradientTransformation, train: Train, state: State, tokens_BL1):
    """Take one AdamW step. A member whose loss or gradient is not finite is frozen from then on, with a NaN loss."""
    (total, loss), grads = gradient(decoder, train, state.params, tokens_BL1)
    alive = state.alive & jnp.isfinite(total) & jnp.isfinite(optax.tree.norm(grads))
    updates, momentum = update.update(grads, state.momentum, state.params)
    params = optax.apply_updates(state.params, updates)
    params, momentum = jax.tree.map(
        lambda new, old: jnp.where(alive, new, old), (params, momentum), (state.params, state.momentum)
    )
    return State(params, momentum, state.step + alive, alive), jnp.where(alive, loss, jnp.nan)
