"""Cross-entropy over a large vocabulary, from the last layer's output, without all logits at once.

At 100,352 entries the logits of one 30M member and its batch of 131,072 tokens would be 53 GB; here a block of tokens'
logits exist at a time. The gradient is exact, and is taken in the same pass: a block's logits give its loss and, as
softmax − target, what the loss's gradient is made of, so nothing is computed twice.
"""

import functools

import jax
import jax.numpy as jnp

# Logits of one member at once, bytes in float32.
BLOCK_BYTES = 256 << 20


def token_nats(x_SD, head_DV, target_S):
    """−ln P(target) of every token, nats_S in float32."""

    def nats(block):
        x_CD, target_C = block
        nats_C, _, _ = _terms(_logits(x_CD, head_DV), target_C)
        return nats_C

    (x_BCD, target_BC), _ = _blocks(x_SD, head_DV.shape[1], target_S)
    return _together(jax.lax.map(nats, (x_BCD, target_BC)), len(target_S))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def mean_loss(x_SD, head_DV, target_S, z_loss: float):
    """(mean of −ln P + z_loss · (ln Z)², mean of −ln P) over tokens; only the first has a gradient.

    Args:
      x_SD: the last layer's output; matrix products are in its type, sums in float32.
      head_DV: the output embedding, float32.
      target_S: int, the next tokens.
      z_loss: weight of (ln Z)².
    """
    return _forward(x_SD, head_DV, target_S, z_loss)[0]


def _forward(x_SD, head_DV, target_S, z_loss):
    """The losses, and the gradient of the first with respect to x and the head."""
    (x_BCD, target_BC), weight_BC = _blocks(x_SD, head_DV.shape[1], target_S)
    own_DV, vocabulary = head_DV.astype(x_SD.dtype), head_DV.shape[1]

    def block(carry, inputs):
        total, mean, slope_DV = carry
        x_CD, target_C, weight_C = inputs
        logits_CV = _logits(x_CD, own_DV)
        nats_C, log_z_C, chance_CV = _terms(logits_CV, target_C)
        hit_CV = jnp.arange(vocabulary)[None, :] == target_C[:, None]
        bend_CV = weight_C[:, None] * (chance_CV * (1 + 2 * z_loss * log_z_C)[:, None] - hit_CV)
        bend_CV = bend_CV.astype(x_SD.dtype)
        slope_x_CD = jax.lax.dot_general(bend_CV, own_DV, (((1,), (1,)), ((), ())))
        slope_DV += jax.lax.dot_general(x_CD, bend_CV, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)
        mean += weight_C @ nats_C
        total += weight_C @ (nats_C + z_loss * log_z_C**2)
        return (total, mean, slope_DV), slope_x_CD

    nothing = jnp.zeros((), jnp.float32)
    begin = nothing, nothing, jnp.zeros(head_DV.shape, jnp.float32)
    (total, mean, slope_DV), slope_BCD = jax.lax.scan(block, begin, (x_BCD, target_BC, weight_BC))
    return (total, mean), (_together(slope_BCD, len(x_SD)), slope_DV.astype(head_DV.dtype))


def _backward(z_loss, slopes, cotangent):
    slope_SD, slope_DV = slopes
    scale = cotangent[0]
    return (scale * slope_SD).astype(slope_SD.dtype), scale * slope_DV, None


mean_loss.defvjp(_forward, _backward)


def _logits(x_CD, head_DV):
    """float32, whatever the products are computed in."""
    return jax.lax.dot_general(
        x_CD, head_DV.astype(x_CD.dtype), (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32
    )


def _terms(logits_CV, target_C):
    """(−ln P of the target, ln Z, P) of each token."""
    log_z_C = jax.nn.logsumexp(logits_CV, axis=-1)
    at_C = jnp.take_along_axis(logits_CV, target_C[:, None], axis=-1)[:, 0]
    return log_z_C - at_C, log_z_C, jnp.exp(logits_CV - log_z_C[:, None])


def _blocks(x_SD, vocabulary: int, target_S):
    """((x_BCD, target_BC), weight_BC): equal blocks, filled up with tokens of weight 0; weights sum to 1.

    A block is every B-th token, so that where tokens lie over several devices each has its share of every block.
    """
    tokens = len(target_S)
    most = max(1, BLOCK_BYTES // (4 * vocabulary))
    blocks = -(-tokens // most)
    extra = -tokens % blocks
    weight_S = jnp.pad(jnp.full(tokens, 1 / tokens, jnp.float32), (0, extra))
    x_SD, target_S = jnp.pad(x_SD, ((0, extra), (0, 0))), jnp.pad(target_S, (0, extra))
    x_BCD, target_BC, weight_BC = (
        y.reshape(-1, blocks, *y.shape[1:]).swapaxes(0, 1) for y in (x_SD, target_S, weight_S)
    )
    return (x_BCD, target_BC), weight_BC


def _together(y_BC, tokens: int):
    """The inverse of :func:`_blocks`, without what was filled up."""
    return y_BC.swapaxes(0, 1).reshape(-1, *y_BC.shape[2:])[:tokens]
