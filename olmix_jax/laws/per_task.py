"""Run the code of one task for every task and resample, for laws that are fitted by linear algebra."""

import itertools
import threading
from collections.abc import Callable

import jax
import numpy as np

from olmix_jax.laws import cpu

# Tasks per call of a program, at most. Calls are spread over the cores.
BLOCK = 16


def mapped(one: Callable, per_task, shared, keep: int | None = None):
    """Return ``one(shared, *task)`` for every task of every resample; results have leading axes R, N.

    All resamples run one compiled program, on as many threads as there are cores.

    Args:
      one: the function of one task; pure JAX.
      per_task: arrays with leading axes R, N.
      shared: a pytree of arrays with a leading axis R.
      keep: how many of the results to return; all by default.
    """
    return _in_blocks(one, per_task, shared, keep)


def once(one: Callable, shared, *per_task) -> list[np.ndarray]:
    """Return ``one(shared, *task)`` for every task; results have a leading axis N."""
    per_task, shared = jax.tree.map(lambda x: np.asarray(x)[None], (per_task, shared))
    return [x[0] for x in _in_blocks(one, per_task, shared)]


def _in_blocks(one: Callable, per_task, shared, keep: int | None = None) -> list[np.ndarray]:
    """Run the program for blocks of tasks, in threads. Results are written in place, which bounds memory."""
    resamples, tasks = per_task[0].shape[:2]
    blocks = -(-tasks // BLOCK)
    size = -(-tasks // blocks)
    results: list[np.ndarray] = []
    lock = threading.Lock()

    def run(job):
        r, first = job
        # The last block is moved back, so that all blocks have one shape.
        rows = slice(min(first, tasks - size), min(first, tasks - size) + size)
        parts = _program(one, jax.tree.map(lambda x: x[r], shared), *(x[r, rows] for x in per_task))[:keep]
        with lock:
            if not results:
                results.extend(np.empty((resamples, tasks, *part.shape[1:]), part.dtype) for part in parts)
        for whole, part in zip(results, parts, strict=True):
            whole[r, rows] = part

    cpu.in_threads(run, itertools.product(range(resamples), range(0, tasks, size)))
    return results


def _in_turn(one: Callable, shared, *per_task):
    # A loop, because the matrices of one task fit the CPU's cache, and batched factorisations can hang (docs/log.md).
    return jax.lax.map(lambda task: one(shared, *task), per_task)


_program = jax.jit(_in_turn, static_argnums=0, compiler_options=cpu.STEADY)
