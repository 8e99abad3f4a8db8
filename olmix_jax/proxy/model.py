"""The decoder: OLMo 2's architecture at proxy sizes. The only file that imports Flax."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from olmix_jax.proxy import attention_kernels

EPSILON = 1e-6
ROPE_THETA = 5e5


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of a decoder.

    Attributes:
      width: model width D.
      layers: number of blocks.
      heads: attention heads H.
      hidden: width of the feed-forward layer.
      head: width of one head; None means D/H.
    """

    width: int
    layers: int
    heads: int
    hidden: int
    head: int | None = None


# METHOD §4. "tiny" is this project's own preset, for ordinary CPUs. Hidden widths follow OLMo 2: ⅔ · 4 · width · m,
# rounded up to a multiple of 256. From 60M on m = 1.5: 60M: ⅔ · 4 · 384 · 1.5 = 1536; 190M: ⅔ · 4 · 768 · 1.5 = 3072;
# 1B: ⅔ · 4 · 2048 · 1.5 = 8192. 30M has m = 1: ⅔ · 4 · 256 = 683, rounded up to 768.
PRESETS = {
    "tiny": Shape(32, 2, 2, 96),
    "1M": Shape(12, 4, 4, 256, head=4),
    "14M": Shape(128, 4, 8, 512),
    "30M": Shape(256, 4, 8, 768),
    "60M": Shape(384, 8, 8, 1536),
    "190M": Shape(768, 12, 12, 3072),
    "1B": Shape(2048, 16, 16, 8192),
}


class RMSNorm(nn.Module):
    """x / rms(x) · scale, computed in float32."""

    @nn.compact
    def __call__(self, x):
        scale_D = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        x32 = x.astype(jnp.float32)
        normal = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + EPSILON)
        return (normal * jnp.expand_dims(scale_D, range(x.ndim - 1))).astype(x.dtype)


def rotate(x_BLHd: jax.Array) -> jax.Array:
    """Apply rotary position embeddings, θ = 5e5: rotate pairs (j, j + d/2) by position · θ^(−2j/d)."""
    length, half = x_BLHd.shape[1], x_BLHd.shape[-1] // 2
    frequency_d = ROPE_THETA ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle_Ld = jnp.arange(length, dtype=jnp.float32)[:, None] * frequency_d[None, :]
    cos, sin = jnp.cos(angle_Ld)[None, :, None, :], jnp.sin(angle_Ld)[None, :, None, :]
    first, second = jnp.split(x_BLHd.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x_BLHd.dtype)


def attention(q_BLHd, k_BLHd, v_BLHd, kernels: bool = True):
    """Compute causal attention with the platform's fastest kernel.

    This is cuDNN's on a GPU in half precision, splash attention on a TPU for lengths that are multiples of 128, and
    XLA's otherwise, which holds all scores. ``kernels=False`` always uses XLA's.
    """
    half = q_BLHd.dtype in (jnp.bfloat16, jnp.float16)
    width = q_BLHd.shape[-1]
    cudnn = kernels and half and width % 8 == 0 and width <= attention_kernels.max_cudnn_width()
    default = functools.partial(jax.nn.dot_product_attention, is_causal=True, implementation="cudnn" if cudnn else None)
    if not kernels or q_BLHd.shape[1] % 128 or attention_kernels.splash_modules() is None:
        return default(q_BLHd, k_BLHd, v_BLHd)
    # Chosen by the platform compiled for, which may differ from the one that runs this.
    return jax.lax.platform_dependent(q_BLHd, k_BLHd, v_BLHd, tpu=attention_kernels.causal_splash, default=default)


@jax.custom_vjp
def product(x, kernel_DF: jax.Array) -> jax.Array:
    """Return x [..., D] times a float32 matrix, in the type of ``x``. The matrix's gradient is summed in float32.

    Autodiff would round that gradient to the type of ``x``. It is a sum over all tokens, and under FSDP over devices.
    """
    return x @ kernel_DF.astype(x.dtype)


def _product_forward(x, kernel_DF):
    return product(x, kernel_DF), (x, kernel_DF)


def _product_backward(saved, grad):
    x, kernel_DF = saved
    tokens = tuple(range(x.ndim - 1))
    grad_DF = jax.lax.dot_general(x, grad, ((tokens, tokens), ((), ())), preferred_element_type=kernel_DF.dtype)
    return grad @ kernel_DF.astype(x.dtype).T, grad_DF


product.defvjp(_product_forward, _product_backward)


