"""What the files beside a token file say of it: its number of tokens, and the bytes of each.

- datatrove: ``‹file›.ds.metadata`` has the tokenizer and the token size, then the number of tokens; ``‹file›.ds.index``
  the end of each document;
- Dolma toolkit and OLMo-core: ``‹file›.csv.gz`` has the start and the end of each document.
"""

import dataclasses
import gzip
import zlib

import fsspec

from olmix_jax.corpus.store import errors_name
from olmix_jax.utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Stated:
    """What a sidecar says of its token file.

    Attributes:
      path: the sidecar.
      tokens: number of tokens.
      width: bytes per token; None if it does not say.
    """

    path: str
    tokens: int
    width: int | None = None


def read_stated(system: fsspec.AbstractFileSystem, inner_path: str, path: str) -> list[Stated]:
    """Read the sidecars of a token file. Empty if it has none.

    Args:
      inner_path: the path of the token file in ``system``.
      path: its full path or URL, for errors.

    Raises:
      UserError: a sidecar cannot be read, is truncated, or is not of its format.
    """
    if path.lower().endswith(".ds"):
        readers = {".metadata": _read_metadata, ".index": _read_index}
        sidecars = [(inner_path + end, path + end, reader) for end, reader in readers.items()]
    elif path.lower().endswith(".npy"):
        sidecars = [
            (stem(inner_path) + ".csv.gz", stem(path) + ".csv.gz", _read_csv) for stem in (str, _without_ending)
        ]
    else:
        return []
    stated = []
    for inner, name, reader in sidecars:
        with errors_name(name):
            if system.exists(inner):
                stated += reader(system, inner, name)
    return stated


def _without_ending(path: str) -> str:
    return path.rpartition(".")[0]


def _read_metadata(system: fsspec.AbstractFileSystem, inner: str, path: str) -> list[Stated]:
    text = system.cat_file(inner).decode("utf-8", "replace")
    try:
        tokenizer, tokens = text.split("\n")[:2]
        width = tokenizer.rpartition("|")[2]
        return [Stated(path, int(tokens), int(width) if width in ("2", "4") else None)]
    except ValueError as e:
        raise UserError(f"{path}: its second line is not a number of tokens; restore the file") from e


def _read_index(system: fsspec.AbstractFileSystem, inner: str, path: str) -> list[Stated]:
    size = system.size(inner)
    if size % 8:
        raise UserError(f"{path}: has {size} bytes, not a multiple of 8; it is truncated")
    if not size:
        return []
    return [Stated(path, int.from_bytes(system.cat_file(inner, start=size - 8, end=size), "little"))]


def _read_csv(system: fsspec.AbstractFileSystem, inner: str, path: str) -> list[Stated]:
    last = b""
    try:
        with system.open(inner, "rb") as f, gzip.GzipFile(fileobj=f) as lines:
            while block := lines.read(1 << 20):
                rows = (last + block).rstrip(b"\r\n").rsplit(b"\n", 1)
                last = rows[-1] + (b"\n" if block.endswith(b"\n") else b"")
    except (EOFError, gzip.BadGzipFile, zlib.error) as e:
        raise UserError(f"{path}: truncated or not a gz file; copy it again") from e
    if not last:
        return []
    cells = last.split(b",")
    if len(cells) < 2 or not cells[1].strip().isdigit():
        raise UserError(
            f"{path}: its last line has no end of a document in its second column; it describes no token file: restore "
            "it, or move it away"
        )
    return [Stated(path, int(cells[1]))]
