"""Many problems in one call are the same problems one by one."""

import numpy as np
import pytest

from olmix_jax.laws import log_linear
from olmix_jax.solver import batch, solve
from olmix_jax.solver.bounds import Bounds, box

DOMAINS, TASKS = 6, 4
UPPER = Bounds(None, 0, None, None, None)


def law(rng, number=()):
    return log_linear.Params(rng.normal(size=(*number, TASKS)) * 0.2, rng.normal(size=(*number, TASKS, DOMAINS)))


def test_batches_agree_with_single_problems_whatever_their_number(monkeypatch):
    rng = np.random.default_rng(0)
    params, natural_M, weights_N = law(rng), rng.dirichlet(np.ones(DOMAINS)), np.full(TASKS, 1 / TASKS)
    kl_weight_P = np.geomspace(1e-3, 1, 7)
    upper_PM = np.minimum(1, natural_M * np.linspace(1.1, 4, 7)[:, None])
    monkeypatch.setattr(batch, "ABREAST", 3)
    bounds = box(np.zeros(DOMAINS), natural_M)._replace(upper_M=upper_PM)
    each = (None, None, None, UPPER, 0, None)
    found = batch.solve_each(
        log_linear.predict, params, weights_N, natural_M, bounds, kl_weight_P, natural_M, each=each
    )
    assert found.weights_M.shape == (7, DOMAINS) and found.value.shape == (7,)
    for p in range(7):
        alone = solve.solve(
            log_linear.predict, params, weights_N, natural_M, box(np.zeros(DOMAINS), upper_PM[p]), kl_weight_P[p]
        )
        np.testing.assert_allclose(found.weights_M[p], alone.weights_M, atol=1e-9)
        assert found.value[p] == pytest.approx(alone.value, rel=1e-12) and found.gap[p] <= 1e-9


def test_samples_of_a_law_and_a_broken_one_do_not_meet():
    rng = np.random.default_rng(1)
    params, natural_M, weights_N = law(rng, (4,)), np.full(DOMAINS, 1 / DOMAINS), np.full(TASKS, 1 / TASKS)
    params.log_c_N[2] = 1e4
    each = (0, None, None, None, None, None)
    bounds = box(np.zeros(DOMAINS), np.ones(DOMAINS))
    found = batch.solve_each(log_linear.predict, params, weights_N, natural_M, bounds, 0.05, natural_M, each=each)
    assert (np.isfinite(found.value) == [True, True, False, True]).all()
    for p in (0, 3):
        one = log_linear.Params(*(x[p] for x in params))
        alone = solve.solve(log_linear.predict, one, weights_N, natural_M, bounds, 0.05)
        np.testing.assert_allclose(found.weights_M[p], alone.weights_M, atol=1e-9)


def test_arrays_of_different_numbers_are_refused():
    rng = np.random.default_rng(2)
    bounds = box(np.zeros(DOMAINS), np.ones(DOMAINS))
    with pytest.raises(ValueError, match="one length"):
        batch.solve_each(
            log_linear.predict,
            law(rng, (3,)),
            np.ones(TASKS) / TASKS,
            np.ones(DOMAINS) / DOMAINS,
            bounds,
            np.ones(2),
            np.ones(DOMAINS) / DOMAINS,
            each=(0, None, None, None, 0, None),
        )
