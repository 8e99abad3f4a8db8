"""Atomic checkpoints of members' states and metrics. The only file that imports Orbax."""

import concurrent.futures
import dataclasses
import errno
import json
import logging
import pathlib
import shutil
import time
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from olmix_jax.proxy.jax_errors import first_line
from olmix_jax.utils import os_errors
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log

logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax logs every file it writes

# A checkpoint's only item, and the file in it.
ITEM, FILE = "state", "arrays.npz"
# Errors that an intact checkpoint can raise when the machine or the network fails.
NOT_DAMAGE = (MemoryError, PermissionError, TimeoutError, ConnectionError)
NOT_DAMAGE_ERRNO = (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ESTALE)


class DamagedCheckpoint(UserError):
    """A checkpoint cannot be read, or its content has changed since it was written."""


class Restored(NamedTuple):
    """A checkpoint that was read: the step it was saved at, and its arrays."""

    step: int
    arrays: Any


class _NpzHandler(ocp.CheckpointHandler):
    """Stores arrays and metadata in one file with checksums, from any process.

    Orbax's own handlers write NumPy arrays from the first process only, and refuse JAX arrays of a single process.
    """

    def save(self, directory, args):
        metadata = np.array(json.dumps(args.metadata).encode())
        np.savez(pathlib.Path(directory) / FILE, about=metadata, **_by_path(args.arrays))

    def restore(self, directory, args):
        # Opened here, because NumPy would leave a truncated file open.
        with open(pathlib.Path(directory) / FILE, "rb") as f, np.load(f, allow_pickle=False) as file:
            if args.arrays is None:
                return json.loads(file["about"].item())
            templates = _by_path(args.arrays)
            arrays = {name: file[name] for name in templates}
        for name, template in templates.items():
            x = arrays[name]
            if (x.shape, x.dtype) != (template.shape, template.dtype):
                raise ValueError(f"{name} is {x.dtype} {x.shape}, not {template.dtype} {template.shape}")
        return jax.tree.unflatten(jax.tree.structure(args.arrays), arrays.values())


@ocp.args.register_with_handler(_NpzHandler, for_save=True, for_restore=True)
@dataclasses.dataclass
class _Args(ocp.args.CheckpointArgs):
    """Arguments of the handler.

    To save, both fields are given. To restore, ``arrays`` holds the expected shapes and types; None restores the
    metadata instead.
    """

    arrays: Any
    metadata: dict | None = None


