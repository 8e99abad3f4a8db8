"""Atomic writes, JSON with clear errors, and digests of values."""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import pathlib
import re
import tempfile
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import IO, Any, NamedTuple

import numpy as np

from olmix_jax.utils import os_errors
from olmix_jax.utils.errors import UserError


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file in the folder of ``path`` and rename it to ``path`` at the end.

    Readers see the old file or the complete new one. If the block raises, the old file stays.

    Raises:
      UserError: the file cannot be written; the message says why and what to do.
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
        # mkstemp creates private files; files in a workdir get the permissions of ordinary new files.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        temporary = None
    except OSError as e:
        place, own = str(e.filename or path), {str(path), *map(str, path.parents)}
        if place in own or place.startswith(str(path.parent / f".{path.name}.")):
            raise UserError(f"cannot write {path}: {os_errors.writing(e, path)}") from e
        # The block could not read another file.
        raise UserError(f"{path} is not written: {place}: {os_errors.reading(e)}") from e
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_write(path) as f:
        f.write(text)


def to_json(value: Any) -> str:
    """Return ``value`` as indented JSON. Raises ValueError if it holds a NaN or an infinity."""
    return json.dumps(plain(value), indent=1, allow_nan=False) + "\n"


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write ``value`` as JSON, atomically. Raises ValueError, and writes nothing, if it holds a NaN or an infinity."""
    write_text(path, to_json(value))


def load_json(text: str, source: str) -> Any:
    """Return the value of JSON text.

    Args:
      text: the text.
      source: a path or a config field, for errors.

    Raises:
      UserError: a key appears twice in one object, of which JSON would silently keep the last value; or a number is not
        finite.
      json.JSONDecodeError: the text is not JSON.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"{source}: the key {twice} appears twice; keep one of them")
        return dict(pairs)

    def finite(number: str) -> float:
        if not math.isfinite(float(number)):
            raise UserError(f"{source}: {number} is not a finite number; give a number or null")
        return float(number)

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=finite, parse_float=finite)
    except RecursionError as e:
        raise json.JSONDecodeError("too many brackets inside each other", text, 0) from e
    except ValueError as e:
        if isinstance(e, json.JSONDecodeError):
            raise
        raise json.JSONDecodeError("a whole number is too long", text, 0) from e


def read_text(path: str | os.PathLike) -> str:
    """Read a UTF-8 text file. A byte-order mark, which Excel writes, is dropped.

    Raises:
      UserError: the file is missing, unreadable or not UTF-8.
    """
    try:
        return pathlib.Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError as e:
        raise UserError(f"{path}: no such file") from e
    except OSError as e:
        raise UserError(f"{path}: cannot be read: {os_errors.reading(e)}") from e
    except UnicodeDecodeError as e:
        raise UserError(f"{path}: not UTF-8 text: {e}; save it as UTF-8") from e


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
      UserError: the file is missing, unreadable, not JSON, or not an object.
    """
    try:
        content = load_json(read_text(path), str(path))
    except json.JSONDecodeError as e:
        raise UserError(
            f"{path}: not valid JSON: {e}; correct it, or delete it if a stage wrote it, and rerun that stage"
        ) from e
    if not isinstance(content, dict):
        raise UserError(f"{path}: must be a JSON object, not {type(content).__name__}")
    return content


def plain(value: Any) -> Any:
    """Convert ``value`` for JSON: arrays to lists, dataclasses to dicts, NumPy scalars to numbers."""
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


def digest(value: Any) -> str:
    """Return a 16-digit hash of the content of ``value``, the same on every machine."""
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class NamedObject(NamedTuple):
    """A JSON object and, for errors, the name of its source: a path or a config field."""

    name: str
    content: dict[str, Any]


def read_object(source: str | os.PathLike | Mapping, field: str) -> NamedObject:
    """Read a JSON object from a path, from JSON text, or from a mapping.

    Args:
      field: the config field that ``source`` comes from, for errors.

    Raises:
      UserError: ``source`` is not a JSON object.
    """
    if isinstance(source, Mapping):
        name = source.get("source")
        return NamedObject(name if isinstance(name, str) else f"config field `{field}`", dict(source))
    if not str(source).lstrip().startswith("{"):
        return NamedObject(str(source), read_json(source))
    try:
        return read_object(load_json(str(source), f"config field `{field}`"), field)
    except json.JSONDecodeError as e:
        raise UserError(
            f"config field `{field}`: not valid JSON: {e}; set it to a JSON object or to the path of a file"
        ) from e


def local_path(text: str | os.PathLike, name: str) -> pathlib.Path:
    """Return the path of a local file or folder; ``~`` at its start is the home folder.

    Args:
      name: the flag or field that the text comes from, for errors.

    Raises:
      UserError: the text is empty, which ``pathlib`` would take for the current folder, or a URL, which it would turn
        into a local folder such as ``gs:``.
    """
    if not str(text).strip():
        raise UserError(f"{name} is empty; give a path, or . for the current folder")
    if re.match(r"[A-Za-z][\w+.-]+:/", str(text)):
        raise UserError(
            f"{name}: {text} is a URL, but a path of this machine is needed; mount the bucket or copy the files"
        )
    return pathlib.Path(text).expanduser()


def file_name(domain: str) -> str:
    """Return ``domain`` for use in a file name, distinct for every domain.

    Letters, digits and ``_ .+-`` stay; all other characters are percent-encoded.
    """
    return re.sub(r"[^\w .+-]", lambda m: urllib.parse.quote(m[0], safe=""), domain)
