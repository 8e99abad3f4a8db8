"""JAX settings of a process: CPU devices, and the cache of compiled programs. Call these before JAX is used."""

import os
import pathlib


def use_all_cpus() -> None:
    """Make one JAX device per CPU core, unless XLA_FLAGS sets their number. Accelerators are not affected."""
    import jax

    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        jax.config.update("jax_num_cpu_devices", cores)


def cache_compiled_programs(workdir: pathlib.Path) -> None:
    """Keep compiled programs in the workdir, so that a resumed run starts faster.

    If the environment variable JAX_COMPILATION_CACHE_DIR is set, JAX keeps them there instead.
    """
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(workdir.resolve() / "compiled"))
