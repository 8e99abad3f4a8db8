"""Token files that other engines wrote, used where they lie: which are of which domain, and how much text they are.

What a file holds is of :mod:`olmix_jax.corpus.token_formats`. What else lies beside token files is left alone.
"""

import collections
import json
import os
from collections.abc import Sequence

import fsspec
import numpy as np

from olmix_jax.corpus.readers import is_text
from olmix_jax.corpus.store import Shard, TokenStore, is_remote, reached
from olmix_jax.corpus.token_formats import KINDS, look, shards_of
from olmix_jax.corpus.tokenizer import Tokenizer
from olmix_jax.swarm.domains import CONTENT_MODULUS
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log

# Tokens of a domain that its bytes are counted in, in blocks spread over all of it.
COUNTED, _BLOCK = 1 << 22, 1 << 16


def domain_files(where: str) -> dict[str, list[str]]:
    """Domain names with their token files, both sorted; none where ``where`` is a folder without any.

    Args:
      where: a folder, on a disk or as a URL, with one sub-folder or one file per domain; or a JSON object, or a file
        with one, of {domain: pattern or patterns}.

    Raises:
      UserError: a pattern finds nothing, two domains have one name, text lies beside tokens, or the place cannot be
        read.
    """
    if _is_listed(where):
        return _by_pattern(where)
    system, root = _system(where)
    found, text = {}, {}
    for path in _inside(system, root, where):
        parts = path[len(root) :].strip("/").split("/")
        if any(part.startswith(".") for part in parts):
            continue
        kind = os.path.splitext(path)[1]
        name = parts[0] if len(parts) > 1 else parts[0].removesuffix(kind)
        if kind in KINDS:
            found.setdefault(name, {}).setdefault(len(parts) > 1, []).append(_named(system, path, where))
        elif len(parts) > 1 or (is_text(path) and kind != ".md"):
            # Markdown beside folders of tokens is their README.
            text.setdefault(parts[0], path)
    if not found:
        if is_remote(where) or os.path.splitext(where)[1] in KINDS:
            raise UserError(
                f"{where}: no folder with token files ({', '.join(KINDS)}), a sub-folder or a file per domain; text is "
                "read from a disk only"
            )
        return {}
    if not is_remote(where):
        # Of a folder with nothing in it no file speaks.
        text = {e.name: e.path for e in os.scandir(root) if e.is_dir() and not e.name.startswith(".")} | text
    without = sorted(path for name, path in text.items() if name not in found)
    if without:
        raise UserError(
            f"{without[0]}: no token file ({', '.join(KINDS)}), and other domains have some; tokenize that one too, or "
            f"move it out of {where}"
        )
    twice = [name for name, places in found.items() if len(places) > 1]
    if twice:
        raise UserError(f"{where}: domain {twice[0]} is there twice, as a folder and as a file; rename one of them")
    return {name: sorted(paths) for name, (paths,) in sorted((n, places.values()) for n, places in found.items())}


def stamp(where: str) -> str | None:
    """A digest of which files patterns or a URL find, and of what their file system says by which they are known to
    have changed; None for a folder on a disk."""
    if not (_is_listed(where) or is_remote(where)):
        return None
    found = []
    for name, paths in domain_files(where).items():
        for path in paths:
            system, inside = _system(path)
            with reached(path):
                found.append((name, path, system.ukey(inside)))
    return files.digest(found)


def read(paths: Sequence[str], words: Tokenizer, domain: str) -> tuple[list[Shard], int, str]:
    """What a domain's files are: shards, bytes of text, and a name for their content by which it is known again.

    Bytes are counted in the first :data:`COUNTED` tokens where there are no more, and else in as many that are spread
    over all files, and scaled. So are ids checked; the others are when they are read.

    Raises:
      UserError: a file cannot be read, or holds other ids than the tokenizer's.
    """
    looked = [look(*_system(path), path) for path in paths]
    content = sum(int.from_bytes(file.digest, "big") for file in looked)
    shards = [shard for shard in shards_of(looked, words.size) if shard.tokens]
    store = TokenStore(domain, shards, words.size)
    starts = range(0, len(store), _BLOCK)
    if len(store) > COUNTED:
        starts = np.linspace(0, len(store) - _BLOCK, COUNTED // _BLOCK).astype(np.int64).tolist()
    seen, size, ends = 0, 0, 0
    for start in starts:
        ids = store.read(start, start + _BLOCK)
        seen, size = seen + len(ids), size + int(words.token_bytes_V[ids].sum(dtype=np.int64))
        ends += int((ids == words.end).sum())
    if seen and not ends:
        log.warning(
            "%s: no end of a document (id %d) in %d tokens: documents run into one another", domain, words.end, seen
        )
    return shards, round(size * len(store) / max(1, seen)), f"{content % CONTENT_MODULUS:032x}"


def _is_listed(where: str) -> bool:
    return where.lstrip().startswith("{") or (where.endswith(".json") and not is_remote(where))


def _by_pattern(where: str) -> dict[str, list[str]]:
    try:
        given = json.loads(where) if where.lstrip().startswith("{") else files.read_json(where)
    except json.JSONDecodeError as e:
        raise UserError(f"corpus.path: not valid JSON: {e}") from e
    found = {}
    for name, patterns in given.items():
        patterns = [patterns] if isinstance(patterns, str) else patterns
        if not name or not isinstance(patterns, list) or not patterns or not all(isinstance(p, str) for p in patterns):
            raise UserError(f"corpus.path: domain {name!r} must have a name, and a pattern of files or a list of them")
        found[name] = []
        for pattern in patterns:
            system, path = _system(pattern)
            with reached(pattern):
                inside = [p for p in sorted(system.glob(path)) if os.path.splitext(p)[1] in KINDS]
                folder = not inside and system.isdir(path)
            if not inside:
                advice = f"; it is a folder: {pattern.rstrip('/')}/*.npy, or **/*.npy for all below" if folder else ""
                raise UserError(f"corpus.path: domain {name}: no {', '.join(KINDS)} file is {pattern}{advice}")
            found[name] += [_named(system, p, pattern) for p in inside]
    if not found:
        raise UserError("corpus.path: no domain in it; give {domain: pattern or patterns}")
    seen = collections.Counter(path for paths in found.values() for path in paths)
    path, times = seen.most_common(1)[0]
    if times > 1:
        raise UserError(f"corpus.path: {path} is in two domains or twice in one; patterns must not overlap")
    return found


def _system(where: str):
    """A file system of fsspec's, and the path in it."""
    with reached(where):
        return fsspec.core.url_to_fs(where if is_remote(where) else os.path.abspath(where))


def _inside(system, root: str, where: str) -> list[str]:
    """All files below a folder, sorted; on a disk those behind links too."""
    if is_remote(where):
        with reached(where):
            return sorted(system.find(root))
    return [str(path) for path in files.list_files(root)] if os.path.isdir(root) else []


def _named(system, path: str, where: str) -> str:
    """The full name by which a path of ``system`` is opened again, chained protocols (``simplecache::…``) kept."""
    if not is_remote(where):
        return path
    chain = where.rpartition("::")[0]
    inner = fsspec.core.url_to_fs(where.rpartition("::")[2])[0]
    return (chain + "::" if chain else "") + inner.unstrip_protocol(path)
