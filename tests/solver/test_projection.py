"""Projections against bisection, closed forms and cvxpy."""

import functools

import cvxpy as cp
import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from olmix_jax.solver import projection

quick = hypothesis.settings(deadline=None, max_examples=60)


@functools.cache
def jitted(function):
    return jax.jit(jax.vmap(function))


def run(function, v_M, lower_M, upper_M, pad=24):
    """Project, padded with entries held at 0, so that all sizes share one program."""

    def padded(x_M, value=0.0):
        return np.concatenate([np.asarray(x_M, np.float64), np.full(pad - len(x_M), value)])[None]

    with jax.enable_x64(True):
        return np.asarray(jitted(function)(padded(v_M), padded(lower_M), padded(upper_M)))[0, : len(v_M)]


@st.composite
def boxes(draw):
    """Feasible bounds and a vector. Some entries are fixed, some held at 0; sometimes all are fixed."""
    size = draw(st.integers(1, 24))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    inside_M = rng.dirichlet(np.full(size, draw(st.sampled_from([0.05, 1.0]))))
    lower_M = inside_M * rng.uniform(size=size) * (rng.uniform(size=size) < 0.4)
    upper_M = np.maximum(inside_M + (1 - inside_M) * rng.uniform(size=size) ** 4, lower_M)
    fixed_M = rng.uniform(size=size) < draw(st.sampled_from([0.0, 0.3, 1.0]))
    return (
        np.where(fixed_M, inside_M, lower_M),
        np.where(fixed_M, inside_M, upper_M),
        rng.normal(size=size) * draw(st.sampled_from([1e-6, 1.0, 1e4])),
    )


def bisected(rise, lower_M, upper_M, low, high):
    """Return p(τ) = clip(rise(τ)) of sum 1, with τ by bisection; exact to about 1e-12."""
    for _ in range(200):
        middle = (low + high) / 2
        if np.clip(rise(middle), lower_M, upper_M).sum() <= 1:
            low = middle
        else:
            high = middle
    return np.clip(rise(low), lower_M, upper_M)


def assert_inside(p_M, lower_M, upper_M):
    assert np.isfinite(p_M).all()
    assert (p_M >= lower_M).all() and (p_M <= upper_M).all()
    assert abs(p_M.sum() - 1) < 4e-15 * len(p_M)


@quick
@hypothesis.given(boxes())
def test_euclidean_projection_agrees_with_bisection(box):
    lower_M, upper_M, v_M = box
    p_M = run(projection.project, v_M, lower_M, upper_M)
    assert_inside(p_M, lower_M, upper_M)
    reach = abs(v_M).max() + 2
    np.testing.assert_allclose(
        p_M, bisected(lambda tau: v_M + tau, lower_M, upper_M, -reach, reach), atol=1e-13 * max(reach, 10)
    )


@quick
@hypothesis.given(boxes())
def test_kl_projection_agrees_with_bisection(box):
    lower_M, upper_M, v_M = box
    p_M = run(projection.project_kl, v_M, lower_M, upper_M)
    assert_inside(p_M, lower_M, upper_M)

    def rise(tau):
        return np.exp(np.minimum(v_M + tau, 1.0))

    reach = abs(v_M).max() + 800
    expected_M = bisected(rise, lower_M, upper_M, -reach, reach)
    np.testing.assert_allclose(p_M, expected_M, atol=1e-11)


def test_projections_have_closed_forms_in_simple_cases():
    zeros_M, ones_M = np.zeros(3), np.ones(3)
    # Onto the simplex: subtract the mean excess; entries below 0 become 0.
    np.testing.assert_allclose(run(projection.project, [0.5, 0.5, 0.3], zeros_M, ones_M), [0.4, 0.4, 0.2], atol=1e-16)
    np.testing.assert_allclose(run(projection.project, [2.0, 0.0, 0.0], zeros_M, ones_M), [1, 0, 0], atol=0)
    # KL: without binding bounds, normalise; with a binding cap, the others share the rest in proportion.
    np.testing.assert_allclose(run(projection.project_kl, np.log([2.0, 1, 1]), zeros_M, ones_M), [0.5, 0.25, 0.25])
    capped_M = run(projection.project_kl, np.log([6.0, 1, 3]), zeros_M, [0.2, 1, 1])
    np.testing.assert_allclose(capped_M, [0.2, 0.2, 0.6], rtol=1e-15)


