"""Token files of other programs, used in place: which files belong to which domain, and how much text they hold.

:mod:`olmix_jax.corpus.token_formats` reads the formats. Files of other types in a folder of token files are ignored.
"""

import collections
import dataclasses
import json
import os
from collections.abc import Sequence

import fsspec
import numpy as np

from olmix_jax.corpus.readers import is_text
from olmix_jax.corpus.store import Shard, TokenStore, errors_name, is_remote
from olmix_jax.corpus.token_formats import SUFFIXES, inspect, shards_of
from olmix_jax.corpus.tokenizer import Tokenizer
from olmix_jax.swarm.domains import CONTENT_MODULUS
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log

# At most this many tokens of a domain are read to count its bytes, in blocks spread over all of its files.
COUNTED, _BLOCK = 1 << 22, 1 << 16


@dataclasses.dataclass(frozen=True)
class TokenText:
    """The token files of a domain.

    Attributes:
      shards: files that hold tokens.
      bytes: size of the domain as UTF-8 text, estimated above :data:`COUNTED` tokens.
      content: content hash: the sum of the files' hashes. Names and order of files do not matter.
    """

    shards: list[Shard]
    bytes: int
    content: str


def domain_files(where: str) -> dict[str, list[str]]:
    """Return the token files of each domain, both sorted. Empty for a local folder without token files.

    Args:
      where: a folder on disk or a URL, with one sub-folder or one file per domain; or a JSON object {domain: pattern or
        list of patterns}; or the path of a JSON file with such an object.

    Raises:
      UserError: a pattern matches nothing, two domains have the same name, some domains are text and some are tokens,
        or the folder cannot be read.
    """
    if _has_patterns(where):
        return _match_patterns(where)
    system, root = _open_system(where)
    # {domain: {whether in a sub-folder: files}}. A domain with files of both kinds is an error.
    token_files: dict[str, dict[bool, list[str]]] = {}
    other_files: dict[str, str] = {}
    for path in _list_files(system, root, where):
        parts = path[len(root) :].strip("/").split("/")
        if any(part.startswith(".") for part in parts):
            continue
        suffix, in_folder = os.path.splitext(path)[1], len(parts) > 1
        name = parts[0] if in_folder else parts[0].removesuffix(suffix)
        if suffix in SUFFIXES:
            token_files.setdefault(name, {}).setdefault(in_folder, []).append(_full_path(system, path, where))
        elif in_folder or (is_text(path) and suffix != ".md"):
            # A Markdown file among the domain folders is a README, not a domain.
            other_files.setdefault(parts[0], path)
    if not token_files:
        if is_remote(where) or os.path.splitext(where)[1] in SUFFIXES:
            raise UserError(
                f"{where}: not a folder with token files ({', '.join(SUFFIXES)}), one sub-folder or file per domain; "
                "text can be read from disk only"
            )
        return {}
    if not is_remote(where):
        # Add empty folders, which the list of files does not contain.
        folders = {e.name: e.path for e in os.scandir(root) if e.is_dir() and not e.name.startswith(".")}
        other_files = folders | other_files
    _check_domains(token_files, other_files, where)
    return {name: sorted(paths) for name in sorted(token_files) for paths in token_files[name].values()}


def _check_domains(token_files: dict[str, dict[bool, list[str]]], other_files: dict[str, str], where: str) -> None:
    """Raise a UserError for a domain without token files, or one that is both a folder and a file."""
    without = sorted(path for name, path in other_files.items() if name not in token_files)
    if without:
        raise UserError(
            f"{without[0]}: no token file ({', '.join(SUFFIXES)}), but other domains have some; tokenize this domain "
            f"too, or move it out of {where}"
        )
    for name, places in token_files.items():
        if len(places) > 1:
            raise UserError(f"{where}: domain {name} is both a folder and a file; rename one of them")


def stamp(where: str) -> str | None:
    """Return a digest of the files that patterns or a URL match, and of their versions; None for a local folder.

    The version of a file is what its file system reports, such as its modification time or ETag.
    """
    if not (_has_patterns(where) or is_remote(where)):
        return None
    versions = []
    for name, paths in domain_files(where).items():
        for path in paths:
            system, inner_path = _open_system(path)
            with errors_name(path):
                versions.append((name, path, system.ukey(inner_path)))
    return files.digest(versions)


