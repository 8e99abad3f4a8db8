"""The content of ``propose/proposal.json``: the proposed mixture, how it is known to be best, and what follows from it.

Names of domains and tasks are keys, so that a file is read without its table. Unless said otherwise, values by task are
BPB, and values by domain are shares of the training tokens.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from olmix_jax.solver.status import Status
from olmix_jax.utils import records


def by_name(names: Sequence[str], values: Any) -> dict[str, float]:
    """Return ``values``, an array, as {name: value}."""
    return dict(zip(names, np.asarray(values).tolist(), strict=True))


@dataclasses.dataclass(frozen=True)
class Certificate:
    """How a solution is known to be one.

    Attributes:
      gap: duality gap, an upper bound on the distance to the minimum [BPB]; None where there is no bound.
      no_gap: why there is no gap.
      relative_gap: the gap divided by max(1, |objective|).
      iterations: iterations of the solver.
      residual: distance from the optimality conditions.
      starts: number of starting points.
      agreeing: starting points that ended within 1e-6 BPB of the best.
      candidates: number of candidates of a search.
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
class Gain:
    """Predicted BPB of natural minus that of the proposal, over samples of the law.

    Attributes:
      mean, low, high: mean, 5 % and 95 % quantile [BPB].
      probability: share of samples with a positive gain.
      samples: number of samples.
    """

    mean: float
    low: float
    high: float
    probability: float
    samples: int


@dataclasses.dataclass(frozen=True)
class Group:
    """A bound on the summed weight of several domains.

    Attributes:
      name: the pattern that selects the domains.
      domains: the domains.
      low, high: least and most summed weight; None for no limit.
      weight: the proposed summed weight.
      multiplier: fall of the minimum per unit of the binding limit [BPB]; None if unknown.
    """

    name: str
    domains: tuple[str, ...]
    low: float | None
    high: float | None
    weight: float
    multiplier: float | None = None


