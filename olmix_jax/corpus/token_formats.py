"""Formats of token files: flat arrays of integers, some with a header or an index that states their type.

``.npy`` without a header (OLMo-core, Dolma toolkit), ``.npy`` with NumPy's header, ``.ds`` (datatrove), and ``.bin``
(Megatron, with its ``.idx``).
"""

import dataclasses
import hashlib
import io
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

import fsspec
import numpy as np

from olmix_jax.corpus.file_types import GIT_LFS
from olmix_jax.corpus.store import DTYPES, Shard, errors_name
from olmix_jax.corpus.token_sidecars import Stated, read_stated
from olmix_jax.utils.errors import UserError

# Bytes read at the start and at the end of a file, to detect its type and to hash its content.
_EDGE = 1 << 16
# Ids read as too narrow a type alternate between low and high halves, and the high halves are nearly zero. With at
# least _MANY ids, a sequence in which every other id is below _FEW is rejected.
_MANY, _FEW = 64, 4
# A file that ends in this many equal words of eight bytes was allocated but not filled.
_CONSTANT = 1024
# Megatron's codes for the types of token ids.
_MEGATRON = {4: "<i4", 5: "<i8", 8: "<u2"}


@dataclasses.dataclass(frozen=True)
class TokenFile:
    """A token file, as far as its first and last bytes and its index describe it.

    Attributes:
      path: its path or URL.
      size: its size in bytes.
      digest: a hash of its size, first and last bytes.
      ends: the first and last bytes of its tokens, cut to whole tokens of every type.
      offset: bytes before the first token.
      dtype: the type that the header, index or metadata states; None if there is none of them.
      stated: what the files beside it say.
    """

    path: str
    size: int
    digest: bytes
    ends: tuple[bytes, bytes]
    offset: int
    dtype: str | None
    stated: tuple[Stated, ...] = ()


class _Layout(NamedTuple):
    """Where a file's tokens begin, their type, and their number."""

    offset: int
    dtype: str
    tokens: int


