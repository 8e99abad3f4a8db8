"""Equivalent compute: how many times fewer tokens a mixture needs to be as good as natural (METHOD, Fig. 11).

With natural's BPB after all of its T tokens as the goal, and t* the tokens after which the proposed mixture first has
it, the ratio is T / t*. t* is read off the scores of the same runs at several steps. Their learning rate has not yet
decayed there, so a run that is planned to end at t* would be better than that point: the ratio is conservative.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import optimize, stats

from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import counted

# The interval reaches from the 5 % to the 95 % quantile.
QUANTILE = 0.95


@dataclasses.dataclass(frozen=True)
class EquivalentCompute:
    """Tokens of natural's run, divided by the tokens that the proposed mixture needs for the same BPB.

    Attributes:
      ratio: the estimate; None if natural's final BPB is not reached within the run.
      low, high: ends of the 5–95 % interval over seeds. None for an end at which it is not reached, and for a single
        seed.
      limit: the largest ratio that can be seen, tokens of the run divided by those at the first scored step. A value
        that equals it is a lower bound.
      tokens: tokens of the run.
      seeds: number of seeds; 1: there is no interval.
    """

    ratio: float | None
    low: float | None
    high: float | None
    limit: float
    tokens: int
    seeds: int


def equivalent_compute(
    tokens_P: Sequence[int], natural_S: Sequence[float], proposed_SP: np.ndarray
) -> EquivalentCompute:
    """Return the equivalent compute of the proposed mixture, with a 5–95 % interval over seeds.

    With d_sp = BPB of the proposal after t_p tokens − BPB of natural after all tokens, both of seed s, the estimate is
    where the mean of d over seeds falls to 0. The interval holds all t at which Student's t test of the paired
    differences does not reject that their mean is 0: its ends are where mean ± q·s/√S falls to 0, with q the 95 %
    quantile of t for S − 1 degrees of freedom, and s the standard deviation of d.

    Args:
      tokens_P: tokens at the scored steps; the last is the whole run.
      natural_S: natural's BPB after the whole run, by seed.
      proposed_SP: the proposal's BPB at the scored steps, by seed in the same order.

    Raises:
      UserError: a score is not finite.
    """
    excess_SP = np.asarray(proposed_SP, np.float64) - np.asarray(natural_S, np.float64)[:, None]
    if not np.isfinite(excess_SP).all():
        raise UserError(
            "equivalent compute: a score of natural or of the proposed mixture along the run is not finite; lower "
            "`validate.lr` or `train.lr`, delete the workdir's validate folder, and run again"
        )
    seeds, tokens, mean_P = len(excess_SP), int(tokens_P[-1]), excess_SP.mean(axis=0)
    low = high = None
    if seeds > 1:
        half_P = stats.t.ppf(QUANTILE, seeds - 1) * excess_SP.std(axis=0, ddof=1) / np.sqrt(seeds)
        low, high = (_ratio(tokens_P, mean_P + sign * half_P) for sign in (1, -1))
    return EquivalentCompute(_ratio(tokens_P, mean_P), low, high, tokens / tokens_P[0], tokens, seeds)


def _ratio(tokens_P: Sequence[int], excess_P: np.ndarray) -> float | None:
    crossing = tokens_to_reach(tokens_P, excess_P)
    return None if crossing is None else tokens_P[-1] / crossing


def tokens_to_reach(tokens_P: Sequence[int], excess_P: np.ndarray) -> float | None:
    """Return the tokens after which a curve first falls to 0: the first point, if it is there; None if never.

    The curve is made non-increasing by least squares (isotonic regression) and interpolated linearly in ln tokens. So a
    point that is low by chance does not count on its own, and a curve above another one never reaches 0 earlier.
    """
    falling_P = optimize.isotonic_regression(excess_P, increasing=False).x
    if falling_P[-1] > 0:
        return None
    p = int(np.argmax(falling_P <= 0))
    if p == 0:
        return float(tokens_P[0])
    before, after = falling_P[p - 1], falling_P[p]
    start, end = np.log(tokens_P[p - 1]), np.log(tokens_P[p])
    return float(np.exp(start + (end - start) * before / (before - after)))


def value_text(compute: EquivalentCompute) -> str:
    """Return the estimate as in "1.14×"."""
    return _times(compute.ratio, compute.limit)


def interval_text(compute: EquivalentCompute) -> str:
    """Return the interval as text: "5–95 % over 9 seeds: 1.08× to 1.21×", or "one seed, so there is no interval"."""
    if compute.seeds < 2:
        return "one seed, so there is no interval"
    ends = [_times(end, compute.limit) for end in (compute.low, compute.high)]
    seeds = counted(compute.seeds, "seed")
    return f"5–95 % over {seeds}: {' to '.join(ends) if ends[0] != ends[1] else ends[0]}"


def short_text(compute: EquivalentCompute) -> str:
    """Return the equivalent compute with its interval, as a part of a sentence."""
    return f"equivalent compute {value_text(compute)} ({interval_text(compute)})"


def text(compute: EquivalentCompute) -> str:
    """Return the equivalent compute with its interval and meaning, as a sentence without capital and full stop."""
    return f"{short_text(compute)}: tokens of natural per token of the proposed mixture, for natural's final BPB"


def _times(ratio: float | None, limit: float) -> str:
    if ratio is None:
        return "not reached"
    return f"more than {limit:.3g}×" if ratio >= limit else f"{ratio:.2f}×"
