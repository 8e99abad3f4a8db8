"""Figures of how a proposal depends on its settings: λ, the repetition limit k, and weights of task families."""

import dataclasses
import itertools

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from olmix_jax.propose.proposal import Proposal
from olmix_jax.propose.proposal_parts import Front, LambdaChoice
from olmix_jax.report.style import (
    BINDING,
    DASHES,
    DOMAIN_COLOURS,
    GREY_TEXT,
    MAX_DOMAINS,
    NATURAL,
    PROPOSED,
    UNIFORM,
    WIDE,
    Style,
    label,
    labels,
)
from olmix_jax.swarm import task_means

# Families with panels in the Pareto figure.
MAX_FAMILIES = 4
SETTING_LABELS = {"kl_weight": "λ, BPB per nat", "max_repeats": "k, epochs over a domain"}


@dataclasses.dataclass(frozen=True)
class SettingPath:
    """The optimum along one setting, with the other at the proposal's value.

    Attributes:
      setting: "kl_weight" (λ) or "max_repeats" (k).
      values_P: values of the setting.
      weights_PM: the optimum at each value; NaN where there is none.
      bpb_P: its predicted BPB, weighted over tasks.
      used: the proposal's value of the setting.
    """

    setting: str
    values_P: np.ndarray
    weights_PM: np.ndarray
    bpb_P: np.ndarray
    used: float | None

    @property
    def symbol(self) -> str:
        """λ or k."""
        return SETTING_LABELS[self.setting][0]


def setting_paths(proposal: Proposal) -> list[SettingPath]:
    """Return the path along λ, then along k. A path with fewer than two values or without any optimum is left out."""
    path = proposal.path
    if path is None:
        return []
    lambdas, repeats = ([np.nan if v is None else v for v in grid] for grid in (path.kl_weight, path.max_repeats))
    nothing = [np.nan] * len(proposal.weights)
    cells = [[nothing if cell is None else cell for cell in row] for row in path.weights]
    weights_LRM = np.asarray(cells, np.float64).reshape(len(lambdas), len(repeats), len(nothing))
    bpb_LR = np.array([[np.nan if cell is None else cell for cell in row] for row in path.predicted], np.float64)
    chosen = path.chosen or {}
    used_lambda, used_repeats = (
        chosen[key] if chosen.get(key) is not None else default
        for key, default in (("kl_weight", proposal.kl_weight), ("max_repeats", proposal.max_repeats))
    )
    row, column = _nearest(lambdas, used_lambda), _nearest(repeats, used_repeats)
    along_lambda = ("kl_weight", np.asarray(lambdas), weights_LRM[:, column], bpb_LR[:, column], used_lambda)
    along_repeats = ("max_repeats", np.asarray(repeats), weights_LRM[row], bpb_LR[row], used_repeats)
    both = [SettingPath(*along_lambda), SettingPath(*along_repeats)]
    return [part for part in both if len(part.values_P) > 1 and np.isfinite(part.bpb_P).any()]


def _nearest(grid: list[float], used: float | None) -> int:
    return int(np.argmin(np.abs(np.asarray(grid) - (np.nan if used is None else used))))


