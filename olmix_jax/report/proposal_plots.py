"""Figures of a proposal: tasks, prices, and how it moves with its settings.

Each takes a :class:`Results` and a width in inches and returns a figure.
"""

import itertools

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from olmix_jax.report.results import Results
from olmix_jax.report.style import BAD, BINDING, NATURAL, PROPOSED, ROWS, UNIFORM, WIDE, label, labels, number, room

# Lines with a name of their own, bars in a ranking, and families with panels.
NAMED, RANKED, FAMILIES = 7, 30, 4
TONES = (PROPOSED, BINDING, UNIFORM, BAD, "#7b5ea7", "#2a9d9d", "#a0722a")
DASHED = {"color": "black", "lw": 1, "ls": (0, (4, 3))}


def differences(proposal: dict) -> dict[str, tuple[float, float, float]]:
    """Predicted minus predicted under natural, and the ends of its interval (NaN where unknown), best first."""
    low, high = (proposal.get(k) or {} for k in ("predicted_low", "predicted_high"))
    found = {}
    for task, value in proposal["predicted"].items():
        base = proposal["predicted_natural"][task]
        ends = [np.nan if end.get(task) is None else end[task] - base for end in (low, high)]
        found[task] = (value - base, *ends)
    return dict(sorted(found.items(), key=lambda item: item[1][0]))


def gains(results: Results, width: float) -> Figure:
    """Predicted change of each task against natural, with its interval, and the guard."""
    rows, guard = differences(results.proposal), results.proposal.get("guard") or {}
    most = sorted(rows, key=lambda t: -abs(rows[t][0]))[:ROWS]
    names = [t for t in rows if t in set(most)]
    fig = Figure(figsize=(width, 1.2 + 0.2 * len(names)))
    ax = fig.subplots()
    y, tones = np.arange(len(names)), [BAD if rows[n][0] > 0 else PROPOSED for n in names]
    value_N, low_N, high_N = np.array([rows[n] for n in names], np.float64).reshape(-1, 3).T
    ax.barh(y, value_N, 0.7, color=tones, alpha=0.75)
    ax.hlines(y, low_N, high_N, color="black", lw=1.1)
    ax.set_yticks(y, labels(names, room(width)), fontsize="small")
    for tick, name in zip(ax.get_yticklabels(), names):
        tick.set_color(BAD if rows[name][0] > 0 else "black")
        tick.set_fontweight("bold" if name in (guard.get("binding") or ()) else "normal")
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.axvline(0, color="black", lw=0.8)
    handles = [Line2D([], [], color=PROPOSED, lw=6, alpha=0.75, label="better")]
    handles += [Line2D([], [], color=BAD, lw=6, alpha=0.75, label="worse")]
    if np.isfinite(low_N).any():
        handles.append(Line2D([], [], color="black", lw=1.1, label="5–95 %"))
    if guard:
        ax.axvline(guard["slack"], **DASHED)
        handles.append(Line2D([], [], **DASHED, label=f"guard, +{guard['slack']:.3g} BPB"))
    ax.set_xlabel("predicted BPB, proposed minus natural")
    ax.xaxis.set_major_locator(MaxNLocator(6 if width >= WIDE else 4))
    ax.grid(axis="x")
    fig.legend(handles=handles, loc="outside upper center", ncols=4 if width >= WIDE else 2, fontsize="small")
    return fig


def ranked(prices: dict | None) -> dict[str, float]:
    """Prices that are not zero, largest first."""
    known = {d: v for d, v in (prices or {}).items() if v}
    return dict(sorted(known.items(), key=lambda item: -abs(item[1])))


def prices(results: Results, width: float) -> Figure:
    """What more unique tokens, and more repeats, of each domain would take off the minimum."""
    kinds = [("shadow_prices", "BPB per billion more unique tokens"), ("repeat_prices", "BPB per extra allowed repeat")]
    kinds = [(found, unit) for key, unit in kinds if (found := ranked(results.proposal.get(key)))]
    wide = width >= WIDE
    counts = [min(len(found), RANKED) for found, _ in kinds]
    height = 0.75 + 0.27 * (max(counts) if wide else sum(counts)) + (0 if wide else 0.6 * len(kinds))
    fig = Figure(figsize=(width if len(kinds) > 1 or not wide else 0.7 * width, height))
    if wide:
        axes = fig.subplots(1, len(kinds), squeeze=False).ravel()
    else:
        axes = fig.subplots(len(kinds), 1, squeeze=False, height_ratios=counts).ravel()
    for ax, (found, unit) in zip(axes, kinds):
        names = list(found)[:RANKED]
        values = np.array([found[n] for n in names])
        ax.barh(range(len(names)), values, 0.65, color=BINDING)
        for i, value in enumerate(values):
            ax.annotate(number(value, ".3g"), (max(value, 0), i), (3, 0), textcoords="offset points", va="center")
        ax.set_yticks(range(len(names)), labels(names, 22 if wide and len(kinds) > 1 else room(width)))
        ax.set_ylim(max(len(names), 3 if wide else 1) - 0.4, -0.6)
        ax.margins(x=0.18)
        ax.set_xlabel(unit)
        ax.xaxis.set_major_locator(MaxNLocator(4))
    return fig


