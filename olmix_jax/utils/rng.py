"""Named random draws. The seed of a draw is derived from the config's seed and the name of the draw."""

import zlib

import numpy as np


def derive(seed: int, name: str) -> int:
    """Return a 31-bit seed for the draw ``name``. It does not change when other draws are added."""
    return int(np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(1)[0] & 0x7FFFFFFF)


def generator(seed: int, name: str) -> np.random.Generator:
    """Return a NumPy generator for the draw ``name``."""
    return np.random.default_rng(derive(seed, name))
