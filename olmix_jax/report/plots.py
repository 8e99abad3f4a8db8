"""Figures of the mixture and of the law. Each takes a :class:`Results` and a width in inches and returns a figure."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from olmix_jax.report.read import Results, cap_of, effects_NM
from olmix_jax.report.style import BINDING, NATURAL, PROPOSED, ROWS, UNIFORM, WIDE, labels, room

# Tasks that all get a panel; of more, eleven do.
PANELS = 15


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
    colours = [BINDING if d in binding else PROPOSED for d in names]
    ax.barh(y - 0.19, natural_M, 0.36, color=NATURAL)
    ax.barh(y + 0.19, weights_M, 0.36, color=colours)
    ax.axvline(100 / len(names), color=UNIFORM, ls=(0, (4, 3)), lw=1)
    ax.set_xlim(0, 1.15 * max(natural_M.max(), weights_M.max(), 100 / len(names)))
    shown = (caps_M < 100) & (caps_M <= ax.get_xlim()[1])
    ax.vlines(caps_M[shown], y[shown] - 0.03, y[shown] + 0.42, color="black", lw=1.6)
    # Numbers stand in a column of their own: beside the bars they would run into caps.
    for i, name in enumerate(names):
        text = f"{weights_M[i]:.1f} %" + (f", {results.epochs[name]:.2g}×" if name in results.epochs else "")
        weight = "bold" if name in binding else "normal"
        at = dict(transform=ax.get_yaxis_transform(), va="center", fontsize="small", fontweight=weight)
        ax.text(1.01, y[i] + 0.19, text + (" (cap)" if name in binding else ""), **at)
    ax.set_yticks(y, labels(names, room(width)))
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlabel("weight in the mixture, % of tokens")
    ax.grid(axis="x")
    handles = [
        Patch(color=NATURAL, label="natural"),
        Patch(color=PROPOSED, label="proposed"),
        Patch(color=BINDING, label="proposed, at its cap"),
        Line2D([], [], color="black", marker="|", ls="", ms=9, mew=1.6, label="repetition cap"),
        Line2D([], [], color=UNIFORM, ls=(0, (4, 3)), lw=1, label="uniform"),
    ]
    fig.legend(handles=handles, loc="outside upper center", ncols=5 if width >= WIDE else 2, fontsize="small")
    return fig


def panels(results: Results) -> list[str]:
    """Tasks that get a panel beside the average: all, or the 6 worst and the 5 best held out, worst first."""
    quality = {t: r["spearman_cv"] for t, r in results.fit["tasks"].items() if t in results.fit["predicted_cv"]}
    ordered = sorted(quality, key=lambda t: -2.0 if quality[t] is None else quality[t])
    return ordered if len(ordered) <= PANELS else ordered[:6] + ordered[-5:]


def predicted(results: Results, width: float) -> Figure:
    """Out-of-fold prediction against measurement, a panel per task, the average first."""
    fit, chosen = results.fit, panels(results)
    columns = 4 if width >= WIDE else 2
    rows = -(-(len(chosen) + 1) // columns)
    fig = Figure(figsize=(width, 0.35 + rows * (width / columns * 1.08)))
    axes = fig.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(chosen) + 1 :]:
        ax.set_axis_off()
    both = [np.mean([fit[k][t] for t in fit["predicted_cv"]], axis=0) for k in ("measured", "predicted_cv")]
    rmse = float(np.sqrt(np.mean((both[0] - both[1]) ** 2)))
    _panel(axes[0], *both, "average of tasks", fit.get("spearman_of_mean_cv"), rmse, "black", width)
    titles = labels(chosen, 26 if width >= WIDE else 22)
    for ax, task, title in zip(axes[1:], chosen, titles):
        row = fit["tasks"][task]
        pair = np.asarray(fit["measured"][task]), np.asarray(fit["predicted_cv"][task])
        _panel(ax, *pair, title, row["spearman_cv"], row.get("rmse_cv"), PROPOSED, width)
    fig.supxlabel("measured, BPB", fontsize="medium")
    fig.supylabel("predicted for held-out runs, BPB", fontsize="medium")
    return fig


def _panel(ax, measured_K, predicted_K, name, spearman, rmse, colour, width) -> None:
    low, high = min(measured_K.min(), predicted_K.min()), max(measured_K.max(), predicted_K.max())
    pad = 0.06 * (high - low) or 0.01 * abs(high) or 0.01
    ax.plot([low - pad, high + pad], [low - pad, high + pad], color=NATURAL, lw=0.8)
    ax.scatter(measured_K, predicted_K, s=11, color=colour, alpha=0.65, linewidths=0)
    ax.set(xlim=(low - pad, high + pad), ylim=(low - pad, high + pad), aspect="equal")
    ax.xaxis.set_major_locator(MaxNLocator(3))
    ax.yaxis.set_major_locator(MaxNLocator(3))
    ax.tick_params(labelsize="x-small")
    rank = "–" if spearman is None else f"{spearman:.2f}"
    error = "–" if rmse is None else f"{rmse:.2g}"
    title = f"{name}\nSpearman {rank}, RMSE {error}"
    ax.set_title(title, fontsize="small" if width >= WIDE else "x-small")


def effects(results: Results, width: float) -> Figure:
    """Heat map: BPB of each task when a tenth of the weight moves to a domain."""
    natural = dict(sorted(results.natural.items(), key=lambda item: -item[1]))
    names = ["mean of all tasks", *results.fit["tasks"]]
    effect_NM = effects_NM(results.fit, natural)
    change_NM = 1000 * np.concatenate([effect_NM.mean(axis=0, keepdims=True), effect_NM])
    kept = effect_rows(change_NM)
    change_NM, names = change_NM[kept], [names[i] for i in kept]
    unseen = np.isin(list(natural), results.fit.get("unseen") or [])
    change_NM = np.ma.array(change_NM, mask=np.broadcast_to(unseen[None, :], change_NM.shape))
    rows, columns = change_NM.shape
    numbers = columns <= 12 and rows <= 30
    cell = (0.27, 0.27) if numbers else (0.18, 0.2)
    height = 2.3 + cell[0] * rows
    # Cells keep a legible width: a narrow window scrolls the figure rather than squeeze it.
    fig = Figure(figsize=(max(width, (2.9 if width >= WIDE else 1.24) + cell[1] * columns), height))
    ax = fig.subplots()
    span = float(np.percentile(np.abs(change_NM.compressed()), 98)) if change_NM.count() else 1.0
    image = ax.imshow(change_NM, cmap="RdBu_r", vmin=-(span or 1.0), vmax=span or 1.0, aspect="auto")
    ax.set_facecolor("#dddddd")
    ax.axhline(0.5, color="black", lw=1)
    size = "small" if numbers else "x-small"
    ax.set_yticks(range(rows), labels(names, room(width)), fontsize=size)
    tops = [d + (" (unseen)" if u else "") for d, u in zip(labels(list(natural), 24), unseen)]
    ax.set_xticks(range(columns), tops, rotation=90, fontsize=size)
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    for i, j in np.ndindex(change_NM.shape) if numbers else ():
        if not change_NM.mask[i, j]:
            value = change_NM.data[i, j]
            pale = "white" if abs(value) > 0.6 * span else "black"
            ax.text(j, i, _short(value), ha="center", va="center", fontsize="x-small", color=pale)
    bar = fig.colorbar(
        image, ax=ax, location="bottom", fraction=0.3 / height, pad=0.12 / height, aspect=40, extend="both"
    )
    bar.set_label("change in thousandths of a BPB")
    return fig


def effect_rows(change_NM: np.ndarray) -> list[int]:
    """Rows that are drawn: the mean, and the tasks that change most where there are too many."""
    if len(change_NM) <= ROWS + 1:
        return list(range(len(change_NM)))
    most = np.argsort(-np.abs(change_NM[1:]).max(axis=1), kind="stable")[:ROWS]
    return [0, *(1 + np.sort(most)).tolist()]


def _short(value: float) -> str:
    return (f"{value:+.0f}" if abs(value) >= 9.95 else f"{value:+.1f}").replace("-", "−")
