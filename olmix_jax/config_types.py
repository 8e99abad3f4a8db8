"""Plain values to typed dataclasses, with errors that name the field; and dataclasses to ``ConfigDict``s."""

import dataclasses
import types
import typing
from collections.abc import Callable

import ml_collections
from ml_collections import config_dict

from olmix_jax.errors import UserError


def build(kind, values: dict, where: str, unknown: Callable[[str], str]):
    """A dataclass of ``kind`` from plain values; ``unknown`` words the error for a field that it does not have.

    Raises:
      UserError: a field is unknown or of another type.
    """
    hints = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]
    for name in values:
        if name not in names:
            raise UserError(unknown(where + str(name)))
    return kind(**{name: _convert(hints[name], value, where + name, unknown) for name, value in values.items()})


def alternatives(hint) -> tuple:
    """The types a field takes: (int, NoneType) for ``int | None``."""
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _convert(hint, value, where: str, unknown):
    for kind in alternatives(hint):
        if dataclasses.is_dataclass(kind) and isinstance(value, dict):
            return build(kind, value, where + ".", unknown)
        if kind is types.NoneType and value is None:
            return None
        if kind in (str, bool) and isinstance(value, kind):
            return value
        if kind is int and isinstance(value, int) and not isinstance(value, bool):
            return value
        if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if typing.get_origin(kind) is tuple and isinstance(value, (list, tuple)):
            inner = typing.get_args(kind)
            if inner[-1] is Ellipsis or len(inner) == len(value):
                return tuple(_convert(inner[0], v, f"{where}[{i}]", unknown) for i, v in enumerate(value))
    wanted = getattr(hint, "__name__", str(hint)) if not isinstance(hint, types.UnionType) else str(hint)
    raise UserError(f"config field `{where}` must be {wanted}, not {value!r} ({type(value).__name__})")


class _Root(ml_collections.ConfigDict):
    """A ``ConfigDict`` whose section ``update`` is not hidden by the method of that name."""

    @property
    def update(self):
        return self["update"]


def config_dict_of(value, result: ml_collections.ConfigDict | None = None) -> ml_collections.ConfigDict:
    """A dataclass as a ``ConfigDict`` that keeps the types of its fields."""
    result, hints = _Root() if result is None else result, typing.get_type_hints(type(value))
    for field in dataclasses.fields(value):
        content = getattr(value, field.name)
        if dataclasses.is_dataclass(content):
            content = config_dict_of(content, ml_collections.ConfigDict())
        elif content is None:
            content = config_dict.placeholder(alternatives(hints[field.name])[0])
        result[field.name] = content
    return result
