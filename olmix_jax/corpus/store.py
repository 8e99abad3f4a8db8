"""Token stores: the tokens of a domain in flat files of integers, with a JSON record of their types and sizes.

The files of a store are called shards. They are written by this package, or are token files of other programs that are
used in place.
"""

import abc
import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import fsspec
import numpy as np

from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.files import file_name

END = 0
# Types of token ids that can be read. This package writes the first two.
DTYPES = ("<u2", "<u4", "<i4", "<u8", "<i8")
# Tokens that are written at once.
_PIECE = 1 << 16
_REBUILD = "delete it and rerun --stages=prepare"
# Advice about files of the user, which must not be deleted.
_RESTORE = "restore the file, or delete domains.json and corpus/ in the workdir and rerun --stages=prepare"


def store_path(workdir: str | pathlib.Path, domain: str) -> pathlib.Path:
    """Return the path of the training tokens of ``domain``."""
    return pathlib.Path(workdir) / "corpus" / "train" / f"{file_name(domain)}.bin"


def heldout_path(workdir: str | pathlib.Path, domain: str) -> pathlib.Path:
    """Return the path of the held-out documents of ``domain``: JSONL of ``{"text", "source"}``."""
    return pathlib.Path(workdir) / "corpus" / "heldout" / f"{file_name(domain)}.jsonl"


def tokenizer_path(workdir: str | pathlib.Path) -> pathlib.Path:
    """Return the path of the tokenizer."""
    return pathlib.Path(workdir) / "corpus" / "tokenizer.json"


def token_bytes_path(workdir: str | pathlib.Path) -> pathlib.Path:
    """Return the path of the number of bytes of each token: int32 [V], zero for the end of a document."""
    return pathlib.Path(workdir) / "corpus" / "token_bytes.npy"


