"""Which files of a folder belong to which domain. Every file is read, is no data, or is an error that names it."""

import os
import pathlib
import re
from collections.abc import Mapping
from typing import TypeVar

from olmix_jax.corpus.file_types import JSON_LINES, SUFFIXES, Kind, kind_of, refuse_unread, split_name
from olmix_jax.utils import names
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.folders import Entry, shown, walk
from olmix_jax.utils.progress import counted, log

Files = TypeVar("Files")

# Documentation has fewer bytes.
_MUCH = 1 << 20
LAYOUT = "one sub-folder, or one .txt, .md or .jsonl file (optionally .gz or .zst), per domain"


def text_files(root: pathlib.Path, quiet: bool = False) -> dict[str, list[pathlib.Path]]:
    """Return the text files of each domain. Domains and files are sorted.

    Args:
      root: the folder.
      quiet: whether not to log the files that are left out or empty.

    Raises:
      UserError: there is no domain, a domain has no text file, two have the same name, or a file may be data but is not
        of a known type.
    """
    if not root.is_dir():
        problem = "is a file" if root.exists() else "does not exist"
        raise UserError(f"corpus.path={root} {problem}; it must be a folder with {LAYOUT}")
    entries = walk(root)
    kinds = [kind_of(entry.parts) for entry in entries]
    refuse_unread([e.path for e, kind in zip(entries, kinds) if kind not in (Kind.TEXT, Kind.NO_DATA)], root)
    for entry in (entry for entry, kind in zip(entries, kinds) if kind is Kind.NO_DATA and _holds_text(entry)):
        raise UserError(
            f"{shown(entry.path)}: has the name of documentation or bookkeeping, which is not read, but holds text; "
            f"rename it if it is data, else move it out of {root}"
        )
    domains: dict[str, list[pathlib.Path]] = {}
    for entry, kind in zip(entries, kinds):
        if kind is Kind.TEXT:
            is_file = len(entry.parts) == 1
            name = split_name(entry.parts[0]).stem if is_file else entry.parts[0]
            if name in domains and (is_file or domains[name][0].parent == root):
                raise UserError(
                    f"domain {name} is in {root} twice, as {domains[name][0]} and as {entry.path}; rename one"
                )
            domains.setdefault(name, []).append(entry.path)
    _check_folders(root, set(domains))
    if not domains:
        raise UserError(f"corpus.path={root} has no domain; it must have {LAYOUT}")
    if not quiet:
        _log_left_out([e.path for e, kind in zip(entries, kinds) if kind is Kind.NO_DATA])
        _log_empty([path for paths in domains.values() for path in paths])
    return composed(domains, root)


def composed(domains: Mapping[str, Files], root: str | os.PathLike) -> dict[str, Files]:
    """Return domains sorted by name, with composed letters (NFC): macOS decomposes them in the names of files.

    Raises:
      UserError: two names are then the same.
    """
    result: dict[str, Files] = {}
    for name in sorted(domains):
        key = names.composed(name)
        if key in result:
            raise UserError(f"{root}: two domains are called {key}, with composed and decomposed letters; rename one")
        result[key] = domains[name]
    return dict(sorted(result.items()))


def _holds_text(entry: Entry) -> bool:
    """Return whether a file that is no data by its name is by its content: JSON lines with text, or much text."""
    suffix = split_name(entry.path.name).suffix
    if suffix not in SUFFIXES or kind_of((*entry.parts[:-1], "x.jsonl")) is not Kind.TEXT:
        return False
    if suffix not in JSON_LINES:
        return entry.path.stat().st_size > _MUCH
    with open(entry.path, "rb") as f:
        return re.match(rb'\s*\{.*?"text"\s*:\s*"', f.readline(1 << 16)) is not None


def _check_folders(root: pathlib.Path, domains: set[str]) -> None:
    """Raise an error for a sub-folder without text."""
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        if folder.name in domains or kind_of((folder.name, "x")) is Kind.NO_DATA:
            continue
        inside = walk(folder)
        problem = f"has only files that are not read as text, such as {inside[0].path.name}" if inside else "is empty"
        raise UserError(
            f"domain {shown(folder.name)}: {shown(folder)} {problem}; add {', '.join(SUFFIXES)} files or move it away"
        )


def _log_empty(paths: list[pathlib.Path]) -> None:
    empty = [path for path in paths if not path.stat().st_size]
    if empty:
        log.warning("corpus: %s of no bytes, such as %s", counted(len(empty), "text file"), shown(empty[0]))


def _log_left_out(paths: list[pathlib.Path]) -> None:
    visible = [path for path in paths if not path.name.startswith(".")]
    if visible:
        first = ", ".join(sorted({shown(path.name) for path in visible})[:5])
        log.info("corpus: left out %s of documentation, bookkeeping or media: %s", counted(len(visible), "file"), first)
