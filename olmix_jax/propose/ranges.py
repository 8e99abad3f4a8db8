"""The ranges of weights in the runs: where scores test the law."""

from typing import NamedTuple

import numpy as np

from olmix_jax.laws import cpu
from olmix_jax.solver.projection import project

# Weights this far outside the ranges are rounding: proxies consist of whole sequences.
ROUNDING = 1e-3


class Ranges(NamedTuple):
    """Smallest and largest weight of each domain in the runs."""

    low_M: np.ndarray
    high_M: np.ndarray


def ranges(ratios_KM) -> Ranges:
    """Return the ranges of the runs."""
    ratios_KM = np.asarray(ratios_KM, np.float64)
    return Ranges(ratios_KM.min(axis=0), ratios_KM.max(axis=0))


def beyond(of: Ranges, weights_M) -> np.ndarray:
    """Return by how much each weight is above its range (positive) or below (negative); 0 within ROUNDING."""
    over_M = weights_M - np.clip(weights_M, of.low_M, of.high_M)
    return np.where(np.abs(over_M) > ROUNDING, over_M, 0.0)


def nearest(of: Ranges, weights_M) -> np.ndarray:
    """Return the mixture within the ranges that is nearest to ``weights_M``; itself if only rounding lies between."""
    if (beyond(of, weights_M) == 0).all():
        return np.asarray(weights_M, np.float64)
    with cpu.float64():
        return np.asarray(project(np.asarray(weights_M, np.float64), of.low_M, of.high_M))
