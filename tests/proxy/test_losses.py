"""proxy/losses.py: the loss by blocks and by attention, compared with the loss on all logits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from olmix_jax.proxy import losses

TOKENS, WIDTH, VOCABULARY, Z_LOSS = 37, 8, 50, 0.01


def reference(x_SD, head_DV, target_S):
    """Return the losses of :func:`losses.mean_loss` from all logits."""
    logits_SV = x_SD @ head_DV
    log_z_S = jax.nn.logsumexp(logits_SV, axis=-1)
    nats_S = log_z_S - jnp.take_along_axis(logits_SV, target_S[:, None], axis=-1)[:, 0]
    return jnp.mean(nats_S) + Z_LOSS * jnp.mean(log_z_S**2), jnp.mean(nats_S)


# Compiled once for all tests.
reference_and_grad = jax.jit(jax.value_and_grad(reference, argnums=(0, 1), has_aux=True))


def problem(dtype=jnp.float64, seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    x_SD, head_DV = jax.random.normal(keys[0], (TOKENS, WIDTH), dtype), jax.random.normal(keys[1], (WIDTH, VOCABULARY))
    return x_SD, head_DV.astype(dtype), jax.random.randint(keys[2], (TOKENS,), 0, VOCABULARY)


# All tokens in one block; several blocks, with the last one not full; blocks of one token.
@pytest.mark.parametrize("tokens", [1000, 10, 1])
def test_loss_by_blocks_equals_the_loss_on_all_logits(monkeypatch, tokens):
    monkeypatch.setattr(losses, "BLOCK_BYTES", 4 * VOCABULARY * tokens)
    x_SD, head_DV, target_S = problem(jnp.float32)
    mean_loss = functools.partial(losses.mean_loss, z_loss=Z_LOSS)
    actual = jax.jit(jax.value_and_grad(mean_loss, argnums=(0, 1), has_aux=True))(x_SD, head_DV, target_S)
    expected = reference_and_grad(x_SD, head_DV, target_S)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6), actual, expected)
    nats_S = jax.jit(lambda *arrays: losses.token_nats(*arrays))(x_SD, head_DV, target_S)
    assert nats_S.shape == (TOKENS,) and float(nats_S.mean()) == pytest.approx(float(expected[0][1]), rel=1e-6)


def test_gradient_of_vmapped_and_scaled_loss_matches_finite_differences():
    problems = [problem(jnp.float32, seed) for seed in range(3)]
    x_KSD, head_KDV, target_KS = (jnp.stack(arrays) for arrays in zip(*problems))

    def total(x_SD, head_DV, target_S):
        return 3.0 * losses.mean_loss(x_SD, head_DV, target_S, Z_LOSS)[0]

    grad_KSD, grad_KDV = jax.jit(jax.vmap(jax.grad(total, argnums=(0, 1))))(x_KSD, head_KDV, target_KS)
    exact = jax.jit(reference)
    with jax.enable_x64(True):
        for k, (x_SD, head_DV, target_S) in enumerate(problems):
            x_SD, head_DV = np.asarray(x_SD, np.float64), np.asarray(head_DV, np.float64)
            for at in ((0, 0), (17, 5), (36, 7)):
                step = np.zeros_like(x_SD)
                step[at] = 1e-6
                above, below = (float(3 * exact(x_SD + s * step, head_DV, target_S)[0]) for s in (1, -1))
                assert float(grad_KSD[k][at]) == pytest.approx((above - below) / 2e-6, rel=1e-4, abs=1e-7)
            step = np.zeros_like(head_DV)
            step[3, 11] = 1e-6
            above, below = (float(3 * exact(x_SD, head_DV + s * step, target_S)[0]) for s in (1, -1))
            assert float(grad_KDV[k][3, 11]) == pytest.approx((above - below) / 2e-6, rel=1e-4, abs=1e-7)


def attend(queries_TD, keys_SD, values_SD):
    """Compute what a platform's attention kernel computes, from all scores."""
    scores_TS = queries_TD.astype(jnp.float32) @ keys_SD.astype(jnp.float32).T
    mean_TD = jax.nn.softmax(scores_TS) @ values_SD.astype(jnp.float32)
    return mean_TD.astype(values_SD.dtype), jax.nn.logsumexp(scores_TS, axis=-1)


loss_by_attention = jax.jit(functools.partial(losses.loss_by_attention, attend=attend, z_loss=Z_LOSS))


def pad(head_DV, columns=13):
    """Return the head with columns that would change the losses if they counted."""
    return jnp.concatenate([head_DV, 9 * jnp.ones((WIDTH, columns), head_DV.dtype)], axis=1)


