"""The content of ``fit/fit.json``: how well a law predicts, per task and for the average over tasks."""

import dataclasses
import enum
import json
import os
from typing import Any

from olmix_jax.laws.cheap_result import CheapRuns
from olmix_jax.utils import records
from olmix_jax.utils.names import listed
from olmix_jax.utils.progress import counted


class Over(enum.StrEnum):
    """Whether the law of an update is a function of block weights or of domain weights."""

    DOMAINS = "domains"
    BLOCKS = "blocks"


@dataclasses.dataclass(frozen=True)
class TaskFit:
    """Quality of one task's law.

    ``_cv`` marks scores of cross-validation, ``_loo`` of leave-one-out, ``_in_sample`` of the fitted runs themselves.

    Attributes:
      loss: objective of the fit at its minimum. In-sample.
      spearman_cv, spearman_loo, spearman_in_sample: rank correlation of predicted and measured BPB.
      r2_cv: share of the variance that is predicted.
      rmse_cv, rmse_loo, rmse_in_sample: root mean squared error [BPB].
      coverage_cv: share of runs inside their 90 % interval.
      stretch: number of standard deviations that a 90 % interval reaches to either side.
      parameters: the law's parameters by name; the names depend on the family.
      effects: by domain, change in BPB when a tenth of ``base`` is replaced by the domain.
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
    """Measured and predicted BPB of the average over tasks, a value per run.

    Attributes:
      measured: measured BPB.
      predicted_cv: predicted BPB, from cross-validation.
      low_cv, high_cv: ends of each run's 90 % interval [BPB].
      coverage_cv: share of runs inside their interval.
    """

    measured: tuple[float, ...]
    predicted_cv: tuple[float, ...]
    low_cv: tuple[float, ...]
    high_cv: tuple[float, ...]
    coverage_cv: float

    def check(self) -> None:
        """Check that all fields have a value for each run."""
        _check_lengths(len(self.measured), predicted_cv=self.predicted_cv, low_cv=self.low_cv, high_cv=self.high_cv)


@dataclasses.dataclass(frozen=True)
class CoverageCurve:
    """Share of held-out measurements inside their intervals (``covered``), by the intervals' level (``nominal``)."""

    nominal: tuple[float, ...]
    covered: tuple[float, ...]

    def check(self) -> None:
        """Check that every level has a share."""
        _check_lengths(len(self.nominal), covered=self.covered)


@dataclasses.dataclass(frozen=True)
class CurvePoint:
    """Extrapolated held-out quality at a number of runs."""

    runs: int
    spearman_mean: float
    rmse_mean: float


@dataclasses.dataclass(frozen=True)
class LearningCurve:
    """Held-out quality by number of fitted runs.

    Attributes:
      runs: numbers of runs, ascending. The other tuples have a value for each.
      spearman_mean: Spearman, averaged over tasks and subsets of the runs.
      spearman_mean_error: its standard error over subsets.
      spearman_of_mean: Spearman of the average over tasks.
      rmse_mean: RMSE, averaged over tasks and subsets [BPB].
      repeats: random subsets of each size. The last size may be that of the cross-validation instead.
      now: quality extrapolated to all runs.
      next: quality extrapolated to ten runs more.
    """

    runs: tuple[int, ...]
    spearman_mean: tuple[float, ...]
    spearman_mean_error: tuple[float, ...]
    spearman_of_mean: tuple[float, ...]
    rmse_mean: tuple[float, ...]
    repeats: int
    now: CurvePoint
    next: CurvePoint

    def check(self) -> None:
        """Check that every number of runs has a value of each score."""
        scores = ("spearman_mean", "spearman_mean_error", "spearman_of_mean", "rmse_mean")
        _check_lengths(len(self.runs), **{name: getattr(self, name) for name in scores})


@dataclasses.dataclass(frozen=True)
class Sampled:
    """How often a domain was sampled: number of runs with a positive weight, and its largest weight."""

    runs: int
    max: float


@dataclasses.dataclass(frozen=True)
class Outlier:
    """A run whose score does not fit those of all other runs.

    Attributes:
      run: its id.
      task: the task on which it is furthest off; "average" if only the average over tasks is.
      measured: its score [BPB].
      expected: what the other runs predict [BPB].
      deviations: their distance in standard deviations.
    """

    run: str
    task: str
    measured: float
    expected: float
    deviations: float

    def __str__(self) -> str:
        return f"{self.run} ({self.task}: {self.measured:.4g}, expected {self.expected:.4g})"


