"""How laws are computed: in float64, on a CPU, and with which options XLA compiles for it."""

import concurrent.futures
import contextlib
import functools
import os
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
import scipy.linalg  # noqa: F401, loads the OpenBLAS whose threads are limited below
import threadpoolctl

# XLA's options for programs on a CPU. The newer compiler for fused loops takes longer than most programs here run, and
# the last optimisations take as long again. STEADY is for programs that run for seconds, QUICK for milliseconds and
# where JAX itself is set to compile with few optimisations, as in tests.
_LOOPS = {"xla_cpu_use_fusion_emitters": False} if jax.__version_info__ < (0, 11) else {}  # JAX 0.11 has no such option
QUICK = {"xla_backend_optimization_level": 0, **_LOOPS}
_FAST_COMPILE = jax.config.values.get("jax_disable_most_optimizations", False)
STEADY = QUICK if _FAST_COMPILE else {"xla_backend_optimization_level": 1, **_LOOPS}

# Numbers in the parameters of a law from which on a program of the solver runs for seconds.
LARGE = 500_000


def for_size(params: Any) -> dict[str, Any]:
    """Return XLA's options for a program that evaluates a law many times."""
    return STEADY if sum(np.size(x) for x in jax.tree.leaves(params)) >= LARGE else QUICK


def in_threads(function: Callable, items: Iterable) -> list:
    """Return ``function`` of every item, computed on as many threads as there are cores.

    Threads that need the same compiled program wait for one of them to compile it.
    """

    # JAX's settings belong to a thread.
    def run(item):
        with float64():
            return function(item)

    with float64(), concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(run, items))


@contextlib.contextmanager
def float64():
    """Return a context in which JAX computes in float64 on a CPU, whatever other devices the machine has.

    JAX factorises matrices by SciPy's OpenBLAS, which is limited to one thread here. More threads gain nothing on
    matrices this small, and on a busy machine they cost twenty times the work.
    """
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        with _blas().limit(limits=1, user_api="blas"):
            yield


@functools.cache
def _blas() -> threadpoolctl.ThreadpoolController:
    return threadpoolctl.ThreadpoolController()
