"""Many problems of one law in one call: grids of settings, samples of the law, starts."""

import concurrent.futures
import functools
import os
from collections.abc import Callable

import jax
import numpy as np

from olmix_jax.laws import cpu
from olmix_jax.solver.objective import Objective, mean
from olmix_jax.solver.solve import Minimum, minimise

# Problems that go through the program side by side: enough for vector units, few enough that not all wait for one.
ABREAST = 50
# From so many problems on, a program is worth the seconds that it takes to make it faster.
MANY = 500
# Numbers of a problem's law and mixtures that fit beside each other in a CPU's cache.
NUMBERS = 400_000


def solve_each(
    predict: Callable,
    params,
    weights,
    natural_M,
    bounds,
    kl_weight,
    starts_M,
    *,
    each: tuple,
    merge: Callable = mean,
    max_iterations: int = 500,
) -> Minimum:
    """:func:`olmix_jax.solver.solve.minimise` for P problems, compiled once; arrays of NumPy with a leading axis P.

    Problems that end at values that are not finite are the caller's to look for.

    Args:
      predict: a law's.
      params: its parameters.
      weights: what ``merge`` takes.
      natural_M: p0.
      bounds: where mixtures may be.
      kl_weight: λ; all positive or all 0.
      starts_M: where to begin.
      each: for the six arguments before (params, weights, natural_M, bounds, kl_weight, starts_M) 0 where there is one
        per problem, on a leading axis, None where one serves all; or trees of these, as ``in_axes`` of ``jax.vmap``.
      merge: see :class:`olmix_jax.solver.objective.Objective`.
      max_iterations: of each problem.
    """
    arguments = params, weights, natural_M, bounds, np.asarray(kl_weight, np.float64), starts_M
    arguments = jax.tree.map(np.asarray, arguments)
    number = _number(arguments, each)
    abreast = max(1, min(ABREAST, number, NUMBERS // max(1, _size(arguments, each, number))))
    entropic = bool(np.all(arguments[4] > 0))
    tree = jax.tree.structure(each, is_leaf=_is_axis)
    run = _compiled(predict, merge, entropic, tree, _axes(each), number >= MANY)

    def chunk(first):
        # The last chunk is filled up with its first problem, so that all are of one shape.
        wanted = np.arange(first, first + abreast)
        wanted = np.where(wanted < number, wanted, first)
        taken = _map_axes(lambda x: x[wanted], arguments, each)
        # Settings of JAX are a thread's own.
        with cpu.float64():
            found = run(max_iterations, *taken)
            return jax.tree.map(lambda x: np.asarray(x)[: number - first], found)

    with cpu.float64(), concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        # The first alone: it compiles what the others run.
        parts = [chunk(0), *pool.map(chunk, range(abreast, number, abreast))]
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


@functools.lru_cache(maxsize=32)
def _compiled(predict, merge, entropic: bool, structure, axes: tuple, many: bool):
    each = jax.tree.unflatten(structure, axes)

    def one(max_iterations, params, weights, natural_M, bounds, kl_weight, start_M):
        objective = Objective(predict, merge, params, weights, natural_M, kl_weight)
        return minimise(objective, bounds, entropic, max_iterations, start_M)

    return jax.jit(jax.vmap(one, in_axes=(None, *each)), compiler_options={} if many else cpu.QUICK)


def _is_axis(x) -> bool:
    return x is None


def _axes(each) -> tuple:
    return tuple(jax.tree.leaves(each, is_leaf=_is_axis))


def _map_axes(function, arguments, each):
    """``function`` of the arrays that have an axis of problems; the others as they are."""

    def mapped(axis, argument):
        return argument if axis is None else jax.tree.map(function, argument)

    return jax.tree.map(mapped, each, arguments, is_leaf=_is_axis)


def _number(arguments, each) -> int:
    sizes = set()
    _map_axes(lambda x: sizes.add(len(x)), arguments, each)
    if len(sizes) != 1:
        raise ValueError(f"arrays of problems must be of one length, not of {sorted(sizes)}")
    return sizes.pop()


def _size(arguments, each, number: int) -> int:
    """Numbers of one problem: what is its own, and its share of work on what all share."""
    total = sum(np.size(x) for x in jax.tree.leaves(arguments))
    own = []
    _map_axes(lambda x: own.append(x.size), arguments, each)
    return (total - sum(own)) + sum(own) // number
