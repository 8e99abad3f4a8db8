"""Figure of the rounds: the gain that each proposal promised, and the gain that its runs measured."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from olmix_jax.report.style import BINDING, PROPOSED, WIDE, Style
from olmix_jax.swarm.rounds import Round

# Distance of the two marks of a round from its tick.
OFFSET = 0.1


def gains(rounds: Sequence[Round], width: float) -> Figure:
    """Draw promised gains with their 5–95 % intervals beside measured gains with one standard error."""
    fig = Figure(figsize=(0.6 * width if width >= WIDE else width, 2.8))
    ax, promised_R = fig.subplots(), np.array([each.promised for each in rounds])
    x_R = np.arange(1, len(rounds) + 1)
    ends = [[each.promised if end is None else end for end in (each.low, each.high)] for each in rounds]
    below_R, above_R = np.abs(np.array(ends).T - promised_R)
    style: Style = {"fmt": "o", "capsize": 3, "lw": 1.2}
    ax.errorbar(x_R - OFFSET, promised_R, (below_R, above_R), color=PROPOSED, label="promised, 5–95 %", **style)
    ax.set_xlim(0.5, len(rounds) + 0.5)
    ax.set_xticks(x_R[:: 1 + len(rounds) // 12])
    measured = [(x, each.measured, each.error or 0.0) for x, each in zip(x_R, rounds) if each.measured is not None]
    at_R, measured_R, error_R = np.array(measured, np.float64).reshape(-1, 3).T
    ax.errorbar(
        at_R + OFFSET,
        measured_R,
        error_R,
        color=BINDING,
        label="measured ± error",
        **style | {"fmt": "D"},
    )
    ax.axhline(0, color="black", lw=0.8)
    ax.set_xlabel("round")
    ax.set_ylabel("gain over natural, BPB")
    ax.grid(axis="y")
    fig.legend(loc="outside upper center", ncols=2, fontsize="small")
    return fig
