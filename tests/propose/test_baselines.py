import numpy as np
import pytest

from olmix_jax.laws import log_linear
from olmix_jax.propose import baselines
from olmix_jax.solver.bounds import box
from olmix_jax.solver.problem import Problem
from olmix_jax.solver.status import Status
from olmix_jax.utils.errors import UserError
from tests.propose.cases import (
    NATURAL_M,
    PARAMS,
    RUNS_KM,
    SEARCH,
    log_linear_proposal,
    proposal_of,
    steps,
    weights_of,
)

SMALL_NATURAL_M = np.array([0.2, 0.3, 0.5])


def test_search_proposes_the_best_run():
    proposal = proposal_of(SEARCH, SMALL_NATURAL_M)
    np.testing.assert_array_equal(weights_of(proposal), RUNS_KM[0])


def test_search_proposes_the_best_run_within_the_caps():
    sizes = {"tokens_M": np.array([13e9, 50e9, 50e9]), "target_tokens": 1e11}
    proposal = proposal_of(SEARCH, SMALL_NATURAL_M, **sizes)
    np.testing.assert_array_equal(weights_of(proposal), RUNS_KM[1])
    assert proposal.status is Status.SEARCHED and proposal.outcome == "best of 3 candidates"
    assert proposal.certificate.gap is None and proposal.certificate.candidates == 3
    assert proposal.shadow_prices is None and proposal.repeats["d0"] == pytest.approx(0.5 * 1e11 / 13e9)
    assert proposal.predicted == {"math": 1.3, "chat": 1.1}


def test_caps_that_no_run_meets_are_an_error():
    with pytest.raises(UserError, match="none of the swarm's 4 runs is within the caps.*max_repeats"):
        proposal_of(SEARCH, SMALL_NATURAL_M, tokens_M=np.array([2e9, 3e9, 50e9]), target_tokens=1e11)


def test_search_without_runs_is_an_error():
    with pytest.raises(UserError, match="propose.method=search needs the swarm's runs"):
        log_linear_proposal(method="search")


def test_refined_candidates_find_the_minimum_of_a_law_in_steps_within_caps():
    natural_M, fitted = np.array([0.1, 0.2, 0.3, 0.4]), steps(np.array([0.4, 0.4, 0.1, 0.1]))
    given = {"ratios_KM": np.eye(4), "kl_weight": 0.001, "seed": 1}
    first, second = (proposal_of(fitted, natural_M, **given) for _ in range(2))
    assert first == second and first.status is Status.SEARCHED
    assert first.predicted == {"math": 1.0, "chat": 1.0}
    capped = {"tokens_M": np.array([5e9, 50e9, 50e9, 50e9]), "target_tokens": 1e11}
    proposal = proposal_of(fitted, natural_M, **given, **capped)
    assert proposal.weights["d0"] <= 0.2 and abs(weights_of(proposal).sum() - 1) < 1e-13
    assert proposal.objective < proposal.objective_natural and proposal.certificate.candidates > 1000


def test_simulation_ignores_the_runs_and_keeps_the_best_sampled_mixture():
    proposal = log_linear_proposal(method="simulation")
    problem = Problem(log_linear.LAW, PARAMS, np.full(2, 0.5), NATURAL_M, box(np.zeros(3), np.ones(3)), 0.05)
    np.testing.assert_array_equal(baselines.simulate(problem, 0).weights_M, weights_of(proposal))
    assert proposal.certificate.candidates == 20002
    with_runs = log_linear_proposal(method="simulation", ratios_KM=RUNS_KM)
    assert with_runs.weights == proposal.weights


def test_baselines_are_never_better_than_the_exact_solution():
    runs_KM = np.random.default_rng(0).dirichlet(np.ones(3), size=30)
    exact, simulated, searched = (
        log_linear_proposal(ratios_KM=runs_KM, method=method) for method in ("exact", "simulation", "search")
    )
    assert exact.objective <= simulated.objective + 1e-12 <= exact.objective + 1e-3
    assert exact.objective < searched.objective and (weights_of(searched) == runs_KM).all(axis=1).any()
    assert simulated.certificate.no_gap.startswith("a search over candidates has no certificate")


def test_law_without_finite_predictions_is_an_error():
    params = log_linear.Params(np.full(2, 1e4), PARAMS.coef_NM)
    problem = Problem(log_linear.LAW, params, np.full(2, 0.5), NATURAL_M, box(np.zeros(3), np.ones(3)), 0.05)
    with pytest.raises(UserError, match="no finite BPB at any candidate"):
        baselines.refine(problem, None, 0)
