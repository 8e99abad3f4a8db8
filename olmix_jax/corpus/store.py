"""Token stores: a domain's tokens as flat files of integers, read where they lie, with a record that vouches."""

import contextlib
import dataclasses
import functools
import pathlib
import re
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence

import fsspec
import numpy as np

from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError

END = 0
# Types of token ids: what we write, and what other engines do.
DTYPES = ("<u2", "<u4", "<i4", "<u8", "<i8")
_REMEDY = "delete it and run --stages=prepare again"
# What the user's own files are not to be told.
_RESTORE = "put it back as it was, or delete the workdir's domains.json and corpus, and prepare again"


def file_name(domain: str) -> str:
    """The name of ``domain`` in a file name: letters, digits and ``_ .+-`` stay, the rest is percent-quoted, so that
    two domains never share a file."""
    return re.sub(r"[^\w .+-]", lambda m: urllib.parse.quote(m[0], safe=""), domain)


def store_path(workdir: str | pathlib.Path, domain: str) -> pathlib.Path:
    """Where the training tokens of ``domain`` are."""
    return pathlib.Path(workdir) / "corpus" / "train" / f"{file_name(domain)}.bin"


def heldout_path(workdir: str | pathlib.Path, domain: str) -> pathlib.Path:
    """Where the held-out documents of ``domain`` are: JSONL of ``{"text", "source"}``."""
    return pathlib.Path(workdir) / "corpus" / "heldout" / f"{file_name(domain)}.jsonl"


def tokenizer_path(workdir: str | pathlib.Path) -> pathlib.Path:
    """Where the tokenizer is."""
    return pathlib.Path(workdir) / "corpus" / "tokenizer.json"


def token_bytes_path(workdir: str | pathlib.Path) -> pathlib.Path:
    """Where the bytes of each token are: int32 [V], zero for the end of a document."""
    return pathlib.Path(workdir) / "corpus" / "token_bytes.npy"


