"""How the proposed mixture moves with all that it follows from: exact derivatives by implicit differentiation.

Let p minimise F(p) = f(p) + λ·KL(p ‖ natural) within bounds (:mod:`olmix_jax.solver.solve`). Entries strictly inside
their bounds are free, f; the others, b, stay at theirs. A group of domains at one of its bounds keeps its sum at it. So
p moves by d as the law, λ, natural and the bounds move by dθ, where, over each class c of domains whose sum is held
(:func:`olmix_jax.solver.bounds.classes`), with the Hessian H of F,

    H_ff d_f − ν_c = −(∂_θ∇F·dθ)_f − H_fb d_b,        Σ_{j ∈ f ∩ c} d_j = t_c,        d_b = the move of their bound.

The classes are disjoint, so that their constraints, scaled, are orthonormal rows U: with P = I − UᵀU the system is
P H P y = P r, symmetric, positive definite exactly where p is a strict minimum, and M × M with fixed shapes.

Where p only just meets a bound (its multiplier is 0) F's minimiser has two one-sided derivatives, and this is the one
for which the entry, or the group's sum, stays at the bound. Where bounds are equal, it is the upper one that counts if
the multiplier is positive, and else the lower; a cap of 0 does not count. Where groups at bounds have all domains
between them, one bound can move only at the expense of another group: of the one whose bound costs least.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from olmix_jax.laws import cpu
from olmix_jax.solver import kkt, newton, solve
from olmix_jax.solver.bounds import Bounds, classes, ends
from olmix_jax.solver.objective import Objective, mean
from olmix_jax.solver.projection import TINY

# A minimum is strict if no curvature is below this share of the largest one; below, it is rounding.
FLAT = 1e-12
# The bounds that :func:`derivatives` moves.
SIDES = "upper", "low", "high"


@functools.lru_cache(maxsize=32)
def minimiser(predict: Callable, merge: Callable, entropic: bool) -> Callable:
    """f(params, weights, natural_M, kl_weight, bounds, start_M) → p_M, the minimiser, differentiable.

    Pure JAX, compiled; call it under :func:`olmix_jax.laws.cpu.float64`. ``jax.jvp``, ``jax.grad``,
    ``jax.jacobian`` and ``jax.vmap`` work, for all arguments of floats; ``start_M``, where the solver begins, has
    no influence. For a law that is not convex, p is a local minimum. It is as exact as
    :func:`olmix_jax.solver.solve.minimise` makes it, which says whether it converged. Derivatives are NaN where p is
    no strict minimum on its face: the minimiser is then
    not the only one, and does not move smoothly.

    Args:
      predict: a law's ``predict(params, ratios_KM) -> bpb_KN``; its parameters are arrays of floats.
      merge: see :class:`olmix_jax.solver.objective.Objective`.
      entropic: λ > 0. Then a domain of natural weight 0 gets none.
    """

    @jax.custom_jvp
    def minimum(params, weights, natural_M, kl_weight, bounds, start_M):
        objective = Objective(predict, merge, params, weights, natural_M, kl_weight)
        return solve.minimise(objective, bounds, entropic, solve.MAX_ITERATIONS, start_M).weights_M

    @minimum.defjvp
    def _(primals, tangents):
        p_M = minimum(*primals)
        move = _moves(predict, merge, entropic, primals[:4], primals[4], p_M)
        return p_M, move(tangents[:4], tangents[4])

    def allowed(params, weights, natural_M, kl_weight, bounds, start_M):
        if entropic:
            bounds = bounds._replace(upper_M=jnp.where(natural_M > 0, bounds.upper_M, 0.0))
        return minimum(params, weights, natural_M, kl_weight, bounds, start_M)

    return jax.jit(allowed)


def derivatives(
    predict: Callable, params, weights, natural_M, bounds: Bounds, kl_weight: float, p_M, *, merge: Callable = mean
) -> dict | None:
    """How a minimiser that is already known moves; arguments as those of :func:`olmix_jax.solver.solve.solve`.

    Returns:
      Changes of p per unit of ``kl_weight`` (M) [1/BPB], of each cap ``upper`` (M × M), of each group's bounds ``low``
      and ``high`` (M × G), and of each of the ``weights`` (M × N) with the others as they are; D of the last has
      D(e_i − w), of sum 0, for what task i gains in proportion from all. Column j is due to change j, and sums to 0;
      it is 0 for a bound that cannot move alone, as nothing is free to make up for it. None if p is no strict minimum
      on its face: then other mixtures are as good, and it does not move smoothly.

    Raises:
      UserError: an input is not finite.
    """
    pieces, bounds = solve.checked(params, weights, natural_M, bounds, kl_weight)
    with cpu.float64():
        found = _compiled(predict, merge, kl_weight > 0)(pieces, bounds, np.asarray(p_M, np.float64))
    found = jax.tree.map(np.asarray, found)
    if not all(np.isfinite(x).all() for x in jax.tree.leaves(found)):
        return None
    alone = {name: abs(found[name].sum(axis=0)) < 1e-6 * (1 + abs(found[name]).max(axis=0)) for name in SIDES}
    return found | {name: np.where(alone[name], found[name], 0.0) for name in SIDES}


@functools.lru_cache(maxsize=32)
def _compiled(predict: Callable, merge: Callable, entropic: bool):
    def derivatives(pieces, bounds, p_M):
        move = _moves(predict, merge, entropic, pieces, bounds, p_M)
        still, still_bounds = jax.tree.map(jnp.zeros_like, (pieces, bounds))

        def moved(by):
            d_bounds = still_bounds._replace(upper_M=by["upper"], low_G=by["low"], high_G=by["high"])
            return move((still[0], by["weights"], still[2], by["kl_weight"]), d_bounds)

        nothing = {"kl_weight": jnp.zeros(()), "weights": still[1], "upper": still_bounds.upper_M}
        return jax.jacfwd(moved)(nothing | {"low": still_bounds.low_G, "high": still_bounds.high_G})

    return jax.jit(derivatives, compiler_options=cpu.QUICK)


def _moves(predict: Callable, merge: Callable, entropic: bool, pieces, bounds: Bounds, p_M) -> Callable:
    """(tangents of params, weights, natural, λ; tangents of the bounds) → the move of p; linear. Pure JAX."""

    def slope(pieces):
        objective = Objective(predict, merge, *pieces)
        return jax.grad(objective.law)(p_M) + newton.penalty_slope(objective, p_M)

    free_M = (p_M > bounds.lower_M) & (p_M < bounds.upper_M)
    law_MM = jax.hessian(Objective(predict, merge, *pieces).law)(p_M)
    # In units of √p, in which the Hessian of the KL term is λ on the diagonal however small a weight is.
    inner_M = jnp.where(free_M, p_M, 1.0)
    scale_M = jnp.where(free_M, jnp.sqrt(inner_M) if entropic else 1.0, 0.0)
    bent_MM = scale_M[:, None] * law_MM * scale_M[None, :] + jnp.diag(pieces[3] * scale_M**2 / inner_M)
    _, price_M, price_G = kkt.of(slope(pieces), p_M, bounds)
    class_CM = _held(bounds, p_M, free_M, price_G)
    unit_CM = scale_M[None, :] * class_CM
    norm_C = jnp.sqrt((unit_CM**2).sum(axis=1))
    unit_CM = unit_CM / jnp.maximum(norm_C, TINY)[:, None]
    along_MM = jnp.diag(free_M * 1.0) - unit_CM.T @ unit_CM
    size = jnp.maximum(jax.lax.stop_gradient(jnp.abs(bent_MM).max()), TINY)
    system_MM = along_MM @ bent_MM @ along_MM + size * (jnp.eye(len(p_M)) - along_MM)
    strict = jnp.linalg.eigvalsh(jax.lax.stop_gradient(system_MM))[0] > FLAT * size
    at_bounds = _at_bounds(bounds, p_M, free_M, class_CM, price_M, price_G)

    def move(d_pieces, d_bounds):
        fixed_M, sum_C = at_bounds(d_bounds)
        turn_M = jax.jvp(slope, (pieces,), (d_pieces,))[1] + law_MM @ fixed_M
        across_M = (sum_C / jnp.maximum(norm_C, TINY)) @ unit_CM
        right_M = along_MM @ (-scale_M * turn_M - bent_MM @ across_M)
        inside_M = scale_M * (across_M + jnp.linalg.solve(system_MM, right_M))
        # A product, and so NaN in reverse as well.
        return (fixed_M + inside_M) * jnp.where(strict, 1.0, jnp.nan)

    return move


def _held(bounds: Bounds, p_M, free_M, price_G):
    """The classes whose sums are held, of which the last must have free entries, as the whole has to sum to 1.

    Where groups at bounds have all the free entries, the sum of one group follows from the others': its class is the
    last one then. It is the outer group of the least price.
    """
    class_CM = classes(bounds, p_M)
    if not len(bounds.low_G):
        return class_CM
    keeps_C = (class_CM & free_M[None, :]).any(axis=1)
    # Groups that share domains are nested, the outer one later.
    number = jnp.arange(len(price_G))
    shares_GG = (bounds.member_GM[:, None, :] & bounds.member_GM[None, :, :]).any(axis=2)
    around_GG = shares_GG & keeps_C[None, :-1] & (number[None, :] > number[:, None])
    outer_G = keeps_C[:-1] & ~around_GG.any(axis=1)
    least = jnp.argmin(jnp.where(outer_G, jnp.abs(price_G), jnp.inf))
    given_C = (jnp.arange(len(class_CM)) == least) & ~keeps_C[-1]
    given_M = (class_CM & given_C[:, None]).any(axis=0)
    return (class_CM & ~given_C[:, None]).at[-1].set(class_CM[-1] | given_M)


def _at_bounds(bounds: Bounds, p_M, free_M, class_CM, price_M, price_G) -> Callable:
    """Tangents of the bounds → (the moves of entries that are not free, t_C). Linear, pure JAX.

    A group's sum moves with its bound, and is what its own class, the classes of groups inside it and the entries at
    bounds in it make together. So, inner groups first, t solves a triangular system. A group at its bound whose own
    class has no free entries keeps nothing: its sum is what the others make it.
    """
    capped_M = (p_M >= bounds.upper_M) & ((p_M > bounds.lower_M) | (price_M > 0))
    at_low_G, at_high_G = ends(bounds, p_M)
    full_G = at_high_G & (~at_low_G | (price_G > 0))
    keeps_C = (class_CM & free_M[None, :]).any(axis=1)
    whole_CM = jnp.concatenate([bounds.member_GM, jnp.ones((1, len(p_M)), bool)]) * 1.0
    inside_CC = (whole_CM @ whole_CM.T > 0) & keeps_C[:, None] & keeps_C[None, :]

    def moves(d_bounds):
        fixed_M = jnp.where(free_M, 0.0, jnp.where(capped_M, d_bounds.upper_M, d_bounds.lower_M))
        sum_C = jnp.append(jnp.where(full_G, d_bounds.high_G, d_bounds.low_G), 0.0) - whole_CM @ fixed_M
        right_C = jnp.where(keeps_C, sum_C, 0.0)
        return fixed_M, jax.scipy.linalg.solve_triangular(inside_CC * 1.0, right_C, lower=True, unit_diagonal=True)

    return moves
