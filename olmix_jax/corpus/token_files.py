"""Token files of other programs, used in place: which files belong to which domain, and how much text they hold.

:mod:`olmix_jax.corpus.token_formats` reads the formats.
"""

import collections
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence

import fsspec
import numpy as np

from olmix_jax.corpus.domain_folder import composed
from olmix_jax.corpus.file_types import TOKENS as SUFFIXES
from olmix_jax.corpus.file_types import Kind, described_by, kind_of, refuse_unread
from olmix_jax.corpus.shared_lines import SharedLines
from olmix_jax.corpus.store import Shard, TokenStore, errors_name, is_remote
from olmix_jax.corpus.token_formats import inspect, shards_of
from olmix_jax.corpus.tokenizer import Tokenizer
from olmix_jax.swarm.domains import CONTENT_MODULUS
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.folders import walk
from olmix_jax.utils.progress import counted, log

# At most this many tokens of a domain are read to count its bytes, in blocks spread over all of its files.
COUNTED, _BLOCK = 1 << 22, 1 << 16
# At most this many ids of a domain on disk are compared with the vocabulary, in larger blocks.
_COMPARED, _LARGE_BLOCK = 1 << 32, 1 << 22
# Zeros in a row, which no text has: a part of a file that was not written, or padding. Twice as many are always found.
_GAP = 1 << 11
# Tokens by which documents are compared; shorter ones may be in many domains.
_SHORT = 32


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
    listing = _list_files(system, root, where)
    kinds = {path: kind_of(path[len(root) :].strip("/").split("/")) for path in listing}
    for path in (path for path, kind in kinds.items() if kind is Kind.TOKENS):
        first, *inside = path[len(root) :].strip("/").split("/")
        name = first if inside else os.path.splitext(first)[0]
        token_files.setdefault(name, {}).setdefault(bool(inside), []).append(_full_path(system, path, where))
    if not token_files:
        if is_remote(where) or where.lower().endswith(SUFFIXES):
            raise UserError(
                f"{where}: not a folder with token files ({', '.join(SUFFIXES)}), one sub-folder or file per domain; "
                "text can be read from disk only"
            )
        return {}
    if not is_remote(where):
        _check_folders(root, token_files, where)
    for name, places in token_files.items():
        if len(places) > 1:
            raise UserError(f"{where}: domain {name} is both a folder and a file; rename one of them")
    _refuse_others(kinds, where)
    return composed({n: sorted(paths) for n, places in token_files.items() for paths in places.values()}, where)


def _check_folders(root: str, token_files: Mapping[str, object], where: str) -> None:
    """Raise an error for a sub-folder without token files."""
    for name in sorted(entry.name for entry in os.scandir(root) if entry.is_dir()):
        if name not in token_files and not name.startswith(".") and kind_of((name, "x.npy")) is not Kind.NO_DATA:
            raise UserError(
                f"{os.path.join(root, name)}: no token file ({', '.join(SUFFIXES)}), but other domains have some; "
                f"tokenize this domain too, or move it out of {where}"
            )


def _refuse_others(kinds: Mapping[str, Kind], where: str) -> None:
    """Raise an error for text and other data among token files."""
    text = [path for path, kind in kinds.items() if kind is Kind.TEXT]
    if text:
        raise UserError(
            f"{text[0]}: no token file ({', '.join(SUFFIXES)}), but others in {where} are; tokenize it too, or move it "
            "out"
        )
    refuse_unread([path for path, kind in kinds.items() if kind is Kind.UNREAD], where)
    names = {path.lower() for path in kinds}
    for path in (path for path, kind in kinds.items() if kind is Kind.SIDECAR):
        if not any(described.lower() in names for described in described_by(path)):
            missing = os.path.basename(described_by(path)[0])
            raise UserError(f"{path}: describes the token file {missing}, which is missing; restore it")


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


