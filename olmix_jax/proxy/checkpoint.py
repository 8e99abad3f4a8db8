"""Checkpoints: state, data position and metrics, whole or not at all. The only file that knows Orbax."""

import errno
import logging
import pathlib
import shutil
import zlib

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp

from olmix_jax.errors import UserError
from olmix_jax.progress import log

logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax narrates every file it writes


class Checkpoints:
    """The last two checkpoints of a run in `folder`.

    Orbax writes each under a temporary name and renames it, so a killed process leaves none half done; a checksum over
    all arrays, kept beside them, tells one that was torn afterwards, and `of` one that is of another run.
    """

    def __init__(self, folder: pathlib.Path, of: str = ""):
        self.of = of
        own = jax.process_index()
        # Of several processes, none waits for another: a folder is one process's own.
        alone = ocp.options.MultiprocessingOptions(
            primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process{own}"
        )
        several = {"multiprocessing_options": alone} if jax.process_count() > 1 else {}
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2, enable_async_checkpointing=False, cleanup_tmp_directories=True, create=False, **several
        )
        try:
            pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
            self.manager = ocp.CheckpointManager(pathlib.Path(folder).absolute(), options=options)
        except OSError as e:
            raise UserError(f"{folder} cannot be written: {e.strerror}; free space or give another --workdir") from e

    def save(self, step: int, arrays, data: grain.DatasetIterator) -> None:
        """Saves a pytree of arrays and the data position under `step`.

        Raises:
          UserError: the disk is full or read-only; earlier checkpoints are left as they are.
        """
        if step in self.manager.all_steps():
            return
        size = sum(x.nbytes for x in jax.tree.leaves(arrays))
        try:
            # Orbax, half way through a disk that is full, writes a traceback for every array.
            free = shutil.disk_usage(self.manager.directory).free
            if free < size:
                raise OSError(
                    errno.ENOSPC, f"No space left on device: {size / 1e6:,.1f} MB, and {free / 1e6:,.1f} free"
                )
            self.manager.save(
                step,
                args=ocp.args.Composite(
                    arrays=ocp.args.StandardSave(arrays),
                    data=grain.checkpoint.CheckpointSave(data),
                    checksum=ocp.args.JsonSave({"crc32": _checksum(arrays), "of": self.of}),
                ),
            )
        except (OSError, ValueError) as e:
            raise UserError(
                f"checkpoint {step} cannot be written in {self.manager.directory}: {e}; free space, then run the same "
                "command again: it goes on from the checkpoint before"
            ) from e

    def restore(self, like, data: grain.DatasetIterator):
        """The newest whole checkpoint as (step, arrays); None where there is none.

        Args:
          like: a pytree of arrays with the shapes and types that are wanted.
          data: set to the position that belongs to the arrays.
        """
        steps = sorted(self.manager.all_steps(), reverse=True)
        start = data.get_state()
        for step in steps:
            try:
                found = self.manager.restore(
                    step,
                    args=ocp.args.Composite(
                        arrays=ocp.args.StandardRestore(jax.tree.map(ocp.utils.to_shape_dtype_struct, like)),
                        data=grain.checkpoint.CheckpointRestore(data),
                        checksum=ocp.args.JsonRestore(),
                    ),
                )
            # What a torn file raises depends on which file it is and where it is torn; all mean the same here.
            except Exception as e:
                self._set_aside(step, _first_line(e))
                continue
            if found["checksum"].get("of") != self.of:
                folder = self.manager.directory
                raise UserError(
                    f"{folder} holds checkpoints of another swarm; delete that folder, or use another --workdir"
                )
            if _checksum(found["arrays"]) == found["checksum"]["crc32"]:
                return step, found["arrays"]
            self._set_aside(step, "its checksum differs")
        data.set_state(start)
        if steps:
            log.warning("no whole checkpoint in %s: starting from the beginning", self.manager.directory)
        return None

    def _set_aside(self, step: int, why: str) -> None:
        """Makes room for a checkpoint of the same step; what cannot be read now is kept for a person to look at."""
        folder = pathlib.Path(self.manager.directory)
        aside = folder.with_name(f"{folder.name}-damaged")
        log.warning("checkpoint %d is damaged (%s); set aside in %s, trying the one before", step, why, aside)
        shutil.rmtree(aside / str(step), ignore_errors=True)
        aside.mkdir(exist_ok=True)
        (folder / str(step)).rename(aside / str(step))
        self.manager.reload()

    def close(self) -> None:
        self.manager.close()


def _checksum(arrays) -> int:
    crc = 0
    for leaf in jax.tree.leaves(arrays):
        crc = zlib.crc32(np.ascontiguousarray(leaf), crc)
    return crc


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
