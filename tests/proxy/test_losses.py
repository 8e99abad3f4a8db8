"""proxy/losses.py: the blocked loss is the plain one, in value and gradient."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from olmix_jax.config.schema import Train
from olmix_jax.proxy import losses, model, state

TOKENS, WIDTH, VOCABULARY, Z_LOSS = 37, 8, 50, 0.01


def plain(x_SD, head_DV, target_S, z_loss=Z_LOSS):
    logits_SV = x_SD @ head_DV
    log_z_S = jax.nn.logsumexp(logits_SV, axis=-1)
    nats_S = log_z_S - jnp.take_along_axis(logits_SV, target_S[:, None], axis=-1)[:, 0]
    return jnp.mean(nats_S) + z_loss * jnp.mean(log_z_S**2), jnp.mean(nats_S)


def problem(dtype=jnp.float64, seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    x_SD, head_DV = jax.random.normal(keys[0], (TOKENS, WIDTH), dtype), jax.random.normal(keys[1], (WIDTH, VOCABULARY))
    return x_SD, head_DV.astype(dtype), jax.random.randint(keys[2], (TOKENS,), 0, VOCABULARY)


# All tokens at once, several blocks of which the last is not full, one token at a time.
@pytest.mark.parametrize("tokens", [1000, 10, 1])
def test_blocks_change_nothing(monkeypatch, tokens):
    monkeypatch.setattr(losses, "BLOCK_BYTES", 4 * VOCABULARY * tokens)
    x_SD, head_DV, target_S = problem(jnp.float32)
    both = [
        jax.jit(jax.value_and_grad(f, argnums=(0, 1), has_aux=True), static_argnums=3)(x_SD, head_DV, target_S, Z_LOSS)
        for f in (losses.mean_loss, plain)
    ]
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6), *both)
    nats_S = losses.token_nats(x_SD, head_DV, target_S)
    assert nats_S.shape == (TOKENS,) and float(nats_S.mean()) == pytest.approx(float(both[1][0][1]), rel=1e-6)


def test_the_gradient_against_finite_differences():
    """Of the value that it returns with, for members side by side, and scaled by what it is multiplied with."""
    problems = [problem(jnp.float32, seed) for seed in range(3)]
    x_KSD, head_KDV, target_KS = (jnp.stack(arrays) for arrays in zip(*problems))

    def total(x_SD, head_DV, target_S):
        return 3.0 * losses.mean_loss(x_SD, head_DV, target_S, Z_LOSS)[0]

    slope_KSD, slope_KDV = jax.vmap(jax.grad(total, argnums=(0, 1)))(x_KSD, head_KDV, target_KS)
    with jax.enable_x64(True):
        for k, (x_SD, head_DV, target_S) in enumerate(problems):
            x_SD, head_DV = np.asarray(x_SD, np.float64), np.asarray(head_DV, np.float64)
            for at in ((0, 0), (17, 5), (36, 7)):
                step = np.zeros_like(x_SD)
                step[at] = 1e-6
                ends = [float(3 * plain(x_SD + s * step, head_DV, target_S)[0]) for s in (1, -1)]
                assert float(slope_KSD[k][at]) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-4, abs=1e-7)
            step = np.zeros_like(head_DV)
            step[3, 11] = 1e-6
            ends = [float(3 * plain(x_SD, head_DV + s * step, target_S)[0]) for s in (1, -1)]
            assert float(slope_KDV[k][3, 11]) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-4, abs=1e-7)


def attend(queries_TD, keys_SD, values_SD):
    """What a platform's attention kernel is to compute, plainly."""
    scores_TS = queries_TD.astype(jnp.float32) @ keys_SD.astype(jnp.float32).T
    mean_TD = jax.nn.softmax(scores_TS) @ values_SD.astype(jnp.float32)
    return mean_TD.astype(values_SD.dtype), jax.nn.logsumexp(scores_TS, axis=-1)


# Tokens whose ln Z are alike, and tokens of which some are sure of their next and others know nothing.
@pytest.mark.parametrize("scale", [np.ones(TOKENS), np.geomspace(1e-3, 6, TOKENS)], ids=["alike", "far apart"])
def test_an_attention_over_the_vocabulary_is_the_same_loss(scale):
    x_SD, head_DV, target_S = problem(jnp.float32)
    x_SD *= jnp.asarray(scale, jnp.float32)[:, None]
    (total, mean), slopes = jax.value_and_grad(plain, argnums=(0, 1), has_aux=True)(x_SD, head_DV, target_S)
    found, slopes_found = losses.by_attention(x_SD, head_DV, target_S, attend, Z_LOSS)
    np.testing.assert_allclose(found, (total, mean), rtol=1e-6)
    for ours, theirs in zip(slopes_found, slopes):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6 * float(jnp.abs(theirs).max()))


