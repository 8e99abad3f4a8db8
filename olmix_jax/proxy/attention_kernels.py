"""Attention kernels of the platforms: splash attention on TPUs, cuDNN on GPUs.

The only file that uses Pallas kernels and layouts of ``jax.experimental`` and cuDNN's binding in ``jax._src``, which
change between versions of JAX. They are imported when first needed. A version that lacks one computes the same result
without it, more slowly, and logs a warning once.
"""

import functools
import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from olmix_jax.utils.progress import log

# Sizes of a kernel's blocks of queries and keys, and the largest share of padding for which a size is chosen.
_BLOCKS, _MAX_PADDING = (1024, 512, 256, 128), 1 / 16


@functools.cache
def splash_modules() -> tuple[Any, Any] | None:
    """Return JAX's modules of the kernel and of its masks for TPUs, or None if this version of JAX lacks them."""
    package = "jax.experimental.pallas.ops.tpu.splash_attention"
    names = "make_splash_mha BlockSizes SegmentIds", "CausalMask FullMask MultiHeadMask"
    try:
        kernel, masks = (importlib.import_module(f"{package}.splash_attention_{n}") for n in ("kernel", "mask"))
        for module, needed in zip((kernel, masks), names):
            for name in needed.split():
                getattr(module, name)
    except Exception as e:  # a Pallas that does not match the installed jaxlib fails in other ways as well
        if jax.default_backend() == "tpu" or importlib.util.find_spec("libtpu"):
            _warn_missing("splash attention for TPUs", e)
        return None
    return kernel, masks


@functools.cache
def cudnn_attention() -> Any:
    """Return JAX's private binding of cuDNN's attention, or None if this version of JAX lacks it.

    The public jax.nn.dot_product_attention would round ln Z to the type of the values.
    """
    try:
        function = importlib.import_module("jax._src.cudnn.fused_attention_stablehlo").dot_product_attention
        inspect.signature(function).bind(None, None, None, scale=1.0, return_residual=True)
    except Exception as e:  # as above, or the function takes other arguments
        _warn_missing("cuDNN's attention with ln Z", e)
        return None
    return function


def max_cudnn_width() -> int:
    """Return the widest heads that cuDNN's attention takes on this process's GPU; 0 without cuDNN.

    That is 256 from Hopper (compute capability 9) on, and 128 from Ampere (8) on. Earlier GPUs have no kernel. A GPU of
    another maker reports text such as "gfx942".
    """
    if jax.default_backend() != "gpu":
        return 0
    match = re.match(r"\d+", str(getattr(jax.local_devices()[0], "compute_capability", "")))
    capability = int(match[0]) if match else 0
    return 256 if capability >= 9 else 128 if capability == 8 else 0


def _warn_missing(what: str, reason: Exception) -> None:
    log.warning(
        "JAX %s does not offer %s (%s). Results are the same, but training is slower. Install the version of JAX in "
        "requirements.txt",
        *(jax.__version__, what, reason),
    )


def over_first(attend: Callable, used: int | None) -> Callable:
    """Return attention of the same kind over the first ``used`` keys; None: over all.

    The kernel for TPUs ignores the other keys. Without them the keys would be in memory a second time.
    """
    if attend is splash:
        return functools.partial(splash, used=used)
    return lambda queries_TD, keys_SD, values_SD: attend(queries_TD, keys_SD[:used], values_SD[:used])


def cudnn(queries_TD, keys_SD, values_SD):
    """Compute attention with cuDNN's kernel, with a single head and no mask. Return (mean values_TD, ln Z_T)."""
    one_head = (x[None, :, None, :] for x in (queries_TD, keys_SD, values_SD))
    mean_1T1D, log_z_11T = cudnn_attention()(*one_head, scale=1.0, return_residual=True)
    return mean_1T1D[0, :, 0, :], log_z_11T[0, 0]


def splash(queries_TD, keys_SD, values_SD, interpret: bool = False, used: int | None = None):
    """Compute attention with the kernel for TPUs, with a single head. Return (mean values_TD, ln Z_T).

    Any number of queries and keys is allowed: both are padded to whole blocks. The kernel ignores padded keys, and all
    after the first ``used``, exactly, because they are of another segment than the queries.
    """
    used = len(keys_SD) if used is None else used
    kernels, masks = splash_modules() or _no_splash()
    (T, block_q), (S, block_kv) = (whole_blocks(len(x)) for x in (queries_TD, keys_SD))
    kernel = kernels.make_splash_mha(
        mask=masks.MultiHeadMask([masks.FullMask((T, S))]),
        block_sizes=kernels.BlockSizes(block_q=block_q, block_kv=block_kv, block_kv_compute=min(512, block_kv)),
        head_shards=1,
        q_seq_shards=1,
        save_residuals=True,
        interpret=interpret,
    )
    segments = None
    if S > used:
        segments = kernels.SegmentIds(jnp.zeros(T, jnp.int32), (jnp.arange(S) >= used).astype(jnp.int32))
    queries, keys, values = (
        jnp.pad(x, ((0, size - len(x)), (0, 0)))[None] for x, size in ((queries_TD, T), (keys_SD, S), (values_SD, S))
    )
    mean_1TD, (log_z_1T,) = kernel(queries, keys, values, segment_ids=segments)
    return mean_1TD[0, : len(queries_TD)], log_z_1T[0, : len(queries_TD)]


def whole_blocks(size: int) -> tuple[int, int]:
    """Return (size padded to whole blocks, size of a block): the largest block that adds little padding."""
    padded = {block: -(-size // block) * block for block in _BLOCKS}
    block = next((b for b in _BLOCKS if padded[b] - size <= _MAX_PADDING * size), _BLOCKS[-1])
    return padded[block], block


def causal_splash(q_BLHd, k_BLHd, v_BLHd, interpret: bool = False):
    """Compute causal attention with the kernel for TPUs, which holds one block of scores at a time.

    The length must be a multiple of 128.
    """
    kernels, masks = splash_modules() or _no_splash()
    length, heads, width = q_BLHd.shape[1:]
    block = next(size for size in (512, 256, 128) if length % size == 0)
    kernel = kernels.make_splash_mha(
        mask=masks.MultiHeadMask([masks.CausalMask((length, length))] * heads),
        block_sizes=kernels.BlockSizes(
            block_q=block,
            block_kv=block,
            block_kv_compute=block,
            block_q_dkv=block,
            block_kv_dkv=block,
            block_kv_dkv_compute=block,
            block_q_dq=block,
            block_kv_dq=block,
        ),
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )
    q, k, v = (x.swapaxes(1, 2) for x in (q_BLHd * width**-0.5, k_BLHd, v_BLHd))
    return jax.vmap(kernel)(q, k, v).swapaxes(1, 2).astype(q_BLHd.dtype)


def _no_splash() -> tuple[Any, Any]:
    raise RuntimeError("splash attention is not available; check splash_modules() first")


def row_major(x: jax.Array) -> jax.Array:
    """Ask the compiler for the row-major layout of ``x``; without effect if this version of JAX cannot."""
    try:
        layout = importlib.import_module("jax.experimental.layout")
        return layout.with_layout_constraint(x, layout.Layout(tuple(range(x.ndim))))
    except (ImportError, AttributeError, TypeError):
        return x
