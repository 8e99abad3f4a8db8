"""Names of domains, tasks and runs: the form in which they are compared, and how errors show them."""

import unicodedata
from collections.abc import Collection
from typing import Any


def normal(name: str) -> str:
    """Return the form in which names are compared.

    Composed and decomposed letters become the same, invisible characters (zero-width spaces, byte-order marks) are
    removed, each run of white space becomes one space, with none at the ends.
    """
    visible = "".join(c for c in composed(name) if unicodedata.category(c) != "Cf")
    return " ".join(visible.split())


def with_normal_names(value: Any) -> Any:
    """Return a value of a JSON or YAML file with all keys and texts, which are names, in their normal form."""
    if isinstance(value, dict):
        return {normal(key) if isinstance(key, str) else key: with_normal_names(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_normal_names(item) for item in value]
    return normal(value) if isinstance(value, str) else value


def composed(name: str) -> str:
    """Return a name with composed letters (NFC). Some file systems decompose the names of files."""
    return unicodedata.normalize("NFC", name)


def shown(name: str) -> str:
    """Return a name for an error. Letters outside ASCII, which can look like others, are spelt out in brackets."""
    return name if name.isascii() and name.isprintable() else f"{name} ({ascii(name)[1:-1]})"


def listed(names: Collection[str], most: int = 10) -> str:
    """Return up to ``most`` names as text, and how many more there are."""
    first = ", ".join(list(names)[:most])
    return f"{first} and {len(names) - most} more" if len(names) > most else first
