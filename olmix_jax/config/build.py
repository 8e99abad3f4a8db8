"""A :class:`~olmix_jax.config.schema.Config` from plain values, with errors that name the field."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Collection

from olmix_jax.config import olmix_yaml, validation
from olmix_jax.config.schema import Config
from olmix_jax.utils.errors import UserError


def from_dict(config, given: Collection[str] = ()) -> Config:
    """Turns a ``ConfigDict`` (or a plain dict, as in ``config.json``) into a :class:`Config`.

    Args:
      config: the settings.
      given: dotted fields that the user gave one by one; they win over those of ``olmix_yaml``.

    Raises:
      UserError: a field is unknown (the nearest name is given), ill-typed or out of range; or ``olmix_yaml`` cannot be
        followed.
    """
    if not isinstance(config, dict):
        config = config.to_dict()
    result = olmix_yaml.translated(build(Config, config, "", unknown_field), given)
    validation.check(result)
    return result


def unknown_field(name: str) -> str:
    """The message for a field that does not exist, with the nearest that does."""
    near = difflib.get_close_matches(name, field_names(), n=1, cutoff=0.0)
    return f"config has no field `{name}`; the nearest is `{near[0]}`"


def field_names() -> list[str]:
    """All fields, dotted."""
    names = []
    for field in dataclasses.fields(Config):
        if dataclasses.is_dataclass(field.type):
            names += [f"{field.name}.{f.name}" for f in dataclasses.fields(field.type)]
        else:
            names.append(field.name)
    return names


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
