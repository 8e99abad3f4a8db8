"""Figures of the mixture and of the law. Each takes a :class:`Results` and a width in inches and returns a figure."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from olmix_jax.report.results import Results, cap_of, effects_NM
from olmix_jax.report.style import BAD, BINDING, NATURAL, PROPOSED, ROWS, UNIFORM, WIDE, labels, room


def mixture(results: Results, width: float) -> Figure:
    """Natural and proposed weights as bars, caps as marks, epochs as text."""
    proposal, binding = results.proposal, results.binding
    names = sorted(proposal["weights"], key=lambda d: -proposal["natural"][d])
    natural_M = 100 * np.asarray([proposal["natural"][d] for d in names])
    weights_M = 100 * np.asarray([proposal["weights"][d] for d in names])
    caps_M = 100 * np.asarray([cap_of(proposal["caps"], d) for d in names])
    fig = Figure(figsize=(width, 1.0 + 0.4 * len(names)))
    ax = fig.subplots()
    y = np.arange(len(names))
    tone = BAD if proposal.get("worst") else PROPOSED
    colours = [BINDING if d in binding else tone for d in names]
    ax.barh(y - 0.19, natural_M, 0.36, color=NATURAL)
    ax.barh(y + 0.19, weights_M, 0.36, color=colours)
    low_M, high_M = weight_ends(proposal, names)
    ax.hlines(y + 0.19, low_M, high_M, color="#444444", lw=1.1)
    ax.axvline(100 / len(names), color=UNIFORM, ls=(0, (4, 3)), lw=1)
    ax.set_xlim(0, 1.15 * max(natural_M.max(), weights_M.max(), 100 / len(names), *high_M[np.isfinite(high_M)]))
    shown = (caps_M < 100) & (caps_M <= ax.get_xlim()[1])
    ax.vlines(caps_M[shown], y[shown] - 0.03, y[shown] + 0.42, color="black", lw=1.6)
    bounds = _bound_marks(ax, proposal, names)
    # Numbers stand in a column of their own: beside the bars they would run into caps.
    for i, name in enumerate(names):
        text = f"{weights_M[i]:.1f} %" + (f", {results.epochs[name]:.2g}×" if name in results.epochs else "")
        weight = "bold" if name in binding else "normal"
        at = dict(transform=ax.get_yaxis_transform(), va="center", fontsize="small", fontweight=weight)
        ax.text(1.01, y[i] + 0.19, text + _at_most(results, name), **at)
    ax.set_yticks(y, labels(names, room(width)))
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlabel("weight in the mixture, % of tokens")
    ax.grid(axis="x")
    handles = [
        Patch(color=NATURAL, label="natural"),
        Patch(color=tone, label="WORST mixture" if proposal.get("worst") else "proposed"),
        Patch(color=BINDING, label="proposed, at its cap or bound" if results.bounded else "proposed, at its cap"),
        Line2D([], [], color="black", marker="|", ls="", ms=9, mew=1.6, label=_cap_name(proposal)),
        Line2D([], [], color=UNIFORM, ls=(0, (4, 3)), lw=1, label="uniform"),
        *bounds,
    ]
    if np.isfinite(low_M).any():
        handles.append(Line2D([], [], color="#444444", lw=1.1, label=_spread_name(proposal)))
    fig.legend(handles=handles, loc="outside upper center", ncols=5 if width >= WIDE else 2, fontsize="small")
    return fig


def weight_ends(proposal: dict, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the interval of each weight in percent: 5–95 %, or else a standard deviation to either side, or NaN."""
    low, high, spread = (proposal.get(k) or {} for k in ("weights_low", "weights_high", "weights_std"))
    weights_M = np.array([proposal["weights"][d] for d in names])
    if low and high:
        ends = [np.array([np.nan if e.get(d) is None else e[d] for d in names], np.float64) for e in (low, high)]
    else:
        spread_M = np.array([np.nan if spread.get(d) is None else spread[d] for d in names], np.float64)
        ends = [np.maximum(weights_M - spread_M, 0.0), weights_M + spread_M]
    return 100 * ends[0], 100 * ends[1]


def _spread_name(proposal: dict) -> str:
    return "5–95 %" if proposal.get("weights_low") and proposal.get("weights_high") else "± 1 standard deviation"


def _at_most(results: Results, name: str) -> str:
    """What keeps a domain that has its most from more."""
    return " (bound)" if name in results.bounded else " (cap)" if name in results.binding else ""


def _cap_name(proposal: dict) -> str:
    """What the marks of the most weights are."""
    by = set((proposal.get("capped_by") or {}).values())
    if "bound" not in by:
        return "repetition cap"
    return "repetition cap or bound" if "repetition" in by else "bound"


