"""Removal of near-identical documents, and the split into training and held-out text."""

import dataclasses
import hashlib

import numpy as np
import scipy.sparse

from olmix_jax.corpus.readers import Document, hash64

# Documents are near-identical if the Jaccard similarity of their shingles is at least this (as in Lee et al., arXiv
# 2107.06499, section 4.2).
SIMILAR = 0.8
# Bytes of a shingle, about three words. Shingles are all substrings of this length of the normalised text.
SHINGLE = 16
# Bins of a signature, and bins of a band. Two documents of similarity s share at least one of the 32 bands with
# probability 1 - (1 - s⁴)³², which is 0.9999999 at s = 0.8. Their similarity is then estimated with a standard error of
# √(s (1 - s) / 128), which is 0.035 at s = 0.8.
BINS, ROWS = 128, 4
_EMPTY = np.uint32(0xFFFFFFFF)
_PRIME = 0x100000001B3
_MIX = (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53)
_PAIRS = 1 << 16


@dataclasses.dataclass(frozen=True)
class Deduplicated:
    """The documents kept, in their order, and the number of documents dropped, for each domain."""

    kept: dict[str, list[Document]]
    dropped: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Split:
    """Training and held-out documents, each in the order given."""

    train: list[Document]
    heldout: list[Document]


def deduplicate(domains: dict[str, list[Document]]) -> Deduplicated:
    """Keep the first of every group of near-identical documents, within and across domains. Drop blank documents.

    Letter case and the amount of white space are ignored. Documents of fewer than ``SHINGLE`` bytes are compared
    exactly. Similarity is transitive: of a chain of near-identical documents only the first stays. So documents that
    are detected as similar never end up on both sides of a split. A text that is a small part of a longer one is not
    detected. Time and memory are linear in the size of the text.
    """
    places, signatures, seen = [], [], set()
    for name, documents in domains.items():
        for index, document in enumerate(documents):
            normalised = " ".join(document.text.lower().split()).encode()
            key = hashlib.blake2b(normalised, digest_size=16).digest()
            if normalised and key not in seen:
                seen.add(key)
                places.append((name, index))
                signatures.append(signature(normalised))
    first_D = _first_of_each_group(np.array(signatures, np.uint32).reshape(-1, BINS))
    kept: dict[str, list[Document]] = {name: [] for name in domains}
    for (name, index), is_first in zip(places, first_D):
        if is_first:
            kept[name].append(domains[name][index])
    return Deduplicated(kept, {name: len(domains[name]) - len(kept[name]) for name in domains})


def signature(text: bytes) -> np.ndarray:
    """Return the one-permutation MinHash of a text (Li, Owen, Zhang, NIPS 2012): uint32 [BINS].

    The hashes of all shingles are divided among ``BINS`` bins, and each bin keeps its smallest. An empty bin holds
    2³² - 1.
    """
    result = np.full(BINS, _EMPTY, np.uint32)
    if len(text) < SHINGLE:
        return result
    hashes, power, width = np.frombuffer(text, np.uint8).astype(np.uint64) + np.uint64(1), _PRIME, 1
    while width < SHINGLE:  # compute the polynomial hashes of 2w bytes from those of w bytes
        hashes = hashes[:-width] * np.uint64(power) + hashes[width:]
        power, width = power * power % 2**64, 2 * width
    for factor in _MIX:  # murmur3's finaliser makes every bit depend on every byte
        hashes = (hashes ^ (hashes >> np.uint64(33))) * np.uint64(factor)
    hashes ^= hashes >> np.uint64(33)
    bins = (hashes >> np.uint64(57)).astype(np.intp)
    np.minimum.at(result, bins, hashes.astype(np.uint32))
    return result


def similarity(a_PB: np.ndarray, b_PB: np.ndarray) -> np.ndarray:
    """Estimate the Jaccard similarity of P pairs of signatures: float64 [P].

    It is the number of equal non-empty bins, divided by the number of bins that are non-empty in at least one.
    """
    both_empty_P = ((a_PB == _EMPTY) & (b_PB == _EMPTY)).sum(1)
    return ((a_PB == b_PB).sum(1) - both_empty_P) / np.maximum(1, BINS - both_empty_P)


def _first_of_each_group(signatures_DB: np.ndarray) -> np.ndarray:
    """Mark the first document of each connected component of similar pairs: bool [D]."""
    n = len(signatures_DB)
    if n == 0:
        return np.zeros(0, bool)
    bands = [signatures_DB[:, i : i + ROWS] for i in range(0, BINS, ROWS)]
    pairs = np.unique(np.concatenate([_band_pairs(band) for band in bands]), axis=0)
    similar = [np.zeros((0, 2), np.intp)]
    for start in range(0, len(pairs), _PAIRS):
        block = pairs[start : start + _PAIRS]
        similar.append(block[similarity(signatures_DB[block[:, 0]], signatures_DB[block[:, 1]]) >= SIMILAR])
    edges = np.concatenate(similar)
    graph = scipy.sparse.coo_matrix((np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])), shape=(n, n))
    _, component = scipy.sparse.csgraph.connected_components(graph, directed=False)
    result = np.zeros(n, bool)
    result[np.unique(component, return_index=True)[1]] = True
    return result


def _band_pairs(band: np.ndarray) -> np.ndarray:
    """Return the pairs to compare [P, 2]: each document with the first and the previous one of the same band."""
    full = np.flatnonzero((band != _EMPTY).any(1))
    keys = np.ascontiguousarray(band[full]).view(f"V{4 * ROWS}").ravel()
    _, key = np.unique(keys, return_inverse=True)
    order = np.argsort(key, kind="stable")
    first = np.concatenate([[True], np.diff(key[order]) != 0])[: len(order)]
    head = np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
    later = np.flatnonzero(~first)
    documents = full[order]
    return np.concatenate(
        [np.stack([documents[head[later]], documents[later]], 1), np.stack([documents[later - 1], documents[later]], 1)]
    )


def split(documents: list[Document], heldout: float, seed: int) -> Split:
    """Hold out whole groups, in the order of a hash of their names, until they hold the share ``heldout`` of the bytes.

    A group larger than half of that share stays in training, so that a small domain keeps its large files. If every
    group is that large, the smallest is held out. So every domain with two or more groups has held-out text.
    """
    sizes: dict[str, int] = {}
    for document in documents:
        sizes[document.group] = sizes.get(document.group, 0) + len(document.text.encode())
    target, size = heldout * sum(sizes.values()), 0
    chosen: set[str] = set()
    for group in sorted(sizes, key=lambda g: (hash64(f"{seed}:{g}"), g)):
        if size < target and sizes[group] <= target / 2:
            chosen.add(group)
            size += sizes[group]
    if target and not chosen and len(sizes) > 1:
        chosen = {min(sizes, key=lambda g: (sizes[g], g))}
    return Split([d for d in documents if d.group not in chosen], [d for d in documents if d.group in chosen])
