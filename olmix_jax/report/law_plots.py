"""Figures of how far a law can be trusted: predictions of unseen runs, their intervals, the worth of more runs.

Each takes a :class:`Results` and a width in inches and returns a figure.
"""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from olmix_jax.report.results import Results
from olmix_jax.report.style import BAD, NATURAL, PROPOSED, UNIFORM, WIDE, labels, number

# Tasks with a panel beside the average: twelve panels fill three rows.
PANELS = 11
# Coverage this far from the intervals' level is worth a warning.
SLACK = 0.05


def panels(results: Results) -> list[str]:
    """Tasks that get a panel, worst first: all, or of many the worst, the median and the best by held-out Spearman."""
    drawable = results.fit["predicted_cv"].keys() & results.fit["measured"].keys()
    quality = {t: r.get("spearman_cv") for t, r in results.fit["tasks"].items() if t in drawable}
    ordered = sorted(quality, key=lambda t: -2.0 if quality[t] is None else quality[t])
    if len(ordered) <= PANELS:
        return ordered
    middle = len(ordered) // 2
    return ordered[:4] + ordered[middle - 1 : middle + 2] + ordered[-4:]


def level(fit: dict) -> float:
    """The nominal level of a fit's intervals."""
    return fit.get("level") or 0.9


def predicted(results: Results, width: float) -> Figure:
    """Out-of-fold prediction and its interval against measurement, a panel per task, the average first."""
    fit, chosen = results.fit, panels(results)
    columns = 4 if width >= WIDE else 2
    rows = -(-(len(chosen) + 1) // columns)
    fig = Figure(figsize=(width, 0.35 + rows * (width / columns * 1.14)))
    axes = fig.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(chosen) + 1 :]:
        ax.set_axis_off()
    arrays = average(fit)
    _panel(
        axes[0], *arrays, ["average of tasks", *_score_lines(arrays, fit.get("spearman_of_mean_cv"))], "black", width
    )
    titles = labels(chosen, 26 if width >= WIDE else 22)
    for ax, task, title in zip(axes[1:], chosen, titles):
        arrays = of_task(fit, task)
        scores = _score_lines(arrays, fit["tasks"][task].get("spearman_cv"))
        _panel(ax, *arrays, [title, *scores], PROPOSED, width)
    fig.supxlabel("measured, BPB", fontsize="medium")
    fig.supylabel("predicted for held-out runs, BPB", fontsize="medium")
    return fig


def of_task(fit: dict, task: str) -> tuple[np.ndarray, ...]:
    """(measured_K, predicted_K, low_K, high_K) of a task; without intervals the last two are NaN."""
    measured_K, predicted_K = _floats(fit["measured"][task]), _floats(fit["predicted_cv"][task])
    ends = ((fit.get(k) or {}).get(task) for k in ("low_cv", "high_cv"))
    return measured_K, predicted_K, *(np.full(len(measured_K), np.nan) if e is None else _floats(e) for e in ends)


def average(fit: dict) -> tuple[np.ndarray, ...]:
    """:func:`of_task` of the mean over tasks; its intervals are its own, for errors of tasks partly cancel."""
    own = fit.get("average")
    if own:
        return tuple(_floats(own[key]) for key in ("measured", "predicted_cv", "low_cv", "high_cv"))
    arrays = [of_task(fit, t)[:2] for t in fit["predicted_cv"] if t in fit["measured"]]
    measured_K, predicted_K = (np.mean(part, axis=0) for part in zip(*arrays))
    return measured_K, predicted_K, *[np.full(len(measured_K), np.nan)] * 2


def inside(measured_K, low_K, high_K) -> float | None:
    """The share of measurements within their intervals; None without intervals."""
    known_K = np.isfinite(low_K) & np.isfinite(high_K)
    held_K = (low_K <= measured_K) & (measured_K <= high_K)
    return float(held_K[known_K].mean()) if known_K.any() else None


def _score_lines(arrays, spearman: float | None) -> list[str]:
    measured_K, predicted_K, low_K, high_K = arrays
    squared_K, spread_K = (measured_K - predicted_K) ** 2, (measured_K - measured_K.mean()) ** 2
    r2 = f", R² {number(1 - squared_K.sum() / spread_K.sum(), '.2f')}" if spread_K.any() else ""
    share = inside(measured_K, low_K, high_K)
    held = "" if share is None else f", {100 * share:.0f} % inside"
    return [f"Spearman {number(spearman, '.2f')}{r2}", f"RMSE {np.sqrt(squared_K.mean()):.2g}{held}"]


