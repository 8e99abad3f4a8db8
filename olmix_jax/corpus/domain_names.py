"""Names of domains: which there will be, and whether they can be used, before any text is read."""

import pathlib
import unicodedata
from collections.abc import Sequence

from olmix_jax.config.schema import Corpus
from olmix_jax.corpus import builtin, token_files
from olmix_jax.corpus.domain_folder import shown, text_files
from olmix_jax.swarm.csv_files import KEYS
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError

# Columns of the tables of mixtures that are no domains.
_RESERVED = (*KEYS, "run_id")
# Bytes of a file name, without the ending that a store adds. File systems allow 255.
_LONGEST = 200


def list_names(corpus: Corpus) -> tuple[str, ...]:
    """Return the names of the domains that ``corpus.path`` has, without reading text.

    Raises:
      UserError: see :func:`token_files.domain_files` and :func:`domain_folder.text_files`.
    """
    if not corpus.path:
        return builtin.NAMES
    return tuple(token_files.domain_files(corpus.path) or text_files(pathlib.Path(corpus.path), quiet=True))


def check(names: Sequence[str], where: str) -> None:
    """Raise an error for names that a later stage cannot use.

    Args:
      names: the domains.
      where: ``corpus.path``, for errors.

    Raises:
      UserError: there are fewer than two domains; a name is reserved, too long, not UTF-8, or has control characters or
        spaces around it; or two names differ only in case or in the form of their letters.
    """
    for name in names:
        if problem := _problem(name):
            label = shown(name) if shown(name).isprintable() else ascii(name)[1:-1]
            raise UserError(f"corpus.path={where}: domain '{label}' {problem}; rename it")
    first: dict[str, str] = {}
    for name in names:
        key = unicodedata.normalize("NFKC", name).casefold()
        if key in first:
            raise UserError(
                f"corpus.path={where}: domains {first[key]!a} and {name!a} differ only in case or in the form of their "
                "letters, which some file systems do not distinguish; rename one"
            )
        first[key] = name
    if len(names) == 1:
        raise UserError(
            f"corpus.path={where}: has one domain, {names[0]}, but a mixture needs two; {_advice(where, names[0])}"
        )


def _advice(where: str, name: str) -> str:
    folder = pathlib.Path(where, name)
    if folder.is_dir() and (inside := sorted(entry.name for entry in folder.iterdir() if entry.is_dir())):
        return f"if its sub-folders ({', '.join(inside[:4])}) are the domains, set corpus.path={folder}"
    return "add a sub-folder or a file per domain"


def _problem(name: str) -> str:
    """Return what is wrong with a name; empty if nothing is."""
    if any("\ud800" <= char <= "\udfff" for char in name):
        return "has a name that is not UTF-8"
    if name != name.strip():
        return "has spaces at the start or the end of its name"
    if not name.isprintable():
        return "has invisible characters in its name"
    if name.casefold() in _RESERVED:
        return f"has the name of a column of ratios.csv ({', '.join(_RESERVED)})"
    if len(files.file_name(name).encode()) > _LONGEST:
        return f"has a name of more than {_LONGEST} bytes"
    return ""
