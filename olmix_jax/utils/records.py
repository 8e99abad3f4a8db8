"""Frozen dataclasses as JSON files: written field by field, and every type checked when read.

A record is a frozen dataclass. Its fields hold text, numbers, booleans, enums, other records, ``tuple[X, ...]``,
``dict[str, X]`` or ``X | None``. Numbers must be finite. A field without a default is always written; a field that
equals its default is left out. Unknown fields are ignored with a warning, so a file may hold extra notes.
"""

import dataclasses
import enum
import math
import os
import types
import typing
from typing import Any, TypeVar

from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.names import listed
from olmix_jax.utils.progress import log

R = TypeVar("R")

# Types without fields.
SCALARS = (float, int, str, bool)


def write(path: str | os.PathLike, record: Any) -> None:
    """Write a record as JSON, atomically, with the ``SCHEMA`` of its class (default 1) as the field ``schema``."""
    files.write_json(path, {"schema": getattr(type(record), "SCHEMA", 1)} | plain(record))


def plain(record: Any) -> dict[str, Any]:
    """Convert a record to a dict of JSON values, in the order of its fields."""
    content = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if field.default is not dataclasses.MISSING and value is field.default:
            continue
        if field.default_factory is not dataclasses.MISSING and value == field.default_factory():
            continue
        content[field.name] = _plain(value)
    return content


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return plain(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return files.plain(value)


def read(path: str | os.PathLike, kind: type[R], stage: str) -> R:
    """Read a record of class ``kind``. Errors name ``stage``, the stage that writes the file.

    If ``kind`` has a method ``check()``, it is called on the record; its ValueError becomes a UserError.

    Raises:
      UserError: the file is missing or not JSON, has another schema, or a field is missing or has the wrong type. The
        message names the file, the field and the stage to rerun.
    """
    content = files.read_json(path)
    remedy = f"delete the file and rerun --stages={stage}"
    expected, schema = getattr(kind, "SCHEMA", 1), content.get("schema", 1)
    if schema != expected:
        raise UserError(f"{path}: has schema {schema!r}, but this version of olmix_jax reads {expected}; {remedy}")
    try:
        record = from_plain(kind, content)
    except ValueError as e:
        raise UserError(f"{path}: {e}; {remedy}") from e
    if unknown := [name for name in unknown_fields(kind, content) if name != "schema"]:
        log.warning("%s: unknown fields are ignored: %s", path, listed(unknown))
    return record


def unknown_fields(kind: Any, value: Any, where: str = "") -> list[str]:
    """Return the paths of the fields in a JSON value that a record of type ``kind`` does not have.

    A file may also hold the record's properties, for people to read.
    """
    inner = [option for option in typing.get_args(kind) if option is not types.NoneType and option is not Ellipsis]
    if inner and inner[-1] in SCALARS:
        return []
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        hints = typing.get_type_hints(kind)
        known = [name for name in value if isinstance(getattr(kind, name, None), property)]
        names = {name: f"{where}.{name}" if where else name for name in value if name not in known}
        return [
            path
            for name, path in names.items()
            for path in (unknown_fields(hints[name], value[name], path) if name in hints else [path])
        ]
    if isinstance(value, list) and inner:
        return [path for i, item in enumerate(value) for path in unknown_fields(inner[0], item, f"{where}[{i}]")]
    if isinstance(value, dict) and typing.get_origin(kind) is dict:
        return [path for name, item in value.items() for path in unknown_fields(inner[-1], item, f"{where}.{name}")]
    return unknown_fields(inner[0], value, where) if len(inner) == 1 and isinstance(value, dict) else []


def from_plain(kind: type[R], content: Any, where: str = "") -> R:
    """Build a record of class ``kind`` from a dict of JSON values. Inverse of :func:`plain`.

    Args:
      where: path of ``content`` in the file, for errors; "" at the top.

    Raises:
      ValueError: a field is missing or has the wrong type. The message gives its path, such as ``weights.web``.
    """
    if not isinstance(content, dict):
        raise ValueError(f"{where or 'the content'} must be an object, not {_shown(content)}")
    hints, values = typing.get_type_hints(kind), {}
    for field in dataclasses.fields(typing.cast(Any, kind)):
        name = f"{where}.{field.name}" if where else field.name
        if field.name in content:
            values[field.name] = _convert(hints[field.name], content[field.name], name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{name} is missing")
    record = kind(**values)
    if hasattr(record, "check"):
        record.check()
    return record


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Convert a JSON value to the type ``hint``. Raises ValueError if it does not fit."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and types.NoneType in inner:
            return None
        (hint,) = (option for option in inner if option is not types.NoneType)
        return _convert(hint, value, where)
    if dataclasses.is_dataclass(hint):
        return from_plain(typing.cast(type, hint), value, where)
    if origin is tuple and isinstance(value, list):
        # Most numbers of a file are in such lists.
        if inner[0] is float and {*map(type, value)} == {float} and all(map(math.isfinite, value)):
            return tuple(value)
        return tuple(_convert(inner[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {name: _convert(inner[1], item, f"{where}.{name}") for name, item in value.items()}
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        options = [option.value for option in hint]
        if value not in options:
            raise ValueError(f"{where} must be one of {', '.join(map(str, options))}, not {_shown(value)}")
        return hint(value)
    return _convert_scalar(hint, value, where)


def _convert_scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint in (str, bool) and isinstance(value, hint):
        return value
    names: dict[Any, str] = {
        float: "a finite number",
        int: "a whole number",
        str: "text",
        bool: "true or false",
        tuple: "a list",
        dict: "an object",
    }
    raise ValueError(f"{where} must be {names.get(typing.get_origin(hint) or hint, str(hint))}, not {_shown(value)}")


def _shown(value: Any) -> str:
    """Return how an error shows a value: null, numbers and booleans by value, all others by type."""
    if value is None:
        return "null"
    if isinstance(value, (bool, int, float)):
        return str(value)
    names: dict[type, str] = {str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)
