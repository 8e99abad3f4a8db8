"""Figures of the law's quality: predictions of held-out runs, coverage of intervals, the learning curve."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from olmix_jax.laws.fit_result import CoverageCurve, FitResult, LearningCurve
from olmix_jax.report.formatting import number
from olmix_jax.report.style import BAD, DASHES, NATURAL, PROPOSED, UNIFORM, WIDE, Style, labels

# Tasks with a panel in the scatter figure. With the average they fill three rows of four.
PANELS = 11
# Coverage further than this from the nominal level is worth a warning.
COVERAGE_TOLERANCE = 0.05


class HeldOut(NamedTuple):
    """Measured and held-out predicted BPB of a task by run, with the ends of the prediction intervals."""

    measured_K: np.ndarray
    predicted_K: np.ndarray
    low_K: np.ndarray
    high_K: np.ndarray

    @property
    def inside_K(self) -> np.ndarray:
        """Whether each measurement lies in its interval."""
        return (self.low_K <= self.measured_K) & (self.measured_K <= self.high_K)

    @property
    def r2(self) -> float | None:
        """R² of the predictions; None if all measurements are equal."""
        spread_K = (self.measured_K - self.measured_K.mean()) ** 2
        if not spread_K.any():
            return None
        return float(1 - ((self.measured_K - self.predicted_K) ** 2).sum() / spread_K.sum())

    @property
    def rmse(self) -> float:
        """Root mean squared error [BPB]."""
        return float(np.sqrt(((self.measured_K - self.predicted_K) ** 2).mean()))


def held_out(fit: FitResult, task: str) -> HeldOut:
    """Return measurements and held-out predictions of one task."""
    return HeldOut(*(_floats(part[task]) for part in (fit.measured, fit.predicted_cv, fit.low_cv, fit.high_cv)))


def held_out_average(fit: FitResult) -> HeldOut:
    """Return measurements and held-out predictions of the average over tasks."""
    average = fit.average
    return HeldOut(*map(_floats, (average.measured, average.predicted_cv, average.low_cv, average.high_cv)))


def panels(fit: FitResult) -> list[str]:
    """Return the tasks that get a panel, by ascending held-out Spearman.

    With more than :data:`PANELS` tasks these are the four worst, three median and four best.
    """
    ordered = sorted(fit.tasks, key=lambda task: fit.tasks[task].spearman_cv)
    if len(ordered) <= PANELS:
        return ordered
    middle = len(ordered) // 2
    return ordered[:4] + ordered[middle - 1 : middle + 2] + ordered[-4:]


def predicted(fit: FitResult, width: float) -> Figure:
    """Draw held-out predictions against measurements: the task average first, then a panel per task."""
    tasks = panels(fit)
    columns = 4 if width >= WIDE else 2
    rows = -(-(len(tasks) + 1) // columns)
    fig = Figure(figsize=(width, 0.35 + rows * (width / columns * 1.14)))
    axes = fig.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(tasks) + 1 :]:
        ax.set_axis_off()
    average = held_out_average(fit)
    title = ["average of tasks", *score_lines(average, fit.spearman_of_mean_cv)]
    _scatter_panel(axes[0], average, title, "black", width)
    for ax, task, name in zip(axes[1:], tasks, labels(tasks, 26 if width >= WIDE else 22)):
        runs = held_out(fit, task)
        _scatter_panel(ax, runs, [name, *score_lines(runs, fit.tasks[task].spearman_cv)], PROPOSED, width)
    fig.supxlabel("measured, BPB", fontsize="medium")
    fig.supylabel("predicted for held-out runs, BPB", fontsize="medium")
    return fig


def score_lines(runs: HeldOut, spearman: float) -> list[str]:
    """Return Spearman and R², then RMSE and coverage, as two lines of a panel's title."""
    r2 = "" if runs.r2 is None else f", R² {number(runs.r2, '.2f')}"
    coverage = f"{100 * runs.inside_K.mean():.0f} % inside"
    return [f"Spearman {number(spearman, '.2f')}{r2}", f"RMSE {runs.rmse:.2g}, {coverage}"]