def _bound_marks(ax, proposal: dict, names: list[str]) -> list[Line2D]:
    """Marks of lower bounds above zero and of another reference than natural; their entries in the legend."""
    lower, anchor, handles = proposal.get("lower") or {}, proposal.get("anchor") or {}, []
    marked = [i for i, d in enumerate(names) if lower.get(d)]
    if marked:
        at = np.array(marked)
        ax.vlines([100 * lower[names[i]] for i in marked], at - 0.03, at + 0.42, color=UNIFORM, lw=2.2)
        handles.append(Line2D([], [], color=UNIFORM, marker="|", ls="", ms=9, mew=2.2, label="lower bound"))
    told = [i for i, d in enumerate(names) if anchor.get(d) is not None]
    if told:
        style = dict(marker="D", ls="", ms=4, mfc="white", mec="black")
        ax.plot([100 * anchor[names[i]] for i in told], np.array(told) - 0.19, **style, clip_on=True)
        handles.append(Line2D([], [], **style, label="reference"))
    return handles


def effects(results: Results, width: float) -> Figure:
    """Heat map: change in BPB of each task when a part of the mixture is replaced by a domain."""
    domains, effect_NM = effects_NM(results.fit, results.natural)
    unseen = np.isin(domains, results.fit.get("unseen") or [])
    change_NM = np.ma.array(effect_NM, mask=np.isnan(effect_NM) | unseen[None, :])
    change_NM = np.ma.concatenate([change_NM.mean(axis=0, keepdims=True), change_NM])
    names = ["mean of all tasks", *(t for t, r in results.fit["tasks"].items() if r.get("effects"))]
    kept = effect_rows(change_NM.filled(0.0))
    change_NM, names = change_NM[kept], [names[i] for i in kept]
    rows, columns = change_NM.shape
    numbers = columns <= 12 and rows <= 30
    cell = (0.27, 0.33) if numbers else (0.18, 0.2)
    height = 2.3 + cell[0] * rows
    # Cells keep a legible width: a narrow window scrolls the figure rather than squeeze it.
    fig = Figure(figsize=(max(width, (2.9 if width >= WIDE else 1.24) + cell[1] * columns), height))
    ax = fig.subplots()
    span = (float(np.percentile(np.abs(change_NM.compressed()), 98)) if change_NM.count() else 1.0) or 1.0
    image = ax.imshow(change_NM, cmap="RdBu_r", vmin=-span, vmax=span, aspect="auto")
    ax.set_facecolor("#dddddd")
    ax.axhline(0.5, color="black", lw=1)
    size = "small" if numbers else "x-small"
    ax.set_yticks(range(rows), labels(names, room(width)), fontsize=size)
    tops = [d + (" (unseen)" if u else "") for d, u in zip(labels(domains, 24), unseen)]
    ax.set_xticks(range(columns), tops, rotation=90, fontsize=size)
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    if numbers:
        _cell_numbers(ax, change_NM, span)
    bar = fig.colorbar(
        image, ax=ax, location="bottom", fraction=0.3 / height, pad=0.12 / height, aspect=40, extend="both"
    )
    bar.set_label("change in BPB (blue, negative: better)")
    bar.locator = MaxNLocator(6 if width >= WIDE else 4, symmetric=True)
    bar.update_ticks()
    return fig


def _cell_numbers(ax, change_NM: np.ma.MaskedArray, span: float) -> None:
    for i, j in np.ndindex(change_NM.shape):
        if not np.ma.getmaskarray(change_NM)[i, j]:
            value = change_NM.data[i, j]
            pale = "white" if abs(value) > 0.6 * span else "black"
            ax.text(j, i, _short(value), ha="center", va="center", fontsize="x-small", color=pale)


def effect_rows(change_NM: np.ndarray) -> list[int]:
    """Rows that are drawn: the mean, and the tasks that change most where there are too many."""
    if len(change_NM) <= ROWS + 1:
        return list(range(len(change_NM)))
    most = np.argsort(-np.abs(change_NM[1:]).max(axis=1), kind="stable")[:ROWS]
    return [0, *(1 + np.sort(most)).tolist()]


def _short(value: float) -> str:
    """−0.0123 as −.012, and what is less than half a thousandth as 0."""
    if abs(value) < 5e-4:
        return "0"
    text = f"{value:+.3f}" if abs(value) < 0.9995 else f"{value:+.1f}"
    return text.replace("-", "−").replace("0.", ".", 1) if abs(value) < 0.9995 else text.replace("-", "−")