def read(paths: Sequence[str], tokenizer: Tokenizer, domain: str) -> TokenText:
    """Inspect the token files of a domain and count its bytes of text.

    All tokens are counted if there are at most :data:`COUNTED`. Otherwise that many are counted, in blocks spread over
    all files, and the result is scaled. Ids are checked here for the counted tokens, and for all others when read.

    Raises:
      UserError: a file cannot be read, or has ids outside the tokenizer's vocabulary.
    """
    token_files = [inspect(*_open_system(path), path) for path in paths]
    content = sum(int.from_bytes(file.digest, "big") for file in token_files)
    shards = [shard for shard in shards_of(token_files, tokenizer.size) if shard.tokens]
    store = TokenStore(domain, shards, tokenizer.size)
    starts = list(range(0, len(store), _BLOCK))
    if len(store) > COUNTED:
        starts = np.linspace(0, len(store) - _BLOCK, COUNTED // _BLOCK).astype(np.int64).tolist()
    counted, size, ends = 0, 0, 0
    for start in starts:
        ids = store.read(start, start + _BLOCK)
        counted += len(ids)
        size += int(tokenizer.token_bytes_V[ids].sum(dtype=np.int64))
        ends += int((ids == tokenizer.end).sum())
    if counted and not ends:
        log.warning(
            "%s: no end-of-document token (id %d) in %d tokens; documents are not separated",
            *(domain, tokenizer.end, counted),
        )
    return TokenText(shards, round(size * len(store) / max(1, counted)), f"{content % CONTENT_MODULUS:032x}")


def _has_patterns(where: str) -> bool:
    """Whether ``where`` is a JSON object, or the path of a JSON file on disk."""
    return where.lstrip().startswith("{") or (where.endswith(".json") and not is_remote(where))


def _match_patterns(where: str) -> dict[str, list[str]]:
    try:
        patterns_of = json.loads(where) if where.lstrip().startswith("{") else files.read_json(where)
    except json.JSONDecodeError as e:
        raise UserError(f"corpus.path: not valid JSON: {e}") from e
    domains: dict[str, list[str]] = {}
    for name, patterns in patterns_of.items():
        patterns = [patterns] if isinstance(patterns, str) else patterns
        if not name or not isinstance(patterns, list) or not patterns or not all(isinstance(p, str) for p in patterns):
            raise UserError(f"corpus.path: domain {name!r} needs a name, and a file pattern or a list of patterns")
        domains[name] = [path for pattern in patterns for path in _match_pattern(pattern, name)]
    if not domains:
        raise UserError("corpus.path: has no domain; write {domain: pattern or list of patterns}")
    count_of = collections.Counter(path for paths in domains.values() for path in paths)
    path, count = count_of.most_common(1)[0]
    if count > 1:
        raise UserError(f"corpus.path: {path} is in two domains or twice in one; patterns must not overlap")
    return domains


def _match_pattern(pattern: str, domain: str) -> list[str]:
    system, path = _open_system(pattern)
    with errors_name(pattern):
        matches = [p for p in sorted(system.glob(path)) if os.path.splitext(p)[1] in SUFFIXES]
        is_folder = not matches and system.isdir(path)
    if not matches:
        folder = pattern.rstrip("/")
        advice = (
            f"; it is a folder: write {folder}/*.npy, or {folder}/**/*.npy for all sub-folders" if is_folder else ""
        )
        raise UserError(f"corpus.path: domain {domain}: no {', '.join(SUFFIXES)} file matches {pattern}{advice}")
    return [_full_path(system, p, pattern) for p in matches]


def _open_system(where: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a path or URL, and the path within it."""
    with errors_name(where):
        return fsspec.core.url_to_fs(where if is_remote(where) else os.path.abspath(where))


def _list_files(system: fsspec.AbstractFileSystem, root: str, where: str) -> list[str]:
    """List all files below a folder, sorted. Links on disk are followed."""
    if is_remote(where):
        with errors_name(where):
            return sorted(system.find(root))
    return [str(path) for path in files.list_files(root)] if os.path.isdir(root) else []


def _full_path(system: fsspec.AbstractFileSystem, path: str, where: str) -> str:
    """Return the path or URL that opens a file of ``system`` again. Chained protocols (``simplecache::…``) are kept."""
    if not is_remote(where):
        return path
    chain = where.rpartition("::")[0]
    inner = fsspec.core.url_to_fs(where.rpartition("::")[2])[0]
    return (chain + "::" if chain else "") + inner.unstrip_protocol(path)
