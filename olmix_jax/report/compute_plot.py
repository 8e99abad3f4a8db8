"""Figure of equivalent compute: BPB of the validation models against tokens."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from olmix_jax.proxy.equivalent_compute import EquivalentCompute
from olmix_jax.proxy.validation_result import Validation
from olmix_jax.report.formatting import quantity
from olmix_jax.report.style import BROWN, DASHES, MIXTURE_COLOURS, NATURAL, PROPOSED, PURPLE, TEAL, WIDE, label
from olmix_jax.swarm import task_means

# The figure starts at this share of the tokens or, if natural's BPB is reached earlier, somewhat before that.
FIRST_SHARE, BEFORE = 0.25, 0.7


def bpb_curves(scores: Validation, width: float) -> Figure:
    """Draw mean BPB against tokens, a line per mixture with its standard error, and natural's final BPB."""
    fig = Figure(figsize=(width, 3.8 if width >= WIDE else 3.4))
    ax = fig.subplots()
    compute, tokens_P = scores.equivalent_compute, np.asarray(scores.scored_tokens, np.float64)
    shown_P = tokens_P >= first_tokens(compute, scores.tokens) if compute is not None else tokens_P > 0
    spare = iter([PURPLE, BROWN, TEAL] * len(scores.mixtures))
    ends = []
    for name, score in scores.mixtures.items():
        curves_SP, colour = np.asarray(score.curves), MIXTURE_COLOURS.get(name) or next(spare)
        mean_P = curves_SP.mean(axis=0)
        ax.plot(tokens_P, mean_P, color=colour, marker="o", ms=3.5, lw=1.3, label=label(name, 16))
        if len(curves_SP) > 1:
            error_P = curves_SP.std(axis=0, ddof=1) / len(curves_SP) ** 0.5
            ax.fill_between(tokens_P, mean_P - error_P, mean_P + error_P, color=colour, alpha=0.25, lw=0)
        ends += mean_P[shown_P].tolist()
    ax.axhline(scores.mixtures["natural"].bpb_mean, color=NATURAL, lw=1, ls=DASHES, label="natural’s final BPB")
    if compute is not None:
        _draw_crossing(ax, compute, scores.mixtures["natural"].bpb_mean)
    margin = 0.05 * (max(ends) - min(ends)) + 1e-3
    ax.set_ylim(min(ends) - margin, max(ends) + margin)
    ax.set_xscale("log")
    ax.set_xlim(tokens_P[shown_P][0] / 1.02, tokens_P[-1] * 1.02)
    # Labels of every point would overlap in a narrow figure.
    ax.set_xticks(tokens_P[shown_P][::-1][:: 1 if width >= WIDE else 2])
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: quantity(x)))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.tick_params(axis="x", which="minor", bottom=False)
    ax.set_xlabel("tokens seen by each model (logarithmic)")
    ax.set_ylabel(f"{task_means.word(scores.task_weights)} BPB on the tasks")
    ax.grid(axis="y")
    ax.legend(loc="upper right", fontsize="small")
    return fig


def first_tokens(compute: EquivalentCompute, tokens: int) -> float:
    """Return the number of tokens that the figure starts at."""
    ratios = [ratio for ratio in (compute.ratio, compute.high) if ratio is not None]
    return tokens * min([FIRST_SHARE, *(BEFORE / ratio for ratio in ratios)])


def _draw_crossing(ax: Axes, compute: EquivalentCompute, bpb: float) -> None:
    """Mark where the proposal has natural's final BPB, with the interval; an end that is not reached is the run's."""
    if compute.ratio is not None:
        ax.plot(compute.tokens / compute.ratio, bpb, color=PROPOSED, marker="D", ms=4.5, mfc="white", zorder=4)
    if compute.high is not None:
        ends = [compute.tokens / ratio for ratio in (compute.high, compute.low or 1.0)]
        ax.plot(ends, [bpb, bpb], color=PROPOSED, lw=5, alpha=0.4, solid_capstyle="butt", zorder=3)
