"""One seed in the config; every random draw derives from it by name."""

import zlib

import numpy as np


def derive(seed: int, name: str) -> int:
    """A 31-bit seed for the draw called ``name``. Adding a draw elsewhere never changes this one."""
    return int(np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(1)[0] & 0x7FFFFFFF)


def generator(seed: int, name: str) -> np.random.Generator:
    """A NumPy generator for the draw called ``name``."""
    return np.random.default_rng(derive(seed, name))