def _panel(ax, measured_K, predicted_K, low_K, high_K, title, colour, width) -> None:
    everything = np.concatenate([measured_K, predicted_K, low_K, high_K])
    low, high = np.nanmin(everything), np.nanmax(everything)
    pad = 0.05 * (high - low) or 0.01 * abs(high) or 0.01
    ax.plot([low - pad, high + pad], [low - pad, high + pad], color=NATURAL, lw=0.8)
    missed_K = (measured_K < low_K) | (measured_K > high_K)
    for chosen_K, tone in ((~missed_K, colour), (missed_K, BAD)):
        bars = NATURAL if tone == "black" else tone
        ax.vlines(measured_K[chosen_K], low_K[chosen_K], high_K[chosen_K], color=bars, lw=0.7, alpha=0.35)
        ax.scatter(measured_K[chosen_K], predicted_K[chosen_K], s=9, color=tone, alpha=0.75, linewidths=0)
    ax.set(xlim=(low - pad, high + pad), ylim=(low - pad, high + pad), aspect="equal")
    ax.xaxis.set_major_locator(MaxNLocator(3))
    ax.yaxis.set_major_locator(MaxNLocator(3))
    ax.tick_params(labelsize="x-small")
    ax.set_title("\n".join(title), fontsize="small" if width >= WIDE else "x-small")


def learning(results: Results, width: float) -> Figure:
    """Held-out Spearman, and RMSE where there is one, of laws fitted on ever more runs, and of ten more to come."""
    fit, curve = results.fit, results.fit["learning_curve"]
    both = bool(curve.get("rmse_mean"))
    wide = width >= WIDE
    fig = Figure(figsize=(width, 3.6 if wide else 2.7 * (1 + both) + 0.5))
    grid = (1, 1 + both) if wide else (1 + both, 1)
    axes = fig.subplots(*grid, squeeze=False).ravel()
    _learning_panel(axes[0], curve, "spearman_mean", fit)
    axes[0].set_ylabel("held-out Spearman")
    if both:
        _learning_panel(axes[1], curve, "rmse_mean", fit)
        axes[1].set_ylabel("held-out RMSE, mean over tasks, BPB")
    for ax in axes:
        ax.set_xlabel("runs that the law is fitted on")
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.grid(axis="y")
    handles = {text: line for ax in axes for line, text in zip(*ax.get_legend_handles_labels())}
    fig.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=3 if wide else 1, fontsize="small")
    return fig


def _learning_panel(ax, curve: dict, key: str, fit: dict) -> None:
    runs, mean = np.asarray(curve["runs"]), _floats(curve[key])
    error = curve.get(f"{key}_error")
    if error:
        band = _floats(error)
        ax.fill_between(runs, mean - band, mean + band, color=PROPOSED, alpha=0.18, lw=0, label="± 1 standard error")
    ax.plot(runs, mean, color=PROPOSED, marker="o", ms=4, label="mean over tasks")
    of_mean = curve.get("spearman_of_mean") if key == "spearman_mean" else None
    if of_mean:
        ax.plot(runs, _floats(of_mean), color="black", marker="s", ms=3.5, lw=1, label="of the task average")
    for at, value, marker, text in _single_fits(fit, key):
        ax.plot(at, value, color=UNIFORM, marker=marker, ms=6, ls="", label=text)
    ahead = curve.get("next") or {}
    if ahead.get(key) is not None:
        ax.plot([runs[-1], ahead["runs"]], [mean[-1], ahead[key]], color=PROPOSED, ls=(0, (4, 3)), lw=1, zorder=1)
        hollow = dict(marker="o", ms=7, mfc="white", mec=PROPOSED, mew=1.4, ls="")
        ax.plot(ahead["runs"], ahead[key], **hollow, label=f"expected of {ahead['runs']} runs")


