"""Paths, fronts and the choice of λ do what their names say."""

import dataclasses

import numpy as np
import pytest

from olmix_jax.laws import evaluate, log_linear, warped_gp
from olmix_jax.propose import paths
from olmix_jax.solver.bounds import box
from olmix_jax.solver.problem import Problem
from olmix_jax.solver.solve import solve
from olmix_jax.utils.errors import UserError

DOMAINS, TASKS = 5, 6
NAMES, FAMILIES = tuple("abcdef"), {"one": ("a", "b"), "two": ("c", "d", "e"), "three": ("f",)}
TOKENS_M, TARGET = np.array([1e9, 2e9, 4e9, 8e9, 16e9]), 2e10
LAMBDAS = [0.01, 0.05, 0.2]


def posed(kl_weight=0.05):
    rng = np.random.default_rng(0)
    params = log_linear.Params(np.full(TASKS, -1.0), rng.normal(size=(TASKS, DOMAINS)))
    natural_M = TOKENS_M / TOKENS_M.sum()
    upper_M = np.minimum(1, 4 * TOKENS_M / TARGET)
    bounds = box(np.zeros(DOMAINS), upper_M)
    return Problem(log_linear.LAW, params, np.full(TASKS, 1 / TASKS), natural_M, bounds, kl_weight)


def along(problem, repeats_R, lambdas=LAMBDAS):
    about = {"wished_M": np.ones(DOMAINS), "tokens_M": TOKENS_M, "target_tokens": TARGET}
    return paths.path(problem, lambdas, repeats_R, **about, natural_M=problem.anchor_M)


def test_a_path_is_its_problems_and_infeasible_cells_are_empty():
    problem = posed()
    found = along(problem, [0.5, 1.0, 4.0])
    # 31e9 unique tokens for 20e9: half a pass over all of them is not enough.
    assert all(row[0] is None for name in ("weights", "predicted", "kl") for row in getattr(found, name))
    own = solve(problem)
    np.testing.assert_allclose(found.weights[1][2], own.weights_M, atol=1e-9)
    expected = evaluate(log_linear.LAW, problem.params, own.weights_M[None])[0].mean()
    assert found.predicted[1][2] == pytest.approx(expected) and found.kl[1][2] == pytest.approx(own.kl)
    kl_LR, predicted_LR = (np.array([row[1:] for row in getattr(found, name)]) for name in ("kl", "predicted"))
    # A larger λ is nearer to natural; looser caps are never worse in the objective.
    assert (np.diff(kl_LR, axis=0) <= 1e-12).all()
    objective_LR = predicted_LR + np.array(LAMBDAS)[:, None] * kl_LR
    assert (np.diff(objective_LR, axis=1) <= 1e-12).all()
    assert found.predicted_natural > predicted_LR.max() - 1e-9


def test_wishes_stay_and_no_caps_are_one_column():
    problem = posed()
    wished_M = np.where(np.arange(DOMAINS) == 0, 0.01, 1.0)
    about = {"wished_M": wished_M, "tokens_M": None, "target_tokens": None, "natural_M": problem.anchor_M}
    found = paths.path(problem, LAMBDAS, [None], **about)
    assert found.max_repeats == (None,) and max(row[0][0] for row in found.weights) <= 0.01


def test_no_point_of_a_front_is_dominated():
    problem = posed()
    own_M = solve(problem).weights_M
    domains = tuple("vwxyz")
    front = paths.pareto(problem, FAMILIES, NAMES, domains, natural_M=problem.anchor_M, weights_M=own_M)
    assert front.families == ("one", "two", "three") and len(front.points) > 10
    bpb_PF = np.array([list(point.predicted.values()) for point in front.points])
    for own_F in bpb_PF:
        assert not ((bpb_PF <= own_F).all(axis=1) & (bpb_PF < own_F).any(axis=1)).any()
    # Each family is best served by the weighting that is all its own.
    for name in front.families:
        best = min(front.points, key=lambda point: point.predicted[name])
        assert best.family_weights[name] == max(point.family_weights[name] for point in front.points)
    assert list(front.proposed) == list(front.natural) == list(front.families)
    assert paths.pareto(problem, {"all": NAMES}, NAMES, domains, natural_M=own_M, weights_M=own_M) is None


@pytest.mark.parametrize(
    "law, noise, small", [(log_linear.LAW, 0.001, True), (log_linear.LAW, 1.0, False), (warped_gp.LAW, 0.001, True)]
)
def test_lambda_is_small_for_a_clean_signal_and_large_for_noise(law, noise, small):
    rng = np.random.default_rng(1)
    problem = dataclasses.replace(posed(), bounds=box(np.zeros(DOMAINS), np.ones(DOMAINS)))
    ratios_KM = rng.dirichlet(np.ones(DOMAINS), size=40)
    bpb_KN = evaluate(log_linear.LAW, problem.params, ratios_KM) if small else np.full((40, TASKS), 3.0)
    bpb_KN = bpb_KN + noise * rng.normal(size=(40, TASKS))
    lambdas = [0.01, 0.1, 1.0]
    natural_M = problem.anchor_M
    found = paths.choose_kl_weight(law, ratios_KM, bpb_KN, problem, lambdas, natural_M=natural_M)
    assert found.best == (0.01 if small else 1.0), found
    assert len(found.gain) == len(found.gain_error) == 3 and found.splits == paths.SPLITS
    with pytest.raises(UserError, match="too few"):
        paths.choose_kl_weight(law, ratios_KM[:6], bpb_KN[:6], problem, lambdas, natural_M=natural_M)
