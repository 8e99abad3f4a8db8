"""Configs as ml-collections ``ConfigDict``s. The only module that imports ml_collections."""

import dataclasses
import typing

import ml_collections
from absl import flags as absl_flags
from ml_collections import config_dict, config_flags

from olmix_jax.config import typed_text
from olmix_jax.config.build import alternatives
from olmix_jax.config.schema import Config


def default() -> ml_collections.ConfigDict:
    """Return the defaults as a ``ConfigDict``, for files in ``configs/`` and ``--config.‹field›=`` to change.

    Derived fields are None, so that a change of another setting changes them too.
    """
    return config_dict_of(Config)


class _Root(ml_collections.ConfigDict):
    """A ``ConfigDict`` whose attribute ``update`` is the section of that name, not the method."""

    @property
    def update(self):
        return self["update"]


class _ListParser(absl_flags.ArgumentParser):
    """Parses the flag of a field that holds a list, in the forms of :mod:`olmix_jax.config.typed_text`."""

    syntactic_help = "a list such as a,b"

    def parse(self, argument):
        try:
            return typed_text.read_list(argument) if isinstance(argument, str) else tuple(argument)
        except ValueError as e:
            raise ValueError(f'{e}; write a list as a,b or ["a","b"]') from e


config_flags.register_flag_parser_for_type(tuple, _ListParser())


def config_dict_of(kind: type, result: ml_collections.ConfigDict | None = None) -> ml_collections.ConfigDict:
    """Return the defaults of a dataclass as a ``ConfigDict`` that keeps the types of its fields."""
    result, hints = _Root() if result is None else result, typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        content = field.default
        if dataclasses.is_dataclass(field.type):
            content = config_dict_of(typing.cast(type, field.type), ml_collections.ConfigDict())
        elif content is None:
            content = config_dict.placeholder(alternatives(hints[field.name])[0])
        result[field.name] = content
    return result
