"""JAX settings of a process: one device per CPU core, and the cache of compiled programs."""

import os
import pathlib

import jax
import pytest

from olmix_jax.utils import devices
from olmix_jax.utils.errors import UserError


@pytest.fixture
def updates(monkeypatch):
    """The settings that the call would change in JAX's config."""
    changes = {}
    monkeypatch.setattr(jax.config, "update", changes.__setitem__)
    return changes


def test_every_core_becomes_a_device(monkeypatch, updates):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 5}, raising=False)
    monkeypatch.setattr(devices, "count_cpus", lambda count=devices.count_cpus: count(pathlib.Path("/nowhere")))
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


@pytest.mark.parametrize(
    "cgroup, files, cores",
    [
        ("0::/", {"cpu.max": "max 100000"}, 8),
        ("0::/", {"cpu.max": "250000 100000"}, 2),
        ("0::/", {"cpu.max": "50000 100000"}, 1),
        ("0::/pod/job", {"cpu.max": "max 100000", "pod/cpu.max": "300000 100000", "pod/job/cpu.max": "max 100000"}, 3),
        ("0::/valid/outside/only", {"cpu.max": "200000 100000"}, 2),
        ("4:cpu,cpuacct:/a\n3:memory:/a", {"cpu/a/cpu.cfs_quota_us": "400000", "cpu/a/cpu.cfs_period_us": "100000"}, 4),
        ("4:cpu,cpuacct:/a", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, 8),
        ("4:cpuset:/", {"cpu.max": "100000 100000"}, 8),
    ],
)
def test_quota_of_a_container_limits_the_cpus(tmp_path, monkeypatch, cgroup, files, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    contents = {"proc/self/cgroup": cgroup} | {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in contents.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert devices.count_cpus(tmp_path) == cores


def test_platform_that_jax_cannot_use_is_named(monkeypatch):
    def unable():
        raise RuntimeError("Unable to initialize backend 'tpu': no libtpu.so (set JAX_PLATFORMS='' to choose)\nmore")

    monkeypatch.setattr("jax.local_devices", unable)
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    with pytest.raises(UserError, match="JAX_PLATFORMS=tpu cannot be used: Unable .* no libtpu.so; unset it"):
        devices.check_backend()
    monkeypatch.delenv("JAX_PLATFORMS")
    with pytest.raises(RuntimeError):
        devices.check_backend()
