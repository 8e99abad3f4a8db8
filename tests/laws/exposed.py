"""A synthetic truth of epochs: every domain helps and saturates, and does harm where it repeats too often.

log (f − c) = −.15 log R − Σ_j a_j (1 − exp(−p_j/.15)) + Σ_j h_j log(1 + (e_j/6)²),  e_j = p_j R/N_j
"""

from typing import NamedTuple

import numpy as np

from olmix_jax.swarm.lengths import Lengths

UNIQUE_M = np.array([0.8, 0.4, 0.2, 0.4]) * 1e9
DOMAINS, TASKS = ("a", "b", "c", "d"), ("x", "y")
NOISE = 0.002


class World(NamedTuple):
    """Runs of two lengths and two pools, and the truth's coefficients."""

    ratios_KM: np.ndarray
    bpb_KN: np.ndarray
    lengths: Lengths
    help_NM: np.ndarray
    harm_NM: np.ndarray

    def truth(self, ratios_KM, tokens, unique_M):
        """Return BPB without noise."""
        ratios_KM = np.asarray(ratios_KM)
        tokens_K1 = np.broadcast_to(tokens, len(ratios_KM))[:, None]
        log_KN = np.log1p((ratios_KM * tokens_K1 / unique_M / 6) ** 2) @ self.harm_NM.T
        log_KN = log_KN - 0.15 * np.log(tokens_K1 / 1e9) - (1 - np.exp(-ratios_KM / 0.15)) @ self.help_NM.T
        return 0.7 + 0.6 * np.exp(log_KN)


def world(seed: int, runs: int = 40) -> World:
    rng = np.random.default_rng(seed)
    shape = len(TASKS), len(DOMAINS)
    help_NM, harm_NM = rng.uniform(0.05, 0.5, shape), rng.uniform(0.03, 0.12, shape)
    ratios_KM = rng.dirichlet(np.full(len(DOMAINS), 0.7), size=runs)
    tokens_K = rng.permutation(np.resize([1e9, 4e9], runs))
    unique_KM = UNIQUE_M / rng.permutation(np.resize([1, 4], runs))[:, None]
    drawn = World(ratios_KM, np.zeros((runs, len(TASKS))), Lengths(tokens_K, unique_KM), help_NM, harm_NM)
    bpb_KN = drawn.truth(ratios_KM, tokens_K, unique_KM) * (1 + NOISE * rng.normal(size=(runs, len(TASKS))))
    return drawn._replace(bpb_KN=bpb_KN)
