"""Seconds per fit of the laws, by number of runs, domains, tasks and resamples; for :mod:`benchmarks.laws`."""

import gc
import statistics
import time
from collections.abc import Callable

import jax
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from olmix_jax import laws
from olmix_jax.utils.progress import Progress

FAMILIES = ("floored_gp", "log_linear")
# One of the four letters varies at a time. K, M and N are sizes of a fit; R is the number of refits that start from a
# full fit (``near``).
FIXED = {"K": 128, "M": 16, "N": 32, "R": 1}
GRID = {"K": (32, 64, 128, 256, 512), "M": (8, 16, 32, 64), "N": (16, 32, 64, 128, 256), "R": (8, 32, 128, 512)}
QUICK = {"K": (16, 32), "M": (4, 8), "N": (4, 8), "R": (2, 8)}, {"K": 16, "M": 4, "N": 4, "R": 1}
LETTERS = {"K": "runs", "M": "domains", "N": "tasks", "R": "bootstrap resamples"}
COLOURS = {"floored_gp": "#1f6fb4", "log_linear": "#d97a1c"}
# Each timing of the plot is the median of this many calls, after one that compiles.
REPEATS = 3


def synthetic(runs: int, domains: int, tasks: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ratios_KM and bpb_KN: Dirichlet mixtures of concentration 1/2, log-linear tasks, noise of 0.01 BPB."""
    draw = np.random.default_rng([runs, domains, tasks])
    ratios_KM = draw.dirichlet(np.full(domains, 0.5), size=runs)
    coef_NM = 0.5 * draw.normal(size=(tasks, domains))
    return ratios_KM, 0.5 + np.exp(ratios_KM @ coef_NM.T) + 0.01 * draw.normal(size=(runs, tasks))


def bootstrap(runs: int, resamples: int) -> np.ndarray:
    """Return weight_RK: how often each run is drawn in each resample."""
    return np.random.default_rng(0).multinomial(runs, np.full(runs, 1 / runs), size=resamples).astype(np.float64)


def seconds(function: Callable, *args, **kwargs):
    """Return the seconds of a call, and its result. Laws return NumPy arrays, so no computation is still pending."""
    gc.collect()
    begun = time.perf_counter()
    result = function(*args, **kwargs)
    return time.perf_counter() - begun, result


def headlines(swarm, resamples: int, large: tuple[int, int, int]) -> dict[str, dict[str, float]]:
    """Return for each family the seconds of four calls, and the loss of its fit.

    ``first`` and ``again`` fit the swarm with and without compilation. ``bootstrap`` refits it and ``large`` fits a
    synthetic swarm, both with compilation. ``loss`` is the sum over tasks.

    Args:
      swarm: the SwarmTable.
      resamples: number of bootstrap refits.
      large: runs, domains and tasks of the synthetic swarm.
    """
    results: dict[str, dict[str, float]] = {}
    with Progress("speed", 4 * len(FAMILIES), "timings") as progress:
        for family in FAMILIES:
            jax.clear_caches()
            law, x = laws.LAWS[family], results.setdefault(family, {})
            x["first"], _ = seconds(law.fit, swarm.ratios_KM, swarm.bpb_KN)
            progress.advance(1, family)
            x["again"], fitted = seconds(law.fit, swarm.ratios_KM, swarm.bpb_KN)
            progress.advance(1, family)
            weight_RK = bootstrap(len(swarm.runs), resamples)
            near = {"near": fitted.params}
            x["bootstrap"], _ = seconds(law.fit_weighted, swarm.ratios_KM, swarm.bpb_KN, weight_RK, **near)
            progress.advance(1, family)
            x["large"], _ = seconds(law.fit, *synthetic(*large))
            progress.advance(1, family)
            x["loss"] = float(fitted.loss_N.sum())
    return results


def sweep(grid: dict[str, tuple[int, ...]], fixed: dict[str, int]) -> dict[str, dict[str, list[float]]]:
    """Return {family: {letter: seconds at each size of ``grid``}}: medians of REPEATS calls after one that compiles."""
    results: dict[str, dict[str, list[float]]] = {}
    with Progress("scaling", len(FAMILIES) * sum(map(len, grid.values())), "points") as progress:
        for family in FAMILIES:
            for letter, sizes in grid.items():
                for size in sizes:
                    results.setdefault(family, {}).setdefault(letter, []).append(_point(family, letter, size, fixed))
                    progress.advance(1, f"{family} {letter} = {size}")
    return results


def _point(family: str, letter: str, size: int, fixed: dict[str, int]) -> float:
    at = fixed | {letter: size}
    law, (ratios_KM, bpb_KN) = laws.LAWS[family], synthetic(at["K"], at["M"], at["N"])
    function, args, near = law.fit, (ratios_KM, bpb_KN), {}
    if letter == "R":
        near = {"near": law.fit(ratios_KM, bpb_KN).params}
        function, args = law.fit_weighted, (ratios_KM, bpb_KN, bootstrap(at["K"], size))
    return statistics.median([seconds(function, *args, **near)[0] for _ in range(1 + REPEATS)][1:])


def slope(sizes, seconds_of) -> float:
    """Return e of seconds ∝ sizeᵉ: the slope of a line through the logarithms of the three largest sizes."""
    return float(np.polyfit(np.log(sizes[-3:]), np.log(seconds_of[-3:]), 1)[0])


def plot(swept, grid, fixed, path) -> None:
    """Plot seconds against size, one panel per letter, on logarithmic axes that share the scale of seconds."""
    style = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}
    with mpl.rc_context(style):
        fig = Figure(figsize=(9.0, 2.7), layout="constrained")
        axes = fig.subplots(1, len(grid), sharey=True)
        for ax, (letter, sizes) in zip(axes, grid.items()):
            for family, seconds_of in swept.items():
                text = f"{family} ∝ {letter}^{slope(sizes, seconds_of[letter]):.2f}"
                ax.loglog(sizes, seconds_of[letter], "o-", ms=3.5, lw=1.2, color=COLOURS[family], label=text)
            ax.set_xticks(sizes, [str(s) for s in sizes])
            ax.xaxis.set_minor_formatter(NullFormatter())
            ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.grid(color="#e4e4e4", lw=0.6)
            ax.set_xlabel(f"{letter}, {LETTERS[letter]}")
            ax.set_title(_others(letter, fixed), fontsize=7, color="#666666")
            ax.legend(fontsize=7, loc="upper left", handlelength=1.2, borderaxespad=0.2)
        low, high = axes[0].get_ylim()
        axes[0].set_ylim(low, 4 * high)
        axes[0].set_ylabel("seconds per call, without compilation")
        fig.savefig(path, dpi=120, metadata={"Software": None})


def _others(letter: str, fixed: dict[str, int]) -> str:
    kind = "refits" if letter == "R" else "one fit"
    return f"{kind}, " + ", ".join(f"{k} = {v}" for k, v in fixed.items() if k not in (letter, "R"))