def _scatter_panel(ax: Axes, runs: HeldOut, title: list[str], colour: str, width: float) -> None:
    everything = np.concatenate(runs)
    low, high = everything.min(), everything.max()
    pad = 0.05 * (high - low) or 0.01 * abs(high) or 0.01
    ends = (low - pad, high + pad)
    ax.plot(ends, ends, color=NATURAL, lw=0.8)
    for shown_K, tone in ((runs.inside_K, colour), (~runs.inside_K, BAD)):
        measured_K, predicted_K, low_K, high_K = (part[shown_K] for part in runs)
        ax.vlines(measured_K, low_K, high_K, color=NATURAL if tone == "black" else tone, lw=0.7, alpha=0.35)
        ax.scatter(measured_K, predicted_K, s=9, color=tone, alpha=0.75, linewidths=0)
    ax.set(xlim=ends, ylim=ends, aspect="equal")
    ax.xaxis.set_major_locator(MaxNLocator(3))
    ax.yaxis.set_major_locator(MaxNLocator(3))
    ax.tick_params(labelsize="x-small")
    ax.set_title("\n".join(title), fontsize="small" if width >= WIDE else "x-small")


def learning(fit: FitResult, curve: LearningCurve, width: float) -> Figure:
    """Draw held-out Spearman and RMSE against the number of fitted runs, extrapolated to ten more runs."""
    wide = width >= WIDE
    fig = Figure(figsize=(width, 3.6 if wide else 5.9))
    axes = fig.subplots(*((1, 2) if wide else (2, 1)), squeeze=False).ravel()
    runs = np.asarray(curve.runs)
    mean, error = _floats(curve.spearman_mean), _floats(curve.spearman_mean_error)
    axes[0].fill_between(runs, mean - error, mean + error, color=PROPOSED, alpha=0.18, lw=0, label="± 1 standard error")
    axes[0].plot(runs, _floats(curve.spearman_of_mean), color="black", marker="s", ms=3.5, lw=1, label="task average")
    cv, loo = fit.spearman_cv_mean, fit.spearman_loo_mean
    _learning_panel(axes[0], curve, mean, curve.next.spearman_mean, single_fits(fit, cv, loo))
    axes[0].set_ylabel("held-out Spearman")
    loo = _mean([task.rmse_loo for task in fit.tasks.values()])
    others = single_fits(fit, fit.rmse_cv_mean, loo)
    _learning_panel(axes[1], curve, _floats(curve.rmse_mean), curve.next.rmse_mean, others)
    axes[1].set_ylabel("held-out RMSE, mean over tasks, BPB")
    for ax in axes:
        ax.set_xlabel("runs used in the fit")
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.grid(axis="y")
    handles = {text: line for ax in axes for line, text in zip(*ax.get_legend_handles_labels())}
    fig.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=3 if wide else 1, fontsize="small")
    return fig


class SingleFit(NamedTuple):
    """Quality of one cross-validation scheme, at the number of runs that its laws are fitted on."""

    runs: float
    value: float
    marker: str
    label: str


def single_fits(fit: FitResult, cv: float, loo: float | None) -> list[SingleFit]:
    """Return cross-validation at K·(1 − 1/folds) runs and, if known, quick leave-one-out at K − 1 runs."""
    total = len(fit.runs)
    fits = [SingleFit(total * (1 - 1 / fit.folds), cv, "D", f"cross-validation, {fit.folds} folds")]
    return fits if loo is None else [*fits, SingleFit(total - 1, loo, "^", "quick leave-one-out")]


