"""Token stores that are read in the proxies' vocabulary: tokens are mapped while they are read.

``prepare`` counts the mapped tokens of every block of a store once. With these counts, any mapped token is found by
reading the blocks around it.
"""

import pathlib
from collections.abc import Iterator

import numpy as np

from olmix_jax.config.schema import Config
from olmix_jax.config.workdir import PROXY_TOKENS
from olmix_jax.corpus import store
from olmix_jax.corpus.store import Sequences, TokenStore
from olmix_jax.corpus.tokenizer import Tokenizer
from olmix_jax.corpus.vocabulary import Mapping, truncate
from olmix_jax.swarm.expansion import Expansion
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.files import file_name
from olmix_jax.utils.progress import log, tracked

# Tokens of a block, and blocks that are counted at once.
BLOCK, _BLOCKS = 1024, 1024
_REBUILD = "delete domains.json and rerun --stages=prepare"


def read_tokenizer(config: Config, workdir: str | pathlib.Path) -> Tokenizer:
    """Read the tokenizer of the proxies and of their tasks: the corpus', or with ``proxy.vocabulary`` a part of it."""
    whole = config.proxy.vocabulary is None
    return Tokenizer.read(store.tokenizer_path(workdir) if whole else _folder(workdir) / "tokenizer.json")


def write(workdir: str | pathlib.Path, names: tuple[str, ...], vocabulary: int) -> Expansion:
    """Write the proxies' tokenizer, the mapping to it, and the index of every domain, for a corpus with stores.

    All tokens are read once.

    Args:
      workdir: folder with the corpus' tokenizer and stores.
      names: the domains.
      vocabulary: entries of the proxies' vocabulary.

    Raises:
      UserError: the tokenizer cannot be truncated to ``vocabulary`` entries, or a store has an id that is no token.
    """
    record = pathlib.Path(workdir) / PROXY_TOKENS
    record.unlink(missing_ok=True)
    full = Tokenizer.read(store.tokenizer_path(workdir))
    small = truncate(full, vocabulary)
    mapping = Mapping.between(full, small)
    small.write(_folder(workdir) / "tokenizer.json")
    mapping.write(_folder(workdir) / "mapping.npz")
    sizes, mapped = {}, {}
    for name in tracked(names, "map to proxy.vocabulary", "domains"):
        tokens = store.open_store(store.store_path(workdir, name))
        sizes[name] = len(tokens)
        mapped[name] = write_index(_index_path(workdir, name), tokens, mapping)
    result = Expansion(vocabulary, sizes, mapped)
    for name, factor in zip(names, result.by_domain(names)):
        log.info("%-24s %.3f tokens of proxy.vocabulary per token", name, factor)
    log.info("proxy.vocabulary: %d entries of %d, %.3f tokens per token", small.size, full.size, result.mean)
    result.write(record)
    return result


def open_store(workdir: str | pathlib.Path, domain: str, mapping: Mapping) -> "MappedStore":
    """Open the tokens of a domain in the proxies' vocabulary."""
    return MappedStore(store.open_store(store.store_path(workdir, domain)), mapping, _index_path(workdir, domain))


def read_mapping(workdir: str | pathlib.Path) -> Mapping:
    """Read the mapping of a workdir."""
    return Mapping.read(_folder(workdir) / "mapping.npz")


def write_index(path: pathlib.Path, tokens: TokenStore, mapping: Mapping) -> int:
    """Write the number of mapped tokens before each block, int64, and after the last. Returns that of all.

    Raises:
      UserError: an id is not a token.
    """
    counts = np.concatenate([np.zeros(1, np.int64), *_block_counts(tokens, mapping)])
    start_B = np.cumsum(counts)
    with files.atomic_write(path, "wb") as f:
        np.save(f, start_B, allow_pickle=False)
    return int(start_B[-1])


def _block_counts(tokens: TokenStore, mapping: Mapping) -> Iterator[np.ndarray]:
    for start in range(0, len(tokens), BLOCK * _BLOCKS):
        ids = tokens.read(start, start + BLOCK * _BLOCKS)
        count_n = mapping.count_V[ids]
        if not count_n.all():
            place = int(np.argmin(count_n))
            raise UserError(
                f"{tokens.path}: token {start + place:,} has the id {ids[place]}, which is no token of the tokenizer; "
                "the files are damaged, or of another tokenizer"
            )
        yield np.add.reduceat(count_n, np.arange(0, len(ids), BLOCK), dtype=np.int64)


class MappedStore(Sequences):
    """A store in the proxies' vocabulary.

    Args:
      source: the store.
      mapping: the mapping of its tokens.
      index: the file of :func:`write_index`.

    Raises:
      UserError: the index is missing, or of another store.
    """

    def __init__(self, source: TokenStore, mapping: Mapping, index: pathlib.Path):
        self.path, self._source, self._mapping, self._index = source.path, source, mapping, index
        try:
            self._start_B = np.load(index, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as e:
            raise UserError(f"{index}: cannot be read: {e}; {_REBUILD}") from e
        if self._start_B.shape != (-(-len(source) // BLOCK) + 1,):
            raise UserError(f"{index}: not the index of {source.path}, which has {len(source):,} tokens; {_REBUILD}")

    def __len__(self) -> int:
        """Number of mapped tokens."""
        return int(self._start_B[-1])

    def __reduce__(self):
        return MappedStore, (self._source, self._mapping, self._index)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the mapped tokens ``start`` to ``stop`` (exclusive, cut at the end), int32.

        Raises:
          UserError: a file cannot be read, or has changed.
        """
        stop = min(stop, len(self))
        if start >= stop:
            return np.empty(0, np.int32)
        first = int(np.searchsorted(self._start_B, start, side="right")) - 1
        last = int(np.searchsorted(self._start_B, stop, side="left"))
        before, after = int(self._start_B[first]), int(self._start_B[last])
        try:
            ids = self._mapping.map(self._source.read(first * BLOCK, last * BLOCK))
        except ValueError as e:
            raise UserError(f"{self.path}: {e}; its files changed after prepare; restore them") from e
        if len(ids) != after - before:
            raise UserError(
                f"{self.path}: tokens {first * BLOCK:,} to {last * BLOCK:,} are {len(ids):,} in proxy.vocabulary, but "
                f"{after - before:,} were counted; its files changed after prepare: restore them, or {_REBUILD}"
            )
        return ids[start - before : stop - before]


def _folder(workdir: str | pathlib.Path) -> pathlib.Path:
    return (pathlib.Path(workdir) / PROXY_TOKENS).parent


def _index_path(workdir: str | pathlib.Path, domain: str) -> pathlib.Path:
    return _folder(workdir) / f"{file_name(domain)}.npy"
