"""Detection of near-identical documents. What is compared lies on disk, so memory stays small for any corpus."""

import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import scipy.sparse

from olmix_jax.corpus import minhash
from olmix_jax.corpus.text_streams import batches
from olmix_jax.corpus.workers import Answer, Workers
from olmix_jax.utils.progress import Progress

# Documents are near-identical if the Jaccard similarity of their shingles is at least this (as in Lee et al., arXiv
# 2107.06499, section 4.2).
SIMILAR = 0.8
# Pairs compared at once, and keys sorted at once.
_PAIRS, _KEYS = 1 << 16, 1 << 21
_FEW = 1 << 18
# Characters that are fingerprinted at once, and bytes of a document's key.
_BATCH, _KEY = 1 << 18, 16


class Fingerprints:
    """Digests and signatures of documents, in the order in which they are added.

    Letter case and the amount of white space are ignored. Documents of fewer than ``minhash.SHINGLE`` bytes are
    compared exactly. Similarity is transitive: of a chain of near-identical documents all repeat the first. So
    documents that are detected as similar never end up on both sides of a split. A text that is a small part of a
    longer one is not detected. A document takes 0.8 kB on disk and a few bytes of memory.

    Args:
      folder: where its files are written. The caller removes them.
    """

    def __init__(self, folder: pathlib.Path):
        folder.mkdir(parents=True, exist_ok=True)
        self._keys = open(folder / "keys", "w+b")
        self._signatures = open(folder / "signatures", "w+b")
        self._bands = [open(folder / f"band{band}", "w+b") for band in range(minhash.BANDS)]
        self.documents = 0

    def add(
        self, texts: Iterable[str], several: Workers | None = None, advance: Callable[[int], object] | None = None
    ) -> None:
        """Add documents.

        Args:
          texts: the documents, which are consumed one by one.
          several: processes that compute their fingerprints; None for this one.
          advance: called with the number of characters of each batch that is added.
        """
        cut = batches(texts, _BATCH)
        for characters, keys, signatures, *bands in several.map("fingerprint", cut) if several else map(_prints, cut):
            self._keys.write(keys)
            self._signatures.write(signatures)
            for file, keys_D in zip(self._bands, bands):
                file.write(keys_D)
            self.documents += len(keys) // _KEY
            if advance is not None:
                advance(int(characters))

    def firsts(self) -> np.ndarray:
        """Return for each document the first one that is near-identical to it, int32 [D]; itself if it is the first.

        A blank document has -1.
        """
        for file in (self._keys, self._signatures, *self._bands):
            file.flush()
        first_D = np.arange(self.documents, dtype=np.int32)
        for rows, keys in _parts(self._keys, 2, self.documents):
            order = np.lexsort((rows, keys[:, 1], keys[:, 0]))
            same = np.concatenate([[False], (keys[order[1:]] == keys[order[:-1]]).all(1)])[: len(order)]
            head = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
            first_D[rows[order]] = rows[order[head]]
            first_D[rows[~keys.any(1)]] = -1
        is_original_D = first_D == np.arange(self.documents)
        label_D = np.arange(self.documents, dtype=np.int32)
        with Progress("compare documents", minhash.BANDS, "bands") as progress:
            for file in self._bands:
                for rows, keys in _parts(file, 1, self.documents):
                    chosen = is_original_D[rows] & keys.any(1)
                    self._join(_pairs(rows[chosen], keys[chosen, 0]), label_D)
                progress.advance()
        return np.where(first_D < 0, first_D, label_D[first_D])

    def close(self) -> None:
        """Close all files."""
        for file in (self._keys, self._signatures, *self._bands):
            file.close()

    def _join(self, pairs: np.ndarray, label_D: np.ndarray) -> None:
        """Join the groups of those pairs [P, 2] that are similar, in place. A group's label is its first document."""
        for start in range(0, len(pairs), _PAIRS):
            block = pairs[start : start + _PAIRS]
            block = block[label_D[block[:, 0]] != label_D[block[:, 1]]]
            a, b = (self._read_signatures(side) for side in block.T)
            edges = label_D[block[minhash.similarity(a, b) >= SIMILAR]]
            if not len(edges):
                continue
            nodes, edge = np.unique(edges, return_inverse=True)
            edge = edge.reshape(-1, 2)
            graph = scipy.sparse.coo_matrix((np.ones(len(edge), np.int8), (edge[:, 0], edge[:, 1])), (len(nodes),) * 2)
            _, component = scipy.sparse.csgraph.connected_components(graph, directed=False)
            smallest = nodes[np.unique(component, return_index=True)[1]]
            replaced = np.arange(len(label_D), dtype=np.int32)
            replaced[nodes] = smallest[component]
            np.take(replaced, label_D, out=label_D)

    def _read_signatures(self, documents: np.ndarray) -> np.ndarray:
        result = np.empty((len(documents), minhash.BINS), np.uint32)
        size = minhash.BINS * result.itemsize
        for row, document in enumerate(documents):
            result[row] = np.frombuffer(os.pread(self._signatures.fileno(), size, int(document) * size), np.uint32)
        return result


def task(_: bytes) -> Callable[[list[str]], Answer]:
    """Return the function that fingerprints texts in another process."""
    return _prints


def _prints(texts: Sequence[str]) -> Answer:
    """Return the number of characters of texts, their keys, their signatures, and the hashes of each band."""
    plain = [minhash.normalised(text) for text in texts]
    signatures_DB = minhash.signatures(plain)
    bands = [keys_D.tobytes() for keys_D in minhash.bands(signatures_DB)]
    return [str(sum(map(len, texts))).encode(), b"".join(map(_key, plain)), signatures_DB.tobytes(), *bands]


def _key(text: bytes) -> bytes:
    """Return the digest of a normalised text; zeros if it is blank."""
    return hashlib.blake2b(text, digest_size=_KEY).digest() if text else bytes(_KEY)


def _parts(file, width: int, documents: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the keys of a file, uint64 [P, width], and their rows [P], in parts of which none shares a key."""
    parts = -(-documents // _KEYS)
    for part in range(parts):
        rows, keys = [], []
        file.seek(0)
        for start in range(0, documents, _FEW):
            block = np.fromfile(file, np.uint64, width * min(_FEW, documents - start)).reshape(-1, width)
            chosen = np.flatnonzero(block[:, 0] % np.uint64(parts) == part)
            rows.append(chosen + start)
            keys.append(block[chosen])
        yield np.concatenate(rows), np.concatenate(keys)


def _pairs(rows: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Return the pairs to compare [P, 2]: each document with the first and the previous one of the same key."""
    order = np.argsort(keys, kind="stable")
    first = np.concatenate([[True], np.diff(keys[order]) != 0])[: len(order)]
    head = np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
    later, rows = np.flatnonzero(~first), rows[order]
    pairs = np.concatenate([np.stack([rows[head[later]], rows[later]], 1), np.stack([rows[later - 1], rows[later]], 1)])
    return np.unique(pairs, axis=0)
