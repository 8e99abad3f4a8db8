"""The parts of a proposal, as ``propose/proposal.json`` holds them; :mod:`olmix_jax.propose.proposal` has the whole."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np


def by_name(names: Sequence[str], values: Any) -> dict[str, Any]:
    """Return ``values``, an array, as {name: value}."""
    return dict(zip(names, np.asarray(values).tolist(), strict=True))


@dataclasses.dataclass(frozen=True)
class Certificate:
    """The evidence for a solution.

    Attributes:
      gap: duality gap, an upper bound on the distance to the minimum [BPB]; None if there is no such bound.
      no_gap: why ``gap`` is None.
      relative_gap: the gap divided by max(1, |objective|).
      residual: violation of the optimality conditions; 0 at a stationary point.
      starts: number of starting points.
      agreeing: number of starting points that reached this mixture, up to 0.01 in total variation and 1e-6 BPB.
      iterations, candidates: of the solver; of a search.
    """

    gap: float | None
    no_gap: str | None = None
    relative_gap: float | None = None
    iterations: int | None = None
    residual: float | None = None
    starts: int | None = None
    agreeing: int | None = None
    candidates: int | None = None


@dataclasses.dataclass(frozen=True)
class Headline:
    """What was minimised, without its KL term, at the proposal and at natural [BPB].

    Attributes:
      name: as in "mean of 12 tasks", "weighted mean of 12 tasks" or "mean of 12 tasks in the worst 10 % of samples".
      proposed, natural: its values.
      plain_proposed, plain_natural: means over tasks with equal weights, by the law itself; None if the headline is
        that mean.
    """

    name: str
    proposed: float
    natural: float
    plain_proposed: float | None = None
    plain_natural: float | None = None


@dataclasses.dataclass(frozen=True)
class Gain:
    """Task-weighted BPB of natural minus that of the proposal, over samples of the law times draws of ``slope``.

    Attributes:
      mean, low, high: mean, 5 % and 95 % quantile [BPB].
      probability, loss_probability: shares of samples with a positive and with a negative gain.
      samples: their number.
      slope, slope_error: measured per predicted change of held-out runs, 0 to 1, and its standard error.
    """

    mean: float
    low: float
    high: float
    probability: float
    samples: int
    loss_probability: float = 0.0
    slope: float | None = None
    slope_error: float | None = None


@dataclasses.dataclass(frozen=True)
class Group:
    """A bound on the summed weight of several domains.

    Attributes:
      name: the pattern that selects the domains.
      domains: the domains.
      low, high: bounds of the summed weight; 0 and 1 without a limit.
      weight: the proposed summed weight.
      multiplier: fall of the minimum per unit increase of the binding bound [BPB]; None if unknown.
    """

    name: str
    domains: tuple[str, ...]
    low: float
    high: float
    weight: float
    multiplier: float | None = None


@dataclasses.dataclass(frozen=True)
class Guard:
    """Limits on the predicted rise of tasks or families over natural.

    Attributes:
      by: "task" or "family".
      slack: the largest allowed rise over natural [BPB].
      names: the guarded tasks or families.
      multipliers: fall of the minimum per BPB of slack, by name.
      binding: names of the guards that bind.
      worst: the largest predicted rise over natural [BPB].
    """

    by: str
    slack: float
    names: tuple[str, ...]
    multipliers: dict[str, float | None]
    binding: tuple[str, ...]
    worst: float | None


@dataclasses.dataclass(frozen=True)
class Tail:
    """The mean of the task-weighted BPB over the worst samples of the law.

    Attributes:
      share: share of the samples that count as the worst.
      value, natural: the mean at the proposal and at the natural mixture [BPB].
      samples: number of samples.
    """

    share: float
    value: float
    natural: float | None
    samples: int | None


@dataclasses.dataclass(frozen=True)
class LambdaChoice:
    """Gain by λ, measured by laws that were fitted to other runs than the proposals.

    Attributes:
      kl_weight: λ [BPB per nat], ascending.
      gain, gain_error: mean gain over natural by λ, over splits, and its standard error [BPB].
      best: the chosen λ. It was chosen by its ``gain``, which is therefore too high.
      splits: number of random halvings of the runs.
      used: whether the proposal uses ``best``.
      unconverged: number of solves that did not converge, of one per λ and half.
      held_out_gain, held_out_gain_error: mean over splits of a split's gain at the λ that the other splits choose, and
        its standard error [BPB]; None in files of earlier versions.
    """

    kl_weight: tuple[float, ...]
    gain: tuple[float, ...]
    gain_error: tuple[float | None, ...]
    best: float
    splits: int
    used: bool
    unconverged: int = 0
    held_out_gain: float | None = None
    held_out_gain_error: float | None = None

    def check(self) -> None:
        if not len(self.kl_weight) == len(self.gain) == len(self.gain_error):
            raise ValueError("choice: gain and gain_error must have an entry for each λ")


@dataclasses.dataclass(frozen=True)
class Path:
    """Proposals over a grid of λ (rows) and of the repetition limit k (columns).

    Attributes:
      kl_weight: λ of the rows.
      max_repeats: k of the columns; one column of None if repetition is not capped.
      weights: mixtures, in the order of the proposal's domains; None where no mixture meets the caps.
      predicted: task-weighted BPB.
      kl: KL from the anchor [nats].
      predicted_natural: task-weighted BPB at natural.
      chosen: ``kl_weight`` and ``max_repeats`` of the proposal.
      unconverged: number of mixtures whose solve did not converge.
    """

    kl_weight: tuple[float, ...]
    max_repeats: tuple[float | None, ...]
    weights: tuple[tuple[tuple[float, ...] | None, ...], ...]
    predicted: tuple[tuple[float | None, ...], ...]
    kl: tuple[tuple[float | None, ...], ...]
    predicted_natural: float | None
    chosen: dict[str, float | None] | None = None
    unconverged: int = 0

    def check(self) -> None:
        for name in ("weights", "predicted", "kl"):
            rows = getattr(self, name)
            if len(rows) != len(self.kl_weight) or any(len(row) != len(self.max_repeats) for row in rows):
                raise ValueError(f"path.{name} must have a row for each λ and an entry for each k")


@dataclasses.dataclass(frozen=True)
class FrontPoint:
    """A mixture at which no family can improve without another getting worse.

    Attributes:
      family_weights: weights of the families for which it is the optimum.
      predicted, weights: predicted BPB by family; the mixture.
    """

    family_weights: dict[str, float]
    predicted: dict[str, float]
    weights: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Front:
    """The Pareto front between task families.

    Attributes:
      families: names.
      points: mixtures on the front.
      natural, proposed: predicted BPB by family, at natural and at the proposal.
      unconverged: number of solves that did not converge, including those of mixtures that are not on the front.
    """

    families: tuple[str, ...]
    points: tuple[FrontPoint, ...]
    natural: dict[str, float]
    proposed: dict[str, float]
    unconverged: int = 0

    def check(self) -> None:
        """Raise ``ValueError`` if a mixture lacks the BPB of a family."""
        mixtures = {"natural": self.natural, "proposed": self.proposed}
        mixtures |= {f"points[{i}].predicted": point.predicted for i, point in enumerate(self.points)}
        for name, bpb in mixtures.items():
            missing = [family for family in self.families if family not in bpb]
            if missing:
                raise ValueError(f"pareto.{name} lacks a value for {missing[0]!r}")


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """How the proposed mixture moves with the settings: exact derivatives of the weights, which sum to 0.

    Attributes:
      kl_weight: per unit of λ [nats/BPB], by domain.
      caps: per unit of a domain's upper bound, for each bound that binds: {capped domain: {domain: derivative}}.
      task_weights: per unit of a task's weight in ``task_weights``, which are then normalised again:
        {task: {domain: derivative}}.
    """

    kl_weight: dict[str, float]
    caps: dict[str, dict[str, float]]
    task_weights: dict[str, dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Counts:
    """The mixture in whole sequences or whole tokens of the target run; the other field is None.

    Attributes:
      length: tokens in a sequence.
      sequences, tokens: number per domain.
    """

    length: int
    sequences: dict[str, int] | None = None
    tokens: dict[str, int] | None = None

    def check(self) -> None:
        if (self.sequences is None) == (self.tokens is None):
            raise ValueError("counts must have either sequences or tokens, not both")


@dataclasses.dataclass(frozen=True)
class Export:
    """One trainer's file.

    Attributes:
      file: path, relative to the workdir.
      realised: weights that the trainer really trains on, by domain.
      largest_error: largest deviation of a realised weight from the proposal.
    """

    file: str
    realised: dict[str, float]
    largest_error: float


@dataclasses.dataclass(frozen=True)
class ReuseCost:
    """The cost of keeping ratios in an update.

    Attributes:
      predicted_loss: the plan's prediction, as mean, low and high [BPB].
      loss: minimum with the kept ratios minus the minimum without, by the new law [BPB]; None if unknown.
      free: the optimal mixture without kept ratios.
      by: "law"; or "old runs", if the new law is over blocks and a law of old and new runs was used instead.
    """

    predicted_loss: dict[str, float]
    loss: float | None
    free: dict[str, float] | None = None
    by: str | None = None
