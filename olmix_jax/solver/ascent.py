"""Where the worst mixture may be, to start from: vertices of the bounds, each reached by steps that only go up.

To maximise f(p) − λ·KL(p ‖ anchor) for a convex f, the step from p to

    argmax over v of  ⟨∇f(p), v⟩ − λ·KL(v ‖ anchor)

never goes down, as f is above its linearisation (Mangasarian 1996 for λ = 0, where v is a vertex: room filled in the
order of the slopes; the difference-of-convex algorithm for λ > 0). It ends at a point that no such step improves, of
which there are many; so it is done from each domain alone and from random orders of all of them.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from olmix_jax.laws import cpu
from olmix_jax.solver import geometry as geometries
from olmix_jax.solver import solve
from olmix_jax.solver.bounds import within
from olmix_jax.solver.objective import Objective, mean
from olmix_jax.solver.problem import Problem
from olmix_jax.solver.projection import fill
from olmix_jax.utils import rng

# Domains that are begun with alone, random orders, steps from each, and ends that are handed on.
SINGLES, ORDERS, STEPS, BEST = 256, 128, 100, 8


def ends(problem: Problem, seed: int) -> np.ndarray:
    """The BEST ends of climbs, ratios_SM, worst mixture first; fewer where fewer are different.

    Args:
      problem: whose task weights are negative: its objective is what falls on a climb.
      seed: of the random orders.
    """
    draw, domains = rng.generator(seed, "propose.worst"), len(problem.anchor_M)
    # Orders are of slopes: room is filled with the lowest first.
    alone_KM = -np.eye(domains)[np.sort(draw.permutation(domains)[:SINGLES])]
    orders_KM = np.concatenate([alone_KM, draw.normal(size=(ORDERS, domains))])
    pieces, bounds = solve.checked(*problem[1:])
    with cpu.float64():
        found_KM, value_K = _compiled(problem.law.predict, problem.kl_weight > 0)(pieces, bounds, orders_KM)
    found_KM, value_K = np.asarray(found_KM), np.asarray(value_K)
    finite_K = np.isfinite(value_K) & np.isfinite(found_KM).all(axis=1)
    found_KM, value_K = found_KM[finite_K], value_K[finite_K]
    _, first_K = np.unique(found_KM.round(9), axis=0, return_index=True)
    return found_KM[first_K[np.argsort(value_K[first_K], kind="stable")[:BEST]]]


@functools.lru_cache(maxsize=32)
def _compiled(predict, entropic: bool):
    def climb(pieces, bounds, order_M):
        objective = Objective(predict, mean, *pieces)
        geometry = (geometries.entropic if entropic else geometries.euclidean)(objective, bounds)
        slope_of = jax.grad(objective.law)

        def value_of(p_M):
            return objective.law(p_M) + objective.penalty(p_M)

        def step(state):
            p_M, value, _, steps = state
            new_M = geometry.bound(slope_of(p_M))
            new = value_of(new_M)
            better = new < value
            return jnp.where(better, new_M, p_M), jnp.where(better, new, value), better, steps + 1

        begin_M = within(fill, order_M, bounds)
        start = begin_M, value_of(begin_M), jnp.array(True), 0
        p_M, value, _, _ = jax.lax.while_loop(lambda state: state[2] & (state[3] < STEPS), step, start)
        return p_M, value

    return jax.jit(jax.vmap(climb, in_axes=(None, None, 0)), compiler_options=cpu.QUICK)