def paths(proposal: Proposal, width: float) -> Figure:
    """Draw weights and predicted BPB along λ and along k. Dashed lines mark the proposal's values."""
    parts, wide = setting_paths(proposal), width >= WIDE
    top, bottom = (3.4, 1.9) if wide else (3.0, 1.7)
    if wide:
        fig = Figure(figsize=(width, top + bottom))
        axes = fig.subplots(2, len(parts), squeeze=False, height_ratios=[top, bottom], sharey="row").T
    else:
        fig = Figure(figsize=(width, (top + bottom) * len(parts)))
        axes = fig.subplots(2 * len(parts), 1, height_ratios=[top, bottom] * len(parts)).reshape(len(parts), 2)
    largest_M = np.max([np.nan_to_num(part.weights_PM).max(axis=0) for part in parts], axis=0)
    named = np.argsort(-largest_M, kind="stable")[: len(DOMAIN_COLOURS)]
    colours = {int(j): colour for j, colour in zip(named, DOMAIN_COLOURS)}
    drawn = np.sort(np.argsort(-largest_M, kind="stable")[:MAX_DOMAINS]).tolist()
    natural = proposal.path.predicted_natural if proposal.path is not None else None
    for i, ((above, below), part) in enumerate(zip(axes, parts)):
        x_P, used = _log_axis((above, below), part.values_P, part.used)
        above.set_ylim(0, 108 * float(largest_M.max()))
        _draw_weights(above, x_P, 100 * part.weights_PM, list(proposal.weights), colours, drawn)
        _draw_bpb(below, x_P, part.bpb_P, natural)
        for ax in (above, below):
            if used is not None:
                ax.axvline(used, color="black", lw=1, ls=DASHES, zorder=0)
            ax.grid(axis="y")
        below.set_xlabel(f"{SETTING_LABELS[part.setting]} (logarithmic); dashed: proposal")
        above.set_ylabel("weight, % of tokens" if not wide or i == 0 else "")
        below.set_ylabel(f"{task_means.word(proposal.task_weights)} predicted BPB" if not wide or i == 0 else "")
    return fig


def _draw_weights(
    ax: Axes, x_P, percent_PM: np.ndarray, names: list[str], colours: dict[int, str], drawn: list[int]
) -> None:
    """Draw a line per domain of ``drawn``.

    Domains with a colour are named at the right, moved apart where they would overlap.
    """
    for j in drawn:
        style: Style = {"color": colours[j], "lw": 1.6} if j in colours else {"color": "#c5c9cf", "lw": 0.7}
        ax.plot(x_P, percent_PM[:, j], **style)
    solved = np.flatnonzero(np.isfinite(percent_PM[:, 0]))
    last_M, top = percent_PM[solved[-1]], ax.get_ylim()[1]
    step = 0.065 * top
    order = sorted(colours, key=lambda j: last_M[j])
    y = np.array([last_M[j] for j in order])
    for i in range(1, len(y)):
        y[i] = max(y[i], y[i - 1] + step)
    for i in range(len(y) - 1, -1, -1):
        y[i] = min(y[i], top - step * (len(y) - 1 - i))
    texts = dict(zip(colours, labels([names[j] for j in colours], 18)))
    for j, height in zip(order, y):
        where = ax.get_yaxis_transform()
        ax.text(1.02, height, texts[j], transform=where, va="center", fontsize="x-small", color=colours[j])


def _draw_bpb(ax: Axes, x_P, bpb_P: np.ndarray, natural: float | None) -> None:
    ax.plot(x_P, bpb_P, color="black", marker="o", ms=3)
    ax.ticklabel_format(axis="y", useOffset=False)
    if natural is not None:
        ax.axhline(natural, color=NATURAL, lw=1)
        style: Style = {"transform": ax.get_yaxis_transform(), "ha": "right", "va": "top", "color": GREY_TEXT}
        ax.text(0.99, natural, "natural", fontsize="small", **style)


def _log_axis(axes, values_P: np.ndarray, used: float | None) -> tuple[np.ndarray, float | None]:
    """Make the x axes logarithmic. Return the positions of ``values_P`` and of ``used``.

    A value of 0 is drawn at a third of the smallest positive value.
    """
    positive = values_P[values_P > 0]
    zero = positive.min() / 3 if len(positive) else 1.0
    x_P = np.where(values_P > 0, values_P, zero)
    for ax in axes:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(FixedLocator(x_P.tolist()))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xticks(x_P, [f"{v:.3g}" for v in values_P])
        ax.tick_params(axis="x", labelsize="small", labelrotation=45 if len(values_P) > 6 else 0)
    return x_P, None if used is None else (used if used > 0 else zero)