def _record_path(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(path.name + ".json")


def write_store(
    path: str | pathlib.Path, documents: Iterable[np.ndarray], vocabulary: int, end: int = END, source: str = ""
) -> int:
    """Write documents one after another, each followed by ``end``, as little-endian uint16 or uint32.

    Args:
      path: the file. Its record ``‹path›.json`` is written last.
      documents: the token ids of one document each, without ``end``. They are consumed one by one.
      vocabulary: the number of token ids. Above 65,536 the type is uint32.
      source: a digest of the text and the tokenizer, by which :func:`tokens_if_current` recognises the store.

    Returns:
      The number of tokens written, including the ``end`` tokens.

    Raises:
      ValueError: a token id is outside [0, vocabulary).
    """
    path = pathlib.Path(path)
    dtype = np.dtype("<u2" if vocabulary <= 65536 else "<u4")
    tokens = 0
    # If this write is interrupted, the record of an earlier store must not describe the new file.
    _record_path(path).unlink(missing_ok=True)
    with files.atomic_write(path, "wb") as f:
        for ids in _joined(documents, end):
            if not 0 <= ids.min() <= ids.max() < vocabulary:
                raise ValueError(f"token ids {ids.min()}..{ids.max()} outside a vocabulary of {vocabulary}")
            f.write(ids.astype(dtype).tobytes())
            tokens += len(ids)
    shard = Shard(path.name, dtype.str, 0, tokens)
    files.write_json(_record_path(path), {"vocabulary": vocabulary, "made_of": source, "shards": [shard]})
    return tokens


def _joined(documents: Iterable[np.ndarray], end: int) -> Iterator[np.ndarray]:
    """Yield documents, each followed by ``end``, in large pieces."""
    parts, size, border = [], 0, np.array([end], np.int32)
    for ids in documents:
        parts += [ids, border]
        size += len(ids)
        if size >= _PIECE:
            yield np.concatenate(parts)
            parts, size = [], 0
    if parts:
        yield np.concatenate(parts)


def tokens_if_current(path: str | pathlib.Path, source: str) -> int | None:
    """Return the number of tokens of a complete store of this ``source``; None if there is no such store."""
    try:
        current = files.read_json(_record_path(pathlib.Path(path)))["made_of"] == source
        return len(open_store(path)) if current else None
    except (KeyError, UserError):
        return None


def link_store(path: str | pathlib.Path, shards: Sequence["Shard"], vocabulary: int) -> int:
    """Record token files of other programs as a store, without copying them. Returns their number of tokens."""
    path = pathlib.Path(path)
    path.unlink(missing_ok=True)
    files.write_json(_record_path(path), {"vocabulary": vocabulary, "made_of": "", "shards": shards})
    return sum(shard.tokens for shard in shards)


def open_store(path: str | pathlib.Path) -> "TokenStore":
    """Open a store that :func:`write_store` or :func:`link_store` wrote.

    Raises:
      UserError: the record or a shard is missing or damaged, or a shard's size differs from the record.
    """
    path = pathlib.Path(path)
    record = files.read_json(_record_path(path))
    try:
        vocabulary = int(record["vocabulary"])
        shards = [Shard(str(r["path"]), str(r["dtype"]), int(r["offset"]), int(r["tokens"])) for r in record["shards"]]
        unknown = [shard.dtype for shard in shards if shard.dtype not in DTYPES]
        if unknown:
            raise ValueError(f"unknown dtype {unknown[0]}")
    except (KeyError, TypeError, ValueError) as e:
        raise UserError(f"{_record_path(path)}: not the record of a token store ({e!r}); {_REBUILD}") from e
    # For a file of this package, the record has the bare name, so that a workdir can be moved.
    shards = [dataclasses.replace(s, path=str(path)) if s.path == path.name else s for s in shards]
    for shard in shards:
        _check_size(shard, _REBUILD if shard.path == str(path) else _RESTORE)
    return TokenStore(path, shards, vocabulary)


def exists(path: str | pathlib.Path) -> bool:
    """Whether the store at ``path`` has a record."""
    return _record_path(pathlib.Path(path)).is_file()


def is_remote(path: str) -> bool:
    """Whether ``path`` is a URL."""
    return "://" in path


@contextlib.contextmanager
def errors_name(path: str) -> Iterator[None]:
    """Turn every exception of a file system into a UserError that names ``path``.

    Each implementation of fsspec raises different exception classes, so all are caught.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as e:
        raise UserError(f"{path}: cannot be read: {str(e) or type(e).__name__}") from e


def _check_size(shard: "Shard", remedy: str) -> None:
    if is_remote(shard.path):
        return  # the check would take a request per file; a read that returns too few bytes is an error anyway
    try:
        size = pathlib.Path(shard.path).stat().st_size
    except OSError as e:
        raise UserError(f"{shard.path}: cannot be read: {e.strerror}; {remedy}") from e
    if size != shard.end:
        raise UserError(
            f"{shard.path}: has {size} bytes, but {shard.end} were recorded: truncated or replaced; {remedy}"
        )


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of a store.

    Attributes:
      path: a path on disk, or a URL that fsspec can open.
      dtype: type of a token id, one of :data:`DTYPES`.
      offset: bytes before the first token.
      tokens: number of tokens, up to the end of the file.
    """

    path: str
    dtype: str
    offset: int
    tokens: int

    @property
    def end(self) -> int:
        """The file's size in bytes."""
        return self.offset + self.tokens * np.dtype(self.dtype).itemsize


class Sequences(abc.ABC):
    """Random access to sequences, for a class that can read the tokens between two places."""

    path: pathlib.Path

    @abc.abstractmethod
    def __len__(self) -> int:
        """Number of tokens."""

    @abc.abstractmethod
    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the tokens ``start`` to ``stop`` (exclusive, cut at the end), int32."""

    def sequences(self, length: int) -> int:
        """Return the number of sequences of ``length`` targets. The first target needs one token before it."""
        return max(0, (len(self) - 1) // length)

    def sequence(self, index: int, length: int) -> np.ndarray:
        """Return the tokens ``index·length`` to ``index·length + length`` inclusive, int32 [length + 1].

        The inputs are ``[:-1]``, the targets ``[1:]``.

        Raises:
          IndexError: ``index`` is not in [0, sequences(length)).
          UserError: see :meth:`read`.
        """
        if not 0 <= index < self.sequences(length):
            raise IndexError(f"{self.path}: sequence {index} of {self.sequences(length)}")
        return self.read(index * length, (index + 1) * length + 1)


class TokenStore(Sequences):
    """The tokens of one domain: the tokens of its shards, one shard after another.

    A store is cheap to open and never loaded as a whole. Files on disk are memory-mapped on first use, so processes
    share them. From remote files only the requested bytes are fetched.
    """

    def __init__(self, path: str | pathlib.Path, shards: Sequence[Shard], vocabulary: int):
        self.path, self.shards, self.vocabulary = pathlib.Path(path), tuple(shards), vocabulary
        self._starts = np.cumsum([0, *(shard.tokens for shard in self.shards)])
        self._map = functools.cache(_mapped)

    def __len__(self) -> int:
        """Number of tokens."""
        return int(self._starts[-1])

    def __reduce__(self):
        # Pickle the paths only. A memory map would be pickled with its content, for every worker of a data loader.
        return TokenStore, (self.path, self.shards, self.vocabulary)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the tokens ``start`` to ``stop`` (exclusive, cut at the store's end), int32.

        Raises:
          UserError: a file cannot be read, or has an id outside the vocabulary.
        """
        stop, parts = min(stop, len(self)), [np.empty(0, np.int32)]
        n = int(np.searchsorted(self._starts, start, side="right")) - 1
        while start < stop:
            shard, first = self.shards[n], start - int(self._starts[n])
            last = min(shard.tokens, first + stop - start)
            ids = fetch(shard, first, last) if is_remote(shard.path) else self._map(shard)[first:last]
            if ids.size and not 0 <= ids.min() <= ids.max() < self.vocabulary:
                raise UserError(
                    f"{shard.path}: token ids {ids.min()} to {ids.max()} from token {first:,} on are outside the "
                    f"vocabulary of {self.vocabulary:,}; the file is damaged, or of another tokenizer"
                )
            parts.append(ids.astype(np.int32))
            start, n = start + last - first, n + 1
        return np.concatenate(parts)


def fetch(shard: Shard, first: int, last: int) -> np.ndarray:
    """Return the tokens ``first`` to ``last`` (exclusive) of a remote file."""
    width = np.dtype(shard.dtype).itemsize
    start, stop = shard.offset + first * width, shard.offset + last * width
    with errors_name(shard.path):
        system, path = fsspec.core.url_to_fs(shard.path)
        content = system.cat_file(path, start=start, end=stop)
    if len(content) != stop - start:
        raise UserError(f"{shard.path}: ends before byte {stop}: truncated or replaced; {_RESTORE}")
    return np.frombuffer(content, shard.dtype)


def _mapped(shard: Shard) -> np.ndarray:
    try:
        # An empty file cannot be mapped.
        return np.memmap(shard.path, shard.dtype, "r", shard.offset, (shard.tokens,)) if shard.tokens else np.empty(0)
    # NumPy raises ValueError if the file was truncated after its size was checked.
    except (OSError, ValueError) as e:
        raise UserError(f"{shard.path}: cannot be read: {getattr(e, 'strerror', None) or e}; {_RESTORE}") from e
