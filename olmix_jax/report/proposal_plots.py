"""Figures of a proposal's predicted change of each task, and of the value of more data."""

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from olmix_jax.propose.proposal import Proposal
from olmix_jax.report.formatting import number
from olmix_jax.report.style import BAD, BINDING, DASHES, MAX_ROWS, PROPOSED, WIDE, Style, label_length, labels

# Most bars in each ranking of domains.
MAX_BARS = 30


class Change(NamedTuple):
    """Predicted BPB of a task, proposed minus natural, with the 5–95 % interval; its ends are NaN if unknown."""

    mean: float
    low: float
    high: float


def changes(proposal: Proposal) -> dict[str, Change]:
    """Return the predicted change of each task, best first."""
    ends = [end or {} for end in (proposal.predicted_low, proposal.predicted_high)]
    by_task = {}
    for task, bpb in proposal.predicted.items():
        natural = proposal.predicted_natural[task]
        by_task[task] = Change(bpb - natural, *(end.get(task, np.nan) - natural for end in ends))
    return dict(sorted(by_task.items(), key=lambda item: item[1].mean))


def task_changes(proposal: Proposal, width: float) -> Figure:
    """Draw the predicted change of each task with its interval, and the guard's limit."""
    rows, guard = changes(proposal), proposal.guard
    largest = sorted(rows, key=lambda t: -abs(rows[t].mean))[:MAX_ROWS]
    names = [t for t in rows if t in set(largest)]
    fig = Figure(figsize=(width, 1.2 + 0.2 * len(names)))
    ax = fig.subplots()
    y_N = np.arange(len(names))
    mean_N, low_N, high_N = np.array([rows[n] for n in names], np.float64).reshape(-1, 3).T
    ax.barh(y_N, mean_N, 0.7, color=np.where(mean_N > 0, BAD, PROPOSED), alpha=0.75)
    ax.hlines(y_N, low_N, high_N, color="black", lw=1.1)
    ax.set_yticks(y_N, labels(names, label_length(width)), fontsize="small")
    for tick, name in zip(ax.get_yticklabels(), names):
        tick.set_color(BAD if rows[name].mean > 0 else "black")
        tick.set_fontweight("bold" if guard is not None and name in guard.binding else "normal")
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.axvline(0, color="black", lw=0.8)
    handles = [Line2D([], [], color=PROPOSED, lw=6, alpha=0.75, label="better")]
    handles += [Line2D([], [], color=BAD, lw=6, alpha=0.75, label="worse")]
    if np.isfinite(low_N).any():
        handles.append(Line2D([], [], color="black", lw=1.1, label="5–95 %"))
    if guard is not None:
        ax.axvline(guard.slack, color="black", lw=1, ls=DASHES)
        text = f"guard: at most +{guard.slack:.3g} BPB"
        handles.append(Line2D([], [], color="black", lw=1, ls=DASHES, label=text))
    ax.set_xlabel("predicted BPB, proposed minus natural")
    ax.xaxis.set_major_locator(MaxNLocator(6 if width >= WIDE else 4))
    ax.grid(axis="x")
    fig.legend(handles=handles, loc="outside upper center", ncols=4 if width >= WIDE else 2, fontsize="small")
    return fig


def ranked(prices: dict[str, float] | None) -> dict[str, float]:
    """Return the prices that are not 0, largest first."""
    nonzero = {d: price for d, price in (prices or {}).items() if price}
    return dict(sorted(nonzero.items(), key=lambda item: -abs(item[1])))


def prices(proposal: Proposal, width: float) -> Figure:
    """Draw how much one billion more unique tokens, and one more epoch, of each domain would lower the objective."""
    kinds = [
        (ranked(proposal.shadow_prices), "BPB per billion more unique tokens"),
        (ranked(proposal.repeat_prices), "BPB per additional allowed epoch"),
    ]
    kinds = [(values, unit) for values, unit in kinds if values]
    wide = width >= WIDE
    counts = [min(len(values), MAX_BARS) for values, _ in kinds]
    height = 0.75 + 0.27 * (max(counts) if wide else sum(counts)) + (0 if wide else 0.6 * len(kinds))
    fig = Figure(figsize=(width if len(kinds) > 1 or not wide else 0.7 * width, height))
    grid = {"nrows": 1, "ncols": len(kinds)} if wide else {"nrows": len(kinds), "height_ratios": counts}
    for ax, (values, unit) in zip(fig.subplots(**grid, squeeze=False).ravel(), kinds):
        names = list(values)[:MAX_BARS]
        ax.barh(range(len(names)), [values[n] for n in names], 0.65, color=BINDING)
        for i, name in enumerate(names):
            style: Style = {"textcoords": "offset points", "va": "center"}
            ax.annotate(number(values[name], ".3g"), (max(values[name], 0), i), (3, 0), **style)
        ax.set_yticks(range(len(names)), labels(names, 22 if wide and len(kinds) > 1 else label_length(width)))
        ax.set_ylim(max(len(names), 3 if wide else 1) - 0.4, -0.6)
        ax.margins(x=0.18)
        ax.set_xlabel(unit)
        ax.xaxis.set_major_locator(MaxNLocator(4))
    return fig
