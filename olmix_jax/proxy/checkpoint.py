"""Checkpoints: state, data position and metrics, whole or not at all. The only file that knows Orbax."""

import dataclasses
import errno
import json
import logging
import pathlib
import shutil

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp

from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log

logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax narrates every file it writes

# A checkpoint's only item, and the file in it.
ITEM, FILE = "state", "arrays.npz"
# What a whole checkpoint can raise, on a machine or by a network that has its own trouble.
NOT_DAMAGE = (MemoryError, PermissionError, TimeoutError, ConnectionError)
SHORTAGES = (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ESTALE)


class Damaged(UserError):
    """A checkpoint that cannot be read, or is not what was written."""


class _Whole(ocp.CheckpointHandler):
    """Arrays and what is to be known of them, in one file that has checksums; by any process.

    Orbax's own handlers leave NumPy's arrays to the first of several processes, and refuse the JAX arrays of one.
    """

    def save(self, directory, args):
        np.savez(pathlib.Path(directory) / FILE, about=np.array(json.dumps(args.about).encode()), **_named(args.arrays))

    def restore(self, directory, args):
        # NumPy leaves a torn file open, if it is the one that opens it.
        with open(pathlib.Path(directory) / FILE, "rb") as f, np.load(f, allow_pickle=False) as file:
            if args.arrays is None:
                return json.loads(file["about"].item())
            wanted = _named(args.arrays)
            found = {name: file[name] for name in wanted}
        for name, x in wanted.items():
            if (found[name].shape, found[name].dtype) != (x.shape, x.dtype):
                raise ValueError(f"{name} is {found[name].dtype} {found[name].shape}, not {x.dtype} {x.shape}")
        return jax.tree.unflatten(jax.tree.structure(args.arrays), found.values())


@ocp.args.register_with_handler(_Whole, for_save=True, for_restore=True)
@dataclasses.dataclass
class _Args(ocp.args.CheckpointArgs):
    """To save, both; to restore, arrays of the shapes and types that are wanted, or None for what is known of them."""

    arrays: object
    about: dict | None = None


def _named(tree) -> dict:
    """Leaves by where they are, in order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


class Checkpoints:
    """The last two checkpoints of a run in `folder`.

    Orbax writes each under a temporary name and renames it, so a killed process leaves none half done; checksums tell
    one that was torn afterwards, and `of` one that is of another run.
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
            self.manager = ocp.CheckpointManager(
                pathlib.Path(folder).absolute(), options=options, item_handlers={ITEM: _Whole()}
            )
        except OSError as e:
            raise UserError(f"{folder} cannot be written: {e.strerror}; give another --workdir") from e

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
            about = {"of": self.of, "position": data.get_state()}
            self.manager.save(step, args=ocp.args.Composite(**{ITEM: _Args(arrays, about)}))
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
        for step in steps:
            try:
                return step, self.read(step, like, data)
            except Damaged as e:
                self._set_aside(step, str(e))
        if steps:
            log.warning("no whole checkpoint in %s: starting from the beginning", self.manager.directory)
        return None

    def read(self, step: int, like, data: grain.DatasetIterator):
        """The arrays of a checkpoint, as :meth:`restore`.

        Raises:
          Damaged: it is not whole.
          UserError: it is of another run, or this machine cannot read it now.
        """
        about = self._restore(step, None)
        if about.get("of") != self.of:
            folder = self.manager.directory
            raise UserError(
                f"{folder} holds checkpoints of another swarm; delete that folder, or use another --workdir"
            )
        arrays = self._restore(step, like)
        data.set_state(about["position"])
        return arrays

    def _restore(self, step: int, like):
        try:
            return self.manager.restore(step, args=ocp.args.Composite(**{ITEM: _Args(like)}))[ITEM]
        # What a torn file raises depends on where it is torn, and means the same; unless it is the machine that fails.
        except Exception as e:
            if isinstance(e, NOT_DAMAGE) or (isinstance(e, OSError) and e.errno in SHORTAGES):
                raise UserError(
                    f"checkpoint {step} in {self.manager.directory} cannot be read now ({_first_line(e)}); mend that, "
                    "then run the same command again"
                ) from e
            raise Damaged(_first_line(e)) from e

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


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
