"""Which old domain a new one is like, by the tokens that they use."""

import pathlib

import numpy as np

from olmix_jax.corpus import store
from olmix_jax.swarm.domains import DomainSet

# Affinity that e times the odds are for: unlike domains of text differ by some tenths.
SCALE = 0.03
# Tokens of a domain that are counted at most.
COUNTED = 5_000_000


def resembles(workdir: pathlib.Path, parent: pathlib.Path, old: DomainSet, new: DomainSet) -> np.ndarray | None:
    """probabilities_MO that a new domain is like an old one, ∝ exp(affinity / SCALE); None where there is no text.

    Affinity is Σ_v √(p_v q_v) of the two domains' frequencies of tokens (Bhattacharyya's coefficient), whose tokenizer
    an update takes from its parent.
    """
    old_paths, new_paths = (
        [store.store_path(folder, name) for name in names]
        for folder, names in ((parent, old.names), (workdir, new.names))
    )
    if not all(store.is_there(path) for path in (*old_paths, *new_paths)):
        return None
    old_OV, new_MV = ([_frequencies(path) for path in paths] for paths in (old_paths, new_paths))
    width = max(map(len, (*old_OV, *new_MV)))
    old_OV, new_MV = (np.sqrt([np.pad(p_V, (0, width - len(p_V))) for p_V in rows]) for rows in (old_OV, new_MV))
    affinity_MO = new_MV @ old_OV.T
    odds_MO = np.exp((affinity_MO - affinity_MO.max(axis=1, keepdims=True)) / SCALE)
    return odds_MO / odds_MO.sum(axis=1, keepdims=True)


def _frequencies(path: pathlib.Path) -> np.ndarray:
    counts_V = np.bincount(store.open_store(path).read(0, COUNTED))
    return counts_V / max(1, counts_V.sum())
