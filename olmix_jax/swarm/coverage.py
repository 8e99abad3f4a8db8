"""How well the mixtures of a swarm sample each domain."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Coverage(NamedTuple):
    """How a swarm samples one domain: runs with a positive weight, and the range and mean of its weight."""

    runs: int
    min: float
    mean: float
    max: float


def by_domain(ratios_KM: np.ndarray, domains: Sequence[str]) -> dict[str, Coverage]:
    """Return the coverage of each domain, in the order of the columns."""
    columns = (
        (ratios_KM > 0).sum(axis=0).tolist(),
        ratios_KM.min(axis=0).tolist(),
        ratios_KM.mean(axis=0).tolist(),
        ratios_KM.max(axis=0).tolist(),
    )
    return {domain: Coverage(*row) for domain, row in zip(domains, zip(*columns), strict=True)}
