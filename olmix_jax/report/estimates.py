"""Means over seeds with standard errors, and their comparison."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from olmix_jax.propose.proposal import Proposal
from olmix_jax.proxy.validation_result import Validation


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
      mean: the mean [BPB].
      error: its standard error s/√n [BPB]; None for a single seed.
      seeds: number of seeds n.
    """

    mean: float
    error: float | None
    seeds: int


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How far one mixture's BPB lies below another's.

    Attributes:
      percent: 100 · (other − this) / other.
      errors: the difference in standard errors; None if its standard error is unknown or 0.
    """

    percent: float
    errors: float | None


@dataclasses.dataclass(frozen=True)
class Difference:
    """Proposed minus natural on one task.

    Attributes:
      mean: the difference [BPB].
      error: its standard error √((s_proposed² + s_natural²)/n) [BPB]; None for a single seed.
    """

    mean: float
    error: float | None

    @property
    def significant(self) -> bool:
        """Whether the difference exceeds two standard errors."""
        return self.error is not None and abs(self.mean) > 2 * self.error

    @property
    def worse(self) -> bool:
        """Whether the proposal is worse than natural by more than two standard errors."""
        return self.significant and self.mean > 0


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean and its standard error s/√n, with s² normalised by n − 1."""
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return Estimate(float(np.mean(values)), error, len(values))


def compare(this: Estimate, other: Estimate) -> Comparison:
    """Return how far ``this`` lies below ``other``. The seeds of the two are independent."""
    error = 0.0 if this.error is None or other.error is None else float(np.hypot(this.error, other.error))
    difference = other.mean - this.mean
    return Comparison(100 * difference / other.mean, difference / error if error > 0 else None)


def validated(validation: Validation) -> dict[str, Estimate]:
    """Return the measured mean BPB of each mixture."""
    return {name: estimate(score.per_seed) for name, score in validation.mixtures.items()}


def predicted(proposal: Proposal) -> tuple[Estimate, Estimate]:
    """Return the predicted BPB, averaged over tasks, of the proposal and of the natural mixture."""
    proposed, natural = (
        Estimate(float(np.mean(list(bpb.values()))), None, 0)
        for bpb in (proposal.predicted, proposal.predicted_natural)
    )
    return proposed, natural


def task_differences(validation: Validation) -> dict[str, Difference]:
    """Return measured BPB of the proposal minus natural, by task."""
    proposed, natural = (validation.mixtures[name] for name in ("proposed", "natural"))
    seeds = min(len(proposed.per_seed), len(natural.per_seed))
    differences = {}
    for task, score in proposed.tasks.items():
        other = natural.tasks[task]
        error = float(np.hypot(score.std, other.std)) / seeds**0.5 if seeds > 1 else None
        differences[task] = Difference(score.mean - other.mean, error)
    return differences


def predicted_differences(proposal: Proposal | None) -> dict[str, float]:
    """Return predicted BPB of the proposal minus natural, by task; empty without a proposal."""
    if proposal is None:
        return {}
    return {task: bpb - proposal.predicted_natural[task] for task, bpb in proposal.predicted.items()}
