"""MinHash signatures of texts, from which the similarity of two texts is estimated."""

from collections.abc import Sequence

import numpy as np

# Bytes of a shingle, about three words. Shingles are all substrings of this length of the normalised text.
SHINGLE = 16
# Bins of a signature, and bins of a band. Two documents of similarity s share at least one of the 32 bands with
# probability 1 - (1 - s⁴)³², which is 0.9999999 at s = 0.8. Their similarity is then estimated with a standard error of
# √(s (1 - s) / 128), which is 0.035 at s = 0.8.
BINS, ROWS = 128, 4
BANDS = BINS // ROWS
_EMPTY = np.uint32(0xFFFFFFFF)
_PRIME = 0x100000001B3
_MIX = (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53)
# Bytes hashed at once. Their arrays fit into a core's cache, which doubles the speed.
_WINDOW = 1 << 14


def normalised(text: str) -> bytes:
    """Return a text without its letter case and the amount of its white space, UTF-8."""
    return " ".join(text.lower().split()).encode()


def signatures(texts: Sequence[bytes]) -> np.ndarray:
    """Return the one-permutation MinHash of each text (Li, Owen, Zhang, NIPS 2012): uint32 [D, BINS].

    The hashes of all shingles are divided among ``BINS`` bins, and each bin keeps its smallest. An empty bin holds
    2³² - 1.
    """
    result = np.full(len(texts) * BINS, _EMPTY, np.uint32)
    data = np.frombuffer(b"".join(texts), np.uint8)
    ends_D = np.cumsum([len(text) for text in texts])
    for start in range(0, len(data) - SHINGLE + 1, _WINDOW):
        hashes = _hashes(data[start : start + _WINDOW + SHINGLE - 1])
        stop = start + len(hashes)
        first, last = np.searchsorted(ends_D, (start, stop - 1), side="right")
        begins = np.concatenate([[start], ends_D[first:last], [stop]])
        bins = (hashes >> np.uint64(57)).view(np.int64)
        bins += np.repeat(np.arange(first, last + 1) * BINS, np.diff(begins))
        smallest = hashes.astype(np.uint32)
        # Shingles that reach into the next document change nothing.
        reaching = ends_D[first:, None][: last - first + SHINGLE] - np.arange(1, SHINGLE)
        smallest[reaching[(reaching >= start) & (reaching < stop)] - start] = _EMPTY
        np.minimum.at(result, bins, smallest)
    return result.reshape(-1, BINS)


def _hashes(data: np.ndarray) -> np.ndarray:
    """Return a 64-bit hash of each shingle of ``data``."""
    hashes, power, width = data.astype(np.uint64) + np.uint64(1), _PRIME, 1
    while width < SHINGLE:  # compute the polynomial hashes of 2w bytes from those of w bytes
        hashes = hashes[:-width] * np.uint64(power) + hashes[width:]
        power, width = power * power % 2**64, 2 * width
    return mix(hashes)


def mix(hashes: np.ndarray) -> np.ndarray:
    """Return murmur3's finaliser, uint64: every bit of the result depends on every bit of ``hashes``."""
    for factor in _MIX:
        hashes = (hashes ^ (hashes >> np.uint64(33))) * np.uint64(factor)
    return hashes ^ (hashes >> np.uint64(33))


def bands(signatures_DB: np.ndarray) -> np.ndarray:
    """Return a hash of each band of each signature, uint64 [BANDS, D]; 0 for a band of empty bins."""
    bins = signatures_DB.reshape(-1, BANDS, ROWS).astype(np.uint64)
    halves = (bins[:, :, ::2] << np.uint64(32)) | bins[:, :, 1::2]
    keys = mix(mix(halves[:, :, 0]) ^ halves[:, :, 1])
    keys[(signatures_DB == _EMPTY).reshape(-1, BANDS, ROWS).all(2)] = 0
    return np.ascontiguousarray(keys.T)


def similarity(a_PB: np.ndarray, b_PB: np.ndarray) -> np.ndarray:
    """Estimate the Jaccard similarity of P pairs of signatures: float64 [P].

    It is the number of equal non-empty bins, divided by the number of bins that are non-empty in at least one.
    """
    both_empty_P = ((a_PB == _EMPTY) & (b_PB == _EMPTY)).sum(1)
    return ((a_PB == b_PB).sum(1) - both_empty_P) / np.maximum(1, BINS - both_empty_P)
