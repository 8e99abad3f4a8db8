import dataclasses

import numpy as np
import pytest

from olmix_jax.laws import FittedLaw, evaluate, log_linear
from olmix_jax.propose.formulation import formulate
from olmix_jax.propose.options import Options
from olmix_jax.propose.path import settings_path
from olmix_jax.propose.swarm_facts import SwarmFacts
from olmix_jax.solver import solve

TOKENS_M, TARGET = np.array([1e9, 2e9, 4e9, 8e9, 16e9]), 2e10
LAMBDAS = [0.01, 0.05, 0.2]


def five_domains(**options):
    params = log_linear.Params(np.full(6, -1.0), np.random.default_rng(0).normal(size=(6, 5)))
    swarm = SwarmFacts(tasks="abcdef", domains=tuple("vwxyz"), natural_M=TOKENS_M, tokens_M=TOKENS_M)
    return formulate(FittedLaw(log_linear.LAW, params), swarm, Options(**{"target_tokens": TARGET} | options))


def test_cell_equals_its_own_solution():
    formulation = five_domains()
    problem, path = formulation.problem, settings_path(formulation, LAMBDAS, [0.5, 1.0, 4.0])
    alone = solve.solve(problem)
    np.testing.assert_allclose(path.weights[1][2], alone.weights_M, atol=1e-9)
    mean = evaluate(log_linear.LAW, problem.params, alone.weights_M[None])[0].mean()
    assert path.predicted[1][2] == pytest.approx(mean) and path.kl[1][2] == pytest.approx(alone.kl)
    assert path.kl_weight == tuple(LAMBDAS) and path.chosen is None


def test_infeasible_cells_are_none():
    """Half a pass over 31e9 unique tokens is less than the target of 20e9."""
    path = settings_path(five_domains(), LAMBDAS, [0.5, 1.0])
    for rows in (path.weights, path.predicted, path.kl):
        assert all(row[0] is None and row[1] is not None for row in rows)
    assert settings_path(five_domains(), LAMBDAS, [0.5]) is None


def test_larger_lambda_is_nearer_to_natural_and_looser_caps_are_never_worse():
    path = settings_path(five_domains(), LAMBDAS, [1.0, 4.0])
    kl_LR, predicted_LR = np.array(path.kl), np.array(path.predicted)
    assert (np.diff(kl_LR, axis=0) <= 1e-12).all()
    assert (np.diff(predicted_LR + np.array(LAMBDAS)[:, None] * kl_LR, axis=1) <= 1e-12).all()
    assert path.predicted_natural > predicted_LR.max() - 1e-9


def test_user_bounds_hold_and_repetition_without_caps_is_one_column():
    formulation = five_domains(bounds={"v": [0, 0.01]}, target_tokens=None)
    path = settings_path(formulation, LAMBDAS, [None])
    assert path.max_repeats == (None,) and max(row[0][0] for row in path.weights) <= 0.01


def test_lambda_and_caps_of_the_problem_are_replaced():
    formulation = five_domains()
    other = dataclasses.replace(formulation, problem=dataclasses.replace(formulation.problem, kl_weight=1.0))
    assert settings_path(other, LAMBDAS, [4.0]) == settings_path(formulation, LAMBDAS, [4.0])
