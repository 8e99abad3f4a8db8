"""Proximal steps and distances of both geometries against their definitions."""

import jax
import numpy as np
import pytest

from olmix_jax.laws import cpu
from olmix_jax.solver import geometry
from olmix_jax.solver.bounds import box
from olmix_jax.solver.objective import Objective, mean

ANCHOR_M = np.array([0.1, 0.2, 0.3, 0.4])
P_M, SLOPE_M = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.3, -0.2, 0.5, 0.1])
BOUNDS = box(np.zeros(4), np.array([1.0, 0.35, 1.0, 1.0]))


def geometry_of(kl_weight):
    objective = Objective(None, mean, None, np.ones(1), ANCHOR_M, kl_weight)
    return (geometry.entropic if kl_weight else geometry.euclidean)(objective, BOUNDS)


def kl(p_M, q_M):
    return (np.where(p_M > 0, p_M * np.log(np.maximum(p_M, 1e-300) / q_M), 0.0)).sum()


def assert_minimises(function, p_M):
    """Check that no mixture within BOUNDS near p has a lower value, and that p is within them."""
    rng = np.random.default_rng(0)
    assert (p_M >= 0).all() and (p_M <= BOUNDS.upper_M).all() and abs(p_M.sum() - 1) < 1e-14
    mixtures_KM = rng.dirichlet(np.ones(4), size=2000)
    mixtures_KM = mixtures_KM[mixtures_KM[:, 1] <= 0.35]
    for share in (1.0, 1e-2, 1e-4):
        near_KM = (1 - share) * p_M + share * mixtures_KM
        assert min(map(function, near_KM)) >= function(p_M) - 1e-14


@pytest.mark.parametrize("kl_weight", [0.0, 0.2])
@pytest.mark.parametrize("eta", [0.1, 3.0])
def test_proximal_step_minimises_linear_term_plus_penalty_plus_distance(kl_weight, eta):
    with cpu.float64():
        step_M = np.asarray(jax.jit(geometry_of(kl_weight).step)(P_M, SLOPE_M, eta))

    def value(p_M):
        distance = kl(p_M, P_M) if kl_weight else 0.5 * ((p_M - P_M) ** 2).sum()
        return SLOPE_M @ p_M + kl_weight * kl(p_M, ANCHOR_M) + distance / eta

    assert_minimises(value, step_M)


@pytest.mark.parametrize("kl_weight", [0.0, 0.2])
def test_bound_minimises_linear_term_plus_penalty(kl_weight):
    with cpu.float64():
        bound_M = np.asarray(jax.jit(geometry_of(kl_weight).bound)(SLOPE_M))
    assert_minimises(lambda p_M: SLOPE_M @ p_M + kl_weight * kl(p_M, ANCHOR_M), bound_M)


def test_distances_are_kl_and_half_the_squared_norm():
    with cpu.float64():
        assert float(geometry_of(0.2).distance(ANCHOR_M, P_M)) == pytest.approx(kl(ANCHOR_M, P_M), rel=1e-14)
        assert float(geometry_of(0.0).distance(ANCHOR_M, P_M)) == pytest.approx(0.5 * ((ANCHOR_M - P_M) ** 2).sum())


def test_kl_distance_of_nearly_equal_mixtures_keeps_its_digits():
    """KL ≈ Σ d²/(2p); the textbook formula would return rounding of order 1e-17."""
    d_M = 1e-10 * np.array([1.0, -1.0, 2.0, -2.0])
    with cpu.float64():
        distance = float(geometry_of(0.2).distance(P_M + d_M, P_M))
    assert distance == pytest.approx((d_M**2 / (2 * P_M)).sum(), rel=1e-5)


@pytest.mark.parametrize("kl_weight", [0.0, 0.2])
def test_move_is_the_displacement_to_first_order(kl_weight):
    d_M, free = 1e-5 * np.array([1.0, -2.0, 2.0, -1.0]), box(np.zeros(4), np.ones(4))
    with cpu.float64():
        moved_M = np.asarray(geometry_of(kl_weight).move(P_M, d_M, free))
    np.testing.assert_allclose(moved_M - P_M, d_M, atol=1e-9)
