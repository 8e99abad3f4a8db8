"""How far held-out runs follow a law's predictions: what its differences between mixtures are worth.

A proposal is where the law predicts most, so noise that the law took for an effect is in its predicted gain. Runs that
the law has not seen show how much of its differences is real: the slope b of measured on predicted BPB,

    y_k − ȳ = b (ŷ_k − ŷ̄) + error,   means over the run's fold.

Within a fold all predictions come from one law. Across folds the mean of the training runs alone would make b
negative, because it is low where the held-out run is high. With a prior b ~ N(½, ½²), from nothing to everything, b is
the mean of its posterior, limited to [0, 1].

Where runs differ in length or pools, so does the level of BPB, and a law that predicts the level alone would seem to
follow mixtures. Then y and ŷ are taken relative to their least-squares fits by the level's covariates, too
(:func:`olmix_jax.swarm.lengths.levels`), so runs of any lengths are compared.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from olmix_jax.laws.fit_result import FitResult

# Mean and standard deviation of the prior of the slope.
PRIOR = 0.5, 0.5
# Levels whose covariates, logs of lengths, have a smaller standard deviation than this are alike.
SAME = 0.01


@dataclasses.dataclass(frozen=True, eq=False)
class HeldOut:
    """Runs and what laws that have not seen them predict.

    Attributes:
      measured_KN: BPB.
      predicted_KN: predicted BPB, from cross-validation.
      fold_K: fold of each run; the runs of a fold are predicted by one law.
      level_KC: covariates of the level of BPB, which is no difference between mixtures; None if it is the same for all.
    """

    measured_KN: np.ndarray
    predicted_KN: np.ndarray
    fold_K: np.ndarray
    level_KC: np.ndarray | None = None


def of_fit(fit: FitResult) -> HeldOut | None:
    """Return the runs of a fit and their held-out predictions; None if their folds are not known."""
    if not fit.fold:
        return None
    measured_NK, predicted_NK = ([of[task] for task in fit.tasks] for of in (fit.measured, fit.predicted_cv))
    return HeldOut(np.array(measured_NK).T, np.array(predicted_NK).T, np.array(fit.fold))


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

    def within_folds(bpb_K):
        return bpb_K - (np.bincount(fold_K, bpb_K) / size_F)[fold_K]

    both = held_out.predicted_KN, held_out.measured_KN
    predicted_K, measured_K = (within_folds(np.asarray(bpb_KN) @ np.asarray(weights_N)) for bpb_KN in both)
    degrees = int((size_F - 1).sum()) - 1
    if held_out.level_KC is not None:
        level_KC = np.stack([within_folds(x_K) for x_K in held_out.level_KC.T], axis=1)
        basis_KC, size_C, _ = np.linalg.svd(level_KC, full_matrices=False)
        basis_KC = basis_KC[:, size_C > SAME * len(fold_K) ** 0.5]
        predicted_K, measured_K = (x_K - basis_KC @ (basis_KC.T @ x_K) for x_K in (predicted_K, measured_K))
        degrees -= basis_KC.shape[1]
    square = float(predicted_K @ predicted_K)
    if degrees < 1 or not np.isfinite(square) or square <= 1e-18 * float(measured_K @ measured_K):
        return Slope(*PRIOR, max(degrees, 3))
    value = float(predicted_K @ measured_K) / square
    rest_K = measured_K - value * predicted_K
    # Shares of the prior and of the runs in the posterior mean.
    variance, prior_variance = float(rest_K @ rest_K) / degrees / square, PRIOR[1] ** 2
    share = variance / (variance + prior_variance)
    mean = share * PRIOR[0] + (1 - share) * value
    return Slope(min(max(mean, 0.0), 1.0), (share * prior_variance) ** 0.5, max(degrees, 3))
