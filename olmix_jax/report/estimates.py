"""Means over seeds with standard errors, and their comparison."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from olmix_jax.propose.proposal import Proposal
from olmix_jax.proxy.validation_result import Validation
from olmix_jax.swarm import task_means
from olmix_jax.swarm.task_means import task_mean


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
      difference: other − this [BPB].
      percent: 100 · (other − this) / other; None unless both are positive, as losses below 0 have no percentages.
      errors: the difference in standard errors; None if its standard error is unknown or 0.
    """

    difference: float
    percent: float | None
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
    percent = 100 * difference / other.mean if min(this.mean, other.mean) > 0 else None
    return Comparison(difference, percent, difference / error if error > 0 else None)


def validated(validation: Validation) -> dict[str, Estimate]:
    """Return the measured mean BPB of each mixture, with the task weights of the proposal."""
    return {name: estimate(score.per_seed) for name, score in validation.mixtures.items()}


def plain_validated(validation: Validation) -> dict[str, Estimate]:
    """Return the measured mean BPB of each mixture with equal task weights; empty if :func:`validated` has it."""
    if task_means.are_equal(validation.task_weights):
        return {}
    return {
        name: estimate(task_mean({task: row.per_seed for task, row in score.tasks.items()}).tolist())
        for name, score in validation.mixtures.items()
    }


def predicted(proposal: Proposal) -> tuple[Estimate, Estimate]:
    """Return the predicted value of the objective without KL, of the proposal and of the natural mixture."""
    headline = proposal.headline
    return Estimate(headline.proposed, None, 0), Estimate(headline.natural, None, 0)


def plain_predicted(proposal: Proposal) -> tuple[Estimate, Estimate] | None:
    """Return the predicted means over tasks with equal weights; None if :func:`predicted` has them."""
    plain = proposal.headline
    if plain.plain_proposed is None or plain.plain_natural is None:
        return None
    return Estimate(plain.plain_proposed, None, 0), Estimate(plain.plain_natural, None, 0)


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
