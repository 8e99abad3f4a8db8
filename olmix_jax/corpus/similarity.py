"""Similarity of old and new domains, from how often each token occurs in them."""

import pathlib

import numpy as np

from olmix_jax.corpus import store
from olmix_jax.swarm.domains import DomainSet

# A difference in affinity of this much changes the odds by a factor e. Affinities of unlike text domains differ by a
# few tenths.
SCALE = 0.03
# At most this many tokens of a domain are counted.
COUNTED = 5_000_000


def match_probabilities(
    workdir: pathlib.Path, parent: pathlib.Path, old: DomainSet, new: DomainSet
) -> np.ndarray | None:
    """Return [M, O], the probability that a new domain continues each old one; None without token stores.

    Probabilities are ∝ exp(affinity / SCALE). The affinity of two domains is the Bhattacharyya coefficient
    Σ_v √(p_v q_v) of their token frequencies. An update uses its parent's tokenizer, so the frequencies are comparable.
    """
    old_paths = [store.store_path(parent, name) for name in old.names]
    new_paths = [store.store_path(workdir, name) for name in new.names]
    if not all(store.exists(path) for path in (*old_paths, *new_paths)):
        return None
    frequencies = [_frequencies(path) for path in (*old_paths, *new_paths)]
    width = max(map(len, frequencies))
    root_DV = np.sqrt([np.pad(p_V, (0, width - len(p_V))) for p_V in frequencies])
    old_OV, new_MV = root_DV[: len(old_paths)], root_DV[len(old_paths) :]
    affinity_MO = new_MV @ old_OV.T
    odds_MO = np.exp((affinity_MO - affinity_MO.max(axis=1, keepdims=True)) / SCALE)
    return odds_MO / odds_MO.sum(axis=1, keepdims=True)


def _frequencies(path: pathlib.Path) -> np.ndarray:
    counts_V = np.bincount(store.open_store(path).read(0, COUNTED))
    return counts_V / max(1, counts_V.sum())