def _learning_panel(ax: Axes, curve: LearningCurve, mean, expected: float, others: list[SingleFit]) -> None:
    ax.plot(curve.runs, mean, color=PROPOSED, marker="o", ms=4, label="mean over tasks")
    for other in others:
        ax.plot(other.runs, other.value, color=UNIFORM, marker=other.marker, ms=6, ls="", label=other.label)
    more = curve.next.runs
    ax.plot([curve.runs[-1], more], [mean[-1], expected], color=PROPOSED, ls=DASHES, lw=1, zorder=1)
    hollow: Style = dict(marker="o", ms=7, mfc="white", mec=PROPOSED, mew=1.4, ls="")
    ax.plot(more, expected, **hollow, label=f"extrapolated to {more} runs")


def coverage(fit: FitResult, width: float) -> Figure:
    """Draw actual against nominal coverage of the intervals, and the coverage of each task as a dot."""
    wide = width >= WIDE
    fig = Figure(figsize=(width, 3.5 if wide else 5.8))
    axes = fig.subplots(*((1, 2) if wide else (2, 1)), squeeze=False).ravel()
    _coverage_curve(axes[0], fit.coverage_curve, fit.level)
    _coverage_strip(axes[1], list(task_coverage(fit).values()), fit.level)
    return fig


def task_coverage(fit: FitResult) -> dict[str, float]:
    """Return held-out coverage of the intervals by task, lowest first."""
    return dict(sorted(((t, task.coverage_cv) for t, task in fit.tasks.items()), key=lambda item: item[1]))


def _coverage_curve(ax: Axes, curve: CoverageCurve, level: float) -> None:
    nominal, covered = 100 * _floats(curve.nominal), 100 * _floats(curve.covered)
    least = min(nominal.min(), covered.min()) - 4
    ax.plot([least, 100], [least, 100], color=NATURAL, lw=0.9, label="nominal")
    low, high = 100 * (level - COVERAGE_TOLERANCE), 100 * (level + COVERAGE_TOLERANCE)
    box = Rectangle((100 * level - 1, low), 2, high - low, color=UNIFORM, alpha=0.3, lw=0)
    box.set_label(f"acceptable: {low:.0f} to {high:.0f} %")
    ax.add_patch(box)
    ax.plot(nominal, covered, color=PROPOSED, marker="o", ms=4, label="this law")
    ax.set(xlim=(least, 101), ylim=(least, 101), aspect="equal")
    ax.set_xlabel("nominal level of the interval, %")
    ax.set_ylabel("held-out measurements inside, %")
    ax.legend(loc="upper left", fontsize="small")


def _coverage_strip(ax: Axes, shares: list[float], level: float) -> None:
    """Draw a dot per task. Dots with the same rounded coverage are stacked."""
    percent = 100 * np.asarray(shares)
    count: dict[float, int] = {}
    heights = []
    for value in np.round(percent):
        heights.append(count.setdefault(value, 0))
        count[value] += 1
    ax.axvspan(100 * (level - COVERAGE_TOLERANCE), 100 * (level + COVERAGE_TOLERANCE), color=UNIFORM, alpha=0.2, lw=0)
    ax.axvline(100 * level, color=NATURAL, lw=0.9)
    ax.axvline(percent.mean(), color=PROPOSED, lw=1.2, ls=DASHES)
    most = max(count.values())
    ax.scatter(percent, np.asarray(heights) + 0.5, s=float(np.clip(900 / most**2, 6, 30)), color=PROPOSED, linewidths=0)
    ax.set_ylim(0, max(8, 1.25 * most))
    ax.set_xlim(min(percent.min() - 3, 100 * (level - 3 * COVERAGE_TOLERANCE)), 101)
    ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.set_ylabel("tasks")
    ax.set_xlabel(f"held-out measurements inside the {100 * level:.0f} % interval, %")
    lines = [Line2D([], [], color=PROPOSED, lw=1.2, ls=DASHES, label=f"mean {percent.mean():.0f} %")]
    lines += [Line2D([], [], color=PROPOSED, marker="o", ms=4, ls="", label="a task")]
    ax.legend(handles=lines, loc="upper left", fontsize="small")


def _floats(values: Sequence[float]) -> np.ndarray:
    return np.asarray(values, np.float64)


def _mean(values: Sequence[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None
