"""A lock on the workdir, so that two runs cannot write the same files at the same time.

The operating system releases the lock when the process ends, also if it is killed. A run locks the whole workdir. Jobs
of an array (``swarm.part``) share it, and each locks its own part.
"""

import contextlib
import datetime
import errno
import fcntl
import os
import pathlib
import socket
from collections.abc import Iterator
from typing import IO

from olmix_jax.config import part
from olmix_jax.config.schema import Config
from olmix_jax.utils import os_errors
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log

NAME = ".lock"


@contextlib.contextmanager
def locked(config: Config, workdir: pathlib.Path) -> Iterator[None]:
    """Lock the workdir for a run of this config.

    Raises:
      UserError: another run uses the workdir; the message names its process and host.
    """
    job = part.parse(config.swarm.part)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_lock(workdir / NAME, shared=job is not None))
        if job is not None:
            stack.enter_context(_lock(workdir / f"{NAME}-{job.name}", shared=False))
        yield


@contextlib.contextmanager
def _lock(path: pathlib.Path, shared: bool) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = path.open("a+", encoding="utf-8")
    except OSError as e:
        raise UserError(f"--workdir={path.parent} is not writable: {os_errors.writing(e, path)}") from e
    with opened as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise UserError(
                f"--workdir={path.parent} is in use by {_holder(file)}; wait until that run ends, stop it, or give "
                "another --workdir"
            ) from e
        except OSError as e:
            # Some network file systems have no locks (ENOLCK, ENOTSUP, ENOSYS). A run must be possible there too.
            if e.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                raise
            log.warning("%s cannot be locked (%s); do not start two runs in one workdir", path, e.strerror)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {datetime.datetime.now():%Y-%m-%d %H:%M:%S}")
        file.flush()
        yield


def _holder(file: IO[str]) -> str:
    """Return the text that the holder of a lock wrote into its file."""
    file.seek(0)
    return file.read().strip() or "another run"
