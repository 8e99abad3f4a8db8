"""Batches of problems against single problems."""

import dataclasses
import operator

import jax
import numpy as np
import pytest

from olmix_jax.laws import log_linear
from olmix_jax.solver import batch
from olmix_jax.solver.bounds import box
from olmix_jax.solver.problem import Problem
from olmix_jax.solver.solve import solve

DOMAINS, TASKS = 6, 4


def problem(rng, number=()):
    """A random problem; its law has a leading axis of ``number``."""
    params = log_linear.Params(rng.normal(size=(*number, TASKS)) * 0.2, rng.normal(size=(*number, TASKS, DOMAINS)))
    natural_M, bounds = rng.dirichlet(np.ones(DOMAINS)), box(np.zeros(DOMAINS), np.ones(DOMAINS))
    return Problem(log_linear.LAW, params, np.full(TASKS, 1 / TASKS), natural_M, bounds, 0.05)


def test_a_batch_gives_the_same_solutions_as_single_problems_when_chunks_are_uneven(monkeypatch):
    shared = problem(np.random.default_rng(0))
    kl_weight_P = np.geomspace(1e-3, 1, 7)
    upper_PM = np.minimum(1, shared.anchor_M * np.linspace(1.1, 4, 7)[:, None])
    monkeypatch.setattr(batch, "CHUNK", 3)
    ends = batch.solve_each(shared, batch.Varying(upper_M=upper_PM, kl_weight=kl_weight_P))
    assert ends.weights_M.shape == (7, DOMAINS) and ends.value.shape == (7,)
    for p in range(7):
        bounds = box(np.zeros(DOMAINS), upper_PM[p])
        single = solve(dataclasses.replace(shared, bounds=bounds, kl_weight=kl_weight_P[p]))
        np.testing.assert_allclose(ends.weights_M[p], single.weights_M, atol=1e-9)
        assert ends.value[p] == pytest.approx(single.value, rel=1e-12) and ends.gap[p] <= 1e-9


def test_a_law_too_large_for_batches_is_solved_one_by_one(monkeypatch):
    shared, kl_weight_P = problem(np.random.default_rng(1)), np.geomspace(1e-2, 1, 3)
    expected = batch.solve_each(shared, batch.Varying(kl_weight=kl_weight_P))
    monkeypatch.setattr(batch, "CACHE_NUMBERS", 0)
    monkeypatch.setattr(batch, "_compiled", lambda *_: pytest.fail("a batch"))
    ends = batch.solve_each(shared, batch.Varying(kl_weight=kl_weight_P))
    np.testing.assert_allclose(ends.weights_M, expected.weights_M, atol=1e-9)
    assert ends.iterations.shape == (3,)


def test_anchors_differ_and_each_is_the_starting_point_of_its_problem():
    rng = np.random.default_rng(3)
    shared, anchor_PM = problem(rng), rng.dirichlet(np.ones(DOMAINS), size=2)
    ends = batch.solve_each(shared, batch.Varying(anchor_M=anchor_PM), max_iterations=0)
    np.testing.assert_allclose(ends.weights_M, anchor_PM, atol=1e-15)
    ends = batch.solve_each(shared, batch.Varying(anchor_M=anchor_PM))
    for p, anchor_M in enumerate(anchor_PM):
        single = solve(dataclasses.replace(shared, anchor_M=anchor_M))
        np.testing.assert_allclose(ends.weights_M[p], single.weights_M, atol=1e-9)


def test_a_sample_of_the_law_that_overflows_does_not_affect_the_others():
    shared = problem(np.random.default_rng(1), (4,))
    shared.params.log_c_N[2] = 1e4
    ends = batch.solve_each(shared, batch.Varying(params=shared.params))
    assert (np.isfinite(ends.value) == [True, True, False, True]).all()
    for p in (0, 3):
        single = solve(dataclasses.replace(shared, params=jax.tree.map(operator.itemgetter(p), shared.params)))
        np.testing.assert_allclose(ends.weights_M[p], single.weights_M, atol=1e-9)


def test_leading_axes_of_different_lengths_are_an_error():
    shared = problem(np.random.default_rng(2), (3,))
    with pytest.raises(ValueError, match=r"of one length, not of \[2, 3\]"):
        batch.solve_each(shared, batch.Varying(params=shared.params, kl_weight=np.ones(2)))
