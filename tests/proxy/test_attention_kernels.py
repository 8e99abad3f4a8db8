"""proxy/attention_kernels.py: kernels for TPUs, interpreted on the CPU, and what happens without them."""

import functools
import importlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from olmix_jax.proxy import attention_kernels, losses, model
from tests.proxy.test_losses import attend


# Whole blocks; padded keys; padded queries and keys.
@pytest.mark.parametrize(("queries", "keys"), [(128, 640), (128, 650), (200, 1_000)])
def test_splash_kernel_for_tpus_equals_attention_under_vmap(queries, keys):
    seeds, sizes = jax.random.split(jax.random.key(0), 3), (queries, keys, keys)
    q_KTD, k_KSD, v_KSD = (jax.random.normal(key, (2, size, 128)) for key, size in zip(seeds, sizes))
    # Logits of far less than zero, the logit of padding.
    q_KTD, k_KSD = q_KTD.at[..., 0].set(8), k_KSD.at[..., 0].set(-8)
    actual = jax.jit(jax.vmap(functools.partial(attention_kernels.splash, interpret=True)))(q_KTD, k_KSD, v_KSD)
    for x, y in zip(actual, jax.jit(jax.vmap(attend))(q_KTD, k_KSD, v_KSD)):
        assert x.dtype == y.dtype == jnp.float32
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("used", [None, 600, 640])
def test_only_the_first_keys_count(monkeypatch, used):
    q_TD, k_SD, v_SD = (
        jax.random.normal(key, (n, 128)) for key, n in zip(jax.random.split(jax.random.key(0), 3), (128, 640, 640))
    )
    expected = attend(q_TD, k_SD[:used], v_SD[:used])
    monkeypatch.setattr(attention_kernels, "splash", functools.partial(attention_kernels.splash, interpret=True))
    for kernel in (attention_kernels.splash, attend):
        for x, y in zip(attention_kernels.over_first(kernel, used)(q_TD, k_SD, v_SD), expected):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4)


def test_blocks_are_large_and_padding_is_small():
    sizes = (100_278, 50_257, 151_665, 131_072, 640, 200, 1)
    expected = [(100_352, 1024), (51_200, 1024), (152_576, 1024), (131_072, 1024), (640, 128), (256, 128), (128, 128)]
    assert [attention_kernels.whole_blocks(size) for size in sizes] == expected


@pytest.mark.parametrize(("length", "head"), [(128, 32), pytest.param(384, 8, marks=pytest.mark.slow)])
def test_splash_kernel_for_tpus_has_values_and_gradients_of_attention_under_vmap(length, head):
    """The kernel is interpreted on the CPU."""
    shape = 2, 1, length, 2, head
    qkv = [jax.random.normal(key, shape) for key in jax.random.split(jax.random.key(0), 4)]

    def value_and_grad(attention):
        loss = jax.vmap(lambda q, k, v, w: jnp.sum(attention(q, k, v) * w))
        return jax.jit(jax.value_and_grad(lambda *arrays: loss(*arrays).sum(), argnums=(0, 1, 2)))(*qkv)

    value, grads = value_and_grad(functools.partial(attention_kernels.causal_splash, interpret=True))
    expected, expected_grads = value_and_grad(functools.partial(model.attention, kernels=False))
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    for grad, expected_grad in zip(grads, expected_grads):
        np.testing.assert_allclose(grad, expected_grad, atol=2e-5)


@pytest.mark.parametrize("missing", ["splash_modules", "cudnn_attention"])
def test_missing_kernel_is_a_warning_and_computes_without_it(monkeypatch, caplog, missing):
    """As in a version of JAX that has renamed its private modules."""

    def no_module(name, *_):
        raise ImportError(f"No module named {name!r}")

    find = getattr(attention_kernels, missing)
    find.cache_clear()
    monkeypatch.setattr(importlib, "import_module", no_module)
    monkeypatch.setattr(attention_kernels.log, "propagate", True)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu" if missing == "splash_modules" else "gpu")
    try:
        for _ in range(2):
            assert find() is None
        assert caplog.text.count("training is slower") == 1 and "No module named" in caplog.text
        if missing == "splash_modules":
            monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
            x_SD, head_DV = jnp.ones((128, 128), jnp.bfloat16), jnp.ones((128, 128))
            traced = jax.jit(losses.token_nats).trace(x_SD, head_DV, jnp.zeros(128, int))
            assert "tpu_custom_call" not in traced.lower(lowering_platforms=("tpu",)).as_text()
            q = jax.ShapeDtypeStruct((1, 128, 2, 8), jnp.float32)
            traced = jax.jit(lambda q: model.attention(q, q, q)).trace(q)
            assert "tpu_custom_call" not in traced.lower(lowering_platforms=("tpu",)).as_text()
    finally:
        find.cache_clear()


def test_cudnn_binding_with_other_arguments_is_not_used(monkeypatch):
    module = importlib.import_module("jax._src.cudnn.fused_attention_stablehlo")
    assert attention_kernels.cudnn_attention() is not None
    attention_kernels.cudnn_attention.cache_clear()
    monkeypatch.setattr(module, "dot_product_attention", lambda query, key, value, *, factor=1.0: None)
    assert attention_kernels.cudnn_attention() is None
    attention_kernels.cudnn_attention.cache_clear()


@pytest.mark.parametrize(
    ("capability", "width"),
    [("9.0", 256), ("12.0", 256), ("10.0a", 256), ("8.6", 128), ("7.5", 0), ("gfx942", 0), ("", 0)],
)
def test_cudnn_is_used_on_gpus_that_have_it(monkeypatch, capability, width):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda: [types.SimpleNamespace(compute_capability=capability)])
    assert attention_kernels.max_cudnn_width() == width


def test_cudnn_is_not_used_on_a_cpu():
    assert attention_kernels.max_cudnn_width() == 0
