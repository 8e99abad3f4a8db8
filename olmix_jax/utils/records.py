"""Frozen dataclasses as JSON files: written by field, read back with every type checked.

A record is a frozen dataclass whose fields are text, numbers, booleans, enums, records, ``tuple[X, ...]``,
``dict[str, X]``, and ``X | None``. A field without a default is always in the file; a field that equals its default is
left out. Numbers must be finite. Unknown keys are ignored, so that a file may carry notes.
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

R = TypeVar("R")


def write(path: str | os.PathLike, record: Any) -> None:
    """Writes a record as JSON, whole or not at all, with the ``SCHEMA`` version of its class (1 by default)."""
    files.write_json(path, {"schema": getattr(type(record), "SCHEMA", 1)} | plain(record))


def plain(record: Any) -> dict[str, Any]:
    """A record as a dict of plain values, in the order of its fields."""
    found = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if field.default is not dataclasses.MISSING and value is field.default:
            continue
        if field.default_factory is not dataclasses.MISSING and value == field.default_factory():
            continue
        found[field.name] = _plain(value)
    return found


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
    """Reads a record of ``kind``; ``stage`` is the stage that writes the file, for errors.

    A record with a method ``check()`` that raises ``ValueError`` is refused with its message.

    Raises:
      UserError: there is no such file, it is not JSON, a field is missing or of another type, or the file is of a later
        schema. The message names the file, the field and the stage to run again.
    """
    content = files.read_json(path)
    again = f"delete the file and run --stages={stage} again"
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold an object, not {_shown(content)}; {again}")
    known, schema = getattr(kind, "SCHEMA", 1), content.get("schema", 1)
    if schema != known:
        raise UserError(f"{path}: schema {schema!r}, and this version of olmix_jax reads {known}; {again}")
    try:
        return from_plain(kind, content)
    except ValueError as e:
        raise UserError(f"{path}: {e}; {again}") from e


def from_plain(kind: type[R], content: Any, where: str = "") -> R:
    """A record from a dict of plain values.

    Raises:
      ValueError: a field is missing or of another type; the message names it, as ``path.weights``.
    """
    if not isinstance(content, dict):
        raise ValueError(f"{where or 'the content'} must be an object, not {_shown(content)}")
    hints, values = typing.get_type_hints(kind), {}
    for field in dataclasses.fields(typing.cast(Any, kind)):
        name = f"{where}.{field.name}" if where else field.name
        if field.name in content:
            values[field.name] = _value(hints[field.name], content[field.name], name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{name} is missing")
    record = kind(**values)
    if hasattr(record, "check"):
        record.check()
    return record


def _value(hint: Any, value: Any, where: str) -> Any:
    """``value`` as the type ``hint`` wants it."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and types.NoneType in inner:
            return None
        (hint,) = (option for option in inner if option is not types.NoneType)
        return _value(hint, value, where)
    if dataclasses.is_dataclass(hint):
        return from_plain(typing.cast(type, hint), value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_value(inner[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {name: _value(inner[1], item, f"{where}.{name}") for name, item in value.items()}
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        options = [option.value for option in hint]
        if value not in options:
            raise ValueError(f"{where} must be one of {', '.join(map(str, options))}, not {_shown(value)}")
        return hint(value)
    if hint is Any:
        return value
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint in (str, bool) and isinstance(value, hint):
        return value
    names = {float: "a finite number", int: "a whole number", str: "text", bool: "true or false"}
    wanted = names.get(hint) or {tuple: "a list", dict: "an object"}.get(origin, str(hint))
    raise ValueError(f"{where} must be {wanted}, not {_shown(value)}")


def _shown(value: Any) -> str:
    """A value for an error: short ones as JSON shows them, others by their type."""
    if value is None:
        return "null"
    if isinstance(value, (bool, int, float)):
        return str(value)
    return {str: "text", list: "a list", dict: "an object"}.get(type(value), type(value).__name__)