def _by_path(tree) -> dict:
    """Return the leaves of a pytree by their path, in order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


class Checkpoints:
    """The last two checkpoints of a run, in ``folder``.

    A checkpoint is written by a thread while training continues. Orbax writes it under a temporary name and renames it,
    so a killed process leaves no partial one. Checksums detect later damage. ``identity`` names the swarm, so that
    another swarm's checkpoints are refused.
    """

    def __init__(self, folder: pathlib.Path, identity: str = ""):
        self.identity = identity
        self.writer = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self.pending: concurrent.futures.Future | None = None
        # Duration of the latest write [seconds].
        self.write_seconds = 0.0
        process = jax.process_index()
        # A folder belongs to one process, so that processes never wait for each other here.
        one_process = ocp.options.MultiprocessingOptions(
            primary_host=process, active_processes={process}, barrier_sync_key_prefix=f"process{process}"
        )
        multiprocessing = {"multiprocessing_options": one_process} if jax.process_count() > 1 else {}
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2,
            enable_async_checkpointing=False,
            cleanup_tmp_directories=True,
            create=False,
            **multiprocessing,
        )
        try:
            pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
            self.manager = ocp.CheckpointManager(
                pathlib.Path(folder).absolute(), options=options, item_handlers={ITEM: _NpzHandler()}
            )
        except OSError as e:
            raise UserError(f"cannot write to {folder}: {os_errors.writing(e, folder)}") from e

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self.pending is not None and not self.pending.done()

    def save(self, step: int, arrays) -> None:
        """Begin to write a pytree of arrays under ``step``, which is also the position in the data.

        Waits for the checkpoint before, if it is still being written. The arrays must not change until :meth:`wait`.

        Raises:
          UserError: the disk is full or read-only. Earlier checkpoints remain unchanged.
        """
        self.wait()
        if step not in self.manager.all_steps():
            self.pending = self.writer.submit(self._write, step, arrays)

    def wait(self) -> None:
        """Wait until the checkpoint that is being written, if any, is complete.

        Raises:
          UserError: it could not be written.
        """
        pending, self.pending = self.pending, None
        if pending is not None:
            pending.result()

    def _write(self, step: int, arrays) -> None:
        start, size = time.monotonic(), sum(x.nbytes for x in jax.tree.leaves(arrays))
        try:
            # Checked first: Orbax prints a traceback for every array when the disk fills up halfway.
            free = shutil.disk_usage(self.manager.directory).free
            if free < size:
                raise OSError(
                    errno.ENOSPC,
                    f"No space left on device: {size / 1e6:,.1f} MB needed, {free / 1e6:,.1f} MB free",
                )
            metadata = {"of": self.identity, "step": step}
            self.manager.save(step, args=ocp.args.Composite(**{ITEM: _Args(arrays, metadata)}))
            self.write_seconds = time.monotonic() - start
        except (OSError, ValueError) as e:
            reason = os_errors.writing(e, self.manager.directory) if isinstance(e, OSError) else str(e)
            if isinstance(e, OSError) and e.errno == errno.ENOSPC and e.strerror:
                reason = f"{e.strerror}; free disk space"
            raise UserError(
                f"cannot write checkpoint {step} in {self.manager.directory}: {reason}. Run the same command again; it "
                "resumes from the previous checkpoint"
            ) from e

    def restore(self, template) -> Restored | None:
        """Return the newest intact checkpoint, or None if there is none. Damaged ones are moved aside.

        Args:
          template: a pytree of arrays with the expected shapes and types.
        """
        steps = sorted(self.manager.all_steps(), reverse=True)
        for step in steps:
            try:
                return Restored(step, self.read(step, template))
            except DamagedCheckpoint as e:
                self._move_aside(step, str(e))
        if steps:
            log.warning("no intact checkpoint in %s: starting from the beginning", self.manager.directory)
        return None

    def read(self, step: int, template):
        """Return the arrays of one checkpoint; ``template`` as for :meth:`restore`.

        Raises:
          DamagedCheckpoint: the checkpoint is damaged.
          UserError: it belongs to another swarm, or this machine cannot read it now.
        """
        metadata = self._restore_item(step, None)
        if metadata.get("of") != self.identity:
            folder = self.manager.directory
            raise UserError(
                f"{folder} holds checkpoints of another swarm. Delete that folder, or use another --workdir"
            )
        if metadata.get("step") != step:
            raise DamagedCheckpoint(f"it holds step {metadata.get('step')}")
        return self._restore_item(step, template)

    def _restore_item(self, step: int, template):
        try:
            return self.manager.restore(step, args=ocp.args.Composite(**{ITEM: _Args(template)}))[ITEM]
        # Depending on where a file is damaged, almost any error can be raised.
        except Exception as e:
            if isinstance(e, NOT_DAMAGE) or (isinstance(e, OSError) and e.errno in NOT_DAMAGE_ERRNO):
                raise UserError(
                    f"cannot read checkpoint {step} in {self.manager.directory} now ({first_line(e)[:160]}). Fix the "
                    "cause and run the same command again"
                ) from e
            raise DamagedCheckpoint(first_line(e)[:160]) from e

    def _move_aside(self, step: int, reason: str) -> None:
        """Move a damaged checkpoint to a neighbouring folder, where it can be inspected."""
        folder = pathlib.Path(self.manager.directory)
        aside = folder.with_name(f"{folder.name}-damaged")
        log.warning("checkpoint %d is damaged (%s): moved to %s, trying the previous one", step, reason, aside)
        shutil.rmtree(aside / str(step), ignore_errors=True)
        aside.mkdir(exist_ok=True)
        (folder / str(step)).rename(aside / str(step))
        self.manager.reload()

    def close(self) -> None:
        """Wait for the last checkpoint and close Orbax's manager of the folder."""
        self.wait()
        self.writer.shutdown()
        self.manager.close()
