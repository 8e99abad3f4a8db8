"""Figures of an update: the mixture before and after, predicted losses of the candidates, and the history."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from olmix_jax.propose.proposal_parts import ReuseCost
from olmix_jax.report import update_rows
from olmix_jax.report.formatting import number
from olmix_jax.report.style import (
    BINDING,
    DOMAIN_COLOURS,
    NATURAL,
    PROPOSED,
    PURPLE,
    UNIFORM,
    WIDE,
    Style,
    label_length,
    labels,
)
from olmix_jax.report.update_rows import CandidateRow, DomainRow, StepRow
from olmix_jax.utils.progress import counted

OLD, REST = "#c9ced6", "#dfe2e6"
STACK_COLOURS = (*DOMAIN_COLOURS, "#cf6a9b")
# Colour and legend entry of a new weight by the kind of its domain.
KIND_STYLES = {
    update_rows.KEPT: (PROPOSED, "new, in the kept block"),
    update_rows.RECOMPUTED: (PURPLE, "new, recomputed although unaffected"),
    update_rows.AFFECTED: (UNIFORM, "new, affected by the update"),
}


def mixture(rows: Sequence[DomainRow], width: float) -> Figure:
    """Draw old and new weights as bars, coloured by kind, and natural weights as marks."""
    columns = ([row.old for row in rows], [row.natural for row in rows], [row.new for row in rows])
    old_M, natural_M, new_M = (100 * np.array([np.nan if w is None else w for w in column]) for column in columns)
    fig = Figure(figsize=(width, 1.2 + 0.42 * len(rows)))
    ax = fig.subplots()
    y_M = np.arange(len(rows))
    colours = [KIND_STYLES[row.kind][0] if row.kind in KIND_STYLES else OLD for row in rows]
    ax.barh(y_M - 0.19, np.nan_to_num(old_M), 0.36, color=OLD)
    ax.barh(y_M + 0.19, np.nan_to_num(new_M), 0.36, color=colours)
    known_M = np.isfinite(natural_M)
    ax.vlines(natural_M[known_M], y_M[known_M] - 0.4, y_M[known_M] + 0.4, color="black", lw=1.2)
    for y, old, new in zip(range(len(rows)), old_M, new_M):
        text = " → ".join("–" if np.isnan(w) else f"{w:.1f}" for w in (old, new))
        ax.text(1.01, y, text, transform=ax.get_yaxis_transform(), va="center", fontsize="small")
    ax.set_xlim(0, 1.08 * np.nanmax([*old_M, *natural_M, *new_M, 1.0]))
    ax.set_yticks(y_M, labels([row.name for row in rows], label_length(width)))
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlabel("weight in the mixture, % of tokens")
    ax.grid(axis="x")
    present = {row.kind for row in rows}
    handles: list[Patch | Line2D] = [Patch(color=OLD, label="old")]
    handles += [Patch(color=colour, label=text) for kind, (colour, text) in KIND_STYLES.items() if kind in present]
    handles.append(Line2D([], [], color="black", marker="|", ls="", ms=9, mew=1.2, label="natural"))
    fig.legend(handles=handles, loc="outside upper center", ncols=5 if width >= WIDE else 1, fontsize="small")
    return fig


def loss(rows: Sequence[CandidateRow], gain: float, reuse: ReuseCost | None, width: float) -> Figure:
    """Draw the predicted loss of each candidate with its interval, and the loss according to the new law.

    Args:
      rows: the candidates.
      gain: predicted gain of full recomputation over natural [BPB], the unit of the upper axis.
      reuse: what keeping ratios costs according to the new law.
      width: inches.
    """
    wide = width >= WIDE
    fig = Figure(figsize=(width, 1.5 + 0.34 * len(rows)))
    ax = fig.subplots()
    for i, row in enumerate(rows):
        tone = PROPOSED if row.chosen else NATURAL
        ax.hlines(i, row.low, row.high, color=tone, lw=2.2)
        ax.plot(row.mean, i, marker="o", ms=6, color=tone)
        text = (f"{number(row.mean)} BPB, " if wide else "") + counted(row.runs, "run")
        style: Style = {"va": "center", "fontsize": "small", "fontweight": "bold" if row.chosen else "normal"}
        ax.text(1.01, i, text, transform=ax.get_yaxis_transform(), **style)
    ax.set_yticks(range(len(rows)), labels([row.name for row in rows], label_length(width)))
    ax.set_ylim(len(rows) - 0.5, -0.5)
    handles = [Line2D([], [], color=PROPOSED, marker="o", lw=2.2, label="chosen")]
    if len(rows) > 1:
        handles.append(Line2D([], [], color=NATURAL, marker="o", lw=2.2, label="not chosen"))
    handles += _mark_realised(ax, rows, reuse)
    ax.set_xlim(left=min(0.0, ax.get_xlim()[0]))
    ax.axvline(0, color="black", lw=0.8)
    ax.set_xlabel("predicted loss against the optimum, BPB")
    ax.xaxis.set_major_locator(MaxNLocator(6 if wide else 3))
    ax.grid(axis="x")
    if gain > 0:

        def to_percent(bpb: Any) -> Any:
            return 100 * bpb / gain

        def to_bpb(percent: Any) -> Any:
            return percent * gain / 100

        top = ax.secondary_xaxis("top", functions=(to_percent, to_bpb))
        top.set_xlabel("% of the predicted gain over natural")
        top.xaxis.set_major_locator(MaxNLocator(6 if wide else 4))
    fig.legend(handles=handles, loc="outside lower center", ncols=3 if wide else 1, fontsize="small")
    return fig


def _mark_realised(ax: Axes, rows: Sequence[CandidateRow], reuse: ReuseCost | None) -> list[Line2D]:
    """Mark the cost of the kept ratios according to the new law, if it is known; return its entry of the legend."""
    if reuse is None or reuse.loss is None or reuse.free is None:
        return []
    style: Style = dict(marker="D", ms=6, mfc=BINDING, mec="black", ls="")
    ax.plot(reuse.loss, [row.chosen for row in rows].index(True), **style, zorder=3)
    return [Line2D([], [], **style, label="kept ratios only, according to the new law")]


def history(rows: Sequence[StepRow], width: float) -> Figure:
    """Draw the mixture of each step as a stacked bar. A domain has the same colour in every bar."""
    steps = [(i, step) for i, step in enumerate(rows) if step.weights]
    named = update_rows.named_domains([step for _, step in steps], len(STACK_COLOURS))
    fig = Figure(figsize=(width, (1.5 if width >= WIDE else 2.6) + 0.42 * len(steps)))
    ax = fig.subplots()
    for y, (_, step) in enumerate(steps):
        parts = [(name, step.weights.get(name, 0.0), colour) for name, colour in zip(named, STACK_COLOURS)]
        parts.append(("", sum(w for d, w in step.weights.items() if d not in named), REST))
        left = 0.0
        for name, weight, colour in parts:
            ax.barh(y, 100 * weight, 0.72, left=100 * left, color=colour)
            if weight > (0.05 if width >= WIDE else 0.12):
                style: Style = {"ha": "center", "va": "center", "fontsize": "small"}
                text_colour = "white" if name else "black"
                ax.text(100 * (left + weight / 2), y, f"{100 * weight:.0f}", color=text_colour, **style)
            left += weight
    texts = labels([step.text for _, step in steps], label_length(width) - 3)
    ax.set_yticks(range(len(steps)), [f"{i}: {text}" for (i, _), text in zip(steps, texts)])
    ax.set_ylim(len(steps) - 0.5, -0.5)
    ax.set_xlim(0, 100)
    ax.set_xlabel("weight in the mixture, % of tokens")
    handles = [Patch(color=colour, label=text) for colour, text in zip(STACK_COLOURS, labels(named, 24))]
    if any(d not in named for _, step in steps for d in step.weights):
        handles.append(Patch(color=REST, label="all others"))
    fig.legend(handles=handles, loc="outside lower center", ncols=4 if width >= WIDE else 2, fontsize="small")
    return fig