def test_attention_of_tokens_too_far_apart_is_no_gradient():
    x_SD, head_DV, target_S = problem(jnp.float32)
    x_SD *= jnp.geomspace(1e-3, 60, TOKENS)[:, None]
    _, (_, slope_DV) = losses.by_attention(x_SD, head_DV, target_S, attend, Z_LOSS)
    assert np.isnan(slope_DV).all()


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="a GPU's kernels; JAX_PLATFORMS=cuda where there is one")
@pytest.mark.parametrize(("width", "vocabulary", "tokens"), [(256, 5_000, 512), (32, 1_023, 77)])
def test_the_kernel_of_a_gpu(width, vocabulary, tokens):
    """For members side by side, as exact as blocks in the same type."""
    keys = jax.random.split(jax.random.key(0), 3)
    x_KSD = jax.random.normal(keys[0], (3, tokens, width), jnp.bfloat16)
    head_KDV = jax.random.normal(keys[1], (3, width, vocabulary)) / width**0.5
    target_KS = jax.random.randint(keys[2], (3, tokens), 0, vocabulary)

    def step(kernels):
        loss = jax.value_and_grad(losses.mean_loss, argnums=(0, 1), has_aux=True)
        return jax.jit(jax.vmap(lambda x, w, t: loss(x, w, t, Z_LOSS, kernels)))

    given = x_KSD, head_KDV, target_KS
    assert "cudnn" in step(True).lower(*given).as_text()
    for other in (x_KSD[:, :1], x_KSD.astype(jnp.float32)):
        assert "cudnn" not in step(True).lower(other, head_KDV, target_KS[:, : other.shape[1]]).as_text()
    (values, slopes), (values_found, slopes_found) = step(False)(*given), step(True)(*given)
    np.testing.assert_allclose(values_found, values, rtol=1e-5)
    for ours, theirs in zip(slopes_found, slopes):
        ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
        assert np.linalg.norm(ours - theirs) < 0.01 * np.linalg.norm(theirs)
    nats_KS = jax.vmap(losses.token_nats)(x_KSD, head_KDV, target_KS)
    np.testing.assert_allclose(nats_KS.mean(axis=1), values[1], rtol=1e-5)


def test_the_kernel_for_tpus():
    """Interpreted here, for members side by side."""
    keys = jax.random.split(jax.random.key(0), 3)
    q_KTD, k_KSD, v_KSD = (jax.random.normal(key, (2, size, 128)) for key, size in zip(keys, (128, 640, 640)))
    found = jax.jit(jax.vmap(functools.partial(losses.splash, interpret=True)))(q_KTD, k_KSD, v_KSD)
    for ours, theirs in zip(found, jax.vmap(attend)(q_KTD, k_KSD, v_KSD)):
        assert ours.dtype == theirs.dtype == jnp.float32
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", [losses.token_nats, functools.partial(losses.mean_loss, z_loss=Z_LOSS)])
def test_a_tpu_has_its_kernel_and_others_have_theirs(loss):
    def text(tokens=256, width=128, vocabulary=1_024, dtype=jnp.bfloat16, kernels=True, platform="tpu"):
        given = ((tokens, width), dtype), ((width, vocabulary), jnp.float32), ((tokens,), jnp.int32)
        step = jax.jit(functools.partial(loss, kernels=kernels)).trace(*(jax.ShapeDtypeStruct(*x) for x in given))
        return step.lower(lowering_platforms=(platform,)).as_text()

    assert "tpu_custom_call" in text()
    assert "tpu_custom_call" in text(width=384)
    others = {"tokens": 200}, {"width": 96}, {"width": 768}, {"vocabulary": 1_000}, {"dtype": jnp.float32}
    for other in (*others, {"kernels": False}, {"platform": "cpu"}):
        assert "tpu_custom_call" not in text(**other), other


def test_half_precision_sums_in_float32():
    x_SD, head_DV, target_S = problem(jnp.float32)
    (exact, _), slopes = jax.value_and_grad(plain, argnums=(0, 1), has_aux=True)(x_SD, head_DV, target_S)
    half = jax.value_and_grad(losses.mean_loss, argnums=(0, 1), has_aux=True)
    (total, _), found = half(x_SD.astype(jnp.bfloat16), head_DV, target_S, Z_LOSS)
    assert total.dtype == jnp.float32 and found[1].dtype == jnp.float32 and found[0].dtype == jnp.bfloat16
    assert float(total) == pytest.approx(float(exact), rel=0.01)
    for ours, theirs in zip(found, slopes):
        assert np.abs(np.asarray(ours, np.float32) - theirs).max() < 0.03 * np.abs(theirs).max()


@pytest.mark.parametrize("changes", [{"micro_batch": 2}, {"remat": True}, {"micro_batch": 1, "remat": True}])
def test_less_memory_is_the_same_step(changes):
    train = Train(batch=4, steps=6, lr=0.01)
    shape = model.Shape(16, 1, 4, 24)
    members = [state.member(shape, 40, t) for t in (train, dataclasses.replace(train, **changes))]
    tokens_TBL1 = jax.random.randint(jax.random.key(1), (3, 4, 9), 0, 40)
    ends = [jax.jit(m.steps)(jax.jit(m.init)(jax.random.key(0)), tokens_TBL1, 3) for m in members]
    np.testing.assert_allclose(ends[0][1], ends[1][1], rtol=1e-5)
    # Adam's first steps are signs, so that a gradient near zero may turn: what counts is the mean.
    pairs = zip(*(jax.tree.leaves(end[0].params) for end in ends))
    assert max(float(jnp.abs(a - b).mean()) for a, b in pairs) < 1e-5
