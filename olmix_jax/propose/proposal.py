"""The content of ``propose/proposal.json``: the proposed mixture, its evidence, and what follows from it.

Mappings use the names of domains and tasks as keys. Unless stated otherwise, values by task are in BPB, and values by
domain are shares of the training tokens.
"""

import dataclasses
import os

from olmix_jax.propose.aiming import ReadAt
from olmix_jax.propose.guard_price import GuardPrice
from olmix_jax.propose.next_kinds import NextKinds
from olmix_jax.propose.proposal_parts import (
    Certificate,
    Counts,
    Export,
    Front,
    Gain,
    Group,
    Guard,
    Headline,
    LambdaChoice,
    Path,
    ReuseCost,
    Sensitivity,
    Tail,
)
from olmix_jax.propose.support import Support
from olmix_jax.solver.status import Status
from olmix_jax.swarm import task_means
from olmix_jax.swarm.task_means import task_mean
from olmix_jax.utils import files, records


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A proposed mixture.

    Attributes:
      status: how the solver ended.
      weights: the mixture.
      natural: the natural distribution.
      caps, lower: upper and lower bounds of the weights; 1 and 0 without a bound.
      predicted, predicted_natural: predicted BPB by task, at the proposal and at natural.
      objective, objective_natural: task-weighted BPB plus λ·KL, at the proposal and at natural; None if infinite.
      kl: KL(weights ‖ anchor) [nats]; None if infinite.
      certificate: evidence for the solution.
      task_weights: weights of the tasks, of sum 1.
      worse_tasks: tasks with a higher predicted BPB than under natural.
      warnings: sentences for the user.
      kl_weight: λ [BPB per nat].
      max_repeats: k, the most epochs over a domain in the target run.
      target_tokens: R, tokens of the target run; None if repetition is not capped.
      capped_by: what sets the cap of a domain: "repetition", "bound" (the user's), or None without a cap.
      anchor: the mixture that KL pulls towards; None for natural.
      worst: whether this is the worst mixture instead of the best.
      groups: bounds on sums of weights.
      repeats: epochs over each domain in the target run.
      shadow_prices: fall of the minimum per billion more unique tokens of a domain [BPB].
      repeat_prices: fall of the minimum per additional repeat of a domain [BPB].
      guard: limits on rises over natural, and which of them bind.
      guard_price: what it would cost that no task is predicted worse. None if none is, if guards or a tail are in use,
        or if nothing is explored around the proposal.
      tail: the mean over the law's worst samples, if that was minimised.
      gain: predicted gain over natural.
      support: how far the proposal lies from the swarm's runs; None without runs.
      predicted_low, predicted_high: 5 % and 95 % quantile of ``predicted`` over samples of the law, by task.
      weights_std, weights_low, weights_high: standard deviation, 5 % and 95 % quantile of the optimum over samples of
        the law.
      no_weight_intervals: why they are missing.
      choice: gain by λ, measured on held-out runs, and the λ that this chooses.
      explored_without: settings that ``path`` and ``pareto`` ignore.
      path: the proposal over a grid of λ and k.
      pareto: the front between task families.
      sensitivity: how the mixture moves per unit of λ, of each binding cap and of each task weight; None if the law
        is not differentiable, with guards or a tail, or if the optimum does not move smoothly.
      reuse: in an update, the cost of keeping ratios.
      next_runs: {proposed run: share of the law's standard deviation that remains after it}.
      next_tokens: training tokens of these runs; None if all runs are as long as those of the swarm.
      next_kinds: how many of them are cheap, and why, if the swarm has cheap runs.
      counts: the mixture in whole sequences or tokens.
      handover: files for trainers, by format.
      left_out: optional parts that could not be computed, and why.
      fit: digest of the fit that the proposal is based on.
      read_at: training tokens that a law in exposures was read at; None for other laws, and if the runs are alike.
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
    guard_price: GuardPrice | None = None
    tail: Tail | None = None
    gain: Gain | None = None
    support: Support | None = None
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
    sensitivity: Sensitivity | None = None
    reuse: ReuseCost | None = None
    next_runs: dict[str, float] | None = None
    counts: Counts | None = None
    handover: dict[str, Export] | None = None
    left_out: tuple[str, ...] = ()
    fit: str = ""
    read_at: ReadAt | None = None
    next_tokens: float | None = None
    next_kinds: NextKinds | None = None

    @classmethod
    def read(cls, path: str | os.PathLike) -> "Proposal":
        """Read ``proposal.json``.

        Raises:
          UserError: the file is not a proposal; the message names the field.
        """
        return records.read(path, cls, "propose")

    def write(self, path: str | os.PathLike) -> None:
        """Write ``proposal.json`` atomically. It also holds :attr:`headline`, which follows from other fields."""
        content = {"schema": self.SCHEMA} | records.plain(self) | {"headline": records.plain(self.headline)}
        files.write_json(path, content)

    @property
    def headline(self) -> Headline:
        """What was minimised, at the proposal and at natural: the only numbers that a summary calls better or worse."""
        name, weights = task_means.name(len(self.predicted), self.task_weights), self.task_weights
        proposed, natural = (float(task_mean(bpb, weights)) for bpb in (self.predicted, self.predicted_natural))
        plain = tuple(float(task_mean(bpb)) for bpb in (self.predicted, self.predicted_natural))
        if self.tail is not None and self.tail.natural is not None:
            share = f"worst {100 * self.tail.share:.3g} % of samples" if self.tail.share > 0 else "worst sample"
            return Headline(f"{name} in the {share} of the law", self.tail.value, self.tail.natural, *plain)
        if task_means.are_equal(weights):
            return Headline(name, proposed, natural)
        return Headline(name, proposed, natural, *plain)

    @property
    def outcome(self) -> str:
        """How the solver ended, in words: "local optimum, reached from 7 of 24 starts"."""
        certificate = self.certificate
        return self.status.describe(
            starts=certificate.starts or certificate.candidates,
            agreeing=certificate.agreeing,
            iterations=certificate.iterations,
            gap=certificate.gap,
            residual=certificate.residual,
        )

    def check(self) -> None:
        """Raise ``ValueError`` if a field lacks a domain or a task, or a mixture of ``path`` a domain."""
        for names, fields in ((self.weights, DOMAIN_FIELDS), (self.predicted, TASK_FIELDS)):
            for field in fields:
                values = getattr(self, field)
                if values is not None and (missing := [name for name in names if name not in values]):
                    raise ValueError(f"{field} lacks a value for {missing[0]!r}")
        cells = [cell for row in self.path.weights for cell in row if cell is not None] if self.path is not None else []
        if any(len(cell) != len(self.weights) for cell in cells):
            raise ValueError(f"path.weights must have {len(self.weights)} weights in each mixture, one per domain")


DOMAIN_FIELDS = "natural caps lower capped_by repeats shadow_prices repeat_prices weights_std".split()
TASK_FIELDS = "predicted_natural task_weights predicted_low predicted_high".split()
