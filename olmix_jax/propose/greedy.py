"""The greedy choice of runs to train, from the covariances of a law: :mod:`~olmix_jax.propose.next_runs`.

With runs of two kinds, a number of each is chosen. Steps of the most information per cost would not do: ten cheap runs
that cost as much as a real one may tell less than it together, though the first of them tells more than a tenth.
:func:`choose_split` compares the numbers.
"""

from typing import NamedTuple

import numpy as np

from olmix_jax.laws import cpu, warped_kernel
from olmix_jax.laws.joint_posterior import Covariances
from olmix_jax.utils.errors import UserError

# Most cheap runs in a choice, however little they cost.
MOST_CHEAP = 64


class Choice(NamedTuple):
    """Chosen candidates, in order.

    Attributes:
      index_B: their indices.
      left_B: share of the law's standard deviation that remains once a run and those before it are trained: the
        geometric mean over reference mixtures and weighted tasks.
    """

    index_B: np.ndarray
    left_B: np.ndarray


class Kinds(NamedTuple):
    """Which candidates are cheap runs, and how many of these to choose."""

    cheap_C: np.ndarray
    number: int


def total_variation(one_CM, other_KM) -> np.ndarray:
    """Return the total variation between mixtures, CK. Computed domain by domain, which bounds memory."""
    distance_CK = np.zeros((len(one_CM), len(other_KM)))
    for one_C, other_K in zip(one_CM.T, other_KM.T, strict=True):
        distance_CK += np.abs(one_C[:, None] - other_K[None, :])
    return distance_CK / 2


def choose_greedily(
    covariances: Covariances,
    number: int,
    task_weights_N=None,
    ratios_CM=None,
    min_distance: float = 0.0,
    first: int = 0,
    kinds: Kinds | None = None,
) -> Choice:
    """Choose one candidate after another; each lowers Σ_i w_i mean_q ½ ln Var_i(q) most.

    Args:
      covariances: of the law.
      number: how many to choose, of the real ones.
      task_weights_N: w, weights of 0 or more; equal by default.
      ratios_CM: the candidates, to keep chosen ones of a kind ``min_distance`` apart in total variation; None disables
        that.
      min_distance: least distance.
      first: this many candidates, the first ones, are chosen before all others, in their order.
      kinds: the cheap candidates, which are chosen in the same steps; None if all are real.

    Raises:
      UserError: the weights are invalid.

    Returns:
      The choice, of fewer candidates if no other is left.
    """
    state = covariances._replace(
        variance_NC=covariances.variance_NC.copy(),
        cross_NCQ=covariances.cross_NCQ.copy(),
        variance_NQ=covariances.variance_NQ.copy(),
    )
    weights_N = _normalised(task_weights_N, len(state.noise_NC))
    open_C = np.ones(state.variance_NC.shape[1], bool)
    kinds = Kinds(np.zeros(len(open_C), bool), 0) if kinds is None else kinds
    left = [number, kinds.number]  # of real and of cheap ones
    chosen: list[int] = []
    gains: list[float] = []
    steps: list[np.ndarray] = []
    while True:
        open_C &= np.where(kinds.cheap_C, left[1], left[0]) > 0
        if not (left[0] if len(chosen) < first else open_C.any()):
            break
        gain_C = _gain(state, weights_N)
        c = len(chosen) if len(chosen) < first else int(np.where(open_C, gain_C, -np.inf).argmax())
        steps.append(_condition(state, c, steps))
        open_C[c] = False
        if ratios_CM is not None:
            far_C = total_variation(ratios_CM, ratios_CM[[c]])[:, 0] >= min_distance
            open_C &= far_C | (kinds.cheap_C != kinds.cheap_C[c])
        chosen.append(c)
        gains.append(gain_C[c])
        left[int(kinds.cheap_C[c])] -= 1
    return Choice(np.array(chosen, int), np.exp(-np.cumsum(gains)))


def choose_split(
    covariances: Covariances,
    number: int,
    task_weights_N,
    ratios_CM,
    min_distance: float,
    first: int,
    cheap_C,
    cost: float,
) -> tuple[Choice, Choice]:
    """Choose real and cheap runs that cost as much as ``number`` real ones; also return the choice of real ones alone.

    One real run after another is exchanged for the cheap runs that it pays for, until that leaves more uncertainty
    twice in a row. Further arguments are as of :func:`choose_greedily`. A cheap run costs ``cost``, a share of a real
    one. No more than MOST_CHEAP are chosen, and the ``first`` candidates in any case.
    """
    settings = task_weights_N, ratios_CM, min_distance, first

    def split(real: int) -> Choice:
        # Rounding must not lose the last run.
        cheap = min(int((number - real) / cost + 1e-9), MOST_CHEAP)
        return choose_greedily(covariances, real, *settings, Kinds(cheap_C, cheap))

    best = alone = split(number)
    if not cheap_C.any():
        return best, alone
    worse = 0
    for real in range(number - 1, first - 1, -1):
        other = split(real)
        worse = 0 if len(other.left_B) and other.left_B[-1] < best.left_B[-1] else worse + 1
        best = best if worse else other
        if worse == 2 or len(other.index_B) >= real + MOST_CHEAP:
            break
    return best, alone


def _condition(state: Covariances, c: int, steps: list[np.ndarray]) -> np.ndarray:
    """Condition the covariances on a run at candidate c, in place; ``steps`` are the results for earlier runs."""
    root_N = np.sqrt(np.maximum(state.variance_NC[:, c], 0.0) + state.noise_NC[:, c])
    step_NC = (state.column(c) - sum(s_NC * s_NC[:, c, None] for s_NC in steps)) / root_N[:, None]
    step_NQ = state.cross_NCQ[:, c] / root_N[:, None]
    np.subtract(state.variance_NC, step_NC**2, out=state.variance_NC)
    np.subtract(state.variance_NQ, step_NQ**2, out=state.variance_NQ)
    for cross_CQ, step_C, step_Q in zip(state.cross_NCQ, step_NC, step_NQ):
        cross_CQ -= np.outer(step_C, step_Q)
    return step_NC


def _gain(state: Covariances, weights_N) -> np.ndarray:
    """Return gain_C [nats], Σ_i w_i mean_q −½ ln(1 − Cov(q, c)² / (Var(c) + s²) / Var(q)).

    As many tasks at a time as there are cores, which bounds memory.
    """

    def of_task(i: int) -> np.ndarray:
        noisy_C = np.maximum(state.variance_NC[i], 0.0) + state.noise_NC[i]
        # Rounding may have cancelled the variance of a well-known mixture; it gains nothing.
        reach_Q = np.maximum(state.variance_NQ[i], warped_kernel.JITTER)
        share_CQ = state.cross_NCQ[i] ** 2 / noisy_C[:, None] / reach_Q[None, :]
        return -0.5 * np.log1p(-np.minimum(share_CQ, 1 - warped_kernel.JITTER)).mean(axis=1)

    return weights_N @ np.stack(cpu.in_threads(of_task, range(len(weights_N))))


def _normalised(task_weights_N, tasks: int) -> np.ndarray:
    weights_N = np.ones(tasks) if task_weights_N is None else np.asarray(task_weights_N, np.float64)
    if weights_N.shape != (tasks,) or not np.isfinite(weights_N).all() or (weights_N < 0).any() or not weights_N.any():
        raise UserError(
            f"next runs need {tasks} task weights of 0 or more, of which one is positive, not {weights_N.tolist()}"
        )
    return weights_N / weights_N.sum()
