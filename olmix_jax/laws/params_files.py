"""Fitted laws on disk: plain arrays by name, never a pickle."""

import os
import zipfile

import numpy as np

from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError


def save(path: str | os.PathLike, params) -> None:
    """Writes a law's Params, whole or not at all."""
    with files.atomic_write(path, "wb") as f:
        np.savez_compressed(f, **{name: np.asarray(value) for name, value in params._asdict().items()})


def load(path: str | os.PathLike, law):
    """The Params of ``law`` that :func:`save` wrote.

    Raises:
      UserError: no such file, or not the arrays of that law.
    """
    names = law.Params._fields
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if set(arrays.files) != set(names):
                raise UserError(
                    f"{path}: holds {', '.join(arrays.files)}, not {', '.join(names)}; run --stages=fit again"
                )
            return law.Params(**{name: arrays[name] for name in names})
    except (OSError, ValueError, zipfile.BadZipFile) as e:
        raise UserError(f"{path}: cannot be read as a fitted law ({e}); run --stages=fit again") from e
