"""Near-identical documents out, then some held out: what is trained on, what is judged on, and nothing in both."""

import hashlib

import numpy as np
import scipy.sparse

from olmix_jax.corpus.readers import Document, hashed

# Two documents are near-identical from this Jaccard similarity of their shingles on (Lee et al., arXiv 2107.06499,
# section 4.2, take 0.8 too); shingles are all runs of this many bytes of the normalised text, some three words.
SIMILAR = 0.8
SHINGLE = 16
# Bins of a signature, and bins in a band. A pair of similarity s shares one of the 32 bands with probability
# 1 - (1 - s⁴)³², which is 0.9999999 at 0.8; its similarity is then estimated with a standard error of
# √(s (1 - s) / 128), 0.035 at 0.8.
BINS, ROWS = 128, 4
_EMPTY = np.uint32(0xFFFFFFFF)
_PRIME = 0x100000001B3
_MIX = (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53)
_PAIRS = 1 << 16


def deduplicate(domains: dict[str, list[Document]]) -> tuple[dict[str, list[Document]], dict[str, int]]:
    """Keeps the first of every set of near-identical documents, within and across domains, and drops blank ones.

    Letter case and the amount of white space make no difference. Documents of fewer than ``SHINGLE`` bytes are compared
    exactly. Similarity is transitive: of a chain of near-identical documents one stays, so no two that are found
    similar can end on two sides of a split. A text that is a small part of a longer one is not found. Time and memory
    are linear in the text.

    Returns:
      The documents kept, in order, and the number dropped per domain.
    """
    places, texts, seen = [], [], set()
    for name, documents in domains.items():
        for index, document in enumerate(documents):
            normalised = " ".join(document.text.lower().split()).encode()
            key = hashlib.blake2b(normalised, digest_size=16).digest()
            if normalised and key not in seen:
                seen.add(key)
                places.append((name, index))
                texts.append(signature(normalised))
    kept = {name: [] for name in domains}
    for (name, index), first in zip(places, _first_of_each(np.array(texts, np.uint32).reshape(-1, BINS))):
        if first:
            kept[name].append(domains[name][index])
    return kept, {name: len(domains[name]) - len(kept[name]) for name in domains}


def signature(text: bytes) -> np.ndarray:
    """One-permutation MinHash (Li, Owen, Zhang, NIPS 2012): hashes of all shingles fall into ``BINS`` bins, and
    the least of each counts. uint32 [BINS]; a bin without a shingle holds 2³² - 1."""
    result = np.full(BINS, _EMPTY, np.uint32)
    if len(text) < SHINGLE:
        return result
    hashes, power, width = np.frombuffer(text, np.uint8).astype(np.uint64) + np.uint64(1), _PRIME, 1
    while width < SHINGLE:  # the polynomial hash of 2w bytes from those of w bytes
        hashes = hashes[:-width] * np.uint64(power) + hashes[width:]
        power, width = power * power % 2**64, 2 * width
    for factor in _MIX:  # murmur3's finaliser, so that every bit depends on every byte
        hashes = (hashes ^ (hashes >> np.uint64(33))) * np.uint64(factor)
    hashes ^= hashes >> np.uint64(33)
    bins = (hashes >> np.uint64(57)).astype(np.intp)
    np.minimum.at(result, bins, hashes.astype(np.uint32))
    return result


def similarity(a_PB: np.ndarray, b_PB: np.ndarray) -> np.ndarray:
    """Estimated Jaccard similarity of P pairs of signatures: equal bins over bins that are not empty in both. [P]"""
    both_empty_P = ((a_PB == _EMPTY) & (b_PB == _EMPTY)).sum(1)
    return ((a_PB == b_PB).sum(1) - both_empty_P) / np.maximum(1, BINS - both_empty_P)


def _first_of_each(signatures: np.ndarray) -> np.ndarray:
    """True for each document that is the first of its connected component of similar pairs."""
    n = len(signatures)
    if n == 0:
        return np.zeros(0, bool)
    pairs = np.unique(np.concatenate([_band_pairs(signatures[:, i : i + ROWS]) for i in range(0, BINS, ROWS)]), axis=0)
    similar = [np.zeros((0, 2), np.intp)]
    for start in range(0, len(pairs), _PAIRS):
        some = pairs[start : start + _PAIRS]
        similar.append(some[similarity(signatures[some[:, 0]], signatures[some[:, 1]]) >= SIMILAR])
    edges = np.concatenate(similar)
    graph = scipy.sparse.coo_matrix((np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])), shape=(n, n))
    _, component = scipy.sparse.csgraph.connected_components(graph, directed=False)
    result = np.zeros(n, bool)
    result[np.unique(component, return_index=True)[1]] = True
    return result


def _band_pairs(band: np.ndarray) -> np.ndarray:
    """Pairs to compare: each document with the first and with the previous one that has the same band, [P, 2]."""
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


def split(documents: list[Document], heldout: float, seed: int) -> tuple[list[Document], list[Document]]:
    """Holds out whole groups, in the order of a hash of their names, until they are the share ``heldout`` of the bytes.

    A group that alone would be more than half of what is to be held out stays in training, unless all are: then the
    smallest is held out. So a small domain has something held out too, if it has two groups or more, and a large file
    is not taken from it.

    Returns:
      Training and held-out documents, each in the order given.
    """
    sizes = {}
    for document in documents:
        sizes[document.group] = sizes.get(document.group, 0) + len(document.text.encode())
    wanted, taken, out = heldout * sum(sizes.values()), 0, set()
    for group in sorted(sizes, key=lambda g: (hashed(f"{seed}:{g}"), g)):
        if taken < wanted and sizes[group] <= wanted / 2:
            out.add(group)
            taken += sizes[group]
    if wanted and not out and len(sizes) > 1:
        out = {min(sizes, key=lambda g: (sizes[g], g))}
    return [d for d in documents if d.group not in out], [d for d in documents if d.group in out]
