"""JAX settings of a process: CPU devices, and the cache of compiled programs. Call these before JAX is used."""

import os
import pathlib
from collections.abc import Iterator

from olmix_jax.utils.errors import UserError


def use_all_cpus() -> None:
    """Make one JAX device per CPU core, unless XLA_FLAGS sets their number. Accelerators are not affected."""
    import jax

    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", count_cpus())


def check_backend() -> None:
    """Raise an error if JAX has no device of a kind that JAX_PLATFORMS asks for.

    Raises:
      UserError: names the environment variable and JAX's reason.
    """
    import jax

    platforms = os.environ.get("JAX_PLATFORMS")
    try:
        jax.local_devices()
    except (RuntimeError, AssertionError) as e:
        if not platforms:
            raise
        # JAX's advice, to set the variable to '', follows in brackets.
        first = (str(e).strip().splitlines() or ["no such device, or no plugin for it"])[0]
        reason = first.split(" (set JAX_")[0].rstrip(".")
        raise UserError(
            f"environment: JAX_PLATFORMS={platforms} cannot be used: {reason}; unset it to use what this machine has, "
            "or install the JAX plugin for it"
        ) from e


def count_cpus(system: pathlib.Path = pathlib.Path("/")) -> int:
    """Return the number of CPU cores that this process may use: its affinity, and the quota of its container.

    Args:
      system: the root of the file system, which holds ``proc`` and ``sys``.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([cores, *_cpu_quotas(system)])))


def _cpu_quotas(system: pathlib.Path) -> Iterator[float]:
    """Yield the quotas [cores] of this process's control groups and of all that contain them, in version 1 and 2."""
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return  # not Linux
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = system / "sys/fs/cgroup" / ("cpu" if controllers else "")
        # A container often sees its group's files in the root, under a path that is valid outside only.
        folder = root / group.lstrip("/")
        for place in (folder, *(parent for parent in folder.parents if root == parent or root in parent.parents)):
            if controllers:
                texts = [_text(place / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
            else:
                texts = _text(place / "cpu.max").split()
            if len(texts) == 2 and all(text.isdecimal() for text in texts):
                yield int(texts[0]) / int(texts[1])


def _text(path: pathlib.Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def cache_compiled_programs(workdir: pathlib.Path) -> None:
    """Keep compiled programs in the workdir, so that a resumed run starts faster.

    If the environment variable JAX_COMPILATION_CACHE_DIR is set, JAX keeps them there instead.
    """
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(workdir.resolve() / "compiled"))
