"""Starting points for problems that are not convex."""

import dataclasses
import itertools

import numpy as np
import pytest

from olmix_jax.laws import evaluate, log_linear
from olmix_jax.solver import starts
from olmix_jax.solver.bounds import box, holds
from olmix_jax.solver.problem import Problem

DOMAINS, TASKS = 6, 4


def problem(kl_weight, sign=1):
    rng = np.random.default_rng(0)
    params = log_linear.Params(np.zeros(TASKS), rng.normal(size=(TASKS, DOMAINS)))
    anchor_M = rng.dirichlet(np.full(DOMAINS, 3.0))
    bounds = box(np.zeros(DOMAINS), np.minimum(1, 2.5 * anchor_M))
    return Problem(log_linear.LAW, params, np.full(TASKS, sign / TASKS), anchor_M, bounds, kl_weight)


def vertices(upper_M):
    """Return all vertices of {0 ≤ p ≤ upper, Σp = 1}: at most one entry is strictly between its bounds."""
    corners = []
    for j in range(len(upper_M)):
        others = np.delete(np.arange(len(upper_M)), j)
        for full in itertools.product([0.0, 1.0], repeat=len(others)):
            p_M = np.zeros(len(upper_M))
            p_M[others] = np.array(full) * upper_M[others]
            p_M[j] = 1 - p_M.sum()
            if 0 <= p_M[j] <= upper_M[j]:
                corners.append(p_M)
    return np.unique(np.array(corners), axis=0)


def test_starts_from_runs_begin_with_the_anchor_and_the_best_runs():
    posed = problem(0.05)
    ratios_KM = np.random.default_rng(1).dirichlet(np.ones(DOMAINS), size=20)
    starts_SM = starts.from_runs(posed, ratios_KM, seed=0)
    assert starts_SM.shape == (8, DOMAINS)
    np.testing.assert_allclose(starts_SM[0], posed.anchor_M)
    np.testing.assert_allclose(starts_SM.sum(axis=1), 1, atol=1e-14)
    mixed_KM = posed.project(0.98 * ratios_KM + 0.02 * posed.anchor_M)
    assert posed.values(starts_SM[1:2])[0] == pytest.approx(posed.values(mixed_KM).min(), rel=1e-14)
    assert holds(posed.bounds, starts_SM, slack=1e-12)[1:5].all()


def test_starts_without_runs_are_drawn_from_the_seed():
    one, same, other = (starts.from_runs(problem(0.05), None, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert one.shape == (8, DOMAINS) and not np.array_equal(one, other)


def test_the_best_vertex_is_among_the_starts_for_the_worst_mixture():
    """For λ = 0 a convex law is largest at a vertex; all of them are enumerated."""
    posed = problem(0.0, sign=-1)
    starts_SM = starts.from_vertices(posed, seed=0)
    assert len(starts_SM) <= 8 and holds(posed.bounds, starts_SM).all()
    most = evaluate(log_linear.LAW, posed.params, vertices(posed.bounds.upper_M)).mean(axis=1).max()
    assert evaluate(log_linear.LAW, posed.params, starts_SM[:1]).mean() == pytest.approx(most, rel=1e-12)


def test_ascents_with_kl_end_higher_than_every_vertex():
    posed = problem(0.05, sign=-1)
    starts_SM = starts.from_vertices(posed, seed=0)
    value_S = posed.values(starts_SM)
    assert (np.diff(value_S) >= -1e-12).all() and value_S[0] <= posed.values(vertices(posed.bounds.upper_M)).min()
    plain = dataclasses.replace(posed, kl_weight=0.0)
    assert len(np.unique(starts.from_vertices(plain, seed=0).round(9), axis=0)) == len(starts.from_vertices(plain, 0))
