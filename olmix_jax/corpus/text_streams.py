"""Read files in blocks: plain, gzip or zstandard; whole, in lines, or in pieces. Memory does not grow with the file."""

import os
import re
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from olmix_jax.corpus.file_types import GIT_LFS, split_name
from olmix_jax.utils import os_errors
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.folders import shown

# Bytes read at once. A block of a compressed file may decompress to a thousand times its size.
BLOCK, COMPRESSED_BLOCK = 1 << 20, 1 << 15
# A longer line is not read.
LONGEST_LINE = 1 << 26
# A longer text is cut into pieces of at most this many bytes.
LONGEST_PIECE = 1 << 20
# What a file is that begins with these bytes, and what to do.
_MAGIC = (
    (b"\x1f\x8b", "compressed with gzip; append .gz to its name"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstandard; append .zst to its name"),
    (b"BZh", "compressed with bzip2; decompress it"),
    (b"\xfd7zXZ", "compressed with xz; decompress it"),
    (b"PK\x03\x04", "a zip archive; unpack it"),
    (b"PAR1", "a Parquet file; convert it to .jsonl"),
    (b"\xff\xfe", "UTF-16; convert it with iconv -f UTF-16 -t UTF-8"),
    (b"\xfe\xff", "UTF-16; convert it with iconv -f UTF-16 -t UTF-8"),
)


def blocks(path: str | os.PathLike) -> Iterator[bytes]:
    """Yield the decompressed content of a file in blocks.

    Raises:
      UserError: the file cannot be read, is truncated, or is of another type than its name says.
    """
    compression = split_name(os.path.basename(path)).compression
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UserError(f"{shown(path)}: not a regular file (a folder, pipe, socket or device); remove it")
        with open(path, "rb") as f:
            head = f.read(len(GIT_LFS))
            _check_type(path, head, compression)
            f.seek(0)
            if compression:
                yield from _decompress(iter(lambda: f.read(COMPRESSED_BLOCK), b""), compression, path)
            else:
                yield from iter(lambda: f.read(BLOCK), b"")
    except OSError as e:
        raise UserError(f"{shown(path)}: cannot be read: {os_errors.reading(e)}") from e


def _check_type(path: str | os.PathLike, head: bytes, compression: str) -> None:
    if head == GIT_LFS:
        raise UserError(f"{shown(path)}: a pointer of Git LFS, not the file itself; run git lfs pull")
    if compression and not head:
        raise UserError(f"{shown(path)}: empty, which no {compression} file is; copy or compress it again")
    problem = "" if compression else next((what for magic, what in _MAGIC if head.startswith(magic)), "")
    if problem:
        raise UserError(f"{shown(path)}: {problem}")


def _decompress(stream: Iterable[bytes], compression: str, path: str | os.PathLike) -> Iterator[bytes]:
    """Decompress a stream of one or more frames, each with a new decompressor."""
    new_decompressor: Callable[[], Any] = _zstd if compression == ".zst" else lambda: zlib.decompressobj(wbits=31)
    damaged = UserError(f"{shown(path)}: truncated or not a {compression[1:]} file; copy or compress it again")
    frame = None
    for block in stream:
        while block:
            frame = frame or new_decompressor()
            try:
                yield frame.decompress(block)
            except Exception as e:  # zlib.error or zstandard.ZstdError; zstandard may not be installed
                raise damaged from e
            block = frame.unused_data.lstrip(b"\0") if frame.eof else b""
            frame = None if frame.eof else frame
    if frame is not None:
        raise damaged


def _zstd() -> Any:
    try:
        import zstandard
    except ImportError as e:
        raise UserError("reading .zst files needs the package `zstandard`: pip install zstandard") from e
    return zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()


def lines(stream: Iterable[bytes]) -> Iterator[bytes | None]:
    """Yield lines without their ends; None for a line longer than :data:`LONGEST_LINE`."""
    parts: list[bytes] = []
    size = 0
    for block in stream:
        first, *more = block.split(b"\n")
        size += len(first)
        # Of a line that is too long only the size is kept.
        parts = [*parts, first] if size <= LONGEST_LINE else []
        if more:
            yield b"".join(parts) if size <= LONGEST_LINE else None
            for line in more[:-1]:
                yield line if len(line) <= LONGEST_LINE else None
            parts, size = [more[-1]], len(more[-1])
    yield b"".join(parts) if size <= LONGEST_LINE else None


def batches(texts: Iterable[str], characters: int) -> Iterator[list[str]]:
    """Yield lists of texts with at least ``characters`` characters each, except the last."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= characters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def pieces(stream: Iterable[bytes], longest: int = LONGEST_PIECE) -> Iterator[bytes]:
    """Cut a text into pieces of at most ``longest`` bytes. The pieces joined are the text.

    A cut is after the last blank line of the second half of a piece, else after its last line end or space, else
    between two characters.
    """
    rest = b""
    for block in stream:
        rest += block
        start = 0
        while len(rest) - start > longest:
            end = start + _cut(rest[start : start + longest])
            yield rest[start:end]
            start = end
        rest = rest[start:]
    if rest:
        yield rest


def _cut(piece: bytes) -> int:
    half = len(piece) // 2
    for border in (rb"\n[ \t\r]*\n", rb"\n", rb" "):
        ends = [match.end() for match in re.finditer(border, piece[half:])]
        if ends:
            return half + ends[-1]
    # The first byte of a character is not 0b10xxxxxx, and a character has up to four bytes.
    return next((end for end in range(len(piece) - 1, len(piece) - 4, -1) if piece[end] & 0xC0 != 0x80), len(piece))