@dataclasses.dataclass(frozen=True)
class TaskScores:
    """Scores of one task's law on a held-out swarm; RMSE in BPB."""

    spearman: float
    r2: float
    rmse: float
    coverage: float


@dataclasses.dataclass(frozen=True)
class SwarmScores:
    """Scores of a law on a held-out swarm.

    Attributes:
      runs: number of held-out runs.
      runs_also_fitted: how many of them the law was fitted to. With any, the scores are too optimistic.
      spearman_task_mean: Spearman, averaged over tasks.
      spearman_of_mean: Spearman of the average over tasks.
      coverage: share of measurements inside their 90 % interval.
      tasks: scores by task.
    """

    runs: int
    runs_also_fitted: int
    spearman_task_mean: float
    spearman_of_mean: float
    coverage: float
    tasks: dict[str, TaskScores]


@dataclasses.dataclass(frozen=True)
class FitResult:
    """How well a fitted law predicts.

    ``_cv`` marks scores of cross-validation, ``_loo`` of leave-one-out. Scores that end in ``_mean`` are averaged over
    tasks; ``of_mean`` are scores of the average over tasks.

    Attributes:
      tasks: quality by task.
      level: nominal coverage of the intervals.
      effect: what the ``effects`` of a task are, in words.
      base: the mixture that effects start from: natural, or the average run's.
      runs: names of the fitted runs.
      measured, predicted_cv, low_cv, high_cv: BPB by task, a value per run; low and high are the ends of intervals.
      fold: fold of each run in the cross-validation; empty in files of earlier versions.
      average: the average over tasks.
      coverage_curve: coverage of intervals of other levels.
      unseen: domains that no run sampled.
      barely_sampled: domains in few runs.
      law: name of the family.
      folds: folds of the cross-validation.
      digest: identifies the fitted parameters.
      learning_curve: quality by number of runs.
      wall_s: wall time of the fit [s].
      test: scores on a held-out swarm, if the config names one.
      over: whether the law of an update is over blocks of domains or over single domains.
      trust: weight of an earlier run in an update's fit; a new run has weight 1.
      error: error of an update's law in cross-validation, by trust [standard deviations of a task].
      outliers: runs whose scores do not fit those of the others. They are fitted like all runs.
      cheap: what cheap runs bring, if the law is one of both kinds.
      warnings: what was left out of the swarm's files, and what in them may be a mistake, a sentence each.
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
    barely_sampled: dict[str, Sampled]
    law: str
    folds: int
    digest: str
    learning_curve: LearningCurve | None = None
    spearman_loo_mean: float | None = None
    spearman_of_mean_loo: float | None = None
    wall_s: float = 0.0
    test: SwarmScores | None = None
    over: Over | None = None
    trust: float | None = None
    error: dict[str, float] | None = None
    outliers: tuple[Outlier, ...] = ()
    warnings: tuple[str, ...] = ()
    fold: tuple[int, ...] = ()
    cheap: CheapRuns | None = None

    def check(self) -> None:
        """Check that every task has a value for each run.

        Raises:
          ValueError: a task or a value is missing; the message names the field.
        """
        for field in ("measured", "predicted_cv", "low_cv", "high_cv"):
            by_task = getattr(self, field)
            missing = [task for task in self.tasks if task not in by_task]
            if missing:
                raise ValueError(f"{field} has no values for the task {missing[0]!r}")
            _check_lengths(len(self.runs), **{f"{field}.{task}": by_task[task] for task in self.tasks})
        if self.fold:
            _check_lengths(len(self.runs), fold=self.fold)

    @classmethod
    def read(cls, path: str | os.PathLike) -> "FitResult":
        """Read ``fit.json``.

        Raises:
          UserError: the file is missing or is not the result of a fit; the message names the field.
        """
        return records.read(path, cls, "fit")

    def write(self, path: str | os.PathLike) -> None:
        """Write ``fit.json`` atomically."""
        records.write(path, self)


def outliers_text(outliers: tuple[Outlier, ...]) -> str:
    """Return a sentence that names outliers and says what to do."""
    return (
        f"{counted(len(outliers), 'run')} {'does' if len(outliers) == 1 else 'do'} not fit the others: "
        f"{listed([str(outlier) for outlier in outliers])}; check their scores and mixtures, and leave the faulty ones "
        f'out with {{"diverged": {json.dumps([outlier.run for outlier in outliers[:2]])}}} in meta.json'
    )


def _check_lengths(length: int, **fields: tuple) -> None:
    for name, values in fields.items():
        if len(values) != length:
            raise ValueError(f"{name} must have {length} values, not {len(values)}")
