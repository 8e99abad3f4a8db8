"""How far held-out runs follow a law's predictions: what its differences between mixtures are worth.

A proposal is where the law predicts most, so noise that the law took for an effect is in its predicted gain. Runs that
the law has not seen show how much of its differences is real: the slope b of measured on predicted BPB,

    y_k − ȳ = b (ŷ_k − ŷ̄) + error,   means over the run's fold.

Within a fold all predictions come from one law. Across folds the mean of the training runs alone would make b
negative, because it is low where the held-out run is high. With a prior b ~ N(½, ½²), from nothing to everything, b is
the mean of its posterior, limited to [0, 1].
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from olmix_jax.laws.fit_result import FitResult

# Mean and standard deviation of the prior of the slope.
PRIOR = 0.5, 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class HeldOut:
    """Runs and what laws that have not seen them predict.

    Attributes:
      measured_KN: BPB.
      predicted_KN: predicted BPB, from cross-validation.
      fold_K: fold of each run; the runs of a fold are predicted by one law.
    """

    measured_KN: np.ndarray
    predicted_KN: np.ndarray
    fold_K: np.ndarray


def of_fit(fit: FitResult) -> HeldOut | None:
    """Return the runs of a fit and their held-out predictions; None if their folds are not known."""
    if not fit.fold:
        return None
    measured_NK, predicted_NK = ([of[task] for task in fit.tasks] for of in (fit.measured, fit.predicted_cv))
    return HeldOut(np.array(measured_NK).T, np.array(predicted_NK).T, np.array(fit.fold))


def within(held_out: HeldOut, group_K: np.ndarray) -> HeldOut:
    """Return the runs with folds split into groups, so that only runs of the same fold and group are compared."""
    fold_K = np.asarray(held_out.fold_K)
    return dataclasses.replace(held_out, fold_K=fold_K * (group_K.max() + 1) + group_K)


class Slope(NamedTuple):
    """Measured change per predicted change.

    Attributes:
      value: in [0, 1].
      error: its standard error.
      degrees: degrees of freedom of the error's t distribution.
    """

    value: float
    error: float
    degrees: int


def slope(held_out: HeldOut, weights_N) -> Slope:
    """Return the slope of the task-weighted BPB of held-out runs. Runs alone in their fold say nothing.

    Args:
      held_out: the runs.
      weights_N: weights of the tasks.
    """
    _, fold_K, size_F = np.unique(held_out.fold_K, return_inverse=True, return_counts=True)

    def within_folds(bpb_KN):
        bpb_K = np.asarray(bpb_KN) @ np.asarray(weights_N)
        return bpb_K - (np.bincount(fold_K, bpb_K) / size_F)[fold_K]

    predicted_K, measured_K = within_folds(held_out.predicted_KN), within_folds(held_out.measured_KN)
    square, degrees = float(predicted_K @ predicted_K), int((size_F - 1).sum()) - 1
    if degrees < 1 or not np.isfinite(square) or square <= 1e-18 * float(measured_K @ measured_K):
        return Slope(*PRIOR, max(degrees, 3))
    value = float(predicted_K @ measured_K) / square
    rest_K = measured_K - value * predicted_K
    # Shares of the prior and of the runs in the posterior mean.
    variance, prior_variance = float(rest_K @ rest_K) / degrees / square, PRIOR[1] ** 2
    share = variance / (variance + prior_variance)
    mean = share * PRIOR[0] + (1 - share) * value
    return Slope(min(max(mean, 0.0), 1.0), (share * prior_variance) ** 0.5, max(degrees, 3))
