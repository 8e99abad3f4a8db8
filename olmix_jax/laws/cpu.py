"""How laws are computed: in float64, on a CPU, and with which options XLA compiles for it."""

import contextlib
import functools

import jax
import scipy.linalg  # noqa: F401, loads the OpenBLAS whose threads are limited below
import threadpoolctl

# XLA's options for programs on a CPU. The newer compiler for fused loops takes longer than most programs here run, and
# the last optimisations take as long again. STEADY is for programs that run for seconds, QUICK for milliseconds.
_LOOPS = {"xla_cpu_use_fusion_emitters": False} if jax.__version_info__ < (0, 11) else {}  # JAX 0.11 has no such option
STEADY = {"xla_backend_optimization_level": 1, **_LOOPS}
QUICK = {"xla_backend_optimization_level": 0, **_LOOPS}


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
