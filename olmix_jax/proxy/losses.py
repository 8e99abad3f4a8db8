"""Cross-entropy over a large vocabulary from the last layer's output, without holding all logits.

With 100,352 entries, the logits of one 30M member's batch of 131,072 tokens would take 53 GB. This module holds the
logits of one block of tokens at a time. The gradient is exact and is computed in the same pass: the logits of a block
give its loss and, as softmax − one-hot target, its gradient.

On GPUs and TPUs in bfloat16, unless rows are too wide, logits never leave the chip (docs/log.md). There the softmax
over the vocabulary is computed as attention: tokens are the queries, rows of the head the keys and values. The result,
a mean row of the head per token, is the token's gradient up to the target's row. The kernel also returns ln Z. The
gradient of the head swaps the roles: entries of the vocabulary are the queries, tokens the keys and values.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from olmix_jax.proxy import attention_kernels

# Size of the float32 logits of one block of one member [bytes].
BLOCK_BYTES = 256 << 20
# Largest range of the tokens' ln Z for which :func:`loss_by_attention` gives a gradient.
_MAX_LOG_Z_RANGE = 60.0
# Minimum number of tokens for cuDNN: with a single token its ln Z was wrong by .003.
_MIN_CUDNN_TOKENS = 64
# Maximum row width for the TPU kernel. Recomputing the logits of wider rows costs more than reading them.
_MAX_SPLASH_WIDTH = 384


def token_nats(x_SD, head_DV, target_S, kernels: bool = True, vocabulary: int | None = None):
    """Return −ln P(target) of every token, nats_S in float32. Arguments are those of :func:`mean_loss`."""

    def by_attention(x_SD, head_DV, target_S, attend):
        return _softmax_by_attention(x_SD, head_DV, target_S, attend, vocabulary)[0]

    by_blocks = functools.partial(_nats_by_blocks, vocabulary=vocabulary)
    return _dispatch(by_attention, by_blocks, kernels, x_SD, head_DV, target_S)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def mean_loss(x_SD, head_DV, target_S, z_loss: float, kernels: bool = True, vocabulary: int | None = None):
    """Return (mean of −ln P + z_loss · (ln Z)², mean of −ln P) over tokens. Only the first value has a gradient.

    Args:
      x_SD: the last layer's output. Matrix products use its type, sums float32.
      head_DV: the output embedding, float32.
      target_S: int, the next tokens, less than ``vocabulary``.
      z_loss: weight of (ln Z)².
      kernels: whether to use the platform's attention kernels. The compiler cannot shard these (FSDP).
      vocabulary: number of columns of the head that the softmax includes. The columns after them are padding, whose
        gradient is zero. None: all columns.
    """
    return _forward(x_SD, head_DV, target_S, z_loss, kernels, vocabulary)[0]


def _forward(x_SD, head_DV, target_S, z_loss, kernels, vocabulary):
    """Return the two losses, and the gradient of the first with respect to x and the head."""

    def by_attention(x_SD, head_DV, target_S, attend):
        return loss_by_attention(x_SD, head_DV, target_S, attend, z_loss, vocabulary)

    by_blocks = functools.partial(_loss_by_blocks, z_loss=z_loss, vocabulary=vocabulary)
    return _dispatch(by_attention, by_blocks, kernels, x_SD, head_DV, target_S)


def _nats_by_blocks(x_SD, head_DV, target_S, vocabulary):
    def nats(block):
        x_CD, target_C = block
        nats_C, _, _ = _softmax_terms(_logits(x_CD, head_DV, vocabulary), target_C)
        return nats_C

    (x_BCD, target_BC), _ = _split_blocks(x_SD, head_DV.shape[1], target_S)
    return _join_blocks(jax.lax.map(nats, (x_BCD, target_BC)), len(target_S))


def _loss_by_blocks(x_SD, head_DV, target_S, z_loss, vocabulary):
    (x_BCD, target_BC), weight_BC = _split_blocks(x_SD, head_DV.shape[1], target_S)
    cast_DV, columns = head_DV.astype(x_SD.dtype), jnp.arange(head_DV.shape[1])

    def block(carry, inputs):
        total, mean, grad_DV = carry
        x_CD, target_C, weight_C = inputs
        logits_CV = _logits(x_CD, cast_DV, vocabulary)
        nats_C, log_z_C, probability_CV = _softmax_terms(logits_CV, target_C)
        one_hot_CV = columns[None, :] == target_C[:, None]
        grad_logits_CV = weight_C[:, None] * (probability_CV * (1 + 2 * z_loss * log_z_C)[:, None] - one_hot_CV)
        grad_logits_CV = grad_logits_CV.astype(x_SD.dtype)
        grad_x_CD = jax.lax.dot_general(grad_logits_CV, cast_DV, (((1,), (1,)), ((), ())))
        grad_DV += jax.lax.dot_general(
            x_CD, grad_logits_CV, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32
        )
        # Not products of vectors, which TPUs round to bfloat16.
        mean += jnp.sum(weight_C * nats_C)
        total += jnp.sum(weight_C * (nats_C + z_loss * log_z_C**2))
        return (total, mean, grad_DV), grad_x_CD

    zero = jnp.zeros((), jnp.float32)
    carry = zero, zero, jnp.zeros(head_DV.shape, jnp.float32)
    (total, mean, grad_DV), grad_BCD = jax.lax.scan(block, carry, (x_BCD, target_BC, weight_BC))
    return (total, mean), (_join_blocks(grad_BCD, len(x_SD)), grad_DV.astype(head_DV.dtype))


def loss_by_attention(x_SD, head_DV, target_S, attend: Callable, z_loss, vocabulary: int | None = None):
    """Return the losses and their gradient, as :func:`mean_loss` does, computed by an attention kernel.

    Args:
      attend: ``attend(queries_TD, keys_SD, values_SD)`` returns the mean of the values under each query's softmax over
        the keys, in the values' type, and ln Z of that softmax in float32.
    """
    nats_S, log_z_S, mean_SD, target_SD, rows_VD = _softmax_by_attention(x_SD, head_DV, target_S, attend, vocabulary)
    x32_SD, tokens = x_SD.astype(jnp.float32), len(x_SD)
    scale_S = (1 + 2 * z_loss * log_z_S) / tokens
    grad_SD = scale_S[:, None] * mean_SD.astype(jnp.float32) - target_SD / tokens
    # Entry v and token s need exp(logit − ln Z_s). The softmax of v over tokens supplies exp(logit), so exp(−ln Z_s)
    # goes into the values. It is scaled by exp(smallest ln Z), which prevents overflow.
    low = jnp.min(log_z_S)
    value_SD = (scale_S * jnp.exp(low - log_z_S))[:, None] * x32_SD
    mean_VD, log_sum_V = attend(rows_VD, x_SD, value_SD.astype(x_SD.dtype))
    grad_VD = mean_VD.astype(jnp.float32) * jnp.exp(log_sum_V - low)[:, None]
    if vocabulary is not None:
        grad_VD = jnp.where(jnp.arange(len(grad_VD))[:, None] < vocabulary, grad_VD, 0)
    grad_VD = grad_VD.at[target_S].add(-x32_SD / tokens)
    # A larger range of exponents overflows float32. Such a member has diverged, and NaN marks it as dead.
    grad_VD = jnp.where(jnp.max(log_z_S) - low < _MAX_LOG_Z_RANGE, grad_VD, jnp.nan)
    mean = jnp.mean(nats_S)
    total = mean + z_loss * jnp.mean(log_z_S**2)
    return (total, mean), (grad_SD.astype(x_SD.dtype), grad_VD.T.astype(head_DV.dtype))


def _softmax_by_attention(x_SD, head_DV, target_S, attend: Callable, vocabulary: int | None):
    """Return (−ln P(target), ln Z, mean row of the head, target's row of the head) per token, and all rows."""
    rows_VD = head_DV.T.astype(x_SD.dtype)
    mean_SD, log_z_S = attention_kernels.over_first(attend, vocabulary)(x_SD, rows_VD, rows_VD)
    target_SD = rows_VD[target_S].astype(jnp.float32)
    nats_S = log_z_S - jnp.sum(x_SD.astype(jnp.float32) * target_SD, axis=-1)
    return nats_S, log_z_S, mean_SD, target_SD, rows_VD


def _dispatch(by_attention: Callable, by_blocks: Callable, kernels: bool, x_SD, head_DV, target_S):
    """Compute a loss with the platform's attention kernel if it supports this size and type, else by blocks."""
    tokens, width = x_SD.shape
    if not kernels or x_SD.dtype != jnp.bfloat16:
        return by_blocks(x_SD, head_DV, target_S)
    if (
        tokens >= _MIN_CUDNN_TOKENS
        and width % 8 == 0
        and width <= attention_kernels.max_cudnn_width()
        and attention_kernels.cudnn_attention() is not None
    ):
        return by_attention(x_SD, head_DV, target_S, attend=attention_kernels.cudnn)
    if width % 128 or width > _MAX_SPLASH_WIDTH or attention_kernels.splash_modules() is None:
        return by_blocks(x_SD, head_DV, target_S)

    def by_splash(x_SD, head_DV, target_S):
        # Keep the row-major layout of the weights. Otherwise the compiler holds weights and moments in two layouts.
        result = by_attention(x_SD, head_DV, target_S, attend=attention_kernels.splash)
        return jax.tree.map(attention_kernels.row_major, result)

    # Chosen by the platform compiled for, which may differ from the one that runs this.
    return jax.lax.platform_dependent(x_SD, head_DV, target_S, tpu=by_splash, default=by_blocks)


def _backward(z_loss, kernels, vocabulary, gradients, cotangent):
    grad_SD, grad_DV = gradients
    scale = cotangent[0]
    return (scale * grad_SD).astype(grad_SD.dtype), scale * grad_DV, None


mean_loss.defvjp(_forward, _backward)


def _logits(x_CD, head_DV, vocabulary):
    """Return logits in float32, −∞ for padding. The products are computed in the type of ``x_CD``."""
    logits_CV = jax.lax.dot_general(
        x_CD, head_DV.astype(x_CD.dtype), (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32
    )
    if vocabulary is None or vocabulary == head_DV.shape[1]:
        return logits_CV
    return jnp.where(jnp.arange(head_DV.shape[1])[None, :] < vocabulary, logits_CV, -jnp.inf)


def _softmax_terms(logits_CV, target_C):
    """Return (−ln P(target), ln Z, P) of each token."""
    log_z_C = jax.nn.logsumexp(logits_CV, axis=-1)
    target_logit_C = jnp.take_along_axis(logits_CV, target_C[:, None], axis=-1)[:, 0]
    return log_z_C - target_logit_C, log_z_C, jnp.exp(logits_CV - log_z_C[:, None])


def _split_blocks(x_SD, vocabulary: int, target_S):
    """Return ((x_BCD, target_BC), weight_BC): blocks of equal size, padded with tokens of weight 0. Weights sum to 1.

    A block is every B-th token: if tokens are sharded over devices, every device holds a share of every block.
    """
    tokens = len(target_S)
    block_tokens = max(1, BLOCK_BYTES // (4 * vocabulary))
    blocks = -(-tokens // block_tokens)
    padding = -tokens % blocks
    weight_S = jnp.pad(jnp.full(tokens, 1 / tokens, jnp.float32), (0, padding))
    x_SD, target_S = jnp.pad(x_SD, ((0, padding), (0, 0))), jnp.pad(target_S, (0, padding))
    x_BCD, target_BC, weight_BC = (
        y.reshape(-1, blocks, *y.shape[1:]).swapaxes(0, 1) for y in (x_SD, target_S, weight_S)
    )
    return (x_BCD, target_BC), weight_BC


def _join_blocks(y_BC, tokens: int):
    """Invert :func:`_split_blocks` and drop the padding."""
    return y_BC.swapaxes(0, 1).reshape(-1, *y_BC.shape[2:])[:tokens]
