"""All files below a folder, and how messages show their paths."""

import dataclasses
import os
import pathlib
import stat
from collections.abc import Iterator

from olmix_jax.utils import os_errors
from olmix_jax.utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Entry:
    """A file below a folder.

    Attributes:
      path: its path.
      parts: its path relative to the folder, as names.
    """

    path: pathlib.Path
    parts: tuple[str, ...]


def walk(root: str | os.PathLike) -> list[Entry]:
    """List all files below a folder, sorted by path. Links are followed; links that form a cycle are skipped.

    Raises:
      UserError: a folder cannot be read, a link is broken, or an entry is neither a file nor a folder.
    """

    def entries(place: str, parts: tuple[str, ...], ancestors: frozenset[str]) -> Iterator[Entry]:
        real = os.path.realpath(place)
        # A folder that is its own ancestor is a cycle. Two separate links to one folder are no cycle; both are listed.
        if real in ancestors:
            return
        for name in os.listdir(place):
            path, inner = os.path.join(place, name), (*parts, name)
            mode = _mode(path)
            if stat.S_ISDIR(mode):
                yield from entries(path, inner, ancestors | {real})
            elif stat.S_ISREG(mode):
                yield Entry(pathlib.Path(path), inner)
            else:
                raise UserError(f"{shown(path)}: not a regular file (a pipe, socket or device); remove it")

    try:
        return sorted(entries(os.fspath(root), (), frozenset()), key=lambda entry: entry.path)
    except OSError as e:
        raise UserError(f"{shown(e.filename or root)}: cannot be read: {os_errors.reading(e)}") from e


def _mode(path: str) -> int:
    try:
        return os.stat(path).st_mode
    except OSError as e:
        if os.path.islink(path):
            raise UserError(
                f"{shown(path)}: a broken link to {shown(os.readlink(path))}; mount or restore that, or remove the link"
            ) from e
        raise


def shown(path: str | os.PathLike) -> str:
    r"""Return a path for messages and JSON: bytes that are not UTF-8 are written as ``\xff``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
