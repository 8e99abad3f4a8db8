"""JAX settings of a process: one device per CPU core, and the cache of compiled programs."""

import os

import jax
import pytest

from olmix_jax.utils import devices


@pytest.fixture
def updates(monkeypatch):
    """The settings that the call would change in JAX's config."""
    changes = {}
    monkeypatch.setattr(jax.config, "update", changes.__setitem__)
    return changes


def test_every_core_becomes_a_device(monkeypatch, updates):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 5}, raising=False)
    devices.use_all_cpus()
    assert updates == {"jax_num_cpu_devices": 3}


def test_xla_flags_take_precedence(monkeypatch, updates):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    devices.use_all_cpus()
    assert updates == {}


def test_compiled_programs_are_kept_in_the_workdir(monkeypatch, updates, tmp_path):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    devices.cache_compiled_programs(tmp_path)
    assert updates == {"jax_compilation_cache_dir": str(tmp_path.resolve() / "compiled")}


def test_cache_folder_of_the_environment_takes_precedence(monkeypatch, updates, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
    devices.cache_compiled_programs(tmp_path)
    assert updates == {}