@pytest.mark.parametrize("by", ["blocks", "attention"])
def test_padding_of_the_vocabulary_changes_neither_losses_nor_gradients(monkeypatch, by):
    """The head has 50 entries of the vocabulary and 13 columns of padding."""
    monkeypatch.setattr(losses, "BLOCK_BYTES", 4 * VOCABULARY * 10)
    if by == "attention":
        monkeypatch.setattr(losses, "_dispatch", lambda by_attention, _, __, *arrays: by_attention(*arrays, attend))
    x_SD, head_DV, target_S = problem(jnp.float32)

    def loss(x_SD, head_DV):
        return losses.mean_loss(x_SD, head_DV, target_S, Z_LOSS, True, VOCABULARY)

    actual, grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(x_SD, pad(head_DV))
    expected, expected_grads = reference_and_grad(x_SD, head_DV, target_S)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    np.testing.assert_allclose(grads[0], expected_grads[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(grads[1][:, :VOCABULARY], expected_grads[1], rtol=1e-5, atol=1e-6)
    assert (grads[1][:, VOCABULARY:] == 0).all()
    nats_S = jax.jit(lambda x, w: losses.token_nats(x, w, target_S, vocabulary=VOCABULARY))(x_SD, pad(head_DV))
    assert float(nats_S.mean()) == pytest.approx(float(expected[1]), rel=1e-6)


# Scales of the last layer's output: equal, so that all ln Z are similar, and spread, so that they differ widely.
@pytest.mark.parametrize("scale", [np.ones(TOKENS), np.geomspace(1e-3, 6, TOKENS)], ids=["equal", "spread"])
def test_loss_by_attention_equals_the_loss_on_all_logits(scale):
    x_SD, head_DV, target_S = problem(jnp.float32)
    x_SD *= jnp.asarray(scale, jnp.float32)[:, None]
    expected, expected_grads = reference_and_grad(x_SD, head_DV, target_S)
    actual, grads = loss_by_attention(x_SD, head_DV, target_S)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    for grad, expected_grad in zip(grads, expected_grads):
        tolerance = 1e-6 * float(jnp.abs(expected_grad).max())
        np.testing.assert_allclose(grad, expected_grad, rtol=1e-5, atol=tolerance)


def test_loss_by_attention_has_a_nan_gradient_if_ln_z_of_tokens_differ_too_much():
    x_SD, head_DV, target_S = problem(jnp.float32)
    x_SD *= jnp.geomspace(1e-3, 60, TOKENS)[:, None]
    _, (_, grad_DV) = loss_by_attention(x_SD, head_DV, target_S)
    assert np.isnan(grad_DV).all()


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs a GPU and JAX_PLATFORMS=cuda")
@pytest.mark.parametrize(("width", "vocabulary", "tokens"), [(256, 5_000, 512), (32, 1_023, 77)])
def test_cudnn_kernel_is_as_exact_as_blocks_in_the_same_type(width, vocabulary, tokens):
    keys = jax.random.split(jax.random.key(0), 3)
    x_KSD = jax.random.normal(keys[0], (3, tokens, width), jnp.bfloat16)
    head_KDV = jax.random.normal(keys[1], (3, width, vocabulary)) / width**0.5
    target_KS = jax.random.randint(keys[2], (3, tokens), 0, vocabulary)

    def step(kernels):
        loss = jax.value_and_grad(losses.mean_loss, argnums=(0, 1), has_aux=True)
        return jax.jit(jax.vmap(lambda x, w, t: loss(x, w, t, Z_LOSS, kernels)))

    arguments = x_KSD, head_KDV, target_KS
    assert "cudnn" in step(True).lower(*arguments).as_text()
    for other in (x_KSD[:, :1], x_KSD.astype(jnp.float32)):
        assert "cudnn" not in step(True).lower(other, head_KDV, target_KS[:, : other.shape[1]]).as_text()
    (expected, expected_grads), (actual, grads) = step(False)(*arguments), step(True)(*arguments)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    for grad, expected_grad in zip(grads, expected_grads):
        grad, expected_grad = np.asarray(grad, np.float64), np.asarray(expected_grad, np.float64)
        assert np.linalg.norm(grad - expected_grad) < 0.01 * np.linalg.norm(expected_grad)
    nats_KS = jax.vmap(losses.token_nats)(x_KSD, head_KDV, target_KS)
    np.testing.assert_allclose(nats_KS.mean(axis=1), expected[1], rtol=1e-5)


@pytest.mark.parametrize("loss", [losses.token_nats, functools.partial(losses.mean_loss, z_loss=Z_LOSS)])
def test_tpu_kernel_is_used_for_supported_sizes_and_on_tpus_only(loss):
    def lowered(tokens=256, width=128, vocabulary=1_024, dtype=jnp.bfloat16, kernels=True, platform="tpu"):
        shapes = ((tokens, width), dtype), ((width, vocabulary), jnp.float32), ((tokens,), jnp.int32)
        step = jax.jit(functools.partial(loss, kernels=kernels)).trace(*(jax.ShapeDtypeStruct(*x) for x in shapes))
        return step.lower(lowering_platforms=(platform,)).as_text()

    assert "tpu_custom_call" in lowered()
    assert "tpu_custom_call" in lowered(width=384)
    for changes in ({"tokens": 200}, {"vocabulary": 1_000}, {"vocabulary": 50_257}):
        assert "tpu_custom_call" in lowered(**changes), changes
    unsupported = {"width": 96}, {"width": 768}, {"dtype": jnp.float32}
    for changes in (*unsupported, {"kernels": False}, {"platform": "cpu"}):
        assert "tpu_custom_call" not in lowered(**changes), changes


def test_loss_in_half_precision_sums_in_float32():
    x_SD, head_DV, target_S = problem(jnp.float32)
    (expected, _), expected_grads = reference_and_grad(x_SD, head_DV, target_S)
    mean_loss = functools.partial(losses.mean_loss, z_loss=Z_LOSS)
    value_and_grad = jax.jit(jax.value_and_grad(mean_loss, argnums=(0, 1), has_aux=True))
    (total, _), grads = value_and_grad(x_SD.astype(jnp.bfloat16), head_DV, target_S)
    assert total.dtype == jnp.float32 and grads[1].dtype == jnp.float32 and grads[0].dtype == jnp.bfloat16
    assert float(total) == pytest.approx(float(expected), rel=0.01)
    for grad, expected_grad in zip(grads, expected_grads):
        assert np.abs(np.asarray(grad, np.float32) - expected_grad).max() < 0.03 * np.abs(expected_grad).max()
