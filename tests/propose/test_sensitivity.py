"""Derivatives of the proposal against finite differences of ``propose`` itself."""

import numpy as np
import pytest

from tests.propose.cases import (
    DOMAINS,
    SEARCH,
    TASKS,
    fitted_gp,
    log_linear_proposal,
    proposal_of,
    sampled_params,
    weights_of,
)

PAIR = {"web": {"web:a": 1, "web:b": 3}}
CASES = {
    "free": {},
    "capped": {"bounds": {"web:a": [0, 0.2]}},
    "capped, λ = 0": {"bounds": {"web:a": [0, 0.2], "web:b": [0, 0.7]}, "kl_weight": 0.0},
    "group": {"bounds": {"web:*": [0, 0.4], "web:a": [0, 0.15]}},
    "anchor": {"anchor": {"web:a": 0.2, "web:b": 0.5, "code": 0.3}, "bounds": {"web:a": [0, 0.2]}},
    "blocks": {"keep_ratios": PAIR},
    "capped block": {"keep_ratios": PAIR, "bounds": {"web:b": [0, 0.3]}},
    "task weights": {"task_weights": {"math": 3, "chat": 1}, "bounds": {"web:a": [0, 0.3]}},
}
STEP = 1e-5


def difference(make, **changed):
    """Central difference of the weights: ``changed`` maps an argument to its values above and below."""
    above, below = (weights_of(make(**{name: pair[i] for name, pair in changed.items()})) for i in (0, 1))
    return (above - below) / (2 * STEP)


def column(moves):
    return np.array([moves[domain] for domain in DOMAINS])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_derivatives_equal_finite_differences(case):
    proposal = log_linear_proposal(**case)

    def make(**changed):
        return log_linear_proposal(**case | changed)

    moves, kl_weight = proposal.sensitivity, proposal.kl_weight
    if kl_weight > 0:
        expected_M = difference(make, kl_weight=(kl_weight + STEP, kl_weight - STEP))
        np.testing.assert_allclose(column(moves.kl_weight), expected_M, atol=2e-4)
    for task in TASKS:
        weights = [proposal.task_weights | {task: proposal.task_weights[task] + step} for step in (STEP, -STEP)]
        expected_M = difference(make, task_weights=weights)
        np.testing.assert_allclose(column(moves.task_weights[task]), expected_M, atol=2e-4)
    binding = [d for d in DOMAINS if proposal.caps[d] < 1 and proposal.weights[d] >= proposal.caps[d]]
    assert list(moves.caps) == binding
    for domain in binding:
        bounds = [case["bounds"] | {domain: [0, proposal.caps[domain] + step]} for step in (STEP, -STEP)]
        np.testing.assert_allclose(column(moves.caps[domain]), difference(make, bounds=bounds), atol=2e-4)


def test_derivatives_sum_to_zero():
    moves = log_linear_proposal(bounds={"web:a": [0, 0.2]}).sensitivity
    for move in (moves.kl_weight, *moves.caps.values(), *moves.task_weights.values()):
        assert sum(move.values()) == pytest.approx(0, abs=1e-12)


def test_local_optimum_has_derivatives():
    fitted, ratios_KM = fitted_gp()
    natural_M = np.array([0.1, 0.3, 0.6])

    def make(kl_weight):
        return proposal_of(fitted, natural_M, ratios_KM=ratios_KM, kl_weight=kl_weight)

    moves = make(0.05).sensitivity
    expected_M = (weights_of(make(0.051)) - weights_of(make(0.049))) / 0.002
    np.testing.assert_allclose(list(moves.kl_weight.values()), expected_M, atol=0.02 * abs(expected_M).max())


@pytest.mark.parametrize(
    "case",
    [{"guard": 0.01}, {"tail": 0.5, "samples": sampled_params(0.1)}, {"worst": True}, {"method": "simulation"}],
    ids=["guard", "tail", "worst", "search"],
)
def test_guarded_tail_worst_and_searched_proposals_have_no_derivatives(case):
    assert log_linear_proposal(**case).sensitivity is None


def test_law_that_is_not_differentiable_has_no_derivatives():
    assert proposal_of(SEARCH, np.array([0.2, 0.3, 0.5])).sensitivity is None
