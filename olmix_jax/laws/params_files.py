"""Fitted laws on disk: NumPy archives of named arrays, without pickles."""

import contextlib
import os
import pathlib
import zipfile
from typing import Any

import numpy as np

from olmix_jax.laws.fitted import FittedLaw
from olmix_jax.laws.law import Law
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.optional import LeftOut

# Files in the folder of a fit. The samples are optional.
PARAMS, SAMPLES = "params.npz", "samples.npz"
# Arrays of samples that are drawn when they are read.
DRAWS = "number", "seed"


def save(path: str | os.PathLike, params: Any) -> None:
    """Write a law's Params atomically."""
    with files.atomic_write(path, "wb") as f:
        arrays: dict[str, Any] = {name: np.asarray(x) for name, x in params._asdict().items() if x is not None}
        np.savez_compressed(f, **arrays)


def save_draws(path: str | os.PathLike, number: int, seed: int) -> None:
    """Write samples of a law that has ``sample``: their number and seed, because the samples take up to a gigabyte."""
    arrays: dict[str, Any] = dict(zip(DRAWS, (number, seed), strict=True))
    with files.atomic_write(path, "wb") as f:
        np.savez(f, **arrays)


def load(path: str | os.PathLike, law: Law) -> Any:
    """Read the Params of ``law`` that :func:`save` wrote.

    Raises:
      UserError: the file is missing, cannot be read, or holds the arrays of another law.
    """
    names = law.Params._fields
    optional = set(law.Params._field_defaults)
    with _arrays(path) as arrays:
        if not set(names) - optional <= set(arrays.files) <= set(names):
            raise UserError(
                f"{path}: holds the arrays {', '.join(arrays.files)}, but {law.name} has {', '.join(names)}; "
                "rerun --stages=fit"
            )
        return law.Params(**{name: arrays[name] for name in arrays.files})


@contextlib.contextmanager
def _arrays(path: str | os.PathLike):
    """Return a context with the arrays of a file; unreadable ones raise a UserError."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            yield arrays
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as e:
        raise UserError(f"{path}: cannot be read as a fitted law ({e}); rerun --stages=fit") from e


def _load_samples(path: pathlib.Path, law: Law, params: Any) -> Any:
    """Return samples: drawn from the posterior, or read as arrays, as older versions wrote those of every law."""
    if law.sample is not None:
        with _arrays(path) as arrays:
            draws = [int(arrays[name]) for name in DRAWS] if set(arrays.files) == set(DRAWS) else None
        if draws is not None:
            left_out, drawn = LeftOut(), None
            with left_out.unless_fails("fit", "samples of the law, and so error bars,"):
                drawn = law.sample(params, *draws)
            return drawn
    return load(path, law)


def load_fitted(folder: pathlib.Path, law: Law) -> FittedLaw:
    """Read the parameters in ``folder``, and their samples if there are any.

    Raises:
      UserError: see :func:`load`.
    """
    params, path = load(folder / PARAMS, law), folder / SAMPLES
    return FittedLaw(law, params, _load_samples(path, law, params) if path.is_file() else None)
