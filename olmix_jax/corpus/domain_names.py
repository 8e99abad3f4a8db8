"""Names of domains and tasks: whether later stages can use them, before any text is read."""

import pathlib
import unicodedata
from collections.abc import Callable, Sequence

from olmix_jax.config.schema import Corpus
from olmix_jax.corpus import builtin, token_files
from olmix_jax.corpus.domain_folder import text_files
from olmix_jax.swarm import bookkeeping
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.folders import shown
from olmix_jax.utils.names import normal

# Bytes of a file name, without the ending that a store adds. File systems allow 255.
_LONGEST = 200


def list_names(corpus: Corpus) -> tuple[str, ...]:
    """Return the names of the domains that ``corpus.path`` has, checked, without reading text.

    Raises:
      UserError: see :func:`check`, :func:`token_files.domain_files` and :func:`domain_folder.text_files`.
    """
    if not corpus.path:
        return builtin.NAMES
    names = tuple(token_files.domain_files(corpus.path) or text_files(pathlib.Path(corpus.path), quiet=True))
    check(names, corpus.path)
    return names


def check(names: Sequence[str], where: str) -> None:
    """Raise an error for names of domains that a later stage cannot use.

    Args:
      names: the domains.
      where: ``corpus.path``, for errors.

    Raises:
      UserError: there are fewer than two domains; a name is that of another column, too long, not UTF-8, or has
        control characters or unusual spaces; or two names differ only in case or in the form of their letters.
    """
    _check(names, f"corpus.path={where}: domain", _column_of_runs)
    if len(names) == 1:
        raise UserError(
            f"corpus.path={where}: has one domain, {names[0]}, but a mixture needs two; {_advice(where, names[0])}"
        )


def check_tasks(names: Sequence[str], where: str) -> None:
    """Raise an error for names of tasks that a later stage cannot use, or would take for another column than a score.

    Raises:
      UserError: as :func:`check`, except that one task is enough.
    """
    _check(names, f"tasks.path={where}: task", _other_than_score)


def _column_of_runs(name: str) -> str:
    return "its column of runs" if name.casefold() in bookkeeping.KEYS else ""


def _other_than_score(name: str) -> str:
    # A column `id` of scores is a task, such as that of Indonesian.
    return _column_of_runs(name) or ("" if name.casefold() == "id" else bookkeeping.by_name(name))


def _check(names: Sequence[str], start: str, taken: Callable[[str], str]) -> None:
    first: dict[str, str] = {}
    for name in names:
        if problem := _problem(name, taken(name)):
            label = shown(name) if shown(name).isprintable() else ascii(name)[1:-1]
            raise UserError(f"{start} '{label}' {problem}; rename it")
        key = unicodedata.normalize("NFKC", name).casefold()
        if key in first:
            raise UserError(
                f"{start}s {first[key]!a} and {name!a} differ only in case or in the form of their letters, which some "
                "file systems do not distinguish; rename one"
            )
        first[key] = name


def _advice(where: str, name: str) -> str:
    folder = pathlib.Path(where, name)
    if folder.is_dir() and (inside := sorted(entry.name for entry in folder.iterdir() if entry.is_dir())):
        return f"if its sub-folders ({', '.join(inside[:4])}) are the domains, set corpus.path={folder}"
    return "add a sub-folder or a file per domain"


def _problem(name: str, taken: str) -> str:
    """Return what is wrong with a name; empty if nothing is. ``taken``: what a table takes a column of it for."""
    if any("\ud800" <= char <= "\udfff" for char in name):
        return "has a name that is not UTF-8"
    if not name.isprintable():
        return "has invisible characters in its name"
    if name != normal(name):
        return "has spaces at an end of its name, or several in a row"
    if taken:
        return f"has a name that a table takes for another column ({taken})"
    if len(files.file_name(name).encode()) > _LONGEST:
        return f"has a name of more than {_LONGEST} bytes"
    return ""