def paths_of(proposal: dict) -> list[tuple]:
    """(key, values, weights_PM, predicted_P, used) along λ at the used k, then along k at the used λ.

    The used values are those of the grid nearest to the proposal's. A path of fewer than two points is left out.
    """
    path = proposal.get("path") or {}
    if not path:
        return []
    chosen, ends = path.get("chosen") or {}, []
    grids = {k: [np.nan if v is None else v for v in path[k]] for k in ("kl_weight", "max_repeats")}
    for key, grid in grids.items():
        used = chosen.get(key) if chosen.get(key) is not None else proposal.get(key)
        near = np.argmin(np.abs(np.asarray(grid) - (used if used is not None else np.nan))) if grid else 0
        ends.append((int(near), used))
    weights = [[[np.nan] * len(proposal["weights"]) if c is None else c for c in row] for row in path["weights"]]
    weights_LRM = np.asarray(weights, np.float64).reshape(*map(len, grids.values()), len(proposal["weights"]))
    bpb_LR = np.array([[np.nan if c is None else c for c in row] for row in path["predicted"]], np.float64)
    (row, used_kl), (column, used_repeats) = ends
    found = []
    if len(grids["kl_weight"]) > 1:
        parts = weights_LRM[:, column], bpb_LR[:, column]
        found.append(("kl_weight", np.asarray(grids["kl_weight"]), *parts, used_kl))
    if len(grids["max_repeats"]) > 1:
        found.append(("max_repeats", np.asarray(grids["max_repeats"]), weights_LRM[row], bpb_LR[row], used_repeats))
    return [part for part in found if np.isfinite(part[3]).any()]


AXES = {"kl_weight": "λ, BPB per nat", "max_repeats": "k, passes over a domain"}


def paths(results: Results, width: float) -> Figure:
    """Weights and mean predicted BPB along λ and along k, the used values marked."""
    proposal, parts = results.proposal, paths_of(results.proposal)
    wide = width >= WIDE
    top, bottom = (3.4, 1.9) if wide else (3.0, 1.7)
    if wide:
        fig = Figure(figsize=(width, top + bottom))
        axes = fig.subplots(2, len(parts), squeeze=False, height_ratios=[top, bottom], sharey="row").T
    else:
        fig = Figure(figsize=(width, (top + bottom) * len(parts)))
        axes = fig.subplots(2 * len(parts), 1, height_ratios=[top, bottom] * len(parts)).reshape(len(parts), 2)
    names = list(proposal["weights"])
    largest_M = np.max([np.nan_to_num(part[2]).max(axis=0) for part in parts], axis=0)
    tones = {int(j): TONES[i] for i, j in enumerate(np.argsort(-largest_M, kind="stable")[:NAMED])}
    for (above, below), (key, values, weights_PM, bpb_P, used) in zip(axes, parts):
        x, used = _on_log_axis((above, below), values, used)
        for j in sorted(range(len(names)), key=lambda j: j in tones):
            style = {"color": tones[j], "marker": "o", "ms": 3} if j in tones else {"color": "#c5c9cf", "lw": 0.7}
            above.plot(x, 100 * weights_PM[:, j], **style)
        shown = labels([names[j] for j in tones], 18)
        above.set_ylim(0, 108 * float(largest_M.max()))
        _end_labels(above, x, 100 * weights_PM, dict(zip(tones, shown)), tones)
        below.plot(x, bpb_P, color="black", marker="o", ms=3)
        below.ticklabel_format(axis="y", useOffset=False)
        if (proposal.get("path") or {}).get("predicted_natural") is not None:
            below.axhline(proposal["path"]["predicted_natural"], color=NATURAL, lw=1)
            at = {"transform": below.get_yaxis_transform(), "ha": "right", "va": "top", "color": "#5f646c"}
            below.text(0.99, proposal["path"]["predicted_natural"], "natural", fontsize="small", **at)
        for ax in (above, below):
            if used is not None:
                ax.axvline(used, **DASHED, zorder=0)
            ax.grid(axis="y")
        below.set_xlabel(f"{AXES[key]} (logarithmic); dashed: used")
        above.set_ylabel("weight, % of tokens" if wide is False or key == parts[0][0] else "")
        below.set_ylabel("mean predicted BPB" if wide is False or key == parts[0][0] else "")
    return fig


def _on_log_axis(axes, values, used: float | None):
    """Positions of ``values``, and of the used one, on a logarithmic axis; zero stands one step left of the least."""
    positive = values[values > 0]
    zero = positive.min() / 3 if len(positive) else 1.0
    for ax in axes:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(FixedLocator([v if v > 0 else zero for v in values]))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xticks([v if v > 0 else zero for v in values], [f"{v:.3g}" for v in values])
        ax.tick_params(axis="x", labelsize="small", labelrotation=45 if len(values) > 6 else 0)
    return np.where(values > 0, values, zero), None if used is None else (used if used > 0 else zero)


