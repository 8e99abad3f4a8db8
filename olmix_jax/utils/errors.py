"""The exception for errors that the user can fix."""

from collections.abc import Sequence


class UserError(Exception):
    """Bad input. The message names the file, field or row and says what to change. Shown without a traceback."""


# Items of a list that an error shows.
SHOWN = 10


def listed(items: Sequence[str]) -> str:
    """Return the first items as text, and how many more there are."""
    return ", ".join(items[:SHOWN]) + (f" and {len(items) - SHOWN} more" if len(items) > SHOWN else "")
