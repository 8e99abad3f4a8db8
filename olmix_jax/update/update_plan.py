"""The content of ``update/plan.json``: what a changed domain set keeps, recomputes and costs."""

import dataclasses
import os
from typing import Any

from olmix_jax.utils import records


@dataclasses.dataclass(frozen=True)
class Interval:
    """Mean, 5 % and 95 % quantile over possible laws of the new domain set [BPB]."""

    mean: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class PredictedGain:
    """Predicted gain of full recomputation over natural, with its 5 % and 95 % quantiles [BPB]."""

    gain: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A choice of what to recompute: the domains, the runs that it takes and its predicted loss."""

    recomputed: tuple[str, ...]
    proxies: int
    loss: Interval


@dataclasses.dataclass(frozen=True)
class OldRuns:
    """Earlier runs that the new domain set can express: updates since, and their number."""

    age: int
    runs: int


@dataclasses.dataclass(frozen=True)
class PastUpdate:
    """One workdir of the history, the oldest first.

    Attributes:
      workdir: path.
      strategy: its strategy; "first swarm" for a run that is no update.
      updates: steps of the change that led to it.
      validated: whether ``natural`` and ``proposed`` were measured; else they are predicted.
      natural, proposed: mean BPB.
      weights: its mixture.
      proxies, proxies_full: runs that it took, and that full recomputation would have taken.
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


@dataclasses.dataclass(frozen=True)
class UpdatePlan:
    """What an update of the domain set keeps, recomputes and costs.

    Attributes:
      strategy: ``update.strategy``.
      parent: the workdir that is updated.
      updates: steps of the change.
      old, new: domains before and after.
      unaffected, affected, lost: domains whose content is the same, is new or changed, or is gone.
      kept: blocks of domains that keep their ratios: {block: {domain: ratio}}.
      recomputed: domains whose weights are found anew.
      proxies, proxies_full: runs that this takes, and that full recomputation would take.
      predicted_loss: BPB above the optimum.
      predicted_gain: what there is to gain over natural.
      candidates: the choices that were compared.
      old_runs: earlier runs that inform the law.
      why: the decision in a sentence.
      history: the workdirs before this one, the oldest first.
    """

    SCHEMA = 1

    strategy: str
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
    why: str
    history: tuple[PastUpdate, ...]
    candidates: tuple[Candidate, ...] = ()
    old_runs: tuple[OldRuns, ...] = ()

    @classmethod
    def read(cls, path: str | os.PathLike) -> "UpdatePlan":
        """Reads ``update/plan.json``.

        Raises:
          UserError: the file is not a plan of an update; the message names the field.
        """
        return records.read(path, cls, "update")

    def write(self, path: str | os.PathLike) -> None:
        """Writes ``update/plan.json``, whole or not at all."""
        records.write(path, self)
