"""Read a law in exposures at the target run: its training tokens R and the unique tokens N_j of its domains.

The swarm's runs may differ in both (:mod:`olmix_jax.swarm.lengths`). Without ``propose.target_tokens`` the target is as
long as the median run, and without ``token_counts`` its domains have the pools of the median run.
"""

import dataclasses
from typing import Any

import numpy as np

from olmix_jax.laws import FittedLaw, Law
from olmix_jax.propose.options import Options
from olmix_jax.propose.swarm_facts import SwarmFacts
from olmix_jax.propose.uncertainty import Longest
from olmix_jax.swarm.lengths import Lengths
from olmix_jax.utils.names import listed

# More epochs or tokens than this times the most of any run are extrapolated.
BEYOND = 1.1


@dataclasses.dataclass(frozen=True)
class ReadAt:
    """Training tokens that a law in exposures was read at, and the fewest and most of any run."""

    tokens: float
    fewest: float
    most: float

    @property
    def stretch(self) -> float:
        """How many times as long as the longest run the target is; 1 if it is not longer."""
        return max(self.tokens / self.most, 1.0)

    @property
    def warnings(self) -> tuple[str, ...]:
        """A warning if the target is longer than the runs."""
        if self.stretch <= BEYOND:
            return ()
        return (
            f"extrapolated: the target of {self.tokens:.3g} training tokens is {self.stretch:.3g} times as long as the "
            f"longest run ({self.most:.3g}); how much of a gain is left there is not known from the runs, so its "
            "interval is wider; add longer runs",
        )

    def __str__(self) -> str:
        runs = f"{self.fewest:.3g} to {self.most:.3g}" if self.fewest < self.most else f"{self.most:.3g}"
        return f"mixtures are read at {self.tokens:.3g} training tokens (runs: {runs}) and the repetition that follows"


def target(lengths: Lengths, swarm: SwarmFacts, options: Options) -> tuple[float, np.ndarray]:
    """Return R and N_j of the target run."""
    tokens = np.median(lengths.tokens_K) if options.target_tokens is None else options.target_tokens
    unique_M = np.median(lengths.unique_KM, axis=0) if swarm.tokens_M is None else swarm.tokens_M
    return float(tokens), np.asarray(unique_M, np.float64)


def aimed(fitted: FittedLaw, swarm: SwarmFacts, options: Options) -> tuple[FittedLaw, ReadAt | None]:
    """Return the law read at the target, and what to say about it; None if the law or the runs have no lengths."""
    if fitted.law.aim is None or swarm.lengths is None:
        return fitted, None
    tokens_K = swarm.lengths.tokens_K
    tokens, unique_M = target(swarm.lengths, swarm, options)
    return fitted.aimed(tokens, unique_M), ReadAt(tokens, float(tokens_K.min()), float(tokens_K.max()))


def longest(fitted: FittedLaw, swarm: SwarmFacts, options: Options, read_at: ReadAt | None) -> Longest | None:
    """Return the law's samples read at the longest run, with the epochs of the target; None if that is no longer."""
    if read_at is None or read_at.stretch == 1 or swarm.lengths is None or fitted.samples is None:
        return None
    _, unique_M = target(swarm.lengths, swarm, options)
    return Longest(fitted.aimed(read_at.most, unique_M / read_at.stretch).samples, read_at.stretch)


def refitted(law: Law, swarm: SwarmFacts, options: Options) -> Law:
    """Return a law whose refits to the swarm's mixtures include their lengths and are read at the target."""
    aim, lengths = law.aim, swarm.lengths
    if aim is None or lengths is None:
        return law
    tokens, unique_M = target(lengths, swarm, options)

    def fit_weighted(ratios_KM, bpb_KN, weight_RK, **how) -> Any:
        return aim(law.fit_weighted(ratios_KM, bpb_KN, weight_RK, lengths=lengths, **how), tokens, unique_M)

    return dataclasses.replace(law, fit_weighted=fit_weighted)


def warnings(law: Law, weights_M, swarm: SwarmFacts, options: Options) -> tuple[str, ...]:
    """Return a warning if the proposal repeats a domain more often than any run did."""
    lengths = swarm.lengths
    if law.aim is None or lengths is None or swarm.ratios_KM is None:
        return ()
    tokens, unique_M = target(lengths, swarm, options)
    epochs_M = np.asarray(weights_M) * tokens / unique_M
    most_M = (np.asarray(swarm.ratios_KM) * lengths.tokens_K[:, None] / lengths.unique_KM).max(axis=0)
    beyond = np.flatnonzero(epochs_M > np.maximum(BEYOND * most_M, 1.0)).tolist()
    if not beyond:
        return ()
    texts = [f"{swarm.domains[i]} {epochs_M[i]:.3g} (runs: up to {most_M[i]:.3g})" for i in beyond]
    return (f"extrapolated: more epochs than in any run: {listed(texts, 5)}; add runs that repeat these domains",)
