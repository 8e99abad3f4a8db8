"""Token stores: one flat file of unsigned integers per domain, memory-mapped, with a sidecar that vouches for it."""

import pathlib
import re
import urllib.parse
from collections.abc import Iterable

import numpy as np

from olmix_jax import files
from olmix_jax.errors import UserError

END = 0
_REMEDY = "delete it and run --stages=prepare again"


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


def write_store(path: str | pathlib.Path, documents: Iterable[np.ndarray], vocabulary: int) -> int:
    """Writes documents one after another, each followed by ``END``, as little-endian uint16 (uint32 above 65,536 ids).

    Args:
      path: the file; ``‹path›.json`` beside it, written last, records type and size.
      documents: token ids of one document each, without ``END``; consumed one by one.
      vocabulary: number of token ids; an id outside [0, vocabulary) is a ValueError.

    Returns:
      The tokens written, ``END``s included.
    """
    path = pathlib.Path(path)
    dtype = np.dtype("<u2" if vocabulary <= 65536 else "<u4")
    tokens = 0
    with files.write_whole(path, "wb") as f:
        for ids in documents:
            ids = np.asarray(ids)
            if ids.size and not 0 <= ids.min() <= ids.max() < vocabulary:
                raise ValueError(f"token ids {ids.min()}..{ids.max()} outside a vocabulary of {vocabulary}")
            f.write(np.append(ids, END).astype(dtype).tobytes())
            tokens += ids.size + 1
    record = {"dtype": dtype.str, "tokens": tokens, "bytes": tokens * dtype.itemsize, "vocabulary": vocabulary}
    files.write_json(_sidecar(path), record)
    return tokens


def open_store(path: str | pathlib.Path) -> "TokenStore":
    """Opens what :func:`write_store` wrote.

    Raises:
      UserError: the file or its sidecar is missing, torn or of another size than recorded.
    """
    path = pathlib.Path(path)
    record = files.read_json(_sidecar(path))
    try:
        dtype, tokens = str(record["dtype"]), int(record["tokens"])
        if dtype not in ("<u2", "<u4"):
            raise ValueError(f"dtype {dtype}")
    except (KeyError, TypeError, ValueError) as e:
        raise UserError(f"{_sidecar(path)}: not the record of a token store ({e!r}); {_REMEDY}") from e
    store = TokenStore(path, dtype)
    if store.size != tokens * np.dtype(dtype).itemsize:
        wanted = tokens * np.dtype(dtype).itemsize
        raise UserError(f"{path}: {store.size} bytes where {wanted} were written: truncated or replaced; {_REMEDY}")
    return store


class TokenStore:
    """The tokens of one domain, memory-mapped: cheap to open, shared between processes, never loaded whole."""

    def __init__(self, path: str | pathlib.Path, dtype: str):
        self.path, self.dtype = pathlib.Path(path), dtype
        try:
            self.size = self.path.stat().st_size
            count = self.size // np.dtype(dtype).itemsize
            # An empty file cannot be mapped.
            self.tokens = np.memmap(self.path, dtype, mode="r", shape=(count,)) if count else np.empty(0, dtype)
        except OSError as e:
            raise UserError(f"{path}: cannot be read: {e.strerror}; run --stages=prepare again") from e

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.tokens)

    def __reduce__(self):
        # A memory map would be pickled with its content, to every worker process of a loader.
        return TokenStore, (self.path, self.dtype)

    def sequences(self, length: int) -> int:
        """Number of sequences of ``length`` predicted tokens, which need one token before the first."""
        return max(0, (len(self) - 1) // length)

    def sequence(self, index: int, length: int) -> np.ndarray:
        """Tokens ``index·length .. index·length + length`` inclusive: int32 [length + 1], inputs and targets in one.

        Raises:
          IndexError: there is no such sequence.
        """
        if not 0 <= index < self.sequences(length):
            raise IndexError(f"{self.path}: sequence {index} of {self.sequences(length)}")
        return np.asarray(self.tokens[index * length : (index + 1) * length + 1], np.int32)
