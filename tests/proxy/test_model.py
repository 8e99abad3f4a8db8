"""proxy/model.py: the decoder's architecture, compared with computations by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from olmix_jax.proxy import model

SHAPE = model.Shape(16, 2, 4, 24)


@pytest.fixture(scope="module")
def decoder():
    """Return (params, tokens_BL) → logits_BLV, parameters, and tokens."""
    decoder = model.Decoder(SHAPE, 32)
    tokens_BL = jnp.arange(12).reshape(2, 6) % 32
    params = jax.jit(decoder.init)(jax.random.key(0), tokens_BL)["params"]
    return jax.jit(lambda params, tokens_BL: decoder.apply({"params": params}, tokens_BL)), params, tokens_BL


def test_later_tokens_do_not_change_earlier_logits(decoder):
    apply, params, tokens_BL = decoder
    before, after = apply(params, tokens_BL), apply(params, tokens_BL.at[:, 4].set(31))
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert np.abs(before[:, 4:] - after[:, 4:]).max() > 1e-4


def test_rms_norm_equals_its_formula():
    x = jnp.array([[3.0, -4.0, 0.0, 5.0]])
    params = {"scale": jnp.array([1.0, 2.0, 3.0, 4.0])}
    expected = np.array([[3, -8, 0, 20]]) / np.sqrt(50 / 4 + 1e-6)
    np.testing.assert_allclose(model.RMSNorm().apply({"params": params}, x), expected, rtol=1e-6)


def test_rotary_embedding_keeps_norms_and_depends_on_distance_only():
    x_BLHd = jax.random.normal(jax.random.key(1), (1, 1, 1, 8))
    y_BLHd = jax.random.normal(jax.random.key(2), (1, 1, 1, 8))
    x, y = (model.rotate(jnp.tile(v, (1, 10, 1, 1)))[0, :, 0] for v in (x_BLHd, y_BLHd))
    np.testing.assert_allclose(np.linalg.norm(x, axis=-1), np.linalg.norm(x_BLHd), rtol=1e-5)
    products = x @ y.T
    for distance in (0, 1, 5):
        along = np.diagonal(products, distance)
        np.testing.assert_allclose(along, along[0], rtol=1e-4, atol=1e-5)


def test_norm_comes_after_the_sublayer(decoder):
    """With both norms scaled to zero, blocks add nothing: logits are head(norm(embedding))."""
    apply, params, tokens_BL = decoder
    no_blocks = jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.zeros_like(x) if path[-2].key in ("attention_norm", "feedforward_norm") else x, params
    )
    x = np.asarray(params["embedding"]["embedding"])[np.asarray(tokens_BL)]
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    expected = x @ np.asarray(params["head"]["kernel"])[:, :32]
    np.testing.assert_allclose(apply(no_blocks, tokens_BL), expected, rtol=1e-4, atol=1e-5)


def test_tpu_kernel_is_chosen_by_the_platform_compiled_for():
    q = jax.ShapeDtypeStruct((1, 256, 2, 8), jnp.float32)
    gradient = jax.jit(lambda q: jax.grad(lambda q: model.attention(q, q, q).sum())(q))
    assert "tpu_custom_call" not in gradient.lower(q).as_text()
    traced = jax.jit(lambda q: model.attention(q, q, q)).trace(q)
    assert "tpu_custom_call" in traced.lower(lowering_platforms=("tpu",)).as_text()


# Parameters of each preset, with both embeddings of dolma2's 100,278 tokens, padded to 100,352. OLMo 2 1B:
# 16 · (4 · 2048² + 3 · 2048 · 8192 + 4 · 2048) + 2048 + 2 · 100,352 · 2048.
PARAMETERS = {"1M": 2_448_620, "14M": 26_740_864, "30M": 54_792_448, "60M": 95_957_376, "190M": 267_424_512}
PARAMETERS["1B"] = 1_484_916_736


@pytest.mark.parametrize("preset", model.PRESETS)
def test_presets_give_float32_logits_and_have_the_parameter_counts_of_the_paper(preset):
    shape, tokens_BL = model.PRESETS[preset], jnp.zeros((1, 4), jnp.int32)
    decoder = model.Decoder(shape, 100_278)
    logits, variables = jax.eval_shape(lambda: decoder.init_with_output(jax.random.key(0), tokens_BL))
    assert logits.shape == (1, 4, 100_278) and logits.dtype == jnp.float32
    total = sum(x.size for x in jax.tree.leaves(variables))
    assert model.parameters(variables["params"]) == total - 100_352 * shape.width
    assert total == PARAMETERS.get(preset, total)
    without_embedding = {"30M": 29_102_336, "60M": 57_422_208, "1B": 1_279_395_840}
    assert total - 100_352 * shape.width == without_embedding.get(preset, total - 100_352 * shape.width)


def test_padding_of_the_vocabulary_is_zero_and_changes_no_weight(monkeypatch):
    """Vocabularies of dolma2, GPT-2 and Qwen 2.5 are padded; the quickstart's is a multiple of 128."""
    assert [model.padded(v) for v in (100_278, 50_257, 151_665, 1_024)] == [100_352, 50_304, 151_680, 1_024]
    shape, tokens_BL = model.Shape(8, 0, 2, 16), jnp.arange(6).reshape(1, 6)

    def initial():
        decoder = model.Decoder(shape, 100)
        logits_BLV, variables = jax.jit(decoder.init_with_output)(jax.random.key(0), tokens_BL)
        return logits_BLV, variables["params"]

    logits_BLV, params = initial()
    monkeypatch.setattr(model, "padded", lambda vocabulary: vocabulary)
    unpadded_logits_BLV, unpadded = initial()
    assert logits_BLV.shape == (1, 6, 100)
    np.testing.assert_array_equal(logits_BLV, unpadded_logits_BLV)
    for x_DV, y_DV in (
        (params.pop("embedding")["embedding"].T, unpadded.pop("embedding")["embedding"].T),
        (params.pop("head")["kernel"], unpadded.pop("head")["kernel"]),
    ):
        assert x_DV.shape == (8, 128) and (x_DV[:, 100:] == 0).all()
        np.testing.assert_array_equal(x_DV[:, :100], y_DV)
    jax.tree.map(np.testing.assert_array_equal, params, unpadded)
