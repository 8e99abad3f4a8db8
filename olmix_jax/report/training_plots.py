"""Figures of what was trained: losses of the swarm, and the proof of the proposal by fresh models."""

import math

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from olmix_jax.report.results import Curves, Results
from olmix_jax.report.style import BAD, COLOURS, NATURAL, PROPOSED, ROWS, WIDE, label, labels, quantity, room

POINTS = 120


def swarm_curves(results: Results, width: float) -> Figure:
    """Training loss of every member against tokens, coloured by its final mean BPB."""
    curves = results.curves
    fig = Figure(figsize=(width, 4.2 if width >= WIDE else 3.6))
    ax = fig.subplots()
    x_P, smooth_KP = thinned(curves)
    bpb = final_bpb(results)
    judged = [i for i, r in enumerate(curves.runs) if r in bpb]
    lines = LineCollection([np.column_stack([x_P, smooth_KP[i]]) for i in judged], cmap="viridis", lw=0.8, alpha=0.8)
    if judged:
        lines.set_array(np.asarray([bpb[curves.runs[i]] for i in judged]))
        ax.add_collection(lines)
        fig.colorbar(lines, ax=ax, label="final mean BPB", pad=0.01, aspect=30)
    handles = []
    for i in (i for i in range(len(curves.runs)) if i not in judged):
        ax.plot(x_P, smooth_KP[i], color=BAD, lw=1.2)
        last = np.flatnonzero(np.isfinite(smooth_KP[i]))[-1:]
        ax.plot(x_P[last], smooth_KP[i][last], color=BAD, marker="x", ls="")
        handles = [Line2D([], [], color=BAD, marker="x", lw=0.8, label="not in the table (diverged)")]
    near = nearest_natural(results)
    if near in curves.runs:
        (line,) = ax.plot(x_P, smooth_KP[curves.runs.index(near)], color="black", lw=1.6)
        line.set_label(f"{label(near, 16)}, nearest to natural")
        handles.append(line)
    _loss_axes(ax, x_P, smooth_KP)
    if handles:
        ax.legend(handles=handles, loc="upper right", fontsize="small")
    return fig


def validation_curves(results: Results, width: float) -> Figure:
    """Training loss of the validation models against tokens, a colour per mixture."""
    curves = results.validation_curves
    fig = Figure(figsize=(width, 3.6 if width >= WIDE else 3.2))
    ax = fig.subplots()
    x_P, smooth_KP = thinned(curves)
    mixtures = [r.rpartition("/")[0] or r for r in curves.runs]
    spare = iter(["#7b5ea7", "#a0722a", "#2a9d9d"] * len(mixtures))
    colours = {m: COLOURS.get(m) or next(spare) for m in dict.fromkeys(mixtures)}
    for mixture, loss_P in zip(mixtures, smooth_KP):
        ax.plot(x_P, loss_P, color=colours[mixture], lw=0.9, alpha=0.85)
    _loss_axes(ax, x_P, smooth_KP)
    handles = [Line2D([], [], color=c, label=label(m, 16)) for m, c in colours.items()]
    ax.legend(handles=handles, loc="upper right", fontsize="small")
    return fig


def thinned(curves: Curves) -> tuple[np.ndarray, np.ndarray]:
    """Tokens seen and loss, as means over at most 120 windows.

    Windows grow with the step, as the logarithmic axis shrinks it, so that a curve is as smooth late as early. A window
    with a step that is not finite has no mean.
    """
    total = len(curves.steps_T)
    ends_P = np.unique(np.geomspace(1, total, POINTS).round().astype(int))
    sums_KP = np.add.reduceat(np.asarray(curves.loss_KT, np.float64), np.append(0, ends_P[:-1]), axis=1)
    smooth_KP = sums_KP / np.diff(ends_P, prepend=0)[None, :]
    return np.asarray(curves.steps_T)[ends_P - 1] * curves.tokens_per_step, smooth_KP


def _loss_axes(ax, x_P: np.ndarray, smooth_KP: np.ndarray) -> None:
    ax.set_xscale("log")
    # The first losses are those of a random model for everyone: the axis starts where members begin to differ.
    ax.set_xlim(x_P[-1] / 50 if x_P[0] < x_P[-1] / 50 else x_P[0], x_P[-1])
    shown_KP = smooth_KP[:, x_P >= ax.get_xlim()[0]]
    shown_KP = shown_KP[np.isfinite(shown_KP)]
    if shown_KP.size:
        low, high = shown_KP.min(), np.percentile(shown_KP, 99.5)
        ax.set_ylim(low - 0.04 * (high - low) - 1e-3, high + 0.04 * (high - low) + 1e-3)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: quantity(x)))
    few = np.log10(ax.get_xlim()[1] / ax.get_xlim()[0]) < 2.2
    ax.xaxis.set_minor_formatter(FuncFormatter(_some) if few else NullFormatter())
    ax.tick_params(axis="x", which="minor", labelsize="small")
    ax.set_xlabel("tokens seen by each model (logarithmic)")
    ax.set_ylabel("training loss, nats per token")
    ax.grid(axis="y")


def _some(x: float, _) -> str:
    """A label for 2·10ⁿ and 5·10ⁿ only, where a decade is most of the axis."""
    digit = round(x / 10 ** np.floor(np.log10(x)))
    return quantity(x) if digit in (2, 5) else ""


