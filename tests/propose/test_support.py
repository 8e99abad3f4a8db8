"""Distances of mixtures from the runs, and what is extrapolated."""

import cvxpy as cp
import numpy as np
import pytest

from olmix_jax import UserError
from olmix_jax.propose import support
from olmix_jax.propose.swarm_facts import SwarmFacts
from tests.propose.cases import DOMAINS, NATURAL_M, RUNS_KM, TASKS, log_linear_case, log_linear_proposal, sampled_params

# Runs with little of the first domain, which helps most; natural is one of them.
NEAR_KM = np.array([[0.1, 0.3, 0.6], [0.0, 0.5, 0.5], [0.2, 0.3, 0.5], [0.1, 0.1, 0.8]])
# Each domain alone: every mixture is within the ranges.
WIDE_KM = np.eye(3)


def test_distance_from_averages_of_runs_is_that_of_a_convex_program():
    draw = np.random.default_rng(0)
    for _ in range(5):
        ratios_KM, p_M = draw.dirichlet(np.ones(6), 8), draw.dirichlet(np.full(6, 0.3))
        share_K = cp.Variable(8, nonneg=True)
        program = cp.Problem(cp.Minimize(0.5 * cp.norm1(p_M - ratios_KM.T @ share_K)), [cp.sum(share_K) == 1])
        assert support.hull_distance(ratios_KM, p_M) == pytest.approx(program.solve(), abs=1e-6)


def test_runs_and_their_averages_are_at_distance_0():
    for p_M in (*RUNS_KM, RUNS_KM.mean(axis=0), RUNS_KM[0] / 2 + RUNS_KM[3] / 2):
        assert support.hull_distance(RUNS_KM, p_M) == pytest.approx(0, abs=1e-9)


def test_proposal_within_the_runs_extrapolates_nothing():
    far = log_linear_proposal(ratios_KM=WIDE_KM).support
    assert far.beyond == far.natural_beyond == {} and far.extrapolated == 0
    assert 0 < far.nearest_run < 1 and far.caution is None


def test_gain_from_weights_that_no_run_had_is_named():
    proposal = log_linear_proposal(ratios_KM=NEAR_KM, kl_weight=0.0)
    far = proposal.support
    assert far.beyond["web:a"] == pytest.approx(proposal.weights["web:a"] - 0.2)
    assert 0.3 < far.extrapolated <= 1
    (text,) = (text for text in proposal.warnings if "no run had" in text)
    assert "web:a" in text and "(runs: up to 0.2)" in text and "propose.trust=1" in text
    kept = log_linear_proposal(ratios_KM=NEAR_KM, kl_weight=0.0, trust=1.5)
    assert not any("propose.trust=1" in text for text in kept.warnings)


def test_interval_of_an_extrapolated_gain_reaches_from_nothing_to_everything():
    samples = sampled_params(1e-3, 400)
    near, wide = (log_linear_proposal(samples=samples, ratios_KM=runs, kl_weight=0.0) for runs in (NEAR_KM, WIDE_KM))
    within = (1 - near.support.extrapolated) * wide.gain.mean
    assert near.weights == pytest.approx(wide.weights)
    assert near.gain.low < within and near.gain.high > wide.gain.high
    assert near.gain.mean == pytest.approx((wide.gain.mean + within) / 2, rel=0.2)
    assert all(near.predicted_low[task] <= wide.predicted_low[task] for task in TASKS)


def test_natural_beyond_the_runs_is_named():
    natural_M = np.array([0.7, 0.2, 0.1])
    proposal = log_linear_proposal(ratios_KM=NEAR_KM, natural_M=natural_M)
    assert proposal.support.natural_beyond["web:a"] == pytest.approx(0.5)
    assert any("natural lies beyond the runs" in text and "web:a 0.7" in text for text in proposal.warnings)


def test_trust_limits_each_weight_and_has_a_price():
    free = log_linear_proposal(ratios_KM=NEAR_KM, kl_weight=0.0)
    for trust in (1.0, 1.5):
        kept = log_linear_proposal(ratios_KM=NEAR_KM, kl_weight=0.0, trust=trust)
        assert all(kept.weights[d] <= trust * high + 1e-9 for d, high in zip(DOMAINS, NEAR_KM.max(axis=0)))
        assert all(kept.weights[d] >= low / trust - 1e-9 for d, low in zip(DOMAINS, NEAR_KM.min(axis=0)))
        price = kept.headline.proposed - free.headline.proposed
        assert kept.support.caution == pytest.approx(price) and price > 0


def test_trust_needs_runs_and_is_1_or_more():
    with pytest.raises(UserError, match="propose.trust needs the swarm's runs"):
        log_linear_proposal(trust=1.0)
    for trust in (0.5, float("inf"), float("nan")):
        with pytest.raises(UserError, match="propose.trust must be a number of 1 or more"):
            log_linear_case(trust=trust)


def test_bounds_that_trust_excludes_are_an_error_that_names_it():
    with pytest.raises(UserError, match="propose.trust = 1 keeps each weight near its range"):
        log_linear_proposal(ratios_KM=NEAR_KM, trust=1.0, bounds={"web:a": [0.5, None]})


def test_trust_has_no_price_where_the_free_mixture_is_nearer_to_natural():
    """Natural lies beyond the runs, and λ pulls there."""
    runs_KM = np.array([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.5, 0.3, 0.2]])
    kept = log_linear_proposal(ratios_KM=runs_KM, trust=1.0, kl_weight=1.0)
    assert kept.support.caution == 0 and kept.support.natural_beyond


def test_differences_in_both_directions_are_extrapolated():
    """Natural and the proposal lie beyond the runs on the same side; their predictions are not tested either."""
    runs_KM = np.array([[0.1, 0.3, 0.6], [0.15, 0.25, 0.6], [0.1, 0.2, 0.7]])
    far = log_linear_proposal(ratios_KM=runs_KM, natural_M=np.array([0.4, 0.3, 0.3]), kl_weight=0.01).support
    assert far.beyond and far.natural_beyond and far.extrapolated == 1


def test_inherited_runs_test_the_law_too():
    swarm = SwarmFacts(TASKS, DOMAINS, NATURAL_M, ratios_KM=NEAR_KM, inherited_JM=WIDE_KM)
    far = support.support(swarm, np.array([0.8, 0.1, 0.1]), NATURAL_M, gain=0.1, extrapolated=0.0)
    assert far.beyond == {} and far.extrapolated == 0
    assert SwarmFacts(TASKS, DOMAINS, NATURAL_M).tested_QM is None


def test_single_run_has_no_neighbour():
    swarm = SwarmFacts(TASKS, DOMAINS, NATURAL_M, ratios_KM=NATURAL_M[None])
    far = support.support(swarm, np.array([0.2, 0.3, 0.5]), NATURAL_M, gain=0.0, extrapolated=0.0)
    assert far.between_runs is None and far.extrapolated is None
