"""Newton steps: exact on a quadratic, and along bounds."""

import functools

import jax
import numpy as np
import pytest

from olmix_jax.laws import cpu, log_linear
from olmix_jax.solver import geometry, newton
from olmix_jax.solver.bounds import box
from olmix_jax.solver.objective import Objective, mean
from tests.solver.cases import TASKS, grouped, solve_padded

TARGET_M = np.array([0.1, 0.2, 0.3, 0.4])
CURVE_M = np.array([1.0, 2.0, 4.0, 8.0])


def quadratic(params, ratios_KM):
    """Σ_j a_j (p_j − t_j)²/2 as the BPB of one task."""
    curve_M, target_M = params
    return (0.5 * curve_M[None] * (ratios_KM - target_M[None]) ** 2).sum(axis=-1, keepdims=True)


def newton_step(p_M, bounds, kl_weight=0.0):
    objective = Objective(quadratic, mean, (CURVE_M, TARGET_M), np.ones(1), np.full(4, 0.25), kl_weight)
    shape = (geometry.entropic if kl_weight else geometry.euclidean)(objective, bounds)
    step = functools.partial(newton.step, objective, shape, jax.grad(objective.law), bounds=bounds)
    with cpu.float64():
        return np.asarray(jax.jit(step, compiler_options=cpu.QUICK)(np.array(p_M, float)))


def test_one_step_minimises_a_quadratic():
    np.testing.assert_allclose(newton_step([0.25] * 4, box(np.zeros(4), np.ones(4))), TARGET_M, atol=1e-5)


def test_entries_at_a_bound_stay_there():
    """Domain 3 is at its cap and domain 0 at its lower bound; the others take the optimal shares of the rest."""
    bounds = box(np.array([0.15, 0, 0, 0]), np.array([1, 1, 1, 0.25]))
    p_M = newton_step([0.15, 0.4, 0.2, 0.25], bounds)
    # a_1 (p_1 − t_1) = a_2 (p_2 − t_2) with p_1 + p_2 = 0.6.
    np.testing.assert_allclose(p_M, [0.15, 0.2 + 0.1 * 4 / 6, 0.3 + 0.1 * 2 / 6, 0.25], atol=1e-5)
    assert p_M[0] == 0.15 and p_M[3] == 0.25


def test_a_step_never_raises_the_objective():
    """From a point near 0 a full entropic step overshoots, so it is shortened."""
    start_M = np.array([1e-9, 1e-9, 1e-9, 1 - 3e-9])
    p_M = newton_step(start_M, box(np.zeros(4), np.ones(4)), kl_weight=1e-6)

    def value(p_M):
        return (0.5 * CURVE_M * (p_M - TARGET_M) ** 2).sum() + 1e-6 * (p_M * np.log(p_M / 0.25)).sum()

    assert value(p_M) <= value(start_M) and abs(p_M.sum() - 1) < 1e-13


@pytest.mark.parametrize("kl_weight", [0.0, 0.05])
def test_groups_at_their_bounds_stay_there_and_the_solver_needs_few_iterations(kl_weight):
    """Two nested groups bind from above."""
    rng = np.random.default_rng(0)
    params = log_linear.Params(np.zeros(TASKS), 1.5 * rng.normal(size=(TASKS, 8)))
    law = params, np.full(TASKS, 1 / TASKS), rng.dirichlet(np.full(8, 3.0))
    free_M = solve_padded(*law, grouped([0] * 8, [1] * 8), kl_weight)[0]
    inner, outer = (list(range(3)), 0, 0.8 * free_M[:3].sum()), (list(range(6)), 0, 0.9 * free_M[:6].sum())
    weights_M, solution = solve_padded(*law, grouped([0] * 8, [1] * 8, inner, outer), kl_weight)
    np.testing.assert_allclose([weights_M[:3].sum(), weights_M[:6].sum()], [inner[2], outer[2]], atol=1e-14)
    assert solution.iterations <= 8 and solution.residual < 1e-8 and (solution.group_multipliers_G[-2:] > 1e-3).all()