def _sidecar(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(path.name + ".json")


def write_store(
    path: str | pathlib.Path, documents: Iterable[np.ndarray], vocabulary: int, end: int = END, made_of: str = ""
) -> int:
    """Writes documents one after another, each followed by ``end``, as little-endian uint16 (uint32 above 65,536 ids).

    Args:
      path: the file; ``‹path›.json`` beside it, written last, records type and size.
      documents: token ids of one document each, without ``end``; consumed one by one.
      vocabulary: number of token ids; an id outside [0, vocabulary) is a ValueError.
      made_of: a name for text and tokenizer, by which :func:`written` knows the store again.

    Returns:
      The tokens written, ``end``s included.
    """
    path = pathlib.Path(path)
    dtype = np.dtype("<u2" if vocabulary <= 65536 else "<u4")
    tokens = 0
    # The record of an earlier store must not vouch for this one.
    _sidecar(path).unlink(missing_ok=True)
    with files.atomic_write(path, "wb") as f:
        for ids in documents:
            ids = np.asarray(ids)
            if ids.size and not 0 <= ids.min() <= ids.max() < vocabulary:
                raise ValueError(f"token ids {ids.min()}..{ids.max()} outside a vocabulary of {vocabulary}")
            f.write(np.append(ids, end).astype(dtype).tobytes())
            tokens += ids.size + 1
    shard = Shard(path.name, dtype.str, 0, tokens)
    files.write_json(_sidecar(path), {"vocabulary": vocabulary, "made_of": made_of, "shards": [shard]})
    return tokens


def written(path: str | pathlib.Path, made_of: str) -> int | None:
    """The tokens of a store that is there whole and ``made_of`` just that; None where it is to be written."""
    try:
        same = files.read_json(_sidecar(pathlib.Path(path)))["made_of"] == made_of
        return len(open_store(path)) if same else None
    except (KeyError, UserError):
        return None


def link_store(path: str | pathlib.Path, shards: Sequence["Shard"], vocabulary: int) -> int:
    """Records token files that others wrote as a store, in place of copying them; returns their tokens."""
    path = pathlib.Path(path)
    path.unlink(missing_ok=True)
    files.write_json(_sidecar(path), {"vocabulary": vocabulary, "made_of": "", "shards": shards})
    return sum(shard.tokens for shard in shards)


def open_store(path: str | pathlib.Path) -> "TokenStore":
    """Opens what :func:`write_store` or :func:`link_store` wrote.

    Raises:
      UserError: a file or the record is missing, torn or of another size than recorded.
    """
    path = pathlib.Path(path)
    record = files.read_json(_sidecar(path))
    try:
        vocabulary = int(record["vocabulary"])
        shards = [Shard(str(r["path"]), str(r["dtype"]), int(r["offset"]), int(r["tokens"])) for r in record["shards"]]
        wrong = [shard.dtype for shard in shards if shard.dtype not in DTYPES]
        if wrong:
            raise ValueError(f"dtype {wrong[0]}")
    except (KeyError, TypeError, ValueError) as e:
        raise UserError(f"{_sidecar(path)}: not the record of a token store ({e!r}); {_REMEDY}") from e
    # Our own file is named as beside its record, so that a workdir can be moved.
    shards = [dataclasses.replace(s, path=str(path)) if s.path == path.name else s for s in shards]
    for shard in shards:
        _check_size(shard, _REMEDY if shard.path == str(path) else _RESTORE)
    return TokenStore(path, shards, vocabulary)


def is_there(path: str | pathlib.Path) -> bool:
    """Whether there is a store's record."""
    return _sidecar(pathlib.Path(path)).is_file()


def is_remote(path: str) -> bool:
    """Whether ``path`` is a URL."""
    return "://" in path


@contextlib.contextmanager
def reached(path: str) -> Iterator[None]:
    """Tells what goes wrong in a file system, of which every one has its own kinds of errors, by the file's name.

    Raises:
      UserError: anything was raised.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as e:
        raise UserError(f"{path}: cannot be read: {str(e) or type(e).__name__}") from e


def _check_size(shard: "Shard", remedy: str) -> None:
    if is_remote(shard.path):
        return  # a request each; a read that comes back short is an error as well
    try:
        size = pathlib.Path(shard.path).stat().st_size
    except OSError as e:
        raise UserError(f"{shard.path}: cannot be read: {e.strerror}; {remedy}") from e
    if size != shard.end:
        raise UserError(f"{shard.path}: {size} bytes where {shard.end} were written: truncated or replaced; {remedy}")


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of a store.

    Attributes:
      path: where it is, on a disk or as a URL of fsspec's.
      dtype: of a token id, one of :data:`DTYPES`.
      offset: bytes before the first token.
      tokens: how many there are, up to the file's end.
    """

    path: str
    dtype: str
    offset: int
    tokens: int

    @property
    def end(self) -> int:
        """The file's size in bytes."""
        return self.offset + self.tokens * np.dtype(self.dtype).itemsize


class TokenStore:
    """The tokens of one domain, its files one after another: cheap to open, shared between processes, never loaded
    whole. Files on a disk are memory-mapped at their first use; of remote ones the bytes wanted are fetched."""

    def __init__(self, path: str | pathlib.Path, shards: Sequence[Shard], vocabulary: int):
        self.path, self.shards, self.vocabulary = pathlib.Path(path), tuple(shards), vocabulary
        self._starts = np.cumsum([0, *(shard.tokens for shard in self.shards)])
        self._map = functools.cache(_mapped)

    def __len__(self) -> int:
        """Number of tokens."""
        return int(self._starts[-1])

    def __reduce__(self):
        # A memory map would be pickled with its content, to every worker process of a loader.
        return TokenStore, (self.path, self.shards, self.vocabulary)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens ``start .. stop``, int32, without those after the store's end.

        Raises:
          UserError: a file cannot be read, or holds an id that is not in the vocabulary.
        """
        stop, parts = min(stop, len(self)), [np.empty(0, np.int32)]
        n = int(np.searchsorted(self._starts, start, side="right")) - 1
        while start < stop:
            shard, first = self.shards[n], start - int(self._starts[n])
            last = min(shard.tokens, first + stop - start)
            ids = fetch(shard, first, last) if is_remote(shard.path) else self._map(shard)[first:last]
            if ids.size and not 0 <= ids.min() <= ids.max() < self.vocabulary:
                raise UserError(
                    f"{shard.path}: token ids {ids.min()} to {ids.max()} at token {first:,}, outside the vocabulary of "
                    f"{self.vocabulary:,}; another tokenizer's, or a damaged file"
                )
            parts.append(ids.astype(np.int32))
            start, n = start + last - first, n + 1
        return np.concatenate(parts)

    def sequences(self, length: int) -> int:
        """Number of sequences of ``length`` predicted tokens, which need one token before the first."""
        return max(0, (len(self) - 1) // length)

    def sequence(self, index: int, length: int) -> np.ndarray:
        """Tokens ``index·length .. index·length + length`` inclusive: int32 [length + 1], inputs and targets in one.

        Raises:
          IndexError: there is no such sequence.
          UserError: as :meth:`read`.
        """
        if not 0 <= index < self.sequences(length):
            raise IndexError(f"{self.path}: sequence {index} of {self.sequences(length)}")
        return self.read(index * length, (index + 1) * length + 1)


def fetch(shard: Shard, first: int, last: int) -> np.ndarray:
    """Tokens ``first .. last`` of a remote file."""
    width = np.dtype(shard.dtype).itemsize
    start, stop = shard.offset + first * width, shard.offset + last * width
    with reached(shard.path):
        system, path = fsspec.core.url_to_fs(shard.path)
        content = system.cat_file(path, start=start, end=stop)
    if len(content) != stop - start:
        raise UserError(f"{shard.path}: ends before byte {stop}: truncated or replaced; {_RESTORE}")
    return np.frombuffer(content, shard.dtype)


def _mapped(shard: Shard) -> np.ndarray:
    try:
        # An empty file cannot be mapped.
        return np.memmap(shard.path, shard.dtype, "r", shard.offset, (shard.tokens,)) if shard.tokens else np.empty(0)
    # Of a file that has become shorter since its size was looked at, NumPy says ValueError.
    except (OSError, ValueError) as e:
        raise UserError(f"{shard.path}: cannot be read: {getattr(e, 'strerror', None) or e}; {_RESTORE}") from e
