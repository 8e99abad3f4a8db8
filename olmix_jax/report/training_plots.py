"""Figures of training: losses of the swarm, and BPB of fresh models that validate the proposal."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from olmix_jax.propose.proposal import Proposal
from olmix_jax.proxy.validation_result import Validation
from olmix_jax.report import estimates
from olmix_jax.report.estimates import Difference
from olmix_jax.report.formatting import quantity
from olmix_jax.report.results import Curves, Results
from olmix_jax.report.sentences import with_error
from olmix_jax.report.style import (
    BAD,
    BROWN,
    MAX_ROWS,
    MIXTURE_COLOURS,
    NATURAL,
    PROPOSED,
    PURPLE,
    TEAL,
    WIDE,
    label,
    label_length,
    labels,
)
from olmix_jax.swarm import task_means
from olmix_jax.swarm.task_means import task_mean

# Points of a loss curve.
POINTS = 120


def swarm_curves(results: Results, curves: Curves, width: float) -> Figure:
    """Draw the training loss of every proxy against tokens, coloured by its final mean BPB."""
    fig = Figure(figsize=(width, 4.2 if width >= WIDE else 3.6))
    ax = fig.subplots()
    x_P, loss_KP = smoothed(curves)
    bpb = final_bpb(results)
    scored = [i for i, run in enumerate(curves.runs) if run in bpb]
    if scored:
        segments = [np.column_stack([x_P, loss_KP[i]]) for i in scored]
        lines = LineCollection(segments, cmap="viridis", lw=0.8, alpha=0.8)
        lines.set_array(np.asarray([bpb[curves.runs[i]] for i in scored]))
        ax.add_collection(lines)
        fig.colorbar(lines, ax=ax, label=f"final {task_means.word(task_weights(results))} BPB", pad=0.01, aspect=30)
    diverged = results.table.diverged if results.table is not None else ()
    handles = _draw_unscored(ax, x_P, {r: loss_KP[i] for i, r in enumerate(curves.runs) if r not in bpb}, diverged)
    nearest = nearest_to_natural(results)
    if nearest in curves.runs:
        (line,) = ax.plot(x_P, loss_KP[curves.runs.index(nearest)], color="black", lw=1.6)
        line.set_label(f"{label(nearest, 16)}, closest to natural")
        handles.append(line)
    _loss_axes(ax, x_P, loss_KP)
    if handles:
        ax.legend(handles=handles, loc="upper right", fontsize="small")
    return fig


def _draw_unscored(ax: Axes, x_P: np.ndarray, loss_P: dict[str, np.ndarray], diverged) -> list[Line2D]:
    """Draw runs without BPB: red up to a cross if they diverged, otherwise grey. Return entries of the legend."""
    handles = {}
    for run, values in loss_P.items():
        if run in diverged:
            last = np.flatnonzero(np.isfinite(values))[-1:]
            ax.plot(x_P[last], values[last], color=BAD, marker="x", ls="")
            handles["diverged"] = Line2D([], [], color=BAD, marker="x", lw=0.8, label="diverged")
        else:
            handles["unused"] = Line2D([], [], color=NATURAL, lw=0.8, label="not used in the fit")
        ax.plot(x_P, values, color=BAD if run in diverged else NATURAL, lw=1.2 if run in diverged else 0.8)
    return list(handles.values())


def validation_curves(curves: Curves, width: float) -> Figure:
    """Draw the training loss of the validation models against tokens, with one colour per mixture."""
    fig = Figure(figsize=(width, 3.6 if width >= WIDE else 3.2))
    ax = fig.subplots()
    x_P, loss_KP = smoothed(curves)
    mixtures = [run.rpartition("/")[0] or run for run in curves.runs]
    spare = iter([PURPLE, BROWN, TEAL] * len(mixtures))
    colours = {m: MIXTURE_COLOURS.get(m) or next(spare) for m in dict.fromkeys(mixtures)}
    for mixture, loss_P in zip(mixtures, loss_KP):
        ax.plot(x_P, loss_P, color=colours[mixture], lw=0.9, alpha=0.85)
    _loss_axes(ax, x_P, loss_KP)
    handles = [Line2D([], [], color=c, label=label(m, 16)) for m, c in colours.items()]
    ax.legend(handles=handles, loc="upper right", fontsize="small")
    return fig


def smoothed(curves: Curves) -> tuple[np.ndarray, np.ndarray]:
    """Return (tokens_P, loss_KP): losses averaged over at most :data:`POINTS` windows of steps.

    Windows grow in proportion to the step, so that a curve is equally smooth everywhere on a logarithmic axis. The mean
    of a window with a non-finite loss is not finite.
    """
    total = len(curves.steps_T)
    ends_P = np.unique(np.geomspace(1, total, POINTS).round().astype(int))
    sums_KP = np.add.reduceat(np.asarray(curves.loss_KT, np.float64), np.append(0, ends_P[:-1]), axis=1)
    loss_KP = sums_KP / np.diff(ends_P, prepend=0)[None, :]
    return np.asarray(curves.steps_T)[ends_P - 1] * curves.tokens_per_step, loss_KP


def _loss_axes(ax: Axes, x_P: np.ndarray, loss_KP: np.ndarray) -> None:
    ax.set_xscale("log")
    # At first all losses are those of a random model. The axis starts where the models begin to differ.
    ax.set_xlim(x_P[-1] / 50 if x_P[0] < x_P[-1] / 50 else x_P[0], x_P[-1])
    shown = loss_KP[:, x_P >= ax.get_xlim()[0]]
    shown = shown[np.isfinite(shown)]
    if shown.size:
        low, high = shown.min(), np.percentile(shown, 99.5)
        ax.set_ylim(low - 0.04 * (high - low) - 1e-3, high + 0.04 * (high - low) + 1e-3)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: quantity(x)))
    few_decades = np.log10(ax.get_xlim()[1] / ax.get_xlim()[0]) < 2.2
    ax.xaxis.set_minor_formatter(FuncFormatter(_two_and_five) if few_decades else NullFormatter())
    ax.tick_params(axis="x", which="minor", labelsize="small")
    ax.set_xlabel("tokens seen by each model (logarithmic)")
    ax.set_ylabel("training loss, nats per token")
    ax.grid(axis="y")


def _two_and_five(x: float, _) -> str:
    """Return the tick label of 2·10ⁿ and 5·10ⁿ, and no label for other values."""
    digit = round(x / 10 ** np.floor(np.log10(x)))
    return quantity(x) if digit in (2, 5) else ""


def final_bpb(results: Results) -> dict[str, float]:
    """Return the mean BPB over the fitted tasks of every run in the table, with the proposal's task weights."""
    table = results.table
    if table is None:
        return {}
    fitted = set(results.tasks)
    bpb = {task: bpb_K for task, bpb_K in zip(table.tasks, np.asarray(table.bpb_KN).T) if task in fitted}
    if not bpb:
        return {}
    mean_K = task_mean(bpb, task_weights(results))
    return {run: float(bpb) for run, bpb in zip(table.runs, mean_K) if np.isfinite(bpb)}


