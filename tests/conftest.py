"""Strict mode for every test: warnings are errors (pyproject), ranks never promote by accident."""

import atexit
import os
import pathlib
import shutil
import tempfile

# Two devices, as the program itself makes on two CPU cores; before JAX starts.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the tests' time is compiling, and none is about speed.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# What one process of the tests has compiled no other compiles again. Workers inherit the first one's.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="olmix_jax-compiled-")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def published() -> pathlib.Path:
    """The folder of published swarms, where there is one."""
    here = os.environ.get("OLMIX_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data")
    if not pathlib.Path(here).is_dir():
        pytest.skip(f"no published swarms at {here}; set OLMIX_DATA to run this test")
    return pathlib.Path(here)


@pytest.fixture
def make_swarm():
    from tests.toy import make_swarm

    return make_swarm


@pytest.fixture
def toy_tasks():
    from tests.toy import make_tasks

    return make_tasks()
