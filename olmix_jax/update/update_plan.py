"""The content of ``update/plan.json``: what an update of the domain set keeps, recomputes and costs.

The *update plan* has nothing to do with the stage ``plan``, which is a dry run (:mod:`olmix_jax.proxy.resources`).
"""

import dataclasses
import os
import pathlib
from typing import Any

from olmix_jax.config.schema import Config
from olmix_jax.config.workdir import UPDATE_PLAN
from olmix_jax.propose import blocks
from olmix_jax.update import changes, changes_file, strategies
from olmix_jax.utils import files, records, rng
from olmix_jax.utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Interval:
    """Mean, 5 % and 95 % quantile over possible laws of the new domain set [BPB]."""

    mean: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class PredictedGain:
    """Predicted gain of full recomputation over natural: mean, 5 % and 95 % quantile [BPB]."""

    gain: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A choice of domains to recompute, the number of new runs it takes, and its predicted loss.

    ``loss_if_form_known`` is the mean loss by a fit that knows the form of the true law, its noise and its prior [BPB];
    None if ``loss`` is by that fit.
    """

    recomputed: tuple[str, ...]
    proxies: int
    loss: Interval
    loss_if_form_known: float | None = None


@dataclasses.dataclass(frozen=True)
class OldRuns:
    """Number of earlier runs that can be expressed on the new domains.

    Attributes:
      age: number of updates since these runs were trained.
      runs: number of runs.
    """

    age: int
    runs: int


@dataclasses.dataclass(frozen=True)
class PastUpdate:
    """One earlier workdir in the history of an update.

    Attributes:
      workdir: its path.
      strategy: its update strategy, or "first swarm" for a run that is not an update.
      updates: the steps from the domains before it to its own, as in an update file.
      validated: whether ``natural`` and ``proposed`` were measured; otherwise they are predicted.
      natural, proposed: mean BPB over tasks of these two mixtures, with the task weights that its proposal minimised.
      weights: its proposed mixture.
      proxies: number of runs that it trained.
      proxies_full: number of runs that full recomputation would have trained.
      plain_natural, plain_proposed: the same means with equal task weights; None if unknown.
    """

    workdir: str
    strategy: str
    updates: tuple[dict[str, Any], ...]
    validated: bool
    natural: float
    proposed: float
    weights: dict[str, float]
    proxies: int
    proxies_full: int
    plain_natural: float | None = None
    plain_proposed: float | None = None

    @property
    def steps(self) -> tuple[changes.Update, ...]:
        """The parsed ``updates``."""
        return _parse(self.updates)

    def check(self) -> None:
        """Raise a ValueError if ``updates`` cannot be parsed."""
        _ = self.steps


@dataclasses.dataclass(frozen=True)
class UpdatePlan:
    """What an update of the domain set keeps, recomputes and costs; decided before any new run is trained.

    Attributes:
      strategy: the config's ``update.strategy``.
      parent: the workdir that is updated.
      updates: the steps from the old domains to the new ones, as in an update file.
      old, new: the domains before and after.
      unaffected: new domains whose content is unchanged.
      affected: new domains whose content is new or changed.
      lost: old domains that were removed or revised.
      kept: blocks of domains that keep their relative ratios: {block: {domain: ratio}}.
      recomputed: domains whose weights are optimised again.
      proxies: number of new runs; 0 if the old law suffices.
      proxies_full: number of new runs for full recomputation.
      predicted_loss: objective of this update minus that of the optimum [BPB]. By other simulated swarms than those
        that the choice was made by.
      predicted_gain: objective of natural minus that of the optimum [BPB].
      candidates: the choices that were compared.
      old_runs: earlier runs that can inform the law, by age.
      why: the decision in a sentence.
      history: the workdirs before this one, the oldest first.
      predicted_loss_if_form_known: the mean predicted loss by the fit of ``Candidate.loss_if_form_known`` [BPB].
    """

    SCHEMA = 1

    strategy: strategies.Strategy
    parent: str
    updates: tuple[dict[str, Any], ...]
    old: tuple[str, ...]
    new: tuple[str, ...]
    unaffected: tuple[str, ...]
    affected: tuple[str, ...]
    lost: tuple[str, ...]
    kept: dict[str, dict[str, float]]
    recomputed: tuple[str, ...]
    proxies: int
    proxies_full: int
    predicted_loss: Interval
    predicted_gain: PredictedGain
    candidates: tuple[Candidate, ...]
    old_runs: tuple[OldRuns, ...]
    why: str
    history: tuple[PastUpdate, ...]
    predicted_loss_if_form_known: float | None = None

    @property
    def steps(self) -> tuple[changes.Update, ...]:
        """The parsed ``updates``."""
        return _parse(self.updates)

    @property
    def change(self) -> changes.Change:
        """The change from the old domains to the new ones, in the order of ``new``."""
        return changes.change(self.old, self.steps).ordered(self.new)

    @property
    def kept_blocks(self) -> blocks.Blocks:
        """The kept blocks and all other domains, over ``new``."""
        return blocks.form_blocks(self.kept, self.new)

    @property
    def needs_no_runs(self) -> bool:
        """Whether the parent's law suffices, so that the stages sample, train and fit have nothing to do."""
        return self.proxies == 0

    @property
    def digest(self) -> str:
        """A digest of all fields but the parent's path, and the history, which changes with a later validation."""
        fields = records.plain(self)
        return files.digest({name: value for name, value in fields.items() if name not in ("parent", "history")})

    def derive_seed(self, seed: int) -> int:
        """Return the seed of this update's swarm.

        It differs from the seeds of earlier workdirs. Otherwise the same runs would be trained again and count twice.
        """
        return rng.derive(seed, f"update {len(self.history)}")

    def check(self) -> None:
        """Check that the fields agree with each other.

        Raises:
          ValueError: a domain is unknown, a ratio is not positive, the history is empty or lacks an old domain, or the
            steps do not lead from ``old`` to ``new``.
        """
        self._check_domains("recomputed", self.recomputed)
        for block, ratios in self.kept.items():
            self._check_domains(f"kept.{block}", ratios)
            for domain, ratio in ratios.items():
                if ratio <= 0:
                    raise ValueError(f"kept.{block}.{domain} must be a positive number, not {ratio}")
        if not self.history:
            raise ValueError("history must have at least one entry, the parent")
        missing = [domain for domain in self.old if domain not in self.history[-1].weights]
        if missing:
            raise ValueError(f"history[{len(self.history) - 1}].weights has no number for {missing[0]!r}")
        try:
            _ = self.change
        except UserError as e:
            raise ValueError(str(e)) from e

    def _check_domains(self, field: str, names) -> None:
        unknown = [name for name in names if name not in self.new]
        if unknown:
            raise ValueError(f"{field} has the domain {unknown[0]!r}, which `new` does not have")

    @classmethod
    def read(cls, path: str | os.PathLike) -> "UpdatePlan":
        """Read ``update/plan.json``.

        Raises:
          UserError: the file is not an update plan; the message names the field.
        """
        return records.read(path, cls, "update")

    def write(self, path: str | os.PathLike) -> None:
        """Write ``update/plan.json``, whole or not at all."""
        records.write(path, self)


def read_if_any(workdir: pathlib.Path) -> UpdatePlan | None:
    """Return the update plan in a workdir, or None for the workdir of a first run.

    Raises:
      UserError: the file is not an update plan.
    """
    path = workdir / UPDATE_PLAN
    return UpdatePlan.read(path) if path.is_file() else None


def read_for(config: Config, workdir: pathlib.Path) -> UpdatePlan | None:
    """Return the update plan that a run of ``config`` follows; None if it is not an update or has no plan yet."""
    return read_if_any(workdir) if config.update.parent else None


def _parse(rows: tuple[dict[str, Any], ...]) -> tuple[changes.Update, ...]:
    """Parse the steps of an update; a bad one is a ValueError."""
    try:
        return tuple(step for i, row in enumerate(rows) for step in changes_file.parse_step(f"updates[{i}]", row))
    except UserError as e:
        raise ValueError(str(e)) from e
