"""Fitted laws on disk: NumPy archives of named arrays, without pickles."""

import contextlib
import os
import pathlib
import typing
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
    """Write a law's Params atomically. Params within Params have dotted names, such as ``own.weight_K``."""
    with files.atomic_write(path, "wb") as f:
        np.savez_compressed(f, **_named(params))


def _named(params: Any, prefix: str = "") -> dict[str, Any]:
    """Return the arrays of Params by name, without those that are None."""
    arrays: dict[str, Any] = {}
    for name, x in params._asdict().items():
        if isinstance(x, tuple):
            arrays |= _named(x, f"{prefix}{name}.")
        elif x is not None:
            arrays[prefix + name] = np.asarray(x)
    return arrays


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
    with _arrays(path) as arrays:
        params = _from_named(law.Params, dict(arrays))
        if params is None:
            raise UserError(
                f"{path}: holds the arrays {', '.join(arrays.files)}, but {law.name} has "
                f"{', '.join(law.Params._fields)}; rerun --stages=fit"
            )
        return params


def _from_named(kind: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Return Params of a kind from arrays by name; None if the names are not those of its fields."""
    fields: dict[str, Any] = {name: x for name, x in arrays.items() if "." not in name}
    within: dict[str, dict[str, np.ndarray]] = {}
    for name in arrays.keys() - fields.keys():
        first, _, rest = name.partition(".")
        within.setdefault(first, {})[rest] = arrays[name]
    for first, inner in within.items():
        hint = typing.get_type_hints(kind).get(first)
        kinds = [of for of in typing.get_args(hint) or (hint,) if hasattr(of, "_fields")]
        fields[first] = next((x for of in kinds if (x := _from_named(of, inner)) is not None), None)
        if fields[first] is None:
            return None
    required = set(kind._fields) - set(kind._field_defaults)
    return kind(**fields) if required <= fields.keys() <= set(kind._fields) else None


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
