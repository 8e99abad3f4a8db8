"""Token files that other engines wrote (OLMo-core, the Dolma toolkit, datatrove, Megatron), used where they lie.

A file is flat integers: ``.npy`` without a header (OLMo-core, the Dolma toolkit) or with NumPy's, ``.ds`` (datatrove),
``.bin`` (Megatron, with its ``.idx``). What else lies beside them is left alone.
"""

import hashlib
import io
import json
import os
import struct
from collections.abc import Sequence

import fsspec
import numpy as np

from olmix_jax import files
from olmix_jax.corpus.store import DTYPES, Shard, TokenStore, is_remote
from olmix_jax.corpus.tokenizer import Tokenizer
from olmix_jax.errors import UserError
from olmix_jax.progress import log
from olmix_jax.updates import CONTENT

KINDS = (".npy", ".ds", ".bin")
# Bytes at either end of a file that tell its type, and stand for its content.
_EDGE = 1 << 16
# Tokens of a domain that its bytes are counted in, in blocks spread over all of it.
COUNTED, _BLOCK = 1 << 22, 1 << 16
# Megatron's codes of the types that token ids come in.
_MEGATRON = {4: "<i4", 5: "<i8", 8: "<u2"}


def domain_files(where: str) -> dict[str, list[str]]:
    """Domain names with their token files, both sorted; none where ``where`` is a folder without any.

    Args:
      where: a folder, on a disk or as a URL, with one sub-folder or one file per domain; or a JSON object, or a file
        with one, of {domain: pattern or patterns}.

    Raises:
      UserError: a pattern finds nothing, or the place cannot be read.
    """
    if where.lstrip().startswith("{") or where.endswith(".json"):
        return _by_pattern(where)
    system, root = _system(where)
    found, folders = {}, set()
    for path in sorted(_list(system.find, root)):
        parts = path[len(root) :].strip("/").split("/")
        if any(part.startswith(".") for part in parts):
            continue
        kind = os.path.splitext(path)[1]
        folders |= set(parts[:-1][:1])
        if kind in KINDS:
            name = parts[0] if len(parts) > 1 else parts[0].removesuffix(kind)
            found.setdefault(name, []).append(_named(system, path, where))
    missing = sorted(folders - set(found))
    if found and missing:
        raise UserError(
            f"{where}: no token file ({', '.join(KINDS)}) in {missing[0]}; others have some: add it or move it"
        )
    if is_remote(where) and not found:
        raise UserError(f"{where}: no token files ({', '.join(KINDS)}) there; text is read from a disk only")
    return found


def read(paths: Sequence[str], words: Tokenizer, domain: str) -> tuple[list[Shard], int, str]:
    """What a domain's files are: shards, bytes of text, and a name for their content by which it is known again.

    Bytes are counted in the first :data:`COUNTED` tokens where there are no more, and else in as many that are spread
    over all files, and scaled. So are ids checked; the others are when they are read.

    Raises:
      UserError: a file cannot be read, or holds other ids than the tokenizer's.
    """
    shards, content = [], 0
    for path in paths:
        shard, digest = _shard(path, words.size)
        content += int.from_bytes(digest, "big")
        shards += [shard] if shard.tokens else []
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
    return shards, round(size * len(store) / max(1, seen)), f"{content % CONTENT:032x}"


def _by_pattern(where: str) -> dict[str, list[str]]:
    try:
        given = json.loads(where) if where.lstrip().startswith("{") else files.read_json(where)
    except json.JSONDecodeError as e:
        raise UserError(f"corpus.path: not valid JSON: {e}") from e
    found = {}
    for name, patterns in given.items():
        patterns = [patterns] if isinstance(patterns, str) else patterns
        if not isinstance(patterns, list) or not all(isinstance(p, str) for p in patterns):
            raise UserError(f"corpus.path: domain {name} must have a pattern of files, or a list of them")
        found[name] = []
        for pattern in patterns:
            system, path = _system(pattern)
            inside = [p for p in sorted(_list(system.glob, path)) if os.path.splitext(p)[1] in KINDS]
            if not inside:
                raise UserError(f"corpus.path: domain {name}: no {', '.join(KINDS)} file is {pattern}")
            found[name] += [_named(system, p, pattern) for p in inside]
    twice = [path for paths in found.values() for path in paths]
    twice = sorted({path for path in twice if twice.count(path) > 1}) if len(set(twice)) < len(twice) else []
    if twice:
        raise UserError(f"corpus.path: {twice[0]} is in two domains or twice in one; patterns must not overlap")
    return found


