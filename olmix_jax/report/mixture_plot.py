"""Bar chart of the natural and the proposed mixture with caps, bounds and intervals."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from olmix_jax.propose.proposal import Proposal
from olmix_jax.report import caps
from olmix_jax.report.style import (
    BAD,
    BINDING,
    DASHES,
    MAX_DOMAINS,
    NATURAL,
    PROPOSED,
    UNIFORM,
    WIDE,
    Style,
    label_length,
    labels,
)
from olmix_jax.utils.progress import counted

INTERVAL = "#444444"


def shown_domains(proposal: Proposal) -> list[str]:
    """Return the domains to draw, largest natural share first: at most :data:`MAX_DOMAINS`, those with the largest
    natural or proposed weights.
    """
    largest = sorted(proposal.weights, key=lambda d: -max(proposal.natural[d], proposal.weights[d]))[:MAX_DOMAINS]
    return sorted(largest, key=lambda d: -proposal.natural[d])


def mixture(proposal: Proposal, width: float) -> Figure:
    """Draw natural and proposed weights as bars and caps as marks, with weights and epochs as text.

    The text of a last row has the sums over the domains that are not drawn, natural and proposed.
    """
    names = shown_domains(proposal)
    natural_M, weights_M = (100 * np.array([w[d] for d in names]) for w in (proposal.natural, proposal.weights))
    low_M, high_M = weight_intervals(proposal, names)
    others = len(proposal.weights) - len(names)
    rows = len(names) + (others > 0)
    fig = Figure(figsize=(width, 1.0 + 0.4 * rows))
    ax = fig.subplots()
    y_M = np.arange(len(names))
    at_cap = caps.at_cap(proposal)
    tone = BAD if proposal.worst else PROPOSED
    ax.barh(y_M - 0.19, natural_M, 0.36, color=NATURAL)
    ax.barh(y_M + 0.19, weights_M, 0.36, color=[BINDING if d in at_cap else tone for d in names])
    ax.hlines(y_M + 0.19, low_M, high_M, color=INTERVAL, lw=1.1)
    if others:
        # The sums have no bars, which would make those of single domains short.
        text = f"{100 - natural_M.sum():.1f} → {100 - weights_M.sum():.1f} %"
        ax.text(1.01, len(names), text, transform=ax.get_yaxis_transform(), va="center", fontsize="small")
    uniform = 100 / len(proposal.weights)
    ax.axvline(uniform, color=UNIFORM, ls=DASHES, lw=1)
    ax.set_xlim(0, 1.15 * max(natural_M.max(), weights_M.max(), uniform, *high_M[np.isfinite(high_M)]))
    caps_M = 100 * np.array([caps.cap_of(proposal, d) for d in names])
    shown_M = (caps_M < 100) & (caps_M <= ax.get_xlim()[1])
    ax.vlines(caps_M[shown_M], y_M[shown_M] - 0.03, y_M[shown_M] + 0.42, color="black", lw=1.6)
    marks = _mark_lower_bounds(ax, proposal, names) + _mark_anchor(ax, proposal, names)
    # Numbers stand in a column right of the axes. Beside the bars they would overlap the caps.
    for y, name in zip(y_M, names):
        style: Style = {"va": "center", "fontsize": "small", "fontweight": "bold" if name in at_cap else "normal"}
        ax.text(1.01, y + 0.19, weight_text(proposal, name), transform=ax.get_yaxis_transform(), **style)
    sums = [f"sum of {counted(others, 'other domain')}"] if others else []
    ax.set_yticks(range(rows), [*labels(names, label_length(width)), *sums])
    ax.set_ylim(rows - 0.4, -0.6)
    ax.set_xlabel("weight in the mixture, % of tokens")
    ax.grid(axis="x")
    handles = [*_legend(proposal, tone), *marks]
    if np.isfinite(low_M).any():
        intervals = "5–95 %" if proposal.weights_low and proposal.weights_high else "± 1 standard deviation"
        handles.append(Line2D([], [], color=INTERVAL, lw=1.1, label=intervals))
    fig.legend(handles=handles, loc="outside upper center", ncols=6 if width >= WIDE else 2, fontsize="small")
    return fig


def weight_text(proposal: Proposal, name: str) -> str:
    """Return weight, epochs, and what the weight is limited by, as in "8.6 %, 4× (cap)"."""
    epochs = proposal.repeats or {}
    text = f"{100 * proposal.weights[name]:.1f} %" + (f", {epochs[name]:.2g}×" if name in epochs else "")
    if name in caps.at_upper_bound(proposal):
        return f"{text} (bound)"
    return f"{text} (cap)" if name in caps.at_cap(proposal) else text


def weight_intervals(proposal: Proposal, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of each weight's interval [%]: 5–95 %, otherwise ± 1 standard deviation, otherwise NaN."""
    low, high, std = proposal.weights_low, proposal.weights_high, proposal.weights_std or {}
    if low and high:
        low_M, high_M = (np.array([end.get(d, np.nan) for d in names], np.float64) for end in (low, high))
    else:
        weights_M = np.array([proposal.weights[d] for d in names])
        std_M = np.array([std.get(d, np.nan) for d in names], np.float64)
        low_M, high_M = np.maximum(weights_M - std_M, 0.0), weights_M + std_M
    return 100 * low_M, 100 * high_M


def _legend(proposal: Proposal, tone: str) -> list[Patch | Line2D]:
    limits = set(proposal.capped_by.values())
    cap = "repetition cap"
    if "bound" in limits:
        cap = "repetition cap or bound" if "repetition" in limits else "upper bound"
    binding = "proposed, at its cap" + (" or bound" if caps.at_upper_bound(proposal) else "")
    return [
        Patch(color=NATURAL, label="natural"),
        Patch(color=tone, label="WORST mixture" if proposal.worst else "proposed"),
        Patch(color=BINDING, label=binding),
        Line2D([], [], color="black", marker="|", ls="", ms=9, mew=1.6, label=cap),
        Line2D([], [], color=UNIFORM, ls=DASHES, lw=1, label="uniform"),
    ]


def _mark_lower_bounds(ax: Axes, proposal: Proposal, names: list[str]) -> list[Line2D]:
    """Mark lower bounds above 0; return their entry of the legend."""
    lower = {i: bound for i, d in enumerate(names) if (bound := proposal.lower.get(d))}
    if not lower:
        return []
    y = np.array(list(lower))
    ax.vlines([100 * bound for bound in lower.values()], y - 0.03, y + 0.42, color=UNIFORM, lw=2.2)
    return [Line2D([], [], color=UNIFORM, marker="|", ls="", ms=9, mew=2.2, label="lower bound")]


def _mark_anchor(ax: Axes, proposal: Proposal, names: list[str]) -> list[Line2D]:
    """Mark the mixture that KL is measured from, if it is not natural; return its entry of the legend."""
    if not proposal.anchor:
        return []
    style: Style = dict(marker="D", ls="", ms=4, mfc="white", mec="black")
    y_M = np.arange(len(names)) - 0.19
    ax.plot([100 * proposal.anchor.get(d, np.nan) for d in names], y_M, **style, clip_on=True)
    return [Line2D([], [], **style, label="anchor")]
