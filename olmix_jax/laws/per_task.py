"""One task's code for every task, and every resample, of a law that is fitted by linear algebra."""

import concurrent.futures
import os
from collections.abc import Callable

import jax
import numpy as np

from olmix_jax.laws import cpu


def mapped(one: Callable, per_task, shared):
    """``one(shared, *task)`` for every task of every resample.

    Resamples go through one program, compiled once, on as many threads as there are cores; arrays of ``per_task`` have
    axes R, N and those of ``shared`` R first.
    """

    def run(r):
        # Settings of JAX are a thread's own.
        with cpu.float64():
            return [np.asarray(x) for x in _program(one, tuple(x[r] for x in shared), *(x[r] for x in per_task))]

    with cpu.float64(), concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        # The first alone: it compiles what the others run.
        found = [run(0), *pool.map(run, range(1, len(per_task[0])))]
    return [np.stack(part) for part in zip(*found)]


def once(one: Callable, shared, *per_task) -> list[np.ndarray]:
    """``one(shared, *task)`` for every task, of axis N first."""
    with cpu.float64():
        return [np.asarray(x) for x in _once(one, shared, *per_task)]


def _in_turn(one: Callable, shared, *per_task):
    # One task's matrices stay in the CPU's cache, and batched factorisations can hang (docs/log.md).
    return jax.lax.map(lambda task: one(shared, *task), per_task)


_program = jax.jit(_in_turn, static_argnums=0, compiler_options=cpu.STEADY)
# What runs once is not worth the seconds that it takes to make it faster.
_once = jax.jit(_in_turn, static_argnums=0, compiler_options=cpu.QUICK)