def _system(where: str):
    """A file system of fsspec's, and the path in it."""
    try:
        return fsspec.core.url_to_fs(where if is_remote(where) else os.path.abspath(where))
    except (ImportError, ValueError, OSError) as e:
        raise UserError(f"{where}: cannot be opened: {e}") from e


def _list(how, path: str) -> list[str]:
    try:
        return how(path)
    except (OSError, ValueError) as e:
        raise UserError(f"{path}: cannot be listed: {e}") from e


def _named(system, path: str, where: str) -> str:
    """The full name by which a path of ``system`` is opened again, chained protocols (``filecache::…``) kept."""
    if not is_remote(where):
        return path
    chain = where.rpartition("::")[0]
    inner = fsspec.core.url_to_fs(where.rpartition("::")[2])[0]
    return (chain + "::" if chain else "") + inner.unstrip_protocol(path)


def _shard(path: str, vocabulary: int) -> tuple[Shard, bytes]:
    """A file as a shard, and a hash of its size and both ends."""
    system, inside = _system(path)
    try:
        size = system.size(inside)
        head = system.cat_file(inside, start=0, end=min(size, _EDGE))
        tail = system.cat_file(inside, start=max(0, size - _EDGE), end=size)
        index = None
        if path.endswith(".bin") and system.exists(inside.removesuffix(".bin") + ".idx"):
            index = system.cat_file(inside.removesuffix(".bin") + ".idx", start=0, end=18)
    except OSError as e:
        raise UserError(f"{path}: cannot be read: {e}") from e
    digest = hashlib.blake2b(b"%d:" % size + head + tail, digest_size=16).digest()
    offset, dtype = 0, None
    if head.startswith(b"\x93NUMPY"):
        offset, dtype = _header(path, head)
    elif index is not None:
        dtype = _of_index(path, index)
    # A tail begins within a token where the file's size is no multiple; cut to whole tokens of eight bytes.
    body = head[offset : offset + (len(head) - offset) // 8 * 8] or head[offset:]
    dtype = dtype or _type(path, body, size, vocabulary)
    width = np.dtype(dtype).itemsize
    if (size - offset) % width:
        raise UserError(
            f"{path}: {size - offset} bytes are no whole number of tokens of {width} bytes; it is truncated"
        )
    return Shard(path, dtype, offset, (size - offset) // width), digest


def _header(path: str, head: bytes) -> tuple[int, str]:
    """NumPy's header: its bytes, and the type."""
    f = io.BytesIO(head)
    try:
        version = np.lib.format.read_magic(f)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = reader(f)
    except ValueError as e:
        raise UserError(f"{path}: a NumPy header that cannot be read: {e}") from e
    if dtype.str not in DTYPES or len(shape) != 1:
        raise UserError(f"{path}: an array of {dtype} {shape}; token files are one row of {', '.join(DTYPES)}")
    return f.tell(), dtype.str


def _of_index(path: str, index: bytes) -> str:
    """The type that Megatron's index says: magic, version and code in its first bytes."""
    if not index.startswith(b"MMIDIDX\x00\x00"):
        raise UserError(f"{path}: the .idx beside it is not Megatron's; remove that, or make both again")
    code = struct.unpack("<QB", index[9:18])[1]
    if code not in _MEGATRON:
        raise UserError(f"{path}: its .idx says type {code}; token ids are of types {sorted(_MEGATRON)}")
    return _MEGATRON[code]


def _type(path: str, body: bytes, size: int, vocabulary: int) -> str:
    """The widest unsigned type by which all ids are in the vocabulary.

    By a narrower one every other id would be 0, which text is not; by a wider one ids are far outside.
    """
    for dtype in ("<u8", "<u4", "<u2"):
        width = np.dtype(dtype).itemsize
        ids = np.frombuffer(body[: len(body) // width * width], dtype)
        if size % width == 0 and (not ids.size or ids.max() < vocabulary):
            return dtype
    raise UserError(
        f"{path}: by no type of integer are its {size} bytes ids of a vocabulary of {vocabulary:,}: it is truncated, "
        "or corpus.tokenizer is not the one that it was made with"
    )
