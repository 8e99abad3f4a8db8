"""Formats of token files: flat integers, with or without a word on what they are.

``.npy`` without a header (OLMo-core, the Dolma toolkit) or with NumPy's, ``.ds`` (datatrove), ``.bin`` (Megatron, with
its ``.idx``).
"""

import dataclasses
import hashlib
import io
import struct
from collections.abc import Callable, Sequence

import numpy as np

from olmix_jax.corpus.store import DTYPES, Shard, reached
from olmix_jax.utils.errors import UserError

KINDS = (".npy", ".ds", ".bin")
# Bytes at either end of a file that tell its type, and stand for its content.
_EDGE = 1 << 16
# Of so many ids every other one is not below so few, but where they are the halves of wider ones.
_MANY, _FEW = 64, 4
# Megatron's codes of the types that token ids come in.
_MEGATRON = {4: "<i4", 5: "<i8", 8: "<u2"}


@dataclasses.dataclass(frozen=True)
class File:
    """What a look at a file's ends tells.

    Attributes:
      path: its name.
      size: its bytes.
      digest: a hash of its size and both ends.
      ends: the bytes of tokens at its beginning and its end, whole tokens of any type where the file is.
      offset: bytes before the first token.
      dtype: that the file or its index tells; None for a file that tells none.
    """

    path: str
    size: int
    digest: bytes
    ends: tuple[bytes, bytes]
    offset: int
    dtype: str | None


def shards_of(looked: Sequence[File], vocabulary: int) -> list[Shard]:
    """The files of a domain as shards. Of those that tell no type the largest one's is taken: an engine writes a
    domain's files by one.

    Raises:
      UserError: a file is of no type by which its ids are in the vocabulary.
    """
    untold = [file for file in looked if file.dtype is None]
    likely = _type(max(untold, key=lambda file: file.size), vocabulary) if untold else None
    found = []
    for file in looked:
        dtype = file.dtype or _type(file, vocabulary, likely)
        found.append(Shard(file.path, dtype, file.offset, (file.size - file.offset) // np.dtype(dtype).itemsize))
    return found


def look(system, inside: str, path: str) -> File:
    """What the file ``inside`` a file system of fsspec's, ``path`` in messages, is.

    Raises:
      UserError: it cannot be read, or is not as long as its header or index says.
    """
    index = inside.removesuffix(".bin") + ".idx" if path.endswith(".bin") else ""
    with reached(path):
        size = system.size(inside)
        if size is None:
            raise UserError(f"{path}: the server does not tell its size; copy it to a disk")
        head = system.cat_file(inside, start=0, end=min(size, _EDGE))
        tail = system.cat_file(inside, start=max(0, size - _EDGE), end=size)
        has_index = bool(index) and system.exists(index)
    digest = hashlib.blake2b(b"%d:" % size + head + tail, digest_size=16).digest()
    offset, dtype, tokens = 0, None, None
    if head.startswith(b"\x93NUMPY"):
        offset, dtype, tokens = _header(path, head)
    elif has_index:
        dtype, tokens = _of_index(path, lambda start, end: _part(system, index, start, end))
    if dtype and offset + tokens * np.dtype(dtype).itemsize != size:
        raise UserError(
            f"{path}: {size - offset} bytes are not the {tokens} tokens of type {dtype} that it should hold; it is "
            "truncated or replaced"
        )
    body = head[offset:], tail[max(0, len(tail) - (size - offset)) :]
    # An end is looked at by types of up to eight bytes; what is shorter is looked at whole.
    whole = body[0][: len(body[0]) // 8 * 8] or body[0], body[1][len(body[1]) % 8 :] or body[1]
    return File(path, size, digest, whole, offset, dtype)


def _part(system, path: str, start: int, end: int) -> bytes:
    with reached(path):
        return system.cat_file(path, start=start, end=end)


def _header(path: str, head: bytes) -> tuple[int, str, int]:
    """NumPy's header: its bytes, the type, and how many tokens there are."""
    f = io.BytesIO(head)
    try:
        version = np.lib.format.read_magic(f)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = reader(f)
    except ValueError as e:
        raise UserError(f"{path}: a NumPy header that cannot be read: {e}") from e
    if dtype.str not in DTYPES or len(shape) != 1:
        raise UserError(f"{path}: an array of {dtype} {shape}; token files are one row of {', '.join(DTYPES)}")
    return f.tell(), dtype.str, shape[0]


def _of_index(path: str, part: Callable[[int, int], bytes]) -> tuple[str, int]:
    """The type that Megatron's index says, and how many tokens there are.

    After magic, version, code of the type and two counts come every sequence's length and then where it begins: the
    last one of both tells where the file ends.
    """
    head = part(0, 34)
    if not head.startswith(b"MMIDIDX\x00\x00") or len(head) < 34:
        raise UserError(f"{path}: the .idx beside it is not Megatron's; remove that, or make both again")
    _, code, sequences, _ = struct.unpack("<QBQQ", head[9:])
    if code not in _MEGATRON:
        raise UserError(f"{path}: its .idx says type {code}; token ids are of types {sorted(_MEGATRON)}")
    if not sequences:
        return _MEGATRON[code], 0
    lengths, begins = 34 + 4 * (sequences - 1), 34 + 4 * sequences + 8 * (sequences - 1)
    last = part(lengths, lengths + 4), part(begins, begins + 8)
    if (len(last[0]), len(last[1])) != (4, 8):
        raise UserError(f"{path}: its .idx ends before its {sequences} sequences; it is truncated")
    width = np.dtype(_MEGATRON[code]).itemsize
    return _MEGATRON[code], struct.unpack("<q", last[1])[0] // width + struct.unpack("<i", last[0])[0]


def _type(file: File, vocabulary: int, likely: str | None = None) -> str:
    """``likely`` where by that all ids seen are in the vocabulary; else the widest unsigned type by which they are.

    By a wider type than theirs ids are far outside. By a narrower one every other one is next to nothing, which text is
    not; and no engine writes uint16 for a vocabulary that needs more, by which anything would pass.
    """
    types = ("<u8", "<u4") if vocabulary > 1 << 16 else ("<u8", "<u4", "<u2")
    for dtype in (likely, *types) if likely else types:
        if file.size % np.dtype(dtype).itemsize == 0 and all(_are_ids(end, dtype, vocabulary) for end in file.ends):
            return dtype
    raise UserError(
        f"{file.path}: by no type of integer are its {file.size} bytes ids of a vocabulary of {vocabulary:,}: it is "
        "truncated, or corpus.tokenizer is not the one that it was made with"
    )


def _are_ids(end: bytes, dtype: str, vocabulary: int) -> bool:
    ids = np.frombuffer(end, dtype)
    halves = ids.size >= _MANY and min(ids[::2].max(), ids[1::2].max()) < _FEW
    return not ids.size or bool(ids.max() < vocabulary and not halves)
