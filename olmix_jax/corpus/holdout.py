"""The split into training and held-out text."""

import numpy as np

from olmix_jax.corpus.spool import Spool

# Whole documents are held out if the share asked is reached within this part of it.
TOLERANCE = 0.05
# Passages hold this part of the held-out text or less, but they are not smaller than _SHORTEST bytes: long enough for a
# prompt and its answer.
_PART, _SHORTEST = 0.05, 2048


def choose(sizes_D: np.ndarray, hashes_D: np.ndarray, share: float) -> np.ndarray:
    """Return which documents are held out, bool [D].

    They are taken in the order of their hashes until they have the share of the bytes. A document larger than half of
    that share stays in training. If every document is that large, the smallest is held
    out. So text of two or more documents always has held-out text.
    """
    sizes_D = np.asarray(sizes_D, np.int64)
    target, chosen_D = share * sizes_D.sum(), np.zeros(len(sizes_D), bool)
    order = np.argsort(hashes_D, kind="stable")
    order = order[sizes_D[order] <= target / 2]
    before = np.cumsum(sizes_D[order]) - sizes_D[order]
    chosen_D[order[before < target]] = True
    if target and len(sizes_D) > 1 and not chosen_D.any():
        chosen_D[np.argmin(sizes_D)] = True
    return chosen_D


def closest(sizes_D: np.ndarray, hashes_D: np.ndarray, share: float) -> np.ndarray:
    """Return which documents are held out, bool [D].

    They are taken in the order of their hashes, to a size as close to the share of the bytes as possible. Documents
    of the same hash stay together. At least one is held out, and at least one is not.
    """
    chosen_D = np.zeros(len(sizes_D), bool)
    groups, group_D = np.unique(hashes_D, return_inverse=True)
    if not share or len(groups) < 2:
        return chosen_D
    held = np.cumsum(np.bincount(group_D, np.asarray(sizes_D, np.float64)))
    last = min(int(np.argmin(np.abs(held - share * held[-1]))), len(groups) - 2)
    return group_D <= last


def needs_cut(sizes_D: np.ndarray, hashes_D: np.ndarray, share: float) -> bool:
    """Return whether holding out whole documents misses ``share`` by more than :data:`TOLERANCE` of it."""
    held, target = sizes_D[choose(sizes_D, hashes_D, share)].sum(), share * sizes_D.sum()
    return bool(abs(held - target) > TOLERANCE * target)


def passages(spool: Spool, share: float) -> np.ndarray:
    """Return the rows of a spool, with large documents cut into passages where whole ones cannot give the share."""
    rows = spool.rows()
    if not share or not needs_cut(rows["size"].astype(np.int64), rows["group"], share):
        return rows
    target = share * rows["size"].sum(dtype=np.int64)
    return spool.cut(rows, max(_SHORTEST, int(_PART * target)))


def split(rows: np.ndarray, share: float) -> np.ndarray:
    """Return which rows are held out, bool [D]."""
    sizes_D = rows["size"].astype(np.int64)
    if (rows["passage"] >= 0).any():
        return closest(sizes_D, rows["group"], share)
    return choose(sizes_D, rows["group"], share)