@pytest.mark.parametrize("function", [projection.project, projection.project_kl])
def test_bounds_that_admit_one_mixture_are_returned_exactly(function):
    assert run(function, [3.0], [0.0], [1.0]) == 1.0
    # The caps sum to 1, but not in binary.
    caps_M = np.array([0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(run(function, [9.0, -9.0, 0.0, 1e3], np.zeros(4), caps_M), caps_M, atol=1e-16)
    np.testing.assert_allclose(run(function, [9.0, -9.0, 0.0, 1e3], caps_M, np.ones(4)), caps_M, atol=1e-16)
    # Fixed entries keep their value, and the only free entry takes the rest.
    np.testing.assert_allclose(run(function, [5.0, 5.0, 5.0], [0, 0.25, 0], [0, 0.25, 1]), [0, 0.25, 0.75], atol=1e-16)


def test_kl_projection_of_weights_that_underflow_or_are_zero():
    p_M = run(projection.project_kl, [-np.inf, -2000.0, -2001.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0])
    np.testing.assert_allclose(p_M, [0, 1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))], rtol=1e-12)
    # An entry with v = 0 stays at its lower bound.
    p_M = run(projection.project_kl, [-np.inf, 0.0, 700.0], [0.1, 0.0, 0.0], [1.0, 1.0, 0.6])
    np.testing.assert_allclose(p_M, [0.1, 0.3, 0.6], rtol=1e-14)


def test_large_offsets_keep_the_sum_exact():
    p_M = run(projection.project, np.array([1e9, 1e9 + 0.25, 0.0]), np.zeros(3), np.ones(3))
    np.testing.assert_allclose(p_M, [0.375, 0.625, 0], atol=1e-7)
    assert abs(p_M.sum() - 1) < 1e-15


def test_projections_agree_with_cvxpy():
    rng = np.random.default_rng(3)
    for _ in range(4):
        upper_M = rng.uniform(0.1, 0.4, size=8)
        lower_M = rng.uniform(0, 0.05, size=8)
        v_M = rng.normal(size=8)
        p = cp.Variable(8)
        bounds = [p >= lower_M, p <= upper_M, cp.sum(p) == 1]
        cp.Problem(cp.Minimize(cp.sum_squares(p - v_M)), bounds).solve(solver=cp.CLARABEL)
        np.testing.assert_allclose(run(projection.project, v_M, lower_M, upper_M), p.value, atol=1e-6)
        cp.Problem(cp.Minimize(cp.sum(cp.rel_entr(p, np.exp(v_M)))), bounds).solve(solver=cp.CLARABEL)
        np.testing.assert_allclose(run(projection.project_kl, v_M, lower_M, upper_M), p.value, atol=5e-5)


def test_derivatives_of_the_euclidean_projection_have_closed_forms():
    """Among free entries dp_i/dv_j = δ_ij − 1/free. A change of a binding cap is shared equally by the free entries."""
    with jax.enable_x64(True):
        v_M, upper_M = np.array([0.9, 0.2, 0.1, -3.0]), np.array([0.4, 1.0, 1.0, 1.0])
        jacobians = jax.jit(jax.jacfwd(lambda v_M, upper_M: projection.project(v_M, np.zeros(4), upper_M), (0, 1)))
        by_v_MM, by_upper_MM = jacobians(v_M, upper_M)
    expected_MM = np.zeros((4, 4))
    expected_MM[1:3, 1:3] = [[0.5, -0.5], [-0.5, 0.5]]
    np.testing.assert_allclose(by_v_MM, expected_MM, atol=1e-12)
    np.testing.assert_allclose(by_upper_MM[:, 0], [1, -0.5, -0.5, 0], atol=1e-12)


@quick
@hypothesis.given(boxes(), st.sampled_from([1e15, 1e18, 1e30, 1e300]))
def test_huge_inputs_give_a_mixture_within_bounds(box, scale):
    """The inputs are so large that their rounding exceeds 1."""
    lower_M, upper_M, v_M = box
    for function in (projection.project, projection.project_kl):
        assert_inside(run(function, v_M * scale, lower_M, upper_M), lower_M, upper_M)


def test_rounding_does_not_change_the_derivative_at_bounds():
    """The derivative of max over q of ⟨q, v⟩ − ‖q‖²/2 is q, also if the last bits of Σq need a correction."""
    draw, size = np.random.default_rng(0), 24
    lower_M, upper_M = np.zeros(size), np.full(size, 0.1)

    def largest(v_M):
        q_M = projection.project(v_M, lower_M, upper_M)
        return q_M @ v_M - 0.5 * (q_M**2).sum()

    with jax.enable_x64(True):
        slope = jax.jit(jax.grad(largest))
        for v_M in 0.3 * draw.normal(size=(50, size)):
            np.testing.assert_allclose(slope(v_M), run(projection.project, v_M, lower_M, upper_M), atol=1e-9)
