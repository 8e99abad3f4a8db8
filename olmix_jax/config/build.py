"""Build a :class:`~olmix_jax.config.schema.Config` from plain values; errors name the field."""

import contextlib
import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Collection

from olmix_jax.config import json_fields, olmix_yaml, paths, typed_text, validation
from olmix_jax.config.schema import Config
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.names import normal


def from_dict(config, given: Collection[str] = ()) -> Config:
    """Build a :class:`Config` from a ``ConfigDict``, or from a plain dict such as the content of ``config.json``.

    Args:
      config: the settings.
      given: dotted names of the fields that were set by flags; they override the file in ``olmix_yaml``.

    Raises:
      UserError: a field is unknown (the message has the nearest name), has the wrong type or is out of range; or the
        file in ``olmix_yaml`` cannot be translated.
    """
    if not isinstance(config, dict):
        config = config.to_dict()
    result = json_fields.as_json(paths.expanded(build(Config, config, "", unknown_field)))
    result = paths.expanded(olmix_yaml.translated(result, given))
    validation.check(result)
    return result


def unknown_field(name: str) -> str:
    """Return the error message for an unknown field, with the nearest name."""
    near = difflib.get_close_matches(name, field_names(), n=1, cutoff=0.0)
    return f"config has no field `{name}`; the nearest is `{near[0]}`"


def field_names() -> list[str]:
    """Return the dotted names of all fields."""
    names = []
    for field in dataclasses.fields(Config):
        if dataclasses.is_dataclass(field.type):
            names += [f"{field.name}.{f.name}" for f in dataclasses.fields(field.type)]
        else:
            names.append(field.name)
    return names


def optional(name: str) -> bool:
    """Return whether a field can be None: to be derived, or as one of its values."""
    section, _, field = name.rpartition(".")
    kinds: dict[str, typing.Any] = {f.name: f.type for f in dataclasses.fields(Config)}
    kind = kinds.get(section, Config)
    fields = {f.name: f for f in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else {}
    return field in fields and (bool(fields[field].metadata) or types.NoneType in alternatives(fields[field].type))


def with_none(config: dict, names: Collection[str]) -> dict:
    """Return the nested dict of a config with the fields of these dotted names set to None."""
    for name in names:
        section, _, field = name.rpartition(".")
        config = config | {section: config[section] | {field: None}}
    return config


def build(kind, values: dict, where: str, unknown: Callable[[str], str]):
    """Build a dataclass from plain values, with nested dataclasses from nested dicts.

    Args:
      kind: the dataclass.
      values: values by field.
      where: dotted prefix of the fields' names, for errors.
      unknown: returns the error message for an unknown field, given its dotted name.

    Raises:
      UserError: a field is unknown or has the wrong type.
    """
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for name in values:
        if name not in fields:
            raise UserError(unknown(where + str(name)))
    hints |= {name: hints[name] | None for name, field in fields.items() if field.metadata.get("derived")}
    return kind(**{name: _convert(hints[name], value, where + name, unknown) for name, value in values.items()})


def _items(value: list | tuple | str) -> list | tuple | None:
    """Return the items of a list, which may be given as text; None if the text is no list."""
    try:
        return typed_text.read_list(value) if isinstance(value, str) else value
    except ValueError:
        return None


def _convert_item(hint, value, where: str, unknown):
    """Convert an item of a list. In a flag all items are text; names are brought into their normal form."""
    if hint is float and isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    return _convert(hint, normal(value) if isinstance(value, str) else value, where, unknown)


def alternatives(hint) -> tuple:
    """Return the types that a field accepts: (int, NoneType) for ``int | None``."""
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
        if typing.get_origin(kind) is tuple and isinstance(value, (list, tuple, str)):
            items, inner = _items(value), typing.get_args(kind)
            if items is not None and (inner[-1] is Ellipsis or len(inner) == len(items)):
                return tuple(_convert_item(inner[0], v, f"{where}[{i}]", unknown) for i, v in enumerate(items))
    wanted = getattr(hint, "__name__", str(hint)) if not isinstance(hint, types.UnionType) else str(hint)
    if typing.get_origin(hint) is tuple:
        wanted = (
            'a list of names such as a,b or ["a","b"]' if str in typing.get_args(hint) else "two numbers such as 1,2"
        )
    raise UserError(f"config field `{where}` must be {wanted}, not {value!r} ({type(value).__name__})")