def choice(lambda_choice: LambdaChoice, used: float, width: float) -> Figure:
    """Draw the held-out gain against λ. Marks show the best λ and the λ that the proposal uses."""
    wide = width >= WIDE
    values_P, gain_P = np.asarray(lambda_choice.kl_weight, np.float64), np.asarray(lambda_choice.gain, np.float64)
    errors = [np.nan if e is None else e for e in lambda_choice.gain_error]
    fig = Figure(figsize=(0.75 * width if wide else width, 3.2))
    ax = fig.subplots()
    x_P, x_used = _log_axis((ax,), values_P, used)
    if x_used is not None:
        ax.axvline(x_used, color="black", lw=1, ls=DASHES, label=f"used by the proposal: {used:.3g}")
    ax.errorbar(x_P, gain_P, yerr=errors, color=PROPOSED, marker="o", ms=4, capsize=3, label="gain ± standard error")
    best = np.flatnonzero(values_P == lambda_choice.best)
    ring: Style = dict(ls="", marker="o", ms=11, mfc="none", mec=BINDING, mew=2)
    ax.plot(x_P[best], gain_P[best], **ring, label=f"selected: {lambda_choice.best:.3g}")
    ax.axhline(0, color=NATURAL, lw=0.8)
    ax.set_xlabel(f"{SETTING_LABELS['kl_weight']} (logarithmic)")
    ax.set_ylabel("gain over natural, BPB")
    ax.grid(axis="y")
    fig.legend(loc="outside upper center", ncols=3 if wide else 1, fontsize="small")
    return fig


def shown_families(pareto: Front) -> list[str]:
    """Return at most :data:`MAX_FAMILIES` families: those whose BPB varies most along the front."""
    span = {f: np.ptp([point.predicted[f] for point in pareto.points]) for f in pareto.families}
    largest = set(sorted(span, key=lambda f: -span[f])[:MAX_FAMILIES])
    return [f for f in pareto.families if f in largest]


def front(pareto: Front, width: float) -> Figure:
    """Draw the Pareto front for each pair of task families, with the natural and the proposed mixture."""
    pairs = list(itertools.combinations(shown_families(pareto), 2))
    columns = min(3 if width >= WIDE else 1, len(pairs))
    rows = -(-len(pairs) // columns)
    fig = Figure(figsize=(width, 0.5 + rows * (2.9 if columns > 1 else 3.1)))
    axes = fig.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(pairs) :]:
        ax.set_axis_off()
    for ax, (x, y) in zip(axes, pairs):
        points = np.array([[p.predicted[x], p.predicted[y]] for p in pareto.points], np.float64)
        ax.scatter(*points.T, s=20, color=UNIFORM, alpha=0.75, linewidths=0, label="on the front")
        natural, proposed = ([bpb[x], bpb[y]] for bpb in (pareto.natural, pareto.proposed))
        ax.scatter(*natural, s=46, color=NATURAL, marker="D", edgecolor="black", label="natural")
        ax.scatter(*proposed, s=46, color=PROPOSED, marker="s", edgecolor="black", label="proposed")
        _zoom_to_front(ax, np.vstack([points, proposed]), np.array(natural))
        ax.set_xlabel(f"{label(x, 24)}, BPB")
        ax.set_ylabel(f"{label(y, 24)}, BPB")
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.yaxis.set_major_locator(MaxNLocator(5))
        ax.grid()
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize="small")
    return fig


def _zoom_to_front(ax: Axes, points: np.ndarray, natural: np.ndarray) -> None:
    """Limit the axes to the front if natural lies more than two spans away from it, and state where natural is."""
    low, high = points.min(axis=0), points.max(axis=0)
    span = np.maximum(high - low, 1e-4)
    if (np.maximum(low - natural, natural - high) <= 2 * span).all():
        return
    ax.set_xlim(low[0] - 0.12 * span[0], high[0] + 0.12 * span[0])
    ax.set_ylim(low[1] - 0.12 * span[1], high[1] + 0.12 * span[1])
    text = f"natural is outside the axes: {natural[0]:.3f}, {natural[1]:.3f}"
    ax.set_title(text, fontsize="x-small", color=GREY_TEXT)
