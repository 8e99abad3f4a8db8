"""Cross-entropy over a large vocabulary, from the last layer's output, without all logits at once.

At 100,352 entries the logits of one 30M member and its batch of 131,072 tokens would be 53 GB; here those of a block of
tokens exist at a time. The gradient is exact, and is taken in the same pass: a block's logits give its loss and, as
softmax − target, what the loss's gradient is made of, so nothing is computed twice.

On GPUs and TPUs, in bfloat16, where rows are not too wide, no logit leaves the chip (docs/log.md). The softmax over the
vocabulary is an attention: tokens ask, and the head's rows are keys and values. A token's mean row is its gradient but
for the target's row, and the same kernel says ln Z. For the head's gradient the vocabulary asks, and tokens are keys
and values.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import layout
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel, splash_attention_mask

# Logits of one member at once, bytes in float32.
BLOCK_BYTES = 256 << 20
# How far apart tokens' ln Z may be in :func:`by_attention`.
_SPAN = 60.0
# Fewest tokens that are given to cuDNN: of a single one, ln Z was .003 off.
_FEWEST = 64
# Widest rows that are given to a TPU's kernel: to compute wider ones' logits again costs more than to read them.
_WIDEST = 384


def token_nats(x_SD, head_DV, target_S, kernels: bool = True):
    """−ln P(target) of every token, nats_S in float32; arguments as for :func:`mean_loss`."""

    def by_attention(x_SD, head_DV, target_S, attend):
        return _nats(x_SD, head_DV, target_S, attend)[0]

    return _fastest(by_attention, _nats_by_blocks, kernels, x_SD, head_DV, target_S)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def mean_loss(x_SD, head_DV, target_S, z_loss: float, kernels: bool = True):
    """(mean of −ln P + z_loss · (ln Z)², mean of −ln P) over tokens; only the first has a gradient.

    Args:
      x_SD: the last layer's output; matrix products are in its type, sums in float32.
      head_DV: the output embedding, float32.
      target_S: int, the next tokens.
      z_loss: weight of (ln Z)².
      kernels: whether it may be by a kernel of the platform's, which the compiler cannot part over devices.
    """
    return _forward(x_SD, head_DV, target_S, z_loss, kernels)[0]


def _forward(x_SD, head_DV, target_S, z_loss, kernels):
    """The losses, and the gradient of the first with respect to x and the head."""
    ways = (functools.partial(way, z_loss=z_loss) for way in (by_attention, _by_blocks))
    return _fastest(*ways, kernels, x_SD, head_DV, target_S)


def _nats_by_blocks(x_SD, head_DV, target_S):
    def nats(block):
        x_CD, target_C = block
        nats_C, _, _ = _terms(_logits(x_CD, head_DV), target_C)
        return nats_C

    (x_BCD, target_BC), _ = _blocks(x_SD, head_DV.shape[1], target_S)
    return _together(jax.lax.map(nats, (x_BCD, target_BC)), len(target_S))


def _by_blocks(x_SD, head_DV, target_S, z_loss):
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


def by_attention(x_SD, head_DV, target_S, attend, z_loss):
    """The losses and their gradient by ``attend(queries_TD, keys_SD, values_SD)``: the mean of the values under every
    query's softmax over keys, in their type, and the softmax's ln Z in float32."""
    nats_S, log_z_S, mean_SD, at_SD, own_VD = _nats(x_SD, head_DV, target_S, attend)
    x32_SD, tokens = x_SD.astype(jnp.float32), len(x_SD)
    bend_S = (1 + 2 * z_loss * log_z_S) / tokens
    slope_SD = bend_S[:, None] * mean_SD.astype(jnp.float32) - at_SD / tokens
    # Of entry v and token s, exp(logit − ln Z_s) is wanted, and v's softmax over tokens has exp(logit): exp(−ln Z_s)
    # goes to the values, from the least ln Z on, so that none overflows.
    low = jnp.min(log_z_S)
    value_SD = (bend_S * jnp.exp(low - log_z_S))[:, None] * x32_SD
    mean_VD, log_sum_V = attend(own_VD, x_SD, value_SD.astype(x_SD.dtype))
    slope_VD = mean_VD.astype(jnp.float32) * jnp.exp(log_sum_V - low)[:, None]
    slope_VD = slope_VD.at[target_S].add(-x32_SD / tokens)
    # Exponents further apart are no float32's. A member that has come to that has diverged, and is to be seen as such.
    slope_VD = jnp.where(jnp.max(log_z_S) - low < _SPAN, slope_VD, jnp.nan)
    mean = jnp.mean(nats_S)
    total = mean + z_loss * jnp.mean(log_z_S**2)
    return (total, mean), (slope_SD.astype(x_SD.dtype), slope_VD.T.astype(head_DV.dtype))


def _nats(x_SD, head_DV, target_S, attend):
    """(−ln P of the target, ln Z, mean of the head's rows, the target's row) of each token, and all rows."""
    own_VD = head_DV.T.astype(x_SD.dtype)
    mean_SD, log_z_S = attend(x_SD, own_VD, own_VD)
    at_SD = own_VD[target_S].astype(jnp.float32)
    return log_z_S - jnp.sum(x_SD.astype(jnp.float32) * at_SD, axis=-1), log_z_S, mean_SD, at_SD, own_VD


def _fastest(by_attention, by_blocks, kernels: bool, x_SD, head_DV, target_S):
    """The loss by the kernel that the platform has for so many rows of this type and width, else by blocks."""
    (tokens, width), vocabulary = x_SD.shape, head_DV.shape[1]
    if not kernels or x_SD.dtype != jnp.bfloat16:
        return by_blocks(x_SD, head_DV, target_S)
    if jax.default_backend() == "gpu" and tokens >= _FEWEST and width % 8 == 0 and width <= _widest_of_cudnn():
        return by_attention(x_SD, head_DV, target_S, attend=_cudnn)
    if tokens % 128 or vocabulary % 128 or width % 128 or width > _WIDEST:
        return by_blocks(x_SD, head_DV, target_S)

    def by_splash(x_SD, head_DV, target_S):
        # Rows first, as weights are: else the compiler would lay these and their moments out anew, and hold both.
        return jax.tree.map(_rows_first, by_attention(x_SD, head_DV, target_S, attend=splash))

    # Decided by what is compiled for, which is not always what is at hand.
    return jax.lax.platform_dependent(x_SD, head_DV, target_S, tpu=by_splash, default=by_blocks)


def _rows_first(x):
    return layout.with_layout_constraint(x, layout.Layout(tuple(range(x.ndim))))


def _widest_of_cudnn() -> int:
    return 256 if float(jax.local_devices()[0].compute_capability) >= 9 else 128


def _cudnn(queries_TD, keys_SD, values_SD):
    """cuDNN's attention, of one head."""
    # The public jax.nn.dot_product_attention would round ln Z to the values' type.
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    of_one_head = (x[None, :, None, :] for x in (queries_TD, keys_SD, values_SD))
    mean_1T1D, log_z_11T = cudnn.dot_product_attention(*of_one_head, scale=1.0, return_residual=True)
    return mean_1T1D[0, :, 0, :], log_z_11T[0, 0]


def splash(queries_TD, keys_SD, values_SD, interpret: bool = False):
    """JAX's Pallas kernel for TPUs, of one head and with nothing masked."""
    blocks = [next(size for size in (1024, 512, 256, 128) if len(x) % size == 0) for x in (queries_TD, keys_SD)]
    kernel = splash_attention_kernel.make_splash_mha(
        mask=splash_attention_mask.MultiHeadMask([splash_attention_mask.FullMask((len(queries_TD), len(keys_SD)))]),
        block_sizes=splash_attention_kernel.BlockSizes(*blocks, block_kv_compute=min(512, blocks[1])),
        head_shards=1,
        q_seq_shards=1,
        save_residuals=True,
        interpret=interpret,
    )
    mean_1TD, (log_z_1T,) = kernel(queries_TD[None], keys_SD[None], values_SD[None])
    return mean_1TD[0], log_z_1T[0]


def _backward(z_loss, kernels, slopes, cotangent):
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
