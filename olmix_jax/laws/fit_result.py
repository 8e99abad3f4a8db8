"""The content of ``fit/fit.json``: how well a law predicts, per task and for the average over tasks."""

import dataclasses
import os
from typing import Any

from olmix_jax.utils import records


@dataclasses.dataclass(frozen=True)
class TaskFit:
    """Quality of one task's law. ``_cv``: on held-out folds; ``_loo``: leave-one-out; errors in BPB.

    Attributes:
      loss: the fit's objective at its minimum, in-sample.
      stretch: standard deviations that a 90 % interval reaches to either side.
      parameters: the law's parameters, as the family describes them.
      effects: change in BPB when a tenth of the base mixture is replaced by a domain.
    """

    loss: float
    spearman_cv: float
    r2_cv: float
    rmse_cv: float
    coverage_cv: float
    stretch: float
    spearman_in_sample: float
    rmse_in_sample: float
    parameters: dict[str, Any]
    effects: dict[str, float]
    spearman_loo: float | None = None
    rmse_loo: float | None = None


@dataclasses.dataclass(frozen=True)
class AverageFit:
    """Measured and held-out predicted BPB of the average over tasks, by run, with 90 % intervals."""

    measured: tuple[float, ...]
    predicted_cv: tuple[float, ...]
    low_cv: tuple[float, ...]
    high_cv: tuple[float, ...]
    coverage_cv: float


@dataclasses.dataclass(frozen=True)
class CoverageCurve:
    """Share of held-out measurements inside intervals of each nominal level."""

    nominal: tuple[float, ...]
    covered: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class CurvePoint:
    """Held-out quality at a number of runs."""

    runs: int
    spearman_mean: float
    rmse_mean: float


@dataclasses.dataclass(frozen=True)
class LearningCurve:
    """Held-out quality of laws fitted on fewer runs, and what ten more runs would bring.

    Attributes:
      runs: numbers of runs.
      spearman_mean, spearman_mean_error, spearman_of_mean, rmse_mean: quality by number of runs.
      repeats: random subsets per number.
      now, next: extrapolated to all runs, and to ten more.
    """

    runs: tuple[int, ...]
    spearman_mean: tuple[float, ...]
    spearman_mean_error: tuple[float, ...]
    spearman_of_mean: tuple[float, ...]
    rmse_mean: tuple[float, ...]
    repeats: int
    now: CurvePoint
    next: CurvePoint


@dataclasses.dataclass(frozen=True)
class Seen:
    """How often a domain was sampled: number of runs, and its largest weight."""

    runs: int
    max: float


@dataclasses.dataclass(frozen=True)
class FitResult:
    """A fitted law's quality.

    Attributes:
      law: name of the family.
      tasks: quality by task.
      folds: folds of the cross-validation.
      level: nominal level of the intervals.
      effect: what ``effects`` of a task are, in words.
      base: the mixture that effects start from.
      runs: names of the fitted runs.
      measured, predicted_cv, low_cv, high_cv: by task, a value per run [BPB].
      average: the average over tasks.
      unseen: domains that no run sampled.
      barely_sampled: domains in few runs.
      digest: identifies the fitted parameters.
      wall_s: wall time of the fit [s].
      test: scores on a held-out swarm.
      over, trust, error: of an update: whether the law is over "blocks" or "domains", what an earlier run counts for in
        new runs, and the cross-validated error by trust.
    """

    SCHEMA = 1

    tasks: dict[str, TaskFit]
    spearman_cv_mean: float
    spearman_of_mean_cv: float
    r2_cv_mean: float
    rmse_cv_mean: float
    coverage_cv_mean: float
    spearman_in_sample_mean: float
    level: float
    effect: str
    base: dict[str, float]
    runs: tuple[str, ...]
    measured: dict[str, tuple[float, ...]]
    predicted_cv: dict[str, tuple[float, ...]]
    low_cv: dict[str, tuple[float, ...]]
    high_cv: dict[str, tuple[float, ...]]
    average: AverageFit
    coverage_curve: CoverageCurve
    unseen: tuple[str, ...]
    barely_sampled: dict[str, Seen]
    law: str
    folds: int
    digest: str
    learning_curve: LearningCurve | None = None
    spearman_loo_mean: float | None = None
    spearman_of_mean_loo: float | None = None
    wall_s: float = 0.0
    test: dict[str, Any] | None = None
    over: str | None = None
    trust: float | None = None
    error: dict[str, float] | None = None

    @classmethod
    def read(cls, path: str | os.PathLike) -> "FitResult":
        """Reads ``fit.json``.

        Raises:
          UserError: the file is not the result of a fit; the message names the field.
        """
        return records.read(path, cls, "fit")

    def write(self, path: str | os.PathLike) -> None:
        """Writes ``fit.json``, whole or not at all."""
        records.write(path, self)
