"""proxy/optimizer.py: the schedule ends with the run (PITFALLS 10), weight decay applies to matrices only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from olmix_jax.config.schema import Train
from olmix_jax.proxy import optimizer


@pytest.mark.parametrize("steps", [3, 20, 777])
def test_schedule_warms_up_and_reaches_its_end_at_the_last_step(steps):
    train = Train(steps=steps, warmup=0.1, lr_end=0.1)
    rates = np.asarray(optimizer.schedule(train, 2.0)(jnp.arange(steps)))
    warmup = max(1, round(0.1 * steps))
    assert rates.argmax() == warmup and rates.max() == pytest.approx(2.0)
    assert (np.diff(rates[: warmup + 1]) > 0).all() and (np.diff(rates[warmup:]) < 0).all()
    assert rates[-1] == pytest.approx(0.2)
    # The rate still falls at the last step: no steps at the end have a constant rate.
    assert steps < 10 or rates[-2] > rates[-1]
    assert (rates > 0).all()


def test_peak_learning_rate_of_the_paper():
    assert optimizer.learning_rate(Train(), 29_102_336) == pytest.approx(0.00728, rel=1e-3)
    assert optimizer.learning_rate(Train(lr=0.5), 29_102_336) == 0.5


def test_weight_decay_applies_to_matrices_only():
    params = {"embedding": {"embedding": jnp.ones(3)}, "norm": {"scale": jnp.ones(3)}, "q": {"kernel": jnp.ones(3)}}
    update = optimizer.optimizer(Train(steps=5, lr=1.0, warmup=0.1, weight_decay=0.5), 1000)
    zeros = {name: {leaf: jnp.zeros(3) for leaf in leaves} for name, leaves in params.items()}
    change, _ = jax.jit(update.update)(zeros, jax.jit(update.init)(params), params)
    assert (change["q"]["kernel"] < 0).all()
    assert (change["embedding"]["embedding"] == 0).all() and (change["norm"]["scale"] == 0).all()


def test_gradients_are_clipped_by_their_global_norm():
    params = {"a": {"kernel": jnp.zeros(4)}}
    update = optimizer.optimizer(Train(steps=5, lr=1.0, warmup=0.1, clip=1.0), 1000)
    take, state, changes = jax.jit(update.update), jax.jit(update.init)(params), []
    for size in (1e3, 1e6):
        change, _ = take({"a": {"kernel": jnp.full(4, size)}}, state, params)
        changes.append(change["a"]["kernel"])
    np.testing.assert_allclose(*changes, rtol=1e-6)


@pytest.mark.parametrize(("steps", "decay"), [(8, 3), (200, 40), (777, 1)])
def test_rate_of_branches_is_constant_and_then_falls_linearly_to_zero(steps, decay):
    train = Train(steps=steps, warmup=0.1)
    rates = np.asarray(optimizer.schedule(train, 2.0, decay=decay)(jnp.arange(steps + 1)))
    warmup = max(1, round(0.1 * steps))
    np.testing.assert_allclose(rates[: warmup + 1], 2 * np.arange(1, warmup + 2) / (warmup + 1), rtol=1e-6)
    np.testing.assert_allclose(rates[warmup : steps - decay + 1], 2.0, rtol=1e-6)
    np.testing.assert_allclose(rates[steps - decay :], np.linspace(2, 0, decay + 1), atol=1e-6)
    assert rates[steps - 1] > 0
    # The warm-up is that of a whole proxy.
    np.testing.assert_allclose(rates[: warmup + 1], optimizer.schedule(train, 2.0)(jnp.arange(warmup + 1)), rtol=1e-6)


def test_rate_of_a_trunk_does_not_depend_on_the_steps_that_follow():
    whole, trunk = Train(steps=100, warmup=0.1), Train(steps=40, warmup=0.25)
    rates = [optimizer.schedule(t, 1.0, decay=d)(jnp.arange(40)) for t, d in ((whole, 20), (trunk, 0))]
    np.testing.assert_array_equal(*rates)