@dataclasses.dataclass(frozen=True)
class Guard:
    """Limits on how much worse than natural a task or family may be predicted.

    Attributes:
      by: "task" or "family".
      slack: the largest allowed rise over natural [BPB].
      names: the guarded tasks or families.
      multipliers: fall of the minimum per BPB of slack, by name.
      binding: names whose guard binds.
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
    """Mean over the worst share of the law's samples.

    Attributes:
      share: the share.
      value: of the proposal [BPB].
      natural: of the natural mixture [BPB].
      samples: number of samples.
    """

    share: float
    value: float
    natural: float | None
    samples: int | None


@dataclasses.dataclass(frozen=True)
class LambdaChoice:
    """Gain by λ, measured by laws that have not seen the runs behind the proposal.

    Attributes:
      kl_weight: λ [BPB per nat], ascending.
      gain, gain_error: mean over splits and its standard error, by λ [BPB].
      best: the chosen λ.
      splits: number of random halvings.
      used: whether the proposal uses ``best``.
    """

    kl_weight: tuple[float, ...]
    gain: tuple[float, ...]
    gain_error: tuple[float | None, ...]
    best: float
    splits: int
    used: bool

    def check(self) -> None:
        if not len(self.kl_weight) == len(self.gain) == len(self.gain_error):
            raise ValueError("choice: gain and gain_error must have an entry for each λ")


@dataclasses.dataclass(frozen=True)
class Path:
    """Proposals over a grid of λ (rows) and of the repetition limit k (columns).

    Attributes:
      kl_weight: λ of the rows.
      max_repeats: k of the columns; one column of None where repetition is not capped.
      weights: mixtures, in the order of the proposal's domains; None where no mixture meets the caps.
      predicted: task-weighted BPB.
      kl: KL from the anchor [nats].
      predicted_natural: task-weighted BPB of natural.
      chosen: ``kl_weight`` and ``max_repeats`` of the proposal.
    """

    kl_weight: tuple[float, ...]
    max_repeats: tuple[float | None, ...]
    weights: tuple[tuple[tuple[float, ...] | None, ...], ...]
    predicted: tuple[tuple[float | None, ...], ...]
    kl: tuple[tuple[float | None, ...], ...]
    predicted_natural: float | None
    chosen: dict[str, float | None] | None = None

    def check(self) -> None:
        for name in ("weights", "predicted", "kl"):
            rows = getattr(self, name)
            if len(rows) != len(self.kl_weight) or any(len(row) != len(self.max_repeats) for row in rows):
                raise ValueError(f"path.{name} must have a row for each λ and an entry for each k")


@dataclasses.dataclass(frozen=True)
class FrontPoint:
    """A mixture at which no family can improve without another getting worse.

    Attributes:
      family_weights: weights of the families that lead to it.
      predicted: predicted BPB by family.
      weights: the mixture.
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
      natural, proposed: predicted BPB by family.
    """

    families: tuple[str, ...]
    points: tuple[FrontPoint, ...]
    natural: dict[str, float]
    proposed: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Counts:
    """The mixture in whole sequences or tokens of the target run; one of the two is given.

    Attributes:
      length: tokens in a sequence.
      sequences, tokens: number by domain.
    """

    length: int
    sequences: dict[str, int] | None = None
    tokens: dict[str, int] | None = None

    def check(self) -> None:
        if (self.sequences is None) == (self.tokens is None):
            raise ValueError("counts must hold either sequences or tokens")


@dataclasses.dataclass(frozen=True)
class Export:
    """One trainer's file.

    Attributes:
      file: path, relative to the workdir.
      realised: weights that the trainer really trains on.
      largest_error: largest deviation of a weight from the proposal.
    """

    file: str
    realised: dict[str, float]
    largest_error: float


@dataclasses.dataclass(frozen=True)
class ReuseCost:
    """What keeping ratios costs in an update.

    Attributes:
      predicted_loss: mean, low and high as the plan predicted it [BPB].
      loss: objective with the kept ratios minus the objective without, by the new law [BPB]; None if unknown.
      free: the mixture without kept ratios.
      by: "law", or "old runs" where the new law is over blocks.
    """

    predicted_loss: dict[str, float]
    loss: float | None
    free: dict[str, float] | None = None
    by: str | None = None


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A proposed mixture.

    Attributes:
      status: how the solver ended.
      weights: the mixture.
      natural: the natural distribution.
      caps, lower: upper and lower bounds.
      predicted, predicted_natural: predicted BPB by task, at the proposal and at natural.
      objective, objective_natural: task-weighted BPB plus λ·KL; None where infinite.
      kl: KL(weights ‖ anchor) [nats]; None where infinite.
      certificate: how the solution is known to be one.
      task_weights: weights of the tasks, of sum 1.
      worse_tasks: tasks that are predicted worse than under natural.
      warnings: sentences for people.
      kl_weight: λ [BPB per nat].
      max_repeats: k, most epochs over a domain.
      target_tokens: R, tokens of the target run; None if repetition is not capped.
      capped_by: what sets the cap of a domain: "repetition", "bound", or None without a cap.
      anchor: the mixture that KL pulls towards, if not natural.
      worst: whether this is the worst mixture instead of the best.
      groups: bounds on sums of weights.
      repeats: epochs over each domain in the target run.
      shadow_prices: fall of the minimum per billion more unique tokens of a domain [BPB].
      repeat_prices: fall of the minimum per additional repeat of a domain [BPB].
      guard, tail: of a guarded or cautious proposal.
      gain: predicted gain over natural.
      predicted_low, predicted_high: 5 % and 95 % quantile by task.
      weights_std, weights_low, weights_high: spread of the optimum over samples of the law.
      no_weight_intervals: why they are missing.
      choice: λ chosen from data.
      explored_without: settings that ``path`` and ``pareto`` ignore.
      path, pareto: how the proposal moves with settings.
      sensitivity: how the proposal moves per unit of a setting.
      reuse: of an update.
      next_runs: share of the law's standard deviation left after each proposed run, by run.
      counts: the mixture in whole sequences.
      handover: files for trainers, by format.
      fit: digest of the fit behind it.
    """

    SCHEMA = 1

    status: Status
    weights: dict[str, float]
    natural: dict[str, float]
    caps: dict[str, float | None]
    lower: dict[str, float | None]
    predicted: dict[str, float]
    predicted_natural: dict[str, float]
    objective: float | None
    objective_natural: float | None
    kl: float | None
    certificate: Certificate
    task_weights: dict[str, float]
    worse_tasks: tuple[str, ...]
    warnings: tuple[str, ...]
    kl_weight: float
    max_repeats: float
    target_tokens: float | None
    capped_by: dict[str, str | None]
    anchor: dict[str, float] | None = None
    worst: bool = False
    groups: tuple[Group, ...] = ()
    repeats: dict[str, float] | None = None
    shadow_prices: dict[str, float] | None = None
    repeat_prices: dict[str, float] | None = None
    guard: Guard | None = None
    tail: Tail | None = None
    gain: Gain | None = None
    predicted_low: dict[str, float] | None = None
    predicted_high: dict[str, float] | None = None
    weights_std: dict[str, float] | None = None
    weights_low: dict[str, float] | None = None
    weights_high: dict[str, float] | None = None
    no_weight_intervals: str | None = None
    choice: LambdaChoice | None = None
    explored_without: tuple[str, ...] | None = None
    path: Path | None = None
    pareto: Front | None = None
    sensitivity: dict[str, Any] | None = None
    reuse: ReuseCost | None = None
    next_runs: dict[str, float] | None = None
    counts: Counts | None = None
    handover: dict[str, Export] | None = None
    fit: str = ""

    @classmethod
    def read(cls, path: str | os.PathLike) -> "Proposal":
        """Read ``proposal.json``.

        Raises:
          UserError: the file is not a proposal; the message names the field.
        """
        return records.read(path, cls, "propose")

    def write(self, path: str | os.PathLike) -> None:
        """Write ``proposal.json`` atomically."""
        records.write(path, self)

    @property
    def outcome(self) -> str:
        """How the solver ended, for people: "local optimum, best of 8 starts"."""
        certificate = self.certificate
        return self.status.describe(
            starts=certificate.starts or certificate.candidates,
            iterations=certificate.iterations,
            gap=certificate.gap,
            residual=certificate.residual,
        )

    def check(self) -> None:
        """Raises ``ValueError`` where names of domains or tasks disagree between fields."""
        for names, fields in ((self.weights, DOMAIN_FIELDS), (self.predicted, TASK_FIELDS)):
            for field in fields:
                values = getattr(self, field)
                if values is not None and (missing := [name for name in names if name not in values]):
                    raise ValueError(f"{field} must have a number for each name, {missing[0]!r} too")


DOMAIN_FIELDS = "natural caps lower capped_by repeats shadow_prices repeat_prices weights_std".split()
TASK_FIELDS = "predicted_natural task_weights predicted_low predicted_high".split()
