"""Settings for all tests: our warnings are errors (pyproject.toml), and rank promotion in JAX is an error."""

import atexit
import gc
import logging
import os
import pathlib
import shutil
import tempfile

from tests.xla import fast_compile_flags

# Two CPU devices, as on a machine with two cores. All of this must be set before JAX starts.
os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count=2 {fast_compile_flags()}")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# All processes of a test run share a cache of compiled programs; child processes inherit the variable.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="olmix_jax-compiled-")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
# A worker keeps millions of objects of compiled programs. Looking for garbage among them took 7 % of its time.
gc.set_threshold(10_000, 10, 20)


@pytest.fixture(autouse=True)
def log_that_propagates():
    """Undo what a run in an earlier test did to the log: pytest captures lines twice where they propagate again."""
    logging.getLogger("olmix_jax").propagate = True


@pytest.fixture(scope="session")
def published() -> pathlib.Path:
    """Return the folder of published swarms; skip the test if it is missing."""
    folder = os.environ.get("OLMIX_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data")
    if not pathlib.Path(folder).is_dir():
        pytest.skip(f"no published swarms at {folder}; set OLMIX_DATA to run this test")
    return pathlib.Path(folder)


@pytest.fixture
def make_swarm():
    from tests.toy import make_swarm

    return make_swarm


@pytest.fixture
def toy_tasks():
    from tests.toy import make_tasks

    return make_tasks()