def shards_of(token_files: Sequence[TokenFile], vocabulary: int) -> list[Shard]:
    """Return the files of a domain as shards.

    Files that state no type are assumed to have the type of the largest of them, since programs write all files of a
    domain with one type. If the ids of a file do not fit that type, its own type is detected.

    Raises:
      UserError: no type gives a file's ids within the vocabulary.
    """
    untyped = [file for file in token_files if file.dtype is None]
    likely = _detect_type(max(untyped, key=lambda file: file.size), vocabulary) if untyped else None
    shards = []
    for file in token_files:
        dtype = file.dtype or _detect_type(file, vocabulary, likely)
        shards.append(Shard(file.path, dtype, file.offset, (file.size - file.offset) // np.dtype(dtype).itemsize))
    return shards


def inspect(system: fsspec.AbstractFileSystem, inner_path: str, path: str) -> TokenFile:
    """Read the first and last bytes of a token file, and its index.

    Args:
      inner_path: the path of the file in ``system``.
      path: its full path or URL, for errors.

    Raises:
      UserError: the file cannot be read, or its size differs from its header, index or other files beside it.
    """
    index = inner_path.removesuffix(".bin") + ".idx" if path.endswith(".bin") else ""
    with errors_name(path):
        size = system.size(inner_path)
        if size is None:
            raise UserError(f"{path}: the server does not report its size; copy the file to a disk")
        head = system.cat_file(inner_path, start=0, end=min(size, _EDGE))
        tail = system.cat_file(inner_path, start=max(0, size - _EDGE), end=size)
        has_index = bool(index) and system.exists(index)
    if head.startswith(GIT_LFS):
        raise UserError(f"{path}: a pointer of Git LFS, not the file itself; run git lfs pull")
    digest = hashlib.blake2b(b"%d:" % size + head + tail, digest_size=16).digest()
    layout = None
    if head.startswith(b"\x93NUMPY"):
        layout = _numpy_layout(path, head)
    elif has_index:
        layout = _megatron_layout(path, lambda start, end: _read_part(system, index, start, end))
    if layout and layout.offset + layout.tokens * np.dtype(layout.dtype).itemsize != size:
        raise UserError(
            f"{path}: has {size - layout.offset} bytes of tokens, which is not the {layout.tokens} tokens of type "
            f"{layout.dtype} that it should hold; it is truncated or replaced: restore it"
        )
    offset = layout.offset if layout else 0
    first, last = head[offset:], tail[max(0, len(tail) - (size - offset)) :]
    # Cut to multiples of eight bytes, the widest type. Shorter ends are used whole.
    ends = first[: len(first) // 8 * 8] or first, last[len(last) % 8 :] or last
    stated = tuple(read_stated(system, inner_path, path))
    dtype = layout.dtype if layout else next((f"<u{s.width}" for s in stated if s.width), None)
    file = TokenFile(path, size, digest, ends, offset, dtype, stated)
    _check_stated(file)
    return file


def _check_stated(file: TokenFile) -> None:
    """Raise an error if a file is shorter or longer than the files beside it say, in every type it may have."""
    size, widths = file.size - file.offset, [np.dtype(file.dtype).itemsize] if file.dtype else [2, 4, 8]
    for stated in file.stated:
        if not any(size == stated.tokens * width for width in widths):
            needed = " or ".join(f"{stated.tokens * width:,}" for width in widths)
            raise UserError(
                f"{file.path}: has {size:,} bytes, but {stated.path} lists {stated.tokens:,} tokens, which need "
                f"{needed} bytes; one of the two is truncated or replaced: restore both"
            )
    words = np.frombuffer(file.ends[1][len(file.ends[1]) % 8 :], np.uint64)[::-1]
    constant = int(np.argmin(np.append(words == words[0], False))) if words.size else 0
    if constant >= _CONSTANT:
        raise UserError(
            f"{file.path}: its last {8 * constant:,} bytes or more repeat one token, so it was not written completely; "
            "write it again"
        )


def _read_part(system: fsspec.AbstractFileSystem, path: str, start: int, end: int) -> bytes:
    with errors_name(path):
        return system.cat_file(path, start=start, end=end)


def _numpy_layout(path: str, head: bytes) -> _Layout:
    """Parse NumPy's header."""
    f = io.BytesIO(head)
    try:
        version = np.lib.format.read_magic(f)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = reader(f)
    except ValueError as e:
        raise UserError(f"{path}: its NumPy header cannot be read: {e}") from e
    if dtype.str not in DTYPES or len(shape) != 1:
        raise UserError(f"{path}: has an array of {dtype} {shape}; must have one dimension of {', '.join(DTYPES)}")
    return _Layout(f.tell(), dtype.str, shape[0])


def _megatron_layout(path: str, read_index: Callable[[int, int], bytes]) -> _Layout:
    """Parse Megatron's index: ``read_index(start, end)`` returns bytes of it.

    It holds the magic bytes, a version, the code of the type, two counts, the length of every sequence, and the
    position of every sequence. The last length and position give the end of the token file.
    """
    head = read_index(0, 34)
    if not head.startswith(b"MMIDIDX\x00\x00") or len(head) < 34:
        raise UserError(f"{path}: its .idx file is not a Megatron index; remove the .idx, or write both files again")
    _, code, sequences, _ = struct.unpack("<QBQQ", head[9:])
    if code not in _MEGATRON:
        raise UserError(f"{path}: its .idx file has type {code}; must be one of {sorted(_MEGATRON)} for token ids")
    if not sequences:
        return _Layout(0, _MEGATRON[code], 0)
    lengths, positions = 34 + 4 * (sequences - 1), 34 + 4 * sequences + 8 * (sequences - 1)
    last_length, last_position = read_index(lengths, lengths + 4), read_index(positions, positions + 8)
    if (len(last_length), len(last_position)) != (4, 8):
        raise UserError(f"{path}: its .idx file ends before its {sequences} sequences; it is truncated")
    width = np.dtype(_MEGATRON[code]).itemsize
    tokens = struct.unpack("<q", last_position)[0] // width + struct.unpack("<i", last_length)[0]
    return _Layout(0, _MEGATRON[code], tokens)


def _detect_type(file: TokenFile, vocabulary: int, likely: str | None = None) -> str:
    """Return ``likely`` if it gives ids in the vocabulary, else the widest type that does.

    Read as too wide a type, ids are far outside the vocabulary. Read as too narrow a type, every other id is nearly
    zero, which does not happen in text. uint16 is not tried for a vocabulary above 65,536: no program uses it there,
    and every file would pass.
    """
    types = ("<u8", "<u4") if vocabulary > 1 << 16 else ("<u8", "<u4", "<u2")
    for dtype in (likely, *types) if likely else types:
        width = np.dtype(dtype).itemsize
        fits = file.size % width == 0 and all(file.size == stated.tokens * width for stated in file.stated)
        if fits and all(_are_ids(end, dtype, vocabulary) for end in file.ends):
            return dtype
    raise UserError(
        f"{file.path}: its {file.size} bytes are not token ids of a vocabulary of {vocabulary:,} in any integer type; "
        "the file is truncated or big-endian, or was written with a tokenizer other than corpus.tokenizer"
    )


def _are_ids(end: bytes, dtype: str, vocabulary: int) -> bool:
    ids = np.frombuffer(end, dtype)
    are_halves = ids.size >= _MANY and min(ids[::2].max(), ids[1::2].max()) < _FEW
    return not ids.size or bool(ids.max() < vocabulary and not are_halves)
