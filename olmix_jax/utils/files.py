"""Files written whole, read with clear errors, and named by their content."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Iterator, Mapping

import numpy as np

from olmix_jax.utils.errors import UserError


@contextlib.contextmanager
def write_whole(path: str | os.PathLike, mode: str = "w") -> Iterator:
    """Opens a temporary neighbour of ``path`` and renames it into place at the end, so no reader sees half a file.

    Raises:
      UserError: the disk is full, or the place cannot be written.
    """
    path = pathlib.Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(
            handle, mode, encoding=None if "b" in mode else "utf-8", newline=None if "b" in mode else ""
        ) as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        # mkstemp makes files private; a workdir is shared as its folder is.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        temporary = None
    except OSError as e:
        raise UserError(f"cannot write {path}: {e.strerror or e}; free space or give another --workdir") from e
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes ``text`` as UTF-8, whole or not at all."""
    with write_whole(path) as f:
        f.write(text)


def text(value) -> str:
    """``value`` as JSON; a NaN or an infinity in it is a ValueError."""
    return json.dumps(plain(value), indent=1, allow_nan=False) + "\n"


def write_json(path: str | os.PathLike, value) -> None:
    """Writes ``value`` as JSON; a NaN or an infinity in it is a ValueError, never a file."""
    write_text(path, text(value))


def read_json(path: str | os.PathLike) -> dict:
    """Reads a JSON object.

    Raises:
      UserError: the file is missing, unreadable or not JSON.
    """
    try:
        content = json.loads(pathlib.Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError as e:
        raise UserError(f"{path}: no such file") from e
    except OSError as e:
        raise UserError(f"{path}: cannot be read: {e.strerror}") from e
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
        raise UserError(f"{path}: not valid JSON: {e}; delete it and run the stage that writes it again") from e
    if not isinstance(content, dict):
        raise UserError(f"{path}: must be a JSON object, not {type(content).__name__}")
    return content


def below(folder: str | os.PathLike) -> list[pathlib.Path]:
    """All files in a folder and in those below it, sorted; links are followed, but not in a circle.

    Raises:
      UserError: a folder cannot be read.
    """

    def inside(place: str | os.PathLike, above: frozenset[str]) -> Iterator[pathlib.Path]:
        real = os.path.realpath(place)
        # Where a folder itself is above, a link leads back to it; two links to one folder are two folders.
        if real in above:
            return
        for entry in pathlib.Path(place).iterdir():
            if entry.is_dir():
                yield from inside(entry, above | {real})
            elif entry.is_file():
                yield entry

    try:
        return sorted(inside(folder, frozenset()))
    except OSError as e:
        raise UserError(f"{e.filename or folder}: cannot be read: {e.strerror or e}") from e


def plain(value):
    """``value`` with arrays as lists, dataclasses as dicts and NumPy scalars as numbers, as JSON needs it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "__array__"):
        return np.asarray(value).tolist()
    return value


def digest(value) -> str:
    """A short name for the content of ``value``: equal content, equal name, on every machine."""
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_object(source: str | os.PathLike | Mapping, field: str) -> tuple[str, dict]:
    """A JSON object and how errors name it, from a path, from its text, or from the object itself.

    Raises:
      UserError: it is no JSON object; ``field`` is the config's field that it comes from.
    """
    if isinstance(source, Mapping):
        named = source.get("source")
        return named if isinstance(named, str) else f"config field `{field}`", dict(source)
    if not str(source).lstrip().startswith("{"):
        return str(source), read_json(source)
    try:
        return read_object(json.loads(source), field)
    except json.JSONDecodeError as e:
        raise UserError(f"config field `{field}`: not valid JSON: {e}; give an object, or the path of a file") from e
