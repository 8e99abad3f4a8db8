"""How the solver measures distance between mixtures, and so what its steps are (:mod:`olmix_jax.solver.solve`)."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from olmix_jax.solver.bounds import Bounds, within
from olmix_jax.solver.objective import Objective
from olmix_jax.solver.projection import TINY, fill, project, project_kl


class Geometry(NamedTuple):
    """The steps of the solver that depend on how distance is measured, within one problem's bounds."""

    step: Callable  # (p, ∇f, η) -> the proximal step
    distance: Callable  # (p⁺, p) -> D in the line search f(p⁺) ≤ f(p) + ⟨∇f, p⁺ − p⟩ + D/η
    move: Callable  # (p, d, bounds) -> p + d projected back, to first order
    scale: Callable  # p -> s, the units d/s in which the Newton system is well conditioned
    bound: Callable  # ∇f -> argmin_v ⟨∇f, v⟩ + λKL(v ‖ natural)


def entropic(objective: Objective, bounds: Bounds) -> Geometry:
    """Distance is KL(p⁺ ‖ p); for λ > 0."""
    weight = objective.kl_weight
    # A domain without natural weight is held at 0 by its bounds; any finite logarithm will do.
    log_natural_M = jnp.log(jnp.where(objective.natural_M > 0, objective.natural_M, 1.0))

    def step(p_M, slope_M, eta):
        log_v_M = weight * log_natural_M + log(p_M) / eta - slope_M
        return within(project_kl, log_v_M / (weight + 1 / eta), bounds)

    def distance(new_M, p_M):
        ratio_M = (new_M - p_M) / jnp.maximum(p_M, TINY)
        # KL as p·((1 + s)·ln(1 + s) − s), which stays exact when new and old agree to many digits.
        return (p_M * ((1 + ratio_M) * jnp.log1p(jnp.maximum(ratio_M, -1 + 1e-16)) - ratio_M)).sum()

    def move(p_M, d_M, bounds):
        # p·exp(d/p) is p + d to first order and stays positive. An almost absent entry may ask for a huge factor;
        # limited, it does not spoil the step for the others.
        log_v_M = log(p_M) + jnp.minimum(d_M / jnp.maximum(p_M, TINY), 3.0)
        return within(project_kl, log_v_M, bounds)

    def bound(slope_M):
        return within(project_kl, log_natural_M - slope_M / weight, bounds)

    return Geometry(step, distance, move, jnp.sqrt, bound)


def euclidean(objective: Objective, bounds: Bounds) -> Geometry:
    """Distance is ‖p⁺ − p‖²/2; for λ = 0."""
    del objective
    return Geometry(
        step=lambda p_M, slope_M, eta: within(project, p_M - eta * slope_M, bounds),
        distance=lambda new_M, p_M: 0.5 * ((new_M - p_M) ** 2).sum(),
        move=lambda p_M, d_M, bounds: within(project, p_M + d_M, bounds),
        scale=jnp.ones_like,
        bound=lambda slope_M: within(fill, slope_M, bounds),
    )


def log(x_M):
    """ln x, finite at 0."""
    return jnp.log(jnp.maximum(x_M, TINY))
