"""The result of a solver: the mixture, and the evidence for its optimality."""

import dataclasses

import numpy as np

from olmix_jax.solver.status import Status

# A convex problem has converged when gap ≤ TOLERANCE · max(1, |value|).
TOLERANCE = 1e-9
# The same for other laws. More digits are not possible: slopes of a Gaussian process are differences of large terms.
LOCAL_TOLERANCE = 1e-7
# Two end points are the same minimum if their values differ by at most this [BPB], and their mixtures by at most this
# [total variation].
AGREE, SAME = 1e-6, 0.01


@dataclasses.dataclass(frozen=True)
class Solution:
    """A minimiser and the evidence for it. A search over candidates leaves most fields None.

    Attributes:
      status: how the solver ended.
      weights_M: the mixture, exactly within its bounds; its sum is 1 up to rounding.
      value: F at the mixture [BPB].
      kl: KL(p ‖ anchor) [nats]. With λ = 0 it is infinite if a domain without anchor weight is in the mixture.
      gap: duality gap, an upper bound on F(p) − min F [BPB]; None if the problem is not convex.
      iterations: iterations of the solver.
      residual: violation of the optimality conditions (:class:`olmix_jax.solver.kkt.Conditions`), 0 exactly at a
        stationary point.
      multipliers_M: multipliers of the upper bounds, ≥ 0: fall of the minimum per unit increase of the bound [BPB].
      group_multipliers_G: multipliers of the groups' bounds, ≥ 0 at the upper bound and ≤ 0 at the lower bound [BPB].
      starts: number of starting points, or of candidates.
      agreeing: number of starting points that reach this minimum: end points within 1e-6 BPB and 0.01 in total
        variation.
      guard_excess: largest g_f − limit_f over guards [BPB], ≤ 0 if all guards hold; None without guards.
    """

    status: Status
    weights_M: np.ndarray
    value: float
    kl: float
    gap: float | None
    iterations: int
    residual: float | None
    multipliers_M: np.ndarray | None
    group_multipliers_G: np.ndarray | None = None
    starts: int = 1
    agreeing: int | None = 1
    guard_excess: float | None = None

    @property
    def converged(self) -> bool:
        """Whether the status is a success."""
        return self.status.converged

    def describe(self) -> str:
        """Return the status with its figures, for people."""
        return self.status.describe(
            starts=self.starts,
            agreeing=self.agreeing,
            iterations=self.iterations,
            gap=self.gap,
            residual=self.residual,
            guard_excess=self.guard_excess,
        )


def tolerance(convex: bool, value: float) -> float:
    """Return the largest ``gap`` of a converged solve [BPB]."""
    return (TOLERANCE if convex else LOCAL_TOLERANCE) * max(1.0, abs(value))


def count_agreeing(value_S, ratios_SM, value: float, weights_M) -> int:
    """Return how many end points are the minimum at ``weights_M``."""
    far_S = 0.5 * abs(np.asarray(ratios_SM) - weights_M).sum(axis=1)
    return int(((np.asarray(value_S) <= value + AGREE) & (far_S <= SAME)).sum())
