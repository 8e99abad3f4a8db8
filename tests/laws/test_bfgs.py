"""BFGS with one evaluation per step, against closed forms and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from olmix_jax.laws import bfgs, cpu


def test_quadratics_are_solved_independently_under_vmap():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(4, 6, 6))
    hessian = root @ root.swapaxes(1, 2) + 0.1 * np.eye(6)
    goal = rng.normal(size=(4, 6))

    def solve(h, g):
        return bfgs.minimise(lambda x: (0.5 * (x - g) @ h @ (x - g), h @ (x - g)), jnp.zeros(6), jnp.full(6, 0.1), 60)

    with cpu.float64():
        minimum, value, _ = jax.vmap(solve)(hessian, goal)
        alone = solve(hessian[2], goal[2])[0]
    np.testing.assert_allclose(minimum, goal, atol=1e-4)
    np.testing.assert_allclose(minimum[2], alone, atol=1e-9)
    assert (np.asarray(value) >= 0).all()


def test_rosenbrock_reaches_its_minimum_and_more_steps_never_raise_the_value():
    def both(x):
        return jax.value_and_grad(lambda y: (100 * (y[1:] - y[:-1] ** 2) ** 2 + (1 - y[:-1]) ** 2).sum())(x)

    start = np.array([-1.2, 1.0, 0.5])
    with cpu.float64():
        minimum, value, promised = bfgs.minimise(both, jnp.asarray(start), jnp.full(3, 1e-3), 120)
        early = bfgs.minimise(both, jnp.asarray(start), jnp.full(3, 1e-3), 120, tolerance=1e-3)
        few = bfgs.minimise(both, jnp.asarray(start), jnp.full(3, 1e-3), 3)[1]
        begin = both(jnp.asarray(start))[0]
    assert scipy.optimize.rosen(np.asarray(minimum)) < 1e-8 and float(value) < float(few) <= float(begin)
    np.testing.assert_allclose(value, scipy.optimize.rosen(np.asarray(minimum)), atol=1e-12)
    assert float(promised) < 1e-8 < float(early[2]) <= 1e-3 and float(value) <= float(early[1])


def test_step_to_a_value_that_is_not_finite_is_retried():
    def both(x):  # NaN beyond 1: log of a negative number
        return -jnp.log(1 - x[0]) - 2 * jnp.log(x[0]), jnp.stack([1 / (1 - x[0]) - 2 / x[0]])

    with cpu.float64():
        minimum, value, _ = bfgs.minimise(both, jnp.array([0.1]), jnp.array([1.0]), 40)
    np.testing.assert_allclose(minimum, 2 / 3, atol=1e-6)
    assert np.isfinite(value)