def read(paths: Sequence[str], tokenizer: Tokenizer, domain: str, documents: SharedLines | None = None) -> TokenText:
    """Inspect the token files of a domain and count its bytes of text.

    All tokens are counted if there are at most :data:`COUNTED`. Otherwise that many are counted, in blocks spread over
    all files, and the result is scaled. On disk up to :data:`_COMPARED` ids are compared with the vocabulary, by URL
    the counted ones; all others when they are read.

    Raises:
      UserError: a file cannot be read, or has ids outside the tokenizer's vocabulary.
    """
    token_files = [inspect(*_open_system(path), path) for path in paths]
    content = sum(int.from_bytes(file.digest, "big") for file in token_files)
    shards = shards_of(token_files, tokenizer.size)
    if empty := [shard.path for shard in shards if not shard.tokens]:
        log.warning("%s: %s without tokens, such as %s", domain, counted(len(empty), "file"), empty[0])
        shards = [shard for shard in shards if shard.tokens]
    store = TokenStore(domain, shards, tokenizer.size)
    for shard in (shard for shard in shards if not is_remote(shard.path)):
        for ids in _check_ids(shard, tokenizer.size, max(_LARGE_BLOCK, _COMPARED // len(shards))):
            if documents is not None:
                documents.add_parts(domain, _document_starts(ids, tokenizer.end))
    starts = _starts(len(store), _BLOCK, COUNTED)
    sampled, size, ends = 0, 0, 0
    for start in starts:
        ids = store.read(start, start + _BLOCK)
        sampled += len(ids)
        size += int(tokenizer.token_bytes_V[ids].sum(dtype=np.int64))
        ends += int((ids == tokenizer.end).sum())
    if sampled and not ends:
        log.warning(
            "%s: no end-of-document token (id %d) in %d tokens; documents are not separated",
            *(domain, tokenizer.end, sampled),
        )
    return TokenText(shards, round(size * len(store) / max(1, sampled)), f"{content % CONTENT_MODULUS:032x}")


def _check_ids(shard: Shard, vocabulary: int, most: int) -> Iterator[np.ndarray]:
    """Yield up to ``most`` ids of a file in blocks, compared with the vocabulary and without gaps.

    Raises:
      UserError: an id is outside the vocabulary, or the file has a gap: zeros, by the size of :data:`_GAP` and more.
    """
    store = TokenStore(shard.path, [shard], vocabulary)
    for start in _starts(len(store), _LARGE_BLOCK, most):
        ids = store.read(start, start + _LARGE_BLOCK)
        parts = ids[: len(ids) // _GAP * _GAP].reshape(-1, _GAP)
        at = next((n for n in np.flatnonzero(parts[:, 0] == 0) if not parts[n].any()), None)
        if at is not None:
            raise UserError(
                f"{shard.path}: has {_GAP:,} zeros or more in a row from token {start + at * _GAP:,} on, so it was not "
                "written completely, or is padded; write it again"
            )
        yield ids


def _document_starts(ids: np.ndarray, end: int) -> Iterator[bytes]:
    """Yield the first tokens of each document, except short ones and the first, which may be cut."""
    ends = np.flatnonzero(ids == end)
    for start in ends[:-1][np.diff(ends) > _SHORT].tolist():
        yield ids[start + 1 : start + 1 + _SHORT].tobytes()


def _starts(tokens: int, block: int, most: int) -> list[int]:
    """Return where to read blocks: all of them, or blocks of ``most`` tokens spread evenly."""
    if tokens <= most:
        return list(range(0, tokens, block))
    return np.linspace(0, tokens - block, most // block).astype(np.int64).tolist()


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
        kinds = {p: kind_of((domain, os.path.basename(p))) for p in sorted(system.glob(path)) if system.isfile(p)}
        is_folder = not kinds and system.isdir(path)
    matches = [p for p, kind in kinds.items() if kind is Kind.TOKENS]
    if not matches:
        folder = pattern.rstrip("/")
        advice = (
            f"; it is a folder: write {folder}/*.npy, or {folder}/**/*.npy for all sub-folders" if is_folder else ""
        )
        if Kind.TEXT in kinds.values():
            advice = ", only text; to read text, set corpus.path to a folder of domains"
        raise UserError(f"corpus.path: domain {domain}: no {', '.join(SUFFIXES)} file matches {pattern}{advice}")
    refuse_unread([p for p, kind in kinds.items() if kind in (Kind.TEXT, Kind.UNREAD)], f"the pattern {pattern}")
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
    return [str(entry.path) for entry in walk(root)] if os.path.isdir(root) else []


def _full_path(system: fsspec.AbstractFileSystem, path: str, where: str) -> str:
    """Return the path or URL that opens a file of ``system`` again. Chained protocols (``simplecache::…``) are kept."""
    if not is_remote(where):
        return path
    chain = where.rpartition("::")[0]
    inner = fsspec.core.url_to_fs(where.rpartition("::")[2])[0]
    return (chain + "::" if chain else "") + inner.unstrip_protocol(path)
