"""Checks of the arguments of a fit. Errors name the task."""

import numpy as np

from olmix_jax.utils.errors import UserError


def check(ratios_KM, bpb_KN, weight_RK=None, tasks=None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the arguments of a fit as float64 arrays. Without weights, ``weight_RK`` is one row of ones.

    Raises:
      UserError: the shapes disagree, a value is not finite, or a weight is negative.
    """
    ratios_KM, bpb_KN = np.asarray(ratios_KM, np.float64), np.asarray(bpb_KN, np.float64)
    if ratios_KM.ndim != 2 or bpb_KN.ndim != 2 or len(ratios_KM) != len(bpb_KN) or not bpb_KN.size:
        raise UserError(
            f"a fit needs arrays of runs × domains and runs × tasks, not {ratios_KM.shape} and {bpb_KN.shape}"
        )
    weight_RK = np.ones((1, len(ratios_KM))) if weight_RK is None else np.asarray(weight_RK, np.float64)
    if weight_RK.ndim != 2 or weight_RK.shape[1] != len(ratios_KM):
        raise UserError(f"a fit needs weights of resamples × {len(ratios_KM)} runs, not {weight_RK.shape}")
    if not np.isfinite(ratios_KM).all() or not np.isfinite(weight_RK).all() or (weight_RK < 0).any():
        raise UserError("a fit needs finite ratios, and finite weights of at least 0")
    refuse(
        ~np.isfinite(bpb_KN).all(axis=0),
        tasks,
        "a fit needs a finite BPB for every run; a value is missing or not finite for",
    )
    return ratios_KM, bpb_KN, weight_RK


def one_row(weight_K) -> np.ndarray | None:
    """Return the weights of a single fit as those of one resample, weight_1K; None for None."""
    return None if weight_K is None else np.asarray(weight_K, np.float64)[None]


def refuse(bad_N, tasks, message: str) -> None:
    """Raise a UserError with ``message`` and the names of the tasks in the mask ``bad_N``, if there are any."""
    if bad_N.any():
        names = [str(tasks[i]) if tasks is not None else f"task {i}" for i in np.flatnonzero(bad_N)]
        raise UserError(f"{message} {', '.join(names)}")


def refuse_negative_losses(bpb_KN, tasks, law: str) -> None:
    """Raise a UserError if a task has a negative loss. For laws whose predictions are always positive."""
    message = f"{law} cannot predict negative losses; set fit.law=warped_gp, or drop these tasks with fit.drop_metrics:"
    refuse((np.asarray(bpb_KN) < 0).any(axis=0), tasks, message)


def seen(ratios_KM, weight_RK) -> np.ndarray:
    """Return seen_RM: whether a run of positive weight has a positive share of the domain."""
    return (weight_RK > 0).astype(np.float64) @ (ratios_KM > 0) > 0


def unseen(ratios_KM) -> tuple[int, ...]:
    """Return the columns of domains that no run samples."""
    return tuple(int(j) for j in np.flatnonzero(~(ratios_KM > 0).any(axis=0)))
