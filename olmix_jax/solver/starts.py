"""Starting points for problems that are not convex.

:func:`spread_out` serves minimisation: the anchor, the best runs of the swarm, mixtures between them, and mixtures of
the whole feasible set. The last ones find minima that the runs are not close to. Most of them are sparse, because a law
whose slope is steep at 0 has minima that differ in which domains they leave out.

:func:`from_vertices` serves maximisation of a convex f(p) − λ·KL(p ‖ anchor), the search for the worst mixture. There
the step from p to

    argmax over v of  ⟨∇f(p), v⟩ − λ·KL(v ‖ anchor)

never lowers the value, because f is above its linearisation. For λ = 0, v is a vertex: domains are
filled up to their caps, highest slope first (Mangasarian 1996). For λ > 0 this is the difference-of-convex algorithm.
It ends at a point that no such step improves. There are many of these, so it runs from each domain alone and from
random orders of all domains.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from olmix_jax.laws import cpu
from olmix_jax.solver import geometry as geometries
from olmix_jax.solver.bounds import Bounds, within
from olmix_jax.solver.objective import Objective
from olmix_jax.solver.problem import Problem, checked
from olmix_jax.solver.projection import fill
from olmix_jax.utils import rng

# Number of runs to start from, and the share of the anchor that is mixed into each: the optimum may contain a domain
# that a run lacks.
BEST_RUNS = 4
SHARE_OF_ANCHOR = 0.02
# Starts from the whole set: the best of DRAWN mixtures, and sparse mixtures, corners and runs at random. A start of the
# first kind is FAR from all others [total variation].
BEST_DRAWN, SPARSE, CORNERS, RUNS = 4, 8, 2, 2
DRAWN, FAR = 128, 0.2
# Concentration of sparse mixtures: about a tenth of the domains has most of the weight.
CONCENTRATION = 0.1
# Ascents from a single domain (at most), ascents from a random order, steps of each, and end points returned.
SINGLES, ORDERS, STEPS, BEST_ENDS = 256, 128, 100, 8


def spread_out(problem: Problem, ratios_KM, seed: int) -> np.ndarray:
    """Return starts_SM: the anchor, the best runs, mixtures between them, and mixtures of the whole set.

    Args:
      problem: a problem with task weights.
      ratios_KM: mixtures of the swarm's runs; None draws Dirichlet mixtures in their place.
      seed: seed of all draws.
    """
    anchor_M = problem.anchor_M / problem.anchor_M.sum()
    if ratios_KM is None or not len(ratios_KM):
        draw = rng.generator(seed, "propose.starts")
        ratios_KM = draw.dirichlet(np.maximum(anchor_M, 1e-3) * len(anchor_M), size=2 * BEST_RUNS)
    draw, runs, domains = rng.generator(seed, "propose.starts.whole_set"), len(ratios_KM), len(anchor_M)
    drawn_QM = np.concatenate([draw.dirichlet(np.full(domains, a), size=DRAWN // 2) for a in (CONCENTRATION, 1.0)])
    mixed_KM = _with_anchor(np.concatenate([np.asarray(ratios_KM, np.float64), drawn_QM]), anchor_M)
    # The nearest mixture to a point far outside the set is a corner.
    far_CM = 100 * draw.normal(size=(CORNERS, domains))
    # One call each of the projection and the law, because every shape compiles another program.
    inside_KM = problem.project(np.concatenate([mixed_KM, anchor_M[None], far_CM]))
    value_K = problem.values(inside_KM)
    run_KM, drawn_QM, corner_CM = inside_KM[:runs], inside_KM[runs : runs + DRAWN], inside_KM[-CORNERS:]
    best_BM = run_KM[np.argsort(value_K[:runs], kind="stable")[:BEST_RUNS]]
    between_BM = np.stack([(best_BM[0] + anchor_M) / 2, best_BM.mean(axis=0), 2 / 3 * best_BM[-1] + anchor_M / 3])
    near_SM = np.concatenate([anchor_M[None], best_BM, between_BM])
    ordered_QM = drawn_QM[np.argsort(value_K[runs : runs + DRAWN], kind="stable")]
    others = draw.permutation(runs)[:RUNS]
    return np.concatenate(
        [
            near_SM,
            _far_apart(ordered_QM, near_SM, BEST_DRAWN),
            drawn_QM[:SPARSE],
            _with_anchor(corner_CM, inside_KM[runs + DRAWN]),
            run_KM[others],
        ]
    )


def _with_anchor(ratios_KM, anchor_M):
    return (1 - SHARE_OF_ANCHOR) * ratios_KM + SHARE_OF_ANCHOR * anchor_M


def _far_apart(ordered_QM, near_SM, number: int) -> np.ndarray:
    """Return the first mixtures that are at least FAR from ``near_SM`` and from each other; at most ``number``."""
    known_SM, count = near_SM, len(near_SM)
    for p_M in ordered_QM:
        if len(known_SM) < count + number and (abs(known_SM - p_M).sum(axis=1) >= 2 * FAR).all():
            known_SM = np.concatenate([known_SM, p_M[None]])
    return known_SM[count:]


def from_vertices(problem: Problem, seed: int) -> np.ndarray:
    """Return the best distinct end points of ascents, starts_SM, worst mixture first; at most BEST_ENDS.

    Args:
      problem: a problem with negative task weights, so its objective falls during an ascent.
      seed: seed of the random orders.
    """
    draw, domains = rng.generator(seed, "propose.worst"), len(problem.anchor_M)
    # An order is given by slopes: the domain of the lowest slope is filled first.
    alone_KM = -np.eye(domains)[np.sort(draw.permutation(domains)[:SINGLES])]
    orders_KM = np.concatenate([alone_KM, draw.normal(size=(ORDERS, domains))])
    problem = checked(problem)
    with cpu.float64():
        ends = _ascend_each(problem.objective, problem.bounds, orders_KM, entropic=problem.kl_weight > 0)
    end_KM, value_K = map(np.asarray, ends)
    finite_K = np.isfinite(value_K) & np.isfinite(end_KM).all(axis=1)
    end_KM, value_K = end_KM[finite_K], value_K[finite_K]
    _, first_K = np.unique(end_KM.round(9), axis=0, return_index=True)
    return end_KM[first_K[np.argsort(value_K[first_K], kind="stable")[:BEST_ENDS]]]


@functools.partial(jax.jit, static_argnames="entropic", compiler_options=cpu.QUICK)
def _ascend_each(objective: Objective, bounds: Bounds, orders_KM, *, entropic: bool):
    """Ascend from one vertex per order; return the end points, end_KM, and their values, value_K."""
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

    def ascend(order_M):
        begin_M = within(fill, order_M, bounds)
        start = begin_M, value_of(begin_M), jnp.array(True), 0
        p_M, value, _, _ = jax.lax.while_loop(lambda state: state[2] & (state[3] < STEPS), step, start)
        return p_M, value

    return jax.vmap(ascend)(orders_KM)
