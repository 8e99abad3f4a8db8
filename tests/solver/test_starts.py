"""Starting points for problems that are not convex."""

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from olmix_jax.laws import evaluate, log_linear, warped_gp
from olmix_jax.solver import starts
from olmix_jax.solver.bounds import box, holds
from olmix_jax.solver.problem import Problem
from olmix_jax.solver.solve import solve
from olmix_jax.swarm.table import SwarmTable

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
    starts_SM = starts.spread_out(posed, ratios_KM, seed=0)
    assert starts_SM.shape == (24, DOMAINS)
    np.testing.assert_allclose(starts_SM[0], posed.anchor_M)
    np.testing.assert_allclose(starts_SM.sum(axis=1), 1, atol=1e-14)
    mixed_KM = posed.project(0.98 * ratios_KM + 0.02 * posed.anchor_M)
    assert posed.values(starts_SM[1:2])[0] == pytest.approx(posed.values(mixed_KM).min(), rel=1e-14)
    assert holds(posed.bounds, starts_SM, slack=1e-12)[1:5].all()


def test_starts_of_the_whole_set_lie_far_apart_and_within_the_bounds():
    """The best drawn mixtures are far from the runs and from each other; corners have all but one domain at a bound."""
    posed = problem(0.05)
    ratios_KM = np.random.default_rng(1).dirichlet(np.full(DOMAINS, 50.0), size=20)
    starts_SM = starts.spread_out(posed, ratios_KM, seed=0)
    best_BM, corner_CM = starts_SM[8:12], (starts_SM[20:22] - 0.02 * posed.anchor_M) / 0.98
    far_BS = 0.5 * abs(best_BM[:, None] - starts_SM[None, :12]).sum(axis=2)
    assert (far_BS + np.eye(4, 12, 8) >= 0.2).all()
    assert holds(posed.bounds, starts_SM[8:], slack=1e-12).all()
    upper_M = posed.bounds.upper_M
    assert (((corner_CM > 1e-9) & (corner_CM < upper_M - 1e-9)).sum(axis=1) <= 1).all()


def two_basins(params, ratios_KM):
    """A wide basin around the natural mixture, and a narrow one of lower BPB at a corner. Pure JAX."""
    wide_M, deep_M = params
    near_K, far_K = ((ratios_KM - wide_M[None]) ** 2).sum(axis=1), ((ratios_KM - deep_M[None]) ** 2).sum(axis=1)
    return (1 + near_K - 1.5 * jnp.exp(-30 * far_K))[:, None]


def test_minimum_far_from_the_runs_is_found_and_agreement_counts_mixtures():
    anchor_M, deep_M = np.full(DOMAINS, 1 / DOMAINS), np.eye(DOMAINS)[2] * 0.8 + np.eye(DOMAINS)[5] * 0.2
    law = dataclasses.replace(log_linear.LAW, name="two basins", predict=two_basins, convex=False)
    bounds = box(np.zeros(DOMAINS), np.ones(DOMAINS))
    posed = Problem(law, (anchor_M, deep_M), np.ones(1), anchor_M, bounds, 0.01)
    starts_SM = starts.spread_out(posed, np.random.default_rng(1).dirichlet(np.full(DOMAINS, 20.0), size=20), seed=0)
    near, both = solve(posed, starts_SM=starts_SM[:8]), solve(posed, starts_SM=starts_SM)
    assert near.agreeing == 8 and abs(near.weights_M - anchor_M).sum() < 0.1
    assert both.value < near.value - 0.1 and abs(both.weights_M - deep_M).sum() < 0.2
    assert 1 <= both.agreeing < 16 and both.starts == 24
    assert both.describe() == f"local optimum, reached from {both.agreeing} of 24 starts"


def test_lower_minimum_of_a_published_swarm_is_found(published):
    """From the anchor, the best runs and mixtures between them, all starts end 0.0077 higher."""
    folder = published / "regmix_1m"
    swarm = SwarmTable.read(folder / "train_mixture_1m.csv", folder / "train_pile_loss_1m.csv")
    ratios_KM, anchor_M = swarm.ratios_KM[:128], swarm.ratios_KM.mean(axis=0)
    params = warped_gp.fit(ratios_KM, swarm.bpb_KN[:128]).params
    bounds = box(np.zeros(len(anchor_M)), np.ones(len(anchor_M)))
    posed = Problem(warped_gp.LAW, params, np.full(13, 1 / 13), anchor_M / anchor_M.sum(), bounds, 0.05)
    starts_SM = starts.spread_out(posed, ratios_KM, seed=0)
    near, both = solve(posed, starts_SM=starts_SM[:8]), solve(posed, starts_SM=starts_SM)
    assert near.agreeing == 8 and near.value == pytest.approx(4.61124, abs=1e-4)
    assert both.value == pytest.approx(4.60356, abs=1e-4) and 1 < both.agreeing < 24


def test_starts_without_runs_are_drawn_from_the_seed():
    one, same, other = (starts.spread_out(problem(0.05), None, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert one.shape == (24, DOMAINS) and not np.array_equal(one, other)


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
