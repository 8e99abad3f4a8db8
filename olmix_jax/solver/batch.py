"""Solve many problems of one law in one call: grids of settings, samples of the law."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from olmix_jax.laws import cpu
from olmix_jax.solver.bounds import Bounds
from olmix_jax.solver.minimise import Minimum, compiled, minimise
from olmix_jax.solver.objective import Objective
from olmix_jax.solver.problem import Problem
from olmix_jax.solver.solve import iteration_limit

# Problems per call of the program: enough for vector units, few enough that not all wait for the slowest.
CHUNK = 50
# From this many problems on, it pays to compile a faster program, which takes seconds longer.
MANY = 500
# Numbers per chunk (laws and mixtures) that fit into the cache of a CPU.
CACHE_NUMBERS = 400_000


class Varying(NamedTuple):
    """The parts that differ between P problems, each with a leading axis P. A part of None is shared by all.

    Attributes:
      params: parameters of the law; all their arrays have the axis.
      weights: weights of the tasks.
      anchor_M: mixtures that KL pulls towards.
      lower_M, upper_M, member_GM, low_G, high_G: see :class:`olmix_jax.solver.bounds.Bounds`.
      kl_weight: λ; all positive or all 0.
      start_M: starting points; the anchors by default.
    """

    params: Any = None
    weights: Any = None
    anchor_M: Any = None
    lower_M: Any = None
    upper_M: Any = None
    member_GM: Any = None
    low_G: Any = None
    high_G: Any = None
    kl_weight: Any = None
    start_M: Any = None


def solve_each(problem: Problem, varying: Varying, *, start_M=None, max_iterations: int | None = None) -> Minimum:
    """Solve P problems that differ from ``problem`` in some parts; every field of the result has a leading axis P.

    The program is compiled once for all of them. Results that are not finite are returned as they are, so the caller
    must check ``value``. Inputs are not checked, unlike in :func:`olmix_jax.solver.solve.solve`.

    Args:
      problem: the parts that all problems share.
      varying: the parts that differ, one at least.
      start_M: the starting point of all problems; their anchors by default.
      max_iterations: limit of the iterations; by default that of :func:`olmix_jax.solver.solve.solve` for ``problem``.

    Raises:
      ValueError: the leading axes differ in length.
    """
    shared = Varying(
        problem.params if varying.params is not None else problem.law.prepared(problem.params),
        problem.weights,
        problem.anchor_M,
        *problem.bounds,
        np.float64(problem.kl_weight),
        start_M,
    )
    if start_M is None and varying.start_M is None:
        shared, varying = shared._replace(start_M=problem.anchor_M), varying._replace(start_M=varying.anchor_M)
    axes = Varying(*(None if part is None else 0 for part in varying))
    parts = Varying(*(common if part is None else part for common, part in zip(shared, varying)))
    parts = jax.tree.map(np.asarray, parts)
    number, size = _number(varying), _numbers_per_problem(parts, axes)
    chunk = max(1, min(CHUNK, number, CACHE_NUMBERS // max(1, size)))
    limit = iteration_limit(problem) if max_iterations is None else max_iterations
    entropic = bool(np.all(parts.kl_weight > 0))
    if chunk == 1 and varying.params is None:
        return _one_by_one(problem, parts, axes, number, limit, entropic)
    run = _compiled(problem.law.predict, problem.merge, entropic, axes, number >= MANY)

    def solve_chunk(first: int) -> Minimum:
        # The last chunk repeats its first problem, so that all chunks have one shape.
        rows = np.arange(first, first + chunk)
        rows = np.where(rows < number, rows, first)
        inputs = _of_each(lambda x: x[rows], parts, axes)
        return jax.tree.map(lambda x: np.asarray(x)[: number - first], run(limit, inputs))

    chunks = cpu.in_threads(solve_chunk, range(0, number, chunk))
    return jax.tree.map(lambda *x: np.concatenate(x), *chunks)


@functools.lru_cache(maxsize=32)
def _compiled(predict: Callable, merge: Callable, entropic: bool, axes: Varying, many: bool):
    def one(max_iterations, parts: Varying) -> Minimum:
        objective = Objective(predict, merge, parts.params, parts.weights, parts.anchor_M, parts.kl_weight)
        return minimise(objective, _bounds(parts), max_iterations, parts.start_M, entropic=entropic)

    return jax.jit(jax.vmap(one, in_axes=(None, axes)), compiler_options={} if many else cpu.QUICK)


def _one_by_one(problem: Problem, parts: Varying, axes: Varying, number: int, limit: int, entropic: bool) -> Minimum:
    """Solve problems of a law that is too large for batches, by the program of :mod:`olmix_jax.solver.solve`."""

    def solve_one(row: int) -> Minimum:
        one = _of_each(lambda x: x[row], parts, axes)
        objective = Objective(
            problem.law.predict, problem.merge, one.params, one.weights, one.anchor_M, float(one.kl_weight)
        )
        return jax.tree.map(np.asarray, compiled(objective, _bounds(one), limit, one.start_M, entropic=entropic))

    return jax.tree.map(lambda *x: np.stack(x), *cpu.in_threads(solve_one, range(number)))


def _bounds(parts: Varying) -> Bounds:
    return Bounds(parts.lower_M, parts.upper_M, parts.member_GM, parts.low_G, parts.high_G)


def _of_each(function: Callable, parts: Varying, axes: Varying) -> Varying:
    """Return the parts with ``function`` applied to the arrays that have an axis of problems."""
    return Varying(*(part if axis is None else jax.tree.map(function, part) for part, axis in zip(parts, axes)))


def _number(varying: Varying) -> int:
    sizes = {len(x) for x in jax.tree.leaves(varying)}
    if len(sizes) != 1:
        raise ValueError(f"the parts that differ need leading axes of one length, not of {sorted(sizes)}")
    return sizes.pop()


def _numbers_per_problem(parts: Varying, axes: Varying) -> int:
    """Return how many numbers one problem needs, including all shared ones."""
    each = [part for part, axis in zip(parts, axes) if axis == 0]
    shared = [part for part, axis in zip(parts, axes) if axis is None]
    number = len(jax.tree.leaves(each)[0])
    return sum(x.size for x in jax.tree.leaves(shared)) + sum(x.size for x in jax.tree.leaves(each)) // number
