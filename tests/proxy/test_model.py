"""proxy/model.py: the decoder's layout, against hand computations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from olmix_jax.proxy import model

SHAPE = model.Shape(16, 2, 4, 24)


@pytest.fixture(scope="module")
def decoder():
    decoder = model.Decoder(SHAPE, 32)
    tokens_BL = jnp.arange(12).reshape(2, 6) % 32
    return decoder, decoder.init(jax.random.key(0), tokens_BL)["params"], tokens_BL


def test_later_tokens_do_not_reach_earlier_logits(decoder):
    decoder, params, tokens_BL = decoder
    changed = tokens_BL.at[:, 4].set(31)
    before, after = (decoder.apply({"params": params}, t) for t in (tokens_BL, changed))
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert np.abs(before[:, 4:] - after[:, 4:]).max() > 1e-4


def test_rms_norm_against_the_formula():
    x = jnp.array([[3.0, -4.0, 0.0, 5.0]])
    params = {"scale": jnp.array([1.0, 2.0, 3.0, 4.0])}
    expected = np.array([[3, -8, 0, 20]]) / np.sqrt(50 / 4 + 1e-6)
    np.testing.assert_allclose(model.RMSNorm().apply({"params": params}, x), expected, rtol=1e-6)


def test_rotation_keeps_lengths_and_depends_on_distance_only():
    x_BLHd = jax.random.normal(jax.random.key(1), (1, 1, 1, 8))
    y_BLHd = jax.random.normal(jax.random.key(2), (1, 1, 1, 8))
    x, y = (model.rotate(jnp.tile(v, (1, 10, 1, 1)))[0, :, 0] for v in (x_BLHd, y_BLHd))
    np.testing.assert_allclose(np.linalg.norm(x, axis=-1), np.linalg.norm(x_BLHd), rtol=1e-5)
    products = x @ y.T
    for distance in (0, 1, 5):
        along = np.diagonal(products, distance)
        np.testing.assert_allclose(along, along[0], rtol=1e-4, atol=1e-5)


def test_norm_comes_after_the_sublayer(decoder):
    decoder, params, tokens_BL = decoder
    # With the norms after both sublayers scaled to zero, blocks add nothing: logits are head(norm(embedding)).
    silent = jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.zeros_like(x) if path[-2].key in ("attention_norm", "feedforward_norm") else x, params
    )
    x = np.asarray(params["embedding"]["embedding"])[np.asarray(tokens_BL)]
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    expected = x @ np.asarray(params["head"]["kernel"])
    np.testing.assert_allclose(decoder.apply({"params": silent}, tokens_BL), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("length", "head"), [(128, 32), pytest.param(384, 8, marks=pytest.mark.slow)])
def test_the_kernel_for_tpus_is_attention(length, head):
    """Interpreted here: the values and gradients of XLA's attention, for members side by side."""
    shape = 2, 1, length, 2, head
    qkv = [jax.random.normal(key, shape) for key in jax.random.split(jax.random.key(0), 4)]

    def both(attention):
        loss = jax.vmap(lambda q, k, v, w: jnp.sum(attention(q, k, v) * w))
        return jax.jit(jax.value_and_grad(lambda *arrays: loss(*arrays).sum(), argnums=(0, 1, 2)))(*qkv)

    value, slopes = both(functools.partial(model.splash, interpret=True))
    expected, wanted = both(functools.partial(model.attention, kernels=False))
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    for ours, theirs in zip(slopes, wanted):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_a_kernel_is_chosen_by_what_is_compiled_for():
    """Here it is not a TPU's, whatever the length."""
    q = jax.ShapeDtypeStruct((1, 256, 2, 8), jnp.float32)
    text = jax.jit(lambda q: jax.grad(lambda q: model.attention(q, q, q).sum())(q)).lower(q).as_text()
    assert "tpu_custom_call" not in text
    ours = jax.jit(lambda q: model.attention(q, q, q)).trace(q).lower(lowering_platforms=("tpu",)).as_text()
    assert "tpu_custom_call" in ours


@pytest.mark.parametrize(("preset", "count"), [("30M", 29_102_336), ("60M", 57_422_208), ("1B", 1_279_395_840)])
def test_parameter_counts_of_the_paper(preset, count):
    decoder = model.Decoder(model.PRESETS[preset], 100_352)
    params = jax.eval_shape(lambda: decoder.init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32)))["params"]
    assert model.parameters(params) == count


@pytest.mark.parametrize("preset", model.PRESETS)
def test_every_preset_runs(preset):
    decoder = model.Decoder(model.PRESETS[preset], 64)
    tokens_BL = jnp.zeros((1, 4), jnp.int32)
    shapes = jax.eval_shape(lambda: decoder.init_with_output(jax.random.key(0), tokens_BL)[0])
    assert shapes.shape == (1, 4, 64) and shapes.dtype == jnp.float32
