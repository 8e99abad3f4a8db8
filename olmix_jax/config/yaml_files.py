"""Read YAML and JSON files strictly. The only module that imports YAML.

YAML 1.1 turns many names into other things: ``no`` into false, ``1.10`` into 1.1, ``12:30`` into 750. Here keys are
text as written. A value is a number in decimal notation, ``true``, ``false``, ``null`` or text.
"""

import math
import pathlib
import re
from typing import Any

import yaml

from olmix_jax.utils import files, os_errors
from olmix_jax.utils.errors import UserError

_INT = re.compile(r"[+-]?(0|[1-9][0-9_]*)")
_FLOAT = re.compile(r"[+-]?(0|[1-9][0-9_]*)?\.[0-9]*([eE][+-]?[0-9]+)?|[+-]?(0|[1-9][0-9_]*)[eE][+-]?[0-9]+")
_CONSTANTS = {"true": True, "false": False, "null": None, "~": None, "": None}
# Digits of a whole number; Python refuses to read much longer ones.
_LONGEST = 1000
_TEXT, _PLAIN = "tag:yaml.org,2002:str", "tag:yaml.org,2002:plain"


class _Loader(yaml.SafeLoader):
    """YAML whose mappings have text as keys, each once, and whose plain values are of few types."""

    yaml_implicit_resolvers = {"<": yaml.SafeLoader.yaml_implicit_resolvers["<"]}  # merge keys

    def resolve(self, kind, value, implicit):
        tag = super().resolve(kind, value, implicit)
        # A scalar without quotes and tag.
        return _PLAIN if kind is yaml.ScalarNode and tag == _TEXT and implicit[0] else tag

    def compose_node(self, parent, index):
        event = self.peek_event()
        node = super().compose_node(parent, index)
        if isinstance(event, yaml.AliasEvent) and node.end_mark is None:
            raise yaml.YAMLError(f"line {event.start_mark.line + 1}: `*{event.anchor}` contains itself")
        return node

    def compose_mapping_node(self, anchor):
        node = super().compose_mapping_node(anchor)
        lines = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"line {line}: a key must be text, not a list or a mapping")
            if key.value in lines:
                raise yaml.YAMLError(f"line {line}: `{key.value}` is already on line {lines[key.value]}; keep one")
            lines[key.value] = line
            if key.tag == _PLAIN:
                key.tag = _TEXT
        return node

    def construct_plain(self, node):
        """Return the value of a scalar without quotes."""
        text = node.value
        if text.lower() in _CONSTANTS:
            return _CONSTANTS[text.lower()]
        if _INT.fullmatch(text) and len(text) <= _LONGEST:
            return int(text.replace("_", ""))
        if text not in ("", ".") and _FLOAT.fullmatch(text):
            number = float(text.replace("_", ""))
            return number if math.isfinite(number) else text
        return text

    def construct_other(self, node):
        """Refuse a tag, which could stand for code or for a type that no setting has."""
        raise yaml.YAMLError(f"line {node.start_mark.line + 1}: the tag {node.tag} is not supported; remove it")


_Loader.yaml_constructors = {
    _PLAIN: _Loader.construct_plain,
    _TEXT: yaml.SafeLoader.construct_yaml_str,
    "tag:yaml.org,2002:map": yaml.SafeLoader.construct_yaml_map,
    "tag:yaml.org,2002:seq": yaml.SafeLoader.construct_yaml_seq,
    None: _Loader.construct_other,
}


class _NamesLoader(_Loader):
    """YAML whose plain values are text as written, or null."""

    def construct_name(self, node):
        return None if _CONSTANTS.get(node.value.lower(), "") is None else node.value


_NamesLoader.yaml_constructors = _Loader.yaml_constructors | {_PLAIN: _NamesLoader.construct_name}


def read(path: str | pathlib.Path, *, names: bool = False) -> Any:
    """Return the content of a YAML file, or of a JSON file if its suffix is ``.json``.

    Args:
      path: the file.
      names: whether the values of a YAML file are names, so that ``1.10`` is text too.

    Raises:
      UserError: the file cannot be read, is not valid YAML, or repeats a key.
    """
    path = pathlib.Path(path)
    if path.suffix.lower() == ".json":
        return files.read_json(path)
    try:
        loader = _NamesLoader if names else _Loader
        return loader(path.read_text(encoding="utf-8-sig")).get_single_data()
    except OSError as e:
        raise UserError(f"{path}: cannot be read: {os_errors.reading(e)}") from e
    except RecursionError as e:
        raise UserError(f"{path}: not valid YAML: too many brackets inside each other") from e
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise UserError(f"{path}: not valid YAML: {_reason(e)}") from e


def _reason(error: Exception) -> str:
    """Return the line and what is wrong there."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem:
        mark = error.problem_mark or error.context_mark
        what = f"{error.context}, {error.problem}" if error.problem.startswith("but ") else error.problem
        return f"line {mark.line + 1}, column {mark.column + 1}: {what}" if mark else what
    if isinstance(error, yaml.reader.ReaderError):
        return f"the character U+{error.character:04X} is not allowed"
    return " ".join(str(error).split())


def dumps(content: Any) -> str:
    """Return plain values as YAML, keys in the given order."""
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)