def task_weights(results: Results) -> dict[str, float]:
    """Return the task weights of the proposal; empty, for equal weights, without a proposal for these tasks."""
    weights = {} if results.proposal is None else results.proposal.task_weights
    return weights if set(weights) == set(results.tasks) else {}


def nearest_to_natural(results: Results) -> str | None:
    """Return the run whose mixture is closest to natural in total variation; None if it cannot be known."""
    if results.table is None or results.natural is None:
        return None
    natural_M = np.asarray([results.natural[d] for d in results.table.domains])
    distance_K = np.abs(np.asarray(results.table.ratios_KM) - natural_M[None, :]).sum(axis=1)
    return results.table.runs[int(distance_K.argmin())]


def validation(scores: Validation, width: float) -> Figure:
    """Draw mean BPB minus that of natural: a bar with its standard error per mixture, and a dot per seed."""
    validated = estimates.validated(scores)
    names: list[str] = [n for n in ("natural", "uniform", "proposed") if n in validated]
    names += [n for n in validated if n not in names]
    natural = validated["natural"].mean
    fig = Figure(figsize=(width, 0.8 + 0.5 * len(names)))
    ax = fig.subplots()
    ticks = []
    for i, name in enumerate(names):
        value, colour = validated[name], MIXTURE_COLOURS.get(name, PROPOSED)
        ax.barh(i, value.mean - natural, 0.62, xerr=value.error, color=colour, capsize=4, alpha=0.75)
        seeds = np.asarray(scores.mixtures[name].per_seed) - natural
        ax.scatter(seeds, i + np.linspace(-0.16, 0.16, len(seeds)), s=13, color="black", zorder=3, linewidths=0)
        ticks.append(f"{label(name, label_length(width))}\n{with_error(value)}")
    ax.set_yticks(range(len(names)), ticks)
    ax.invert_yaxis()
    ax.axvline(0, color="black", lw=0.8)
    ax.set_xlabel(f"{task_means.word(scores.task_weights)} BPB minus that of natural")
    ax.xaxis.set_major_locator(MaxNLocator(6 if width >= WIDE else 4))
    ax.grid(axis="x")
    return fig


def validation_tasks(scores: Validation, proposal: Proposal | None, width: float) -> Figure:
    """Draw BPB of the proposal minus natural by task. Diamonds show the law's prediction."""
    rows = estimates.task_differences(scores)
    names = sorted(rows, key=lambda t: -abs(rows[t].mean))[:MAX_ROWS]
    names = sorted(names, key=lambda t: rows[t].mean)
    y_N, mean_N = np.arange(len(names)), [rows[n].mean for n in names]
    fig = Figure(figsize=(width, 1.1 + 0.21 * len(names)))
    ax = fig.subplots()
    ax.barh(y_N, mean_N, 0.7, color=[difference_colour(rows[n]) for n in names], alpha=0.75)
    errors = [rows[n].error or 0.0 for n in names]
    ax.errorbar(mean_N, y_N, xerr=errors, fmt="none", ecolor="black", elinewidth=0.9, capsize=2)
    law = estimates.predicted_differences(proposal)
    law_N = [law.get(n, np.nan) for n in names]
    ax.scatter(law_N, y_N, marker="D", s=15, facecolor="white", edgecolor="black", zorder=3)
    ax.set_yticks(y_N, labels(names, label_length(width)), fontsize="small")
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.axvline(0, color="black", lw=0.8)
    ax.set_xlabel("BPB, proposed minus natural")
    ax.xaxis.set_major_locator(MaxNLocator(6 if width >= WIDE else 4))
    ax.grid(axis="x")
    bars = {"better": PROPOSED, "worse": BAD, "within 2 standard errors": NATURAL}
    handles: list[Patch | Line2D] = [Patch(color=colour, alpha=0.75, label=text) for text, colour in bars.items()]
    handles.append(Line2D([], [], marker="D", ls="", ms=4, mfc="white", mec="black", label="predicted by the law"))
    fig.legend(handles=handles, loc="outside upper center", ncols=4 if width >= WIDE else 2, fontsize="small")
    return fig


def difference_colour(difference: Difference) -> str:
    """Return blue for better, red for worse, and grey within two standard errors or without a known error."""
    if not difference.significant:
        return NATURAL
    return PROPOSED if difference.mean < 0 else BAD
