"""How well a law predicts runs that it was not fitted to (METHOD §5): cross-validation and leave-one-out."""

import dataclasses
from typing import Any

import numpy as np

from olmix_jax.laws import intervals
from olmix_jax.laws.law import Law, evaluate_each, evaluate_spread_each
from olmix_jax.laws.scores import Scores, score
from olmix_jax.swarm.lengths import Lengths
from olmix_jax.swarm.table import Inherited
from olmix_jax.utils import rng
from olmix_jax.utils.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Quality(Scores):
    """Scores of a law's held-out predictions, the predictions, and their intervals.

    Attributes:
      predicted_KN: BPB of each run, predicted by the fit that left out the run's fold.
      spread_KN: standard deviation that this fit gave each run [BPB]; ones if the law has no spread.
      fold_K: the fold of each run.
      stretch_N: how many spreads an interval must reach to either side to hold ``intervals.LEVEL`` of new runs.
      reach_KN: half-width of each run's interval [BPB], with the stretch of all other folds.
      coverage_N: share of runs inside their interval.
    """

    predicted_KN: np.ndarray
    spread_KN: np.ndarray
    fold_K: np.ndarray
    stretch_N: np.ndarray
    reach_KN: np.ndarray
    coverage_N: np.ndarray


def cross_validate(
    law: Law,
    ratios_KM: Any,
    bpb_KN: Any,
    *,
    folds: int = 5,
    seed: int = 0,
    starts: int = 16,
    tasks: tuple[str, ...] | None = None,
    inherited: Inherited | None = None,
    lengths: Lengths | None = None,
    begin: Any = None,
) -> Quality:
    """Fit ``law`` once per fold, to the runs of the other folds. One program of fixed shape fits all folds.

    Args:
      law: the family, such as ``log_linear.LAW``.
      ratios_KM: mixtures.
      bpb_KN: measured BPB.
      folds: number of parts that the runs are split into, see :func:`folds_of`. K folds are leave-one-out with
        complete refits.
      seed: of the shuffle that makes the folds, and of the fits' starts.
      starts: starting points per task and fold.
      tasks: names for messages.
      inherited: earlier runs, which the fits of all folds include.
      lengths: the runs' lengths, if they differ. A law that reads them predicts each run at its own.
      begin: Params of the fit to all runs, to start from.

    Raises:
      UserError: fewer than two folds, more folds than runs, or a fit fails.
    """
    ratios_KM, bpb_KN = np.asarray(ratios_KM, np.float64), np.asarray(bpb_KN, np.float64)
    fold_K = folds_of(ratios_KM, folds, seed)
    weight_RK = (fold_K[None, :] != np.arange(folds)[:, None]).astype(np.float64)
    options = {"starts": starts, "seed": seed, "tasks": tasks, "begin": begin, **law.reads(lengths)}
    params = law.refit(*joined(ratios_KM, bpb_KN, weight_RK, inherited), **options)
    # Each fit predicts the runs of its fold; the rows of smaller folds are filled up with the first run.
    row_K = np.array([(fold_K[:k] == fold).sum() for k, fold in enumerate(fold_K)])
    asked_KM = law.rows(ratios_KM, lengths)
    ratios_RQM = np.broadcast_to(asked_KM[0], (folds, row_K.max() + 1, asked_KM.shape[1])).copy()
    ratios_RQM[fold_K, row_K] = asked_KM
    predicted_KN = evaluate_each(law, params, ratios_RQM)[fold_K, row_K]
    spread_RQN = evaluate_spread_each(law, params, ratios_RQM)
    spread_KN = np.ones_like(bpb_KN) if spread_RQN is None else spread_RQN[fold_K, row_K]
    reach_KN = intervals.reach(predicted_KN, bpb_KN, spread_KN, fold_K)
    return Quality(
        predicted_KN=predicted_KN,
        spread_KN=spread_KN,
        fold_K=fold_K,
        stretch_N=intervals.stretch(predicted_KN, bpb_KN, spread_KN),
        reach_KN=reach_KN,
        **vars(score(predicted_KN, bpb_KN)),
        coverage_N=(np.abs(predicted_KN - bpb_KN) <= reach_KN).mean(axis=0),
    )


def joined(
    ratios_KM: np.ndarray, bpb_KN: np.ndarray, weight_RK: np.ndarray, inherited: Inherited | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ratios_KM, bpb_KN and weight_RK with the inherited runs appended; their weight is their trust."""
    if inherited is None:
        return ratios_KM, bpb_KN, weight_RK
    trust_RJ = np.broadcast_to(inherited.trust_J, (len(weight_RK), len(inherited.trust_J)))
    return (
        np.concatenate([ratios_KM, inherited.ratios_JM]),
        np.concatenate([bpb_KN, inherited.bpb_JN]),
        np.concatenate([weight_RK, trust_RJ], axis=1),
    )


def folds_of(ratios_KM: np.ndarray, folds: int, seed: int = 0) -> np.ndarray:
    """Assign runs to folds at random, fold_K.

    Runs with the same mixture share a fold, so no run is predicted from its replicate. Folds differ in size by at most
    one mixture.

    Raises:
      UserError: fewer than two folds, or more folds than mixtures.
    """
    which_K = mixtures(ratios_KM)
    number = which_K.max() + 1
    if folds < 2:
        raise UserError(f"cross-validation needs at least 2 folds, not {folds}; raise fit.folds")
    if number < 2:
        raise UserError("all runs have the same mixture, which determines no law; add runs with other mixtures")
    if number < folds:
        raise UserError(
            f"{number} different mixtures cannot be split into {folds} folds; set fit.folds to {number} or less"
        )
    return (rng.generator(seed, "quality.folds").permutation(number) % folds)[which_K]


def mixtures(ratios_KM: np.ndarray) -> np.ndarray:
    """Return the number of each run's mixture, which_K. Equal mixtures share a number, counted from 0 in run order."""
    _, first, which_K = np.unique(np.round(ratios_KM, 9), axis=0, return_index=True, return_inverse=True)
    order = np.empty(len(first), int)
    order[np.argsort(first)] = np.arange(len(first))
    return order[np.ravel(which_K)]


def leave_one_out(
    law: Law,
    params: Any,
    ratios_KM: Any,
    bpb_KN: np.ndarray,
    *,
    seed: int = 0,
    tasks: tuple[str, ...] | None = None,
    inherited: Inherited | None = None,
    lengths: Lengths | None = None,
) -> np.ndarray:
    """Predict each run by a quick refit to all runs with other mixtures, predicted_KN.

    A quick refit keeps the hyperparameters of ``params``, the fit to all runs, or starts at its minimum. That fit has
    seen the run, so the predictions are better than those of cross-validation; with few runs, much better. They serve
    to find outliers. For leave-one-out with complete refits, call :func:`cross_validate` with as many folds as runs.
    """
    ratios_KM, which_K = np.asarray(ratios_KM, np.float64), mixtures(ratios_KM)
    if law.leave_one_out is not None and which_K[-1] == len(which_K) - 1:
        return law.leave_one_out(params)[: len(ratios_KM)]
    weight_RK = (which_K[:, None] != which_K[None, :]).astype(np.float64)
    options = {"seed": seed, "tasks": tasks, "near": params, **law.reads(lengths)}
    refits = law.fit_weighted(*joined(ratios_KM, bpb_KN, weight_RK, inherited), **options)
    return evaluate_each(law, refits, law.rows(ratios_KM, lengths)[:, None, :])[:, 0]