def final_bpb(results: Results) -> dict[str, float]:
    """Mean BPB over the reported tasks of every run that finished."""
    table = results.table
    if table is None:
        return {}
    columns = [i for i, t in enumerate(table.tasks) if t in set(results.tasks)]
    mean_K = np.asarray(table.bpb_KN)[:, columns].mean(axis=1)
    return {r: float(v) for r, v in zip(table.runs, mean_K) if np.isfinite(v)}


def nearest_natural(results: Results) -> str | None:
    """The run whose mixture is nearest to the natural one in total variation."""
    if results.table is None or results.natural is None:
        return None
    natural_M = np.asarray([results.natural[d] for d in results.table.domains])
    return results.table.runs[
        int(np.abs(np.asarray(results.table.ratios_KM) - natural_M[None, :]).sum(axis=1).argmin())
    ]


def validation(results: Results, width: float) -> Figure:
    """Mean BPB minus natural's: a bar and its standard error per mixture, a dot per seed."""
    validated = results.validated
    names = [n for n in ("natural", "uniform", "proposed") if n in validated]
    names += [n for n in validated if n not in names]
    base = validated["natural"].mean
    fig = Figure(figsize=(width, 0.8 + 0.5 * len(names)))
    ax = fig.subplots()
    ticks = []
    for i, name in enumerate(names):
        found = validated[name]
        colour = COLOURS.get(name, PROPOSED)
        ax.barh(i, found.mean - base, 0.62, xerr=found.error, color=colour, capsize=4, alpha=0.75)
        seeds = np.asarray(results.validation["mixtures"][name]["per_seed"]) - base
        ax.scatter(seeds, i + np.linspace(-0.16, 0.16, len(seeds)), s=13, color="black", zorder=3, linewidths=0)
        error = "" if found.error is None else f" ± {found.error:.4f}"
        ticks.append(f"{label(name, room(width))}\n{found.mean:.4f}{error}")
    ax.set_yticks(range(len(names)), ticks)
    ax.invert_yaxis()
    ax.axvline(0, color="black", lw=0.8)
    ax.set_xlabel("mean BPB minus that of natural")
    ax.xaxis.set_major_locator(MaxNLocator(6 if width >= WIDE else 4))
    ax.grid(axis="x")
    return fig


def validation_tasks(results: Results, width: float) -> Figure:
    """BPB of the proposal minus natural's per task, with the law's prediction as a diamond."""
    rows = task_differences(results)
    names = sorted(rows, key=lambda t: -abs(rows[t][0]))[:ROWS]
    names = sorted(names, key=lambda t: rows[t][0])
    y = np.arange(len(names))
    colours = [difference_colour(*rows[n]) for n in names]
    fig = Figure(figsize=(width, 1.1 + 0.21 * len(names)))
    ax = fig.subplots()
    errors = [rows[n][1] or 0.0 for n in names]
    ax.barh(y, [rows[n][0] for n in names], 0.7, color=colours, alpha=0.75)
    ax.errorbar([rows[n][0] for n in names], y, xerr=errors, fmt="none", ecolor="black", elinewidth=0.9, capsize=2)
    law = {
        t: v - results.proposal["predicted_natural"][t]
        for t, v in (results.proposal or {}).get("predicted", {}).items()
    }
    told = [i for i, n in enumerate(names) if n in law]
    ax.scatter([law[names[i]] for i in told], y[told], marker="D", s=15, facecolor="white", edgecolor="black", zorder=3)
    ax.set_yticks(y, labels(names, room(width)), fontsize="small")
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.axvline(0, color="black", lw=0.8)
    ax.set_xlabel("BPB, proposed minus natural")
    ax.xaxis.set_major_locator(MaxNLocator(6 if width >= WIDE else 4))
    ax.grid(axis="x")
    handles = [Patch(color=PROPOSED, alpha=0.75, label="better"), Patch(color=BAD, alpha=0.75, label="worse")]
    handles += [Patch(color=NATURAL, alpha=0.75, label="within 2 standard errors")]
    handles += [Line2D([], [], marker="D", ls="", ms=4, mfc="white", mec="black", label="the law's prediction")]
    fig.legend(handles=handles, loc="outside upper center", ncols=4 if width >= WIDE else 2, fontsize="small")
    return fig


def task_differences(results: Results) -> dict[str, tuple[float, float | None]]:
    """Proposed minus natural, and its standard error √((s_a² + s_b²)/n), by task."""
    mixtures = results.validation["mixtures"]
    ours, theirs = mixtures["proposed"]["tasks"], mixtures["natural"]["tasks"]
    seeds = min(len(mixtures[k]["per_seed"]) for k in ("proposed", "natural"))
    rows = {}
    for task in ours:
        error = math.hypot(ours[task]["std"], theirs[task]["std"]) / math.sqrt(seeds) if seeds > 1 else None
        rows[task] = ours[task]["mean"] - theirs[task]["mean"], error
    return rows


def predicted_differences(results: Results) -> dict[str, float]:
    """Proposed minus natural by the law, by task; empty without a proposal."""
    if results.proposal is None:
        return {}
    natural = results.proposal["predicted_natural"]
    return {t: v - natural[t] for t, v in results.proposal["predicted"].items()}


def difference_colour(difference: float, error: float | None) -> str:
    """Grey where the difference is within two standard errors or its error is unknown."""
    if error is None or abs(difference) <= 2 * error:
        return NATURAL
    return PROPOSED if difference < 0 else BAD
