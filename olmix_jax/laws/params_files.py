"""Fitted laws on disk: NumPy archives of named arrays, without pickles."""

import os
import pathlib
import zipfile
from typing import Any

import numpy as np

from olmix_jax.laws.fitted import FittedLaw
from olmix_jax.laws.law import Law
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError

# Files in the folder of a fit. The samples are optional.
PARAMS, SAMPLES = "params.npz", "samples.npz"


def save(path: str | os.PathLike, params: Any) -> None:
    """Write a law's Params atomically."""
    with files.atomic_write(path, "wb") as f:
        arrays: dict[str, Any] = {name: np.asarray(x) for name, x in params._asdict().items() if x is not None}
        np.savez_compressed(f, **arrays)


def load(path: str | os.PathLike, law: Law) -> Any:
    """Read the Params of ``law`` that :func:`save` wrote.

    Raises:
      UserError: the file is missing, cannot be read, or holds the arrays of another law.
    """
    names = law.Params._fields
    optional = set(law.Params._field_defaults)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if not set(names) - optional <= set(arrays.files) <= set(names):
                raise UserError(
                    f"{path}: holds the arrays {', '.join(arrays.files)}, but {law.name} has {', '.join(names)}; "
                    "rerun --stages=fit"
                )
            return law.Params(**{name: arrays[name] for name in arrays.files})
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as e:
        raise UserError(f"{path}: cannot be read as a fitted law ({e}); rerun --stages=fit") from e


def load_fitted(folder: pathlib.Path, law: Law) -> FittedLaw:
    """Read the parameters in ``folder``, and their samples if there are any.

    Raises:
      UserError: see :func:`load`.
    """
    samples = load(folder / SAMPLES, law) if (folder / SAMPLES).is_file() else None
    return FittedLaw(law, load(folder / PARAMS, law), samples)
