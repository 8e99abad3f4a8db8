import dataclasses

import numpy as np
import pytest

from olmix_jax.laws import log_linear
from olmix_jax.propose.variants import solve_variants
from olmix_jax.solver import batch, solve
from olmix_jax.solver.status import Status
from olmix_jax.utils.errors import UserError
from tests.propose.cases import PARAMS, fitted_gp, log_linear_formulation, log_linear_proposal


def test_each_variant_equals_its_own_solution():
    problem = log_linear_formulation().problem
    upper_PM, kl_weight_P = np.array([[0.2, 1, 1], [1, 0.4, 1]]), np.array([0.05, 0.2])
    variants = solve_variants(problem, kl_weight_P, upper_PM=upper_PM)
    best_PM = variants.ratios_PM
    assert variants.unconverged == 0
    for best_M, upper_M, kl_weight in zip(best_PM, upper_PM, kl_weight_P):
        bounds = problem.bounds._replace(upper_M=upper_M)
        alone = solve.solve(dataclasses.replace(problem, bounds=bounds, kl_weight=kl_weight))
        np.testing.assert_allclose(best_M, alone.weights_M, atol=1e-9)


def test_law_that_is_not_convex_starts_from_runs():
    fitted, ratios_KM = fitted_gp()
    formulation = log_linear_formulation()
    problem = dataclasses.replace(formulation.problem, law=fitted.law, params=fitted.params)
    weights_PN = np.array([[1.0, 0.0], [0.0, 1.0]])
    best_PM = solve_variants(problem, 0.05, weights_PN=weights_PN, ratios_KM=ratios_KM).ratios_PM
    for best_M, weights_N in zip(best_PM, weights_PN):
        own = dataclasses.replace(problem, weights=weights_N)
        assert own.values(best_M[None])[0] <= own.values(ratios_KM).min()


def test_solves_that_stop_early_are_counted_and_the_proposal_warns(monkeypatch):
    monkeypatch.setattr(batch, "iteration_limit", lambda problem: 1)
    problem = log_linear_formulation().problem
    weights_PN = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert solve_variants(problem, 0.05, weights_PN=weights_PN).unconverged == 2
    proposal = log_linear_proposal(explore=True)
    assert proposal.status is Status.OPTIMAL
    assert "paths over λ and k: 7 solves did not converge; the best mixtures" in "".join(proposal.warnings)


def test_law_without_finite_predictions_is_an_error():
    problem = log_linear_formulation().problem
    params = log_linear.Params(np.full((2, 2), 1e4), np.stack([PARAMS.coef_NM] * 2))
    with pytest.raises(UserError, match="predicts no finite BPB"):
        solve_variants(problem, 0.05, params=params)