class Linear(nn.Module):
    """x times a matrix, in the type ``dtype``."""

    width: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        kernel_DF = self.param("kernel", nn.initializers.normal(0.02), (x.shape[-1], self.width))
        x = x.astype(self.dtype)
        return x @ kernel_DF if self.dtype == kernel_DF.dtype else product(x, kernel_DF)


class Block(nn.Module):
    """x + norm(attention(x)), then x + norm(feed-forward(x)), with the norm after each sublayer."""

    shape: Shape
    dtype: jnp.dtype
    kernels: bool = True

    @nn.compact
    def __call__(self, x_BLD):
        s = self.shape
        B, L, D = x_BLD.shape
        head = s.head if s.head is not None else D // s.heads

        def linear(width, name):
            return Linear(width, self.dtype, name=name)

        def heads(y):
            return y.reshape(B, L, s.heads, head)

        # As in OLMo 2, QK-norm covers all heads together, before the split into heads.
        q = rotate(heads(RMSNorm(name="q_norm")(linear(s.heads * head, "q")(x_BLD))))
        k = rotate(heads(RMSNorm(name="k_norm")(linear(s.heads * head, "k")(x_BLD))))
        v = heads(linear(s.heads * head, "v")(x_BLD))
        mixed = attention(q, k, v, self.kernels).reshape(B, L, s.heads * head)
        x_BLD = x_BLD + RMSNorm(name="attention_norm")(linear(D, "o")(mixed))
        gate = nn.silu(linear(s.hidden, "gate")(x_BLD)) * linear(s.hidden, "up")(x_BLD)
        return x_BLD + RMSNorm(name="feedforward_norm")(linear(D, "down")(gate))


def padded(vocabulary: int) -> int:
    """Return the rows of the embeddings: the next multiple of 128, which kernels and sharding divide (METHOD §4)."""
    return -(-vocabulary // 128) * 128


def _embedding_init(vocabulary: int, axis: int):
    """Return an initialiser: normal, σ = 0.02, for the entries of the vocabulary along ``axis``; zero for the padding.

    The values do not depend on the padding.
    """
    normal = nn.initializers.normal(0.02)

    def init(key, shape, dtype=jnp.float32):
        padding = [(0, 0)] * len(shape)
        padding[axis] = 0, shape[axis] - vocabulary
        return jnp.pad(normal(key, (*shape[:axis], vocabulary, *shape[axis + 1 :]), dtype), padding)

    return init


class Decoder(nn.Module):
    """A decoder with untied input and output embeddings.

    Both embeddings are padded to a multiple of 128 entries (:func:`padded`). The padding is zero and stays zero: no
    token looks it up, and no softmax includes it.

    Attributes:
      shape: sizes.
      vocabulary: number of tokens V.
      dtype: type of the matrix products.
      remat: whether a block keeps only its input and recomputes its activations for the gradient.
      kernels: whether attention uses the platform's kernel. The compiler cannot shard these (FSDP).
    """

    shape: Shape
    vocabulary: int
    dtype: jnp.dtype = jnp.float32
    remat: bool = False
    kernels: bool = True

    @nn.compact
    def __call__(self, tokens_BL, logits: bool = True):
        """Map tokens, int [B, L], to float32 logits [B, L, V], or to the last layer's output [B, L, D]."""
        embed = nn.Embed(
            padded(self.vocabulary),
            self.shape.width,
            embedding_init=_embedding_init(self.vocabulary, 0),
            name="embedding",
        )
        # Looked up in float32: the gradient of a frequent token is a sum over thousands of positions, which bfloat16
        # would round away.
        x_BLD = embed(tokens_BL).astype(self.dtype)
        block = nn.remat(Block) if self.remat else Block
        for layer in range(self.shape.layers):
            x_BLD = block(self.shape, self.dtype, self.kernels, name=f"block_{layer}")(x_BLD)
        x_BLD = RMSNorm(name="final_norm")(x_BLD)
        if not logits:
            return x_BLD
        head = nn.Dense(
            padded(self.vocabulary),
            use_bias=False,
            dtype=self.dtype,
            kernel_init=_embedding_init(self.vocabulary, 1),
            name="head",
        )
        return head(x_BLD).astype(jnp.float32)[..., : self.vocabulary]


def output_embedding(params) -> jax.Array:
    """Return the output embedding, [D, V], with V padded."""
    return params["head"]["kernel"]


def parameters(params) -> int:
    """Return the number of parameters of one member without the input embedding, with padding (METHOD §4)."""
    total = sum(x.size for x in jax.tree.leaves(params))
    return total - params["embedding"]["embedding"].size
