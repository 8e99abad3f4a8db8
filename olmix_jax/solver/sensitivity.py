"""How the optimal mixture moves with the problem: exact derivatives by implicit differentiation.

Let p minimise F(p) = law(p) + λ·KL(p ‖ anchor) within bounds. Index f stands for the free entries, strictly inside
their bounds, and b for the others, which stay at their bounds. A group at one of its bounds keeps its sum. H is the
Hessian of F. Let the law, λ, the anchor and the bounds move by dθ. Then the move d of p satisfies, for each class c of
domains whose sum is held (:func:`olmix_jax.solver.bounds.classes`),

    H_ff d_f − ν_c = −(∂_θ∇F·dθ)_f − H_fb d_b,        Σ_{j ∈ f ∩ c} d_j = t_c,        d_b = the move of their bound.

The classes are disjoint, so their constraints, scaled, are orthonormal rows U. With P = I − UᵀU the system is
P H P y = P r: symmetric, M × M, and positive definite exactly where p is a strict minimum.

Special cases:

- If an entry just meets a bound (its multiplier is 0), p has two one-sided derivatives. This one keeps the entry, or
  the group's sum, at the bound.
- If the two bounds are equal, the upper one counts if its multiplier is positive, and the lower one otherwise. A cap of
  0 does not count.
- If groups at bounds contain all domains, one group's bound can move only at the expense of another group: the one
  with the smallest multiplier.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from olmix_jax.laws import cpu
from olmix_jax.solver import kkt
from olmix_jax.solver.bounds import Bounds, at_bounds, classes
from olmix_jax.solver.objective import Objective
from olmix_jax.solver.problem import Problem, checked
from olmix_jax.solver.projection import TINY

# A minimum is strict if every curvature exceeds this share of the largest one. Smaller curvatures are rounding.
FLAT = 1e-12


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """Derivatives of the optimal mixture p. Each column sums to 0.

    Attributes:
      kl_weight_M: per unit of λ [1/BPB].
      weights_MN: per unit of each task weight, with the other weights fixed. So ``weights_MN @ (e_i − w)`` is the move
        when task i gains weight at the expense of all others in proportion, and the sum stays 1.
      upper_MM: per unit of each upper bound, column j for bound j.
      low_MG: per unit of each group's lower bound.
      high_MG: per unit of each group's upper bound.

    A column is 0 for a bound that does not bind. It is also 0 for a bound that cannot move alone, because no free entry
    can compensate.
    """

    kl_weight_M: np.ndarray
    weights_MN: np.ndarray
    upper_MM: np.ndarray
    low_MG: np.ndarray
    high_MG: np.ndarray


def derivatives(problem: Problem, weights_M) -> Sensitivity | None:
    """Return the derivatives of a minimiser that is already known.

    Args:
      problem: the problem; ``merge`` is :func:`olmix_jax.solver.objective.mean`.
      weights_M: its minimiser.

    Returns:
      The derivatives. None if p is not a strict minimum among mixtures with the same binding bounds: then other
      mixtures are as good, and the minimiser does not move smoothly.

    Raises:
      UserError: see :func:`olmix_jax.solver.problem.checked`.
    """
    problem = checked(problem)
    with cpu.float64():
        columns = _derivatives(
            problem.objective, problem.bounds, np.asarray(weights_M, np.float64), entropic=problem.kl_weight > 0
        )
    moves = jax.tree.map(np.asarray, columns)
    if not all(np.isfinite(x).all() for x in moves):
        return None
    return Sensitivity(
        moves.kl_weight, moves.weights, _balanced(moves.upper_M), _balanced(moves.low_G), _balanced(moves.high_G)
    )


class _Moved(NamedTuple):
    """One value for each input of :func:`derivatives`: its change, or the derivative of p by it."""

    kl_weight: jax.Array
    weights: jax.Array
    upper_M: jax.Array
    low_G: jax.Array
    high_G: jax.Array


@functools.partial(jax.jit, static_argnames="entropic", compiler_options=cpu.QUICK)
def _derivatives(objective: Objective, bounds: Bounds, p_M, *, entropic: bool) -> _Moved:
    move = _implicit_move(objective, bounds, p_M, entropic)
    still, still_bounds = jax.tree.map(jnp.zeros_like, (objective, bounds))

    def moved(by: _Moved):
        d_objective = dataclasses.replace(still, kl_weight=by.kl_weight, weights=by.weights)
        return move(d_objective, still_bounds._replace(upper_M=by.upper_M, low_G=by.low_G, high_G=by.high_G))

    bounds_0 = still_bounds.upper_M, still_bounds.low_G, still_bounds.high_G
    return jax.jacfwd(moved)(_Moved(jnp.zeros(()), still.weights, *bounds_0))


def _balanced(moves_MX) -> np.ndarray:
    """Return the moves with 0 in columns whose sum is not 0: such a bound cannot move alone."""
    balanced_X = abs(moves_MX.sum(axis=0)) < 1e-6 * (1 + abs(moves_MX).max(axis=0))
    return np.where(balanced_X, moves_MX, 0.0)


def _implicit_move(objective: Objective, bounds: Bounds, p_M, entropic: bool) -> Callable:
    """Return the linear map (tangents of the objective, tangents of the bounds) → move of p. Pure JAX."""

    def slope(objective):
        return jax.grad(objective.law)(p_M) + objective.penalty_slope(p_M)

    free_M = (p_M > bounds.lower_M) & (p_M < bounds.upper_M)
    law_MM = jax.hessian(objective.law)(p_M)
    # In units of √p the Hessian of the KL term is λ on the diagonal, however small a weight is.
    inner_M = jnp.where(free_M, p_M, 1.0)
    scale_M = jnp.where(free_M, jnp.sqrt(inner_M) if entropic else 1.0, 0.0)
    bent_MM = scale_M[:, None] * law_MM * scale_M[None, :] + jnp.diag(objective.kl_weight * scale_M**2 / inner_M)
    prices = kkt.conditions(slope(objective), p_M, bounds)
    class_CM = _held_classes(bounds, p_M, free_M, prices.group_multipliers_G)
    unit_CM = scale_M[None, :] * class_CM
    norm_C = jnp.sqrt((unit_CM**2).sum(axis=1))
    unit_CM = unit_CM / jnp.maximum(norm_C, TINY)[:, None]
    along_MM = jnp.diag(free_M * 1.0) - unit_CM.T @ unit_CM
    size = jnp.maximum(jax.lax.stop_gradient(jnp.abs(bent_MM).max()), TINY)
    system_MM = along_MM @ bent_MM @ along_MM + size * (jnp.eye(len(p_M)) - along_MM)
    strict = jnp.linalg.eigvalsh(jax.lax.stop_gradient(system_MM))[0] > FLAT * size
    moves_at_bounds = _moves_at_bounds(bounds, p_M, free_M, class_CM, prices)

    def move(d_objective, d_bounds):
        fixed_M, sum_C = moves_at_bounds(d_bounds)
        turn_M = jax.jvp(slope, (objective,), (d_objective,))[1] + law_MM @ fixed_M
        across_M = (sum_C / jnp.maximum(norm_C, TINY)) @ unit_CM
        right_M = along_MM @ (-scale_M * turn_M - bent_MM @ across_M)
        inside_M = scale_M * (across_M + jnp.linalg.solve(system_MM, right_M))
        # Multiplying by NaN, instead of selecting it, makes reverse-mode derivatives NaN too.
        return (fixed_M + inside_M) * jnp.where(strict, 1.0, jnp.nan)

    return move


def _held_classes(bounds: Bounds, p_M, free_M, multipliers_G):
    """Return the classes whose sums are held. The last one must have free entries, because the total is 1.

    If groups at bounds contain all free entries, the sum of one group follows from the others. This group's class
    becomes the last one. It is the outer group with the smallest multiplier.
    """
    class_CM = classes(bounds, p_M)
    if not len(bounds.low_G):
        return class_CM
    keeps_C = (class_CM & free_M[None, :]).any(axis=1)
    # Groups that share domains are nested, the outer one later.
    number = jnp.arange(len(multipliers_G))
    shares_GG = (bounds.member_GM[:, None, :] & bounds.member_GM[None, :, :]).any(axis=2)
    around_GG = shares_GG & keeps_C[None, :-1] & (number[None, :] > number[:, None])
    outer_G = keeps_C[:-1] & ~around_GG.any(axis=1)
    least = jnp.argmin(jnp.where(outer_G, jnp.abs(multipliers_G), jnp.inf))
    given_C = (jnp.arange(len(class_CM)) == least) & ~keeps_C[-1]
    given_M = (class_CM & given_C[:, None]).any(axis=0)
    return (class_CM & ~given_C[:, None]).at[-1].set(class_CM[-1] | given_M)


def _moves_at_bounds(bounds: Bounds, p_M, free_M, class_CM, prices: kkt.Conditions) -> Callable:
    """Return the linear map from tangents of the bounds to (moves of entries at bounds, t_C). Pure JAX.

    A group's sum moves with its bound. The sum has three parts: the group's own class, the classes of inner groups, and
    entries at bounds. So t solves a triangular system, inner groups first. A group at its bound whose class has no free
    entries imposes nothing.
    """
    capped_M = (p_M >= bounds.upper_M) & ((p_M > bounds.lower_M) | (prices.multipliers_M > 0))
    at_low_G, at_high_G = at_bounds(bounds, p_M)
    full_G = at_high_G & (~at_low_G | (prices.group_multipliers_G > 0))
    keeps_C = (class_CM & free_M[None, :]).any(axis=1)
    whole_CM = jnp.concatenate([bounds.member_GM, jnp.ones((1, len(p_M)), bool)]) * 1.0
    inside_CC = (whole_CM @ whole_CM.T > 0) & keeps_C[:, None] & keeps_C[None, :]

    def moves(d_bounds):
        fixed_M = jnp.where(free_M, 0.0, jnp.where(capped_M, d_bounds.upper_M, d_bounds.lower_M))
        sum_C = jnp.append(jnp.where(full_G, d_bounds.high_G, d_bounds.low_G), 0.0) - whole_CM @ fixed_M
        right_C = jnp.where(keeps_C, sum_C, 0.0)
        return fixed_M, jax.scipy.linalg.solve_triangular(inside_CC * 1.0, right_C, lower=True, unit_diagonal=True)

    return moves
