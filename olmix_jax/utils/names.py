"""Names of domains, tasks and runs: the form in which they are compared, and how errors show them."""

import unicodedata
from collections.abc import Collection


def normal(name: str) -> str:
    """Return the form in which names are compared.

    Composed and decomposed letters become the same (NFC), invisible characters (zero-width spaces, byte-order marks)
    are removed, and each run of white space becomes one space, with none at the ends.
    """
    visible = "".join(c for c in unicodedata.normalize("NFC", name) if unicodedata.category(c) != "Cf")
    return " ".join(visible.split())


def shown(name: str) -> str:
    """Return a name for an error. Letters outside ASCII, which can look like others, are spelt out in brackets."""
    return name if name.isascii() and name.isprintable() else f"{name} ({ascii(name)[1:-1]})"


def listed(names: Collection[str], most: int = 8) -> str:
    """Return up to ``most`` names as text, and how many more there are."""
    first = ", ".join(list(names)[:most])
    return f"{first} and {len(names) - most} more" if len(names) > most else first