def _single_fits(fit: dict, key: str) -> list[tuple[float, float, str, str]]:
    """Where cross-validation and quick leave-one-out lie on the curve: at K·(1 − 1/folds) and at K − 1 runs."""
    total, folds = len(fit.get("runs") or ()), fit.get("folds")
    name = key.removesuffix("_mean")
    found = []
    if total and folds and fit.get(f"{name}_cv_mean") is not None:
        found.append((total * (1 - 1 / folds), fit[f"{name}_cv_mean"], "D", f"cross-validation, {folds} folds"))
    if total and fit.get(f"{name}_loo_mean") is not None:
        found.append((total - 1, fit[f"{name}_loo_mean"], "^", "quick leave-one-out"))
    return found


def coverage(results: Results, width: float) -> Figure:
    """Nominal against actual coverage of the intervals, and the coverage of each task's as a strip of points."""
    fit, wide = results.fit, width >= WIDE
    curve, shares = fit.get("coverage_curve") or {}, list(task_coverage(fit).values())
    drawn = [name for name, there in (("curve", curve.get("covered")), ("strip", shares)) if there]
    fig = Figure(figsize=(width if len(drawn) > 1 or not wide else width / 2, 3.5 if wide else 2.9 * len(drawn)))
    grid = (1, len(drawn)) if wide else (len(drawn), 1)
    for ax, name in zip(fig.subplots(*grid, squeeze=False).ravel(), drawn):
        if name == "curve":
            _coverage_curve(ax, curve, level(fit))
        else:
            _coverage_strip(ax, shares, level(fit))
    return fig


def task_coverage(fit: dict) -> dict[str, float]:
    """Held-out coverage of each task's intervals, lowest first."""
    found = {t: r["coverage_cv"] for t, r in fit["tasks"].items() if r.get("coverage_cv") is not None}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _coverage_curve(ax, curve: dict, at: float) -> None:
    nominal, covered = 100 * _floats(curve["nominal"]), 100 * _floats(curve["covered"])
    least = min(np.nanmin(nominal), np.nanmin(covered)) - 4
    ax.plot([least, 100], [least, 100], color=NATURAL, lw=0.9, label="ideal")
    box = Rectangle((100 * at - 1, 100 * (at - SLACK)), 2, 200 * SLACK, color=UNIFORM, alpha=0.3, lw=0)
    box.set_label(f"{100 * (at - SLACK):.0f} to {100 * (at + SLACK):.0f} % at {100 * at:.0f} %")
    ax.add_patch(box)
    ax.plot(nominal, covered, color=PROPOSED, marker="o", ms=4, label="this law")
    ax.set(xlim=(least, 101), ylim=(least, 101), aspect="equal")
    ax.set_xlabel("nominal level of the interval, %")
    ax.set_ylabel("held-out measurements inside, %")
    ax.legend(loc="upper left", fontsize="small")


def _coverage_strip(ax, shares: list[float], at: float) -> None:
    """A dot per task, those of equal coverage (to a point of percent) stacked."""
    percent = 100 * np.asarray(shares)
    seen, heights = {}, []
    for value in np.round(percent):
        heights.append(seen.setdefault(value, 0))
        seen[value] += 1
    ax.axvspan(100 * (at - SLACK), 100 * (at + SLACK), color=UNIFORM, alpha=0.2, lw=0)
    ax.axvline(100 * at, color=NATURAL, lw=0.9)
    ax.axvline(percent.mean(), color=PROPOSED, lw=1.2, ls=(0, (4, 3)))
    most = max(seen.values())
    ax.scatter(percent, np.asarray(heights) + 0.5, s=float(np.clip(900 / most**2, 6, 30)), color=PROPOSED, linewidths=0)
    ax.set_ylim(0, max(8, 1.25 * most))
    ax.set_xlim(min(percent.min() - 3, 100 * (at - 3 * SLACK)), 101)
    ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.set_ylabel("tasks")
    ax.set_xlabel(f"held-out measurements inside the {100 * at:.0f} % interval, %")
    lines = [Line2D([], [], color=PROPOSED, lw=1.2, ls=(0, (4, 3)), label=f"mean {percent.mean():.0f} %")]
    lines += [Line2D([], [], color=PROPOSED, marker="o", ms=4, ls="", label="a task")]
    ax.legend(handles=lines, loc="upper left", fontsize="small")


def _floats(values) -> np.ndarray:
    """Numbers as an array, NaN for what is not known."""
    return np.asarray([np.nan if v is None else v for v in values], np.float64)