def _end_labels(ax, x, percent_PM, shown: dict[int, str], tones: dict[int, str]) -> None:
    """Names at the right end of their lines, moved apart where they would overlap."""
    solved = np.flatnonzero(np.isfinite(percent_PM[:, 0]))
    last_M = percent_PM[solved[-1]]
    step = 0.065 * ax.get_ylim()[1]
    order = sorted(shown, key=lambda j: last_M[j])
    at = np.array([last_M[j] for j in order])
    for i in range(1, len(at)):
        at[i] = max(at[i], at[i - 1] + step)
    for i in range(len(at) - 1, -1, -1):
        at[i] = min(at[i], ax.get_ylim()[1] - step * (len(at) - 1 - i))
    for j, y in zip(order, at):
        where = {"transform": ax.get_yaxis_transform(), "va": "center", "fontsize": "x-small"}
        ax.text(1.02, y, shown[j], color=tones[j], **where)


def choice(results: Results, width: float) -> Figure:
    """Gain on held-out laws against λ, best and used marked."""
    found, wide = results.proposal["choice"], width >= WIDE
    values, gain = np.asarray(found["kl_weight"], np.float64), np.asarray(found["gain"], np.float64)
    errors = [np.nan if e is None else e for e in found.get("gain_error") or [None] * len(values)]
    used = results.proposal.get("kl_weight")
    fig = Figure(figsize=(0.75 * width if wide else width, 3.2))
    ax = fig.subplots()
    x, at = _on_log_axis((ax,), values, used)
    ax.errorbar(x, gain, yerr=errors, color=PROPOSED, marker="o", ms=4, capsize=3, label="gain ± standard error")
    best = np.flatnonzero(values == found["best"])
    ring = dict(ls="", marker="o", ms=11, mfc="none", mec=BINDING, mew=2)
    ax.plot(x[best], gain[best], **ring, label=f"chosen by this: {found['best']:.3g}")
    if at is not None:
        ax.axvline(at, **DASHED, label=f"used: {used:.3g}")
    ax.axhline(0, color=NATURAL, lw=0.8)
    ax.set_xlabel(f"{AXES['kl_weight']} (logarithmic)")
    ax.set_ylabel("gain over natural, BPB")
    ax.grid(axis="y")
    fig.legend(loc="outside upper center", ncols=3 if wide else 1, fontsize="small")
    return fig


def front_families(pareto: dict) -> list[str]:
    """Families with panels: all, or of many those that move most along the front."""
    span = {f: np.ptp([p["predicted"][f] for p in pareto["points"]]) for f in pareto["families"]}
    most = set(sorted(span, key=lambda f: -span[f])[:FAMILIES])
    return [f for f in pareto["families"] if f in most]


def front(results: Results, width: float) -> Figure:
    """Predicted BPB of each pair of families: mixtures of the front, natural and proposed."""
    pareto = results.proposal["pareto"]
    pairs = list(itertools.combinations(front_families(pareto), 2))
    columns = min(3 if width >= WIDE else 1, len(pairs))
    rows = -(-len(pairs) // columns)
    fig = Figure(figsize=(width, 0.5 + rows * (2.9 if columns > 1 else 3.1)))
    axes = fig.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(pairs) :]:
        ax.set_axis_off()
    for ax, (a, b) in zip(axes, pairs):
        points = np.array([[p["predicted"][f] for f in (a, b)] for p in pareto["points"]], np.float64)
        ax.scatter(*points.T, s=20, color=UNIFORM, alpha=0.75, linewidths=0, label="on the front")
        for key, tone, marker in (("natural", NATURAL, "D"), ("proposed", PROPOSED, "s")):
            ax.scatter(pareto[key][a], pareto[key][b], s=46, color=tone, marker=marker, edgecolor="black", label=key)
        _zoom(ax, points, pareto, (a, b))
        ax.set_xlabel(f"{label(a, 24)}, BPB")
        ax.set_ylabel(f"{label(b, 24)}, BPB")
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.yaxis.set_major_locator(MaxNLocator(5))
        ax.grid()
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize="small")
    return fig


def _zoom(ax, points, pareto: dict, pair: tuple[str, str]) -> None:
    """Leaves natural out of the axes where it lies so far off that the front would shrink to a dot, and says where."""
    near = np.vstack([points, [pareto["proposed"][f] for f in pair]])
    low, high = near.min(axis=0), near.max(axis=0)
    span, natural = np.maximum(high - low, 1e-4), np.array([pareto["natural"][f] for f in pair])
    if (np.maximum(low - natural, natural - high) <= 2 * span).all():
        return
    ax.set_xlim(low[0] - 0.12 * span[0], high[0] + 0.12 * span[0])
    ax.set_ylim(low[1] - 0.12 * span[1], high[1] + 0.12 * span[1])
    ax.set_title(f"natural is outside, at {natural[0]:.3f}, {natural[1]:.3f}", fontsize="x-small", color="#5f646c")
