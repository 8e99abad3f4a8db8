"""The iteration of the solver: under vmap, and when it is stopped early."""

import jax
import numpy as np

from olmix_jax.laws import cpu, log_linear
from olmix_jax.solver.bounds import box
from olmix_jax.solver.minimise import compiled, minimise
from olmix_jax.solver.objective import Objective, mean

RNG = np.random.default_rng(2)
PARAMS = log_linear.Params(0.3 * RNG.normal(size=8), RNG.normal(size=(8, 6)))
ANCHOR_M = RNG.dirichlet(np.full(6, 3.0))
BOUNDS = box(np.zeros(6), np.minimum(1, 4 * ANCHOR_M))


def objective(kl_weight):
    return Objective(log_linear.predict, mean, PARAMS, np.full(8, 1 / 8), ANCHOR_M, kl_weight)


def run(kl_weight, max_iterations=500, start_M=ANCHOR_M):
    with cpu.float64():
        end = compiled(objective(kl_weight), BOUNDS, max_iterations, start_M, entropic=kl_weight > 0)
        return jax.tree.map(np.asarray, end)


def test_a_batch_under_vmap_agrees_with_single_problems():
    def one(kl_weight):
        return minimise(objective(kl_weight), BOUNDS, 500, ANCHOR_M, entropic=True)

    kl_weights = np.array([0.01, 0.05, 0.2])
    with cpu.float64():
        ends = jax.tree.map(np.asarray, jax.jit(jax.vmap(one), compiler_options=cpu.QUICK)(kl_weights))
    assert (ends.gap < 1e-9).all()
    for weights_M, kl_weight in zip(ends.weights_M, kl_weights):
        np.testing.assert_allclose(weights_M, run(float(kl_weight)).weights_M, atol=1e-6)


def test_no_iterations_return_the_start_and_a_gap_that_bounds_the_distance_to_the_minimum():
    for kl_weight in (0.0, 0.05):
        start, best = run(kl_weight, 0), run(kl_weight)
        np.testing.assert_allclose(start.weights_M, ANCHOR_M, atol=1e-15)
        assert start.iterations == 0 and start.value - start.gap <= best.value <= start.value


def test_more_iterations_never_raise_the_value():
    values = [float(run(0.05, limit, np.eye(6)[0]).value) for limit in range(6)]
    assert (np.diff(values) <= 1e-15).all() and values[-1] < values[0]


def test_a_start_outside_the_bounds_is_moved_inside():
    end = run(0.05, 0, np.full(6, -3.0))
    assert (end.weights_M >= 0).all() and (end.weights_M <= BOUNDS.upper_M).all()
    assert abs(end.weights_M.sum() - 1) < 1e-15
