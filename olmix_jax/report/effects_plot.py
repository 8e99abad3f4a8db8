"""Heat map of the effect of each domain on each task, according to the law."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from olmix_jax.laws.fit_result import FitResult
from olmix_jax.report.style import MAX_DOMAINS, MAX_ROWS, WIDE, label_length, labels
from olmix_jax.swarm import task_means


def effects_NM(fit: FitResult, natural: dict[str, float] | None = None) -> tuple[list[str], np.ndarray]:
    """Return the domains, largest share first, and the effect of each on every task that has effects.

    An effect is a change in BPB; ``fit.effect`` describes the change of the mixture. Effects are NaN where a task has
    none for a domain. Domains are sorted by ``natural``, or by ``fit.base`` without it.
    """
    rows = [task.effects for task in fit.tasks.values() if task.effects]
    base = natural or fit.base
    domains = sorted(dict.fromkeys(d for row in rows for d in row), key=lambda d: -base.get(d, 0.0))
    values = [[row.get(d, np.nan) for d in domains] for row in rows]
    return domains, np.asarray(values, np.float64).reshape(len(rows), len(domains))


def effects(fit: FitResult, natural: dict[str, float] | None, task_weights: dict[str, float], width: float) -> Figure:
    """Draw the effects of domains (columns) on tasks (rows) as colours.

    The first row is the mean over tasks, with ``task_weights``; equal weights if that is empty.
    """
    domains, effect_NM = effects_NM(fit, natural)
    unseen_M = np.isin(domains, fit.unseen)
    change_NM = np.ma.array(effect_NM, mask=np.isnan(effect_NM) | unseen_M[None, :])
    columns = shown_columns(change_NM.filled(0.0))
    domains, unseen_M, change_NM = [domains[j] for j in columns], unseen_M[columns], change_NM[:, columns]
    names = [name for name, task in fit.tasks.items() if task.effects]
    weights_N = [task_weights.get(name, 0.0) for name in names] if task_weights else np.ones(len(names))
    change_NM = np.ma.concatenate([np.ma.average(change_NM, axis=0, weights=weights_N)[None], change_NM])
    names = [f"{task_means.word(task_weights)} of all tasks", *names]
    kept = shown_rows(change_NM.filled(0.0))
    change_NM, names = change_NM[kept], [names[i] for i in kept]
    rows, columns_shown = change_NM.shape
    numbers = columns_shown <= 12 and rows <= 30
    cell_height, cell_width = (0.27, 0.33) if numbers else (0.18, 0.2)
    height = 2.3 + cell_height * rows
    # Cells keep a legible width. A narrow window scrolls the figure instead of shrinking it.
    fig = Figure(figsize=(max(width, (2.9 if width >= WIDE else 1.24) + cell_width * columns_shown), height))
    ax = fig.subplots()
    span = (float(np.percentile(np.abs(change_NM.compressed()), 98)) if change_NM.count() else 1.0) or 1.0
    image = ax.imshow(change_NM, cmap="RdBu_r", vmin=-span, vmax=span, aspect="auto")
    ax.set_facecolor("#dddddd")
    ax.axhline(0.5, color="black", lw=1)
    size = "small" if numbers else "x-small"
    ax.set_yticks(range(rows), labels(names, label_length(width)), fontsize=size)
    titles = [d + (" (never sampled)" if unseen else "") for d, unseen in zip(labels(domains, 24), unseen_M)]
    ax.set_xticks(range(columns_shown), titles, rotation=90, fontsize=size)
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    if numbers:
        _write_numbers(ax, change_NM, span)
    pads = {"fraction": 0.3 / height, "pad": 0.12 / height}
    bar = fig.colorbar(image, ax=ax, location="bottom", aspect=40, extend="both", **pads)
    bar.set_label("change in BPB (blue, negative: better)")
    bar.locator = MaxNLocator(6 if width >= WIDE else 4, symmetric=True)
    bar.update_ticks()
    return fig


def shown_columns(change_NM: np.ndarray) -> list[int]:
    """Return the domains to draw: at most :data:`MAX_DOMAINS`, those with the largest mean absolute effect."""
    largest = np.argsort(-np.abs(change_NM).mean(axis=0), kind="stable")[:MAX_DOMAINS]
    return np.sort(largest).tolist()


def shown_rows(change_NM: np.ndarray) -> list[int]:
    """Return the rows to draw: the mean, and at most :data:`MAX_ROWS` tasks with the largest changes."""
    if len(change_NM) <= MAX_ROWS + 1:
        return list(range(len(change_NM)))
    largest = np.argsort(-np.abs(change_NM[1:]).max(axis=1), kind="stable")[:MAX_ROWS]
    return [0, *(1 + np.sort(largest)).tolist()]


def _write_numbers(ax: Axes, change_NM: np.ma.MaskedArray, span: float) -> None:
    mask_NM = np.ma.getmaskarray(change_NM)
    for i, j in np.ndindex(change_NM.shape):
        if not mask_NM[i, j]:
            value = float(change_NM.data[i, j])
            colour = "white" if abs(value) > 0.6 * span else "black"
            ax.text(j, i, short_number(value), ha="center", va="center", fontsize="x-small", color=colour)


def short_number(value: float) -> str:
    """Return −0.0123 as "−.012", and values that round to 0.000 as "0"."""
    if abs(value) < 5e-4:
        return "0"
    if abs(value) >= 0.9995:
        return f"{value:+.1f}".replace("-", "−")
    return f"{value:+.3f}".replace("-", "−").replace("0.", ".", 1)
