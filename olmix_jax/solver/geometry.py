"""How the solver measures distance between mixtures, which defines its steps (:mod:`olmix_jax.solver.minimise`)."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from olmix_jax.solver.bounds import Bounds, within
from olmix_jax.solver.objective import Objective
from olmix_jax.solver.projection import TINY, fill, project, project_kl


class Geometry(NamedTuple):
    """The parts of the solver's steps that depend on the distance, for one problem."""

    step: Callable  # (p, ∇f, η) -> the proximal step
    distance: Callable  # (p⁺, p) -> D in the line search f(p⁺) ≤ f(p) + ⟨∇f, p⁺ − p⟩ + D/η
    move: Callable  # (p, d, bounds) -> p + d to first order, projected onto the bounds
    scale: Callable  # p -> s; the Newton system is well conditioned in units d/s
    bound: Callable  # ∇f -> argmin_v ⟨∇f, v⟩ + λKL(v ‖ anchor)


def entropic(objective: Objective, bounds: Bounds) -> Geometry:
    """Return the geometry for λ > 0, with distance KL(p⁺ ‖ p)."""
    weight = objective.kl_weight
    # Bounds hold a domain without anchor weight at 0, so any finite logarithm will do.
    log_anchor_M = jnp.log(jnp.where(objective.anchor_M > 0, objective.anchor_M, 1.0))

    def step(p_M, slope_M, eta):
        log_v_M = weight * log_anchor_M + log(p_M) / eta - slope_M
        return within(project_kl, log_v_M / (weight + 1 / eta), bounds)

    def distance(new_M, p_M):
        ratio_M = (new_M - p_M) / jnp.maximum(p_M, TINY)
        # KL as p·((1 + s)·ln(1 + s) − s) stays exact when new and old agree to many digits.
        return (p_M * ((1 + ratio_M) * jnp.log1p(jnp.maximum(ratio_M, -1 + 1e-16)) - ratio_M)).sum()

    def move(p_M, d_M, bounds):
        # p·exp(d/p) is p + d to first order and stays positive. The limit on the exponent keeps an entry near 0 from
        # spoiling the step for the others.
        log_v_M = log(p_M) + jnp.minimum(d_M / jnp.maximum(p_M, TINY), 3.0)
        return within(project_kl, log_v_M, bounds)

    def bound(slope_M):
        return within(project_kl, log_anchor_M - slope_M / weight, bounds)

    return Geometry(step, distance, move, jnp.sqrt, bound)


def euclidean(objective: Objective, bounds: Bounds) -> Geometry:
    """Return the geometry for λ = 0, with distance ‖p⁺ − p‖²/2."""
    del objective
    return Geometry(
        step=lambda p_M, slope_M, eta: within(project, p_M - eta * slope_M, bounds),
        distance=lambda new_M, p_M: 0.5 * ((new_M - p_M) ** 2).sum(),
        move=lambda p_M, d_M, bounds: within(project, p_M + d_M, bounds),
        scale=jnp.ones_like,
        bound=lambda slope_M: within(fill, slope_M, bounds),
    )


def log(x_M):
    """Return ln x, with a finite value at 0."""
    return jnp.log(jnp.maximum(x_M, TINY))
