"""Read lists and mappings in the forms in which people type them on a command line.

    t1,t2      [t1, t2]      ["t1", "t2"]      ('t1', 't2')
    {"t1": 1, "t2": 0.5}     {t1: 1, t2: 0.5}     {'t1': 1}     t1=1,t2=0.5     t1:1,t2:0.5

A name that holds a comma or a bracket stands in quotes: ["a,b"]. Where a name holds colons, the last one ends it.
"""

import json
import re
from typing import Any

from olmix_jax.utils.errors import UserError

_CLOSING = {"[": "]", "(": ")", "{": "}"}
_CONSTANTS = {"null": None, "none": None, "true": True, "false": False}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def read_list(text: str) -> tuple[str, ...]:
    """Return the items of a list as text; () for empty text.

    Raises:
      ValueError: a bracket or a quote is not closed.
    """
    text = text.strip()
    if text[:1] in ("[", "(") and _closes(text):
        text = text[1:-1]
    return tuple(_unquoted(part) for part in _split(text, ","))


def read_mapping(text: str, source: str) -> dict[str, Any]:
    """Return a mapping; nested mappings, lists, numbers, null, true and false become Python values.

    Args:
      text: the text.
      source: a config field, for errors.

    Raises:
      ValueError: the text is no mapping.
      UserError: a key appears twice.
    """
    text = text.strip()
    if text[:1] == "{" and _closes(text):
        text = text[1:-1]
    result: dict[str, Any] = {}
    for part in _split(text, ","):
        *before, value = _split(part, ":=")
        key = _unquoted(part[: len(part) - len(value)].rstrip()[:-1]) if before else ""
        if not key:
            raise ValueError(f"{part} is not of the form name: value")
        if key in result:
            raise UserError(f"{source}: the key {key} appears twice; keep one of them")
        result[key] = _value(value, source)
    return result


def is_mapping(text: str) -> bool:
    """Return whether text without brackets is a mapping to numbers, such as ``t1=1,t2=0.5``, and not a path."""
    try:
        content = read_mapping(text, "")
    except ValueError:
        return False
    except UserError:
        return True  # a key appears twice
    return bool(content) and all(isinstance(value, (int, float)) for value in content.values())


def _value(text: str, source: str) -> Any:
    if text[:1] == "{" and _closes(text):
        return read_mapping(text, source)
    if text[:1] in ("[", "(") and _closes(text):
        return [_value(part, source) for part in _split(text[1:-1], ",")]
    if text.casefold() in _CONSTANTS:
        return _CONSTANTS[text.casefold()]
    if _NUMBER.fullmatch(text):
        return int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)
    return _unquoted(text)


def _unquoted(text: str) -> str:
    text = text.strip()
    if len(text) < 2 or text[0] not in "\"'" or text[-1] != text[0]:
        return text
    return json.loads(text) if text[0] == '"' else text[1:-1]


def _closes(text: str) -> bool:
    """Return whether the bracket that begins the text is closed by its last character."""
    depths = [depth for _, depth in _depths(text)]
    return text[-1] == _CLOSING[text[0]] and min(depths[:-1]) > 0


def _split(text: str, separators: str) -> list[str]:
    """Split text at separators outside brackets and quotes. An empty last part, after a trailing comma, is left out."""
    parts, start = [], 0
    for at, depth in _depths(text):
        if depth == 0 and text[at] in separators:
            parts.append(text[start:at].strip())
            start = at + 1
    last = text[start:].strip()
    return [*parts, last] if last else parts


def _depths(text: str) -> list[tuple[int, int]]:
    """Return each place outside quotes with its depth in brackets. An opening bracket counts as inside.

    Raises:
      ValueError: a bracket or a quote is not closed.
    """
    result, open_, quote, at = [], "", "", 0
    while at < len(text):
        c = text[at]
        if quote:
            at += c == "\\" and quote == '"'
            quote = "" if c == quote else quote
        elif c in "\"'" and (not text[:at].rstrip() or text[:at].rstrip()[-1] in ",:=[({"):
            quote = c
        else:
            if c in _CLOSING:
                open_ += _CLOSING[c]
            elif open_ and c == open_[-1]:
                open_ = open_[:-1]
            result.append((at, len(open_)))
        at += 1
    if open_ or quote:
        raise ValueError(f"the closing {(open_ or quote)[-1]} is missing")
    return result
