"""Run the code of one task for every task and resample, for laws that are fitted by linear algebra."""

import concurrent.futures
import os
from collections.abc import Callable

import jax
import numpy as np

from olmix_jax.laws import cpu


def mapped(one: Callable, per_task, shared):
    """Return ``one(shared, *task)`` for every task of every resample; results have leading axes R, N.

    All resamples run one compiled program, on as many threads as there are cores.

    Args:
      one: the function of one task; pure JAX.
      per_task: arrays with leading axes R, N.
      shared: a pytree of arrays with a leading axis R.
    """

    def run(r):
        # JAX's settings belong to a thread.
        with cpu.float64():
            own = jax.tree.map(lambda x: x[r], shared)
            return [np.asarray(x) for x in _program(one, own, *(x[r] for x in per_task))]

    with cpu.float64(), concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        # The first resample runs alone, because it compiles the program.
        results = [run(0), *pool.map(run, range(1, len(per_task[0])))]
    return [np.stack(part) for part in zip(*results)]


def once(one: Callable, shared, *per_task) -> list[np.ndarray]:
    """Return ``one(shared, *task)`` for every task; results have a leading axis N."""
    with cpu.float64():
        return [np.asarray(x) for x in _once(one, shared, *per_task)]


def _in_turn(one: Callable, shared, *per_task):
    # A loop, because the matrices of one task fit the CPU's cache, and batched factorisations can hang (docs/log.md).
    return jax.lax.map(lambda task: one(shared, *task), per_task)


_program = jax.jit(_in_turn, static_argnums=0, compiler_options=cpu.STEADY)
# The program runs once, so compiler optimisation takes longer than it saves.
_once = jax.jit(_in_turn, static_argnums=0, compiler_options=cpu.QUICK)
