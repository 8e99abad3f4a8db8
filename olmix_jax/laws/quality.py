"""How good a law is on runs that it was not fitted on (METHOD §5; Spearman as in the paper's Figures 3 to 6)."""

import dataclasses

import jax
import numpy as np
import scipy.stats

from olmix_jax import rng
from olmix_jax.errors import UserError
from olmix_jax.laws import evaluate


@dataclasses.dataclass(frozen=True)
class Quality:
    """Held-out quality of a law.

    Attributes:
      predicted_KN: BPB of every run, predicted by the fit that left the run's fold out.
      fold_K: the fold each run was left out in.
      spearman_N: rank correlation of prediction and measurement over runs, per task; 0 where either is constant.
      r2_N: 1 − Σ(y − ŷ)² / Σ(y − ȳ)²; 0 where y is constant.
      rmse_N: root mean squared error [BPB].
      spearman_of_mean: rank correlation of the averages over tasks.
    """

    predicted_KN: np.ndarray
    fold_K: np.ndarray
    spearman_N: np.ndarray
    r2_N: np.ndarray
    rmse_N: np.ndarray
    spearman_of_mean: float


def cross_validate(law, ratios_KM, bpb_KN, *, folds: int = 5, seed: int = 0, starts: int = 16, tasks=None) -> Quality:
    """Fits ``law`` once per fold, on the other folds alone, all folds in one mapped program of fixed shape.

    Args:
      law: a module of :data:`olmix_jax.laws.LAWS`.
      ratios_KM: mixtures.
      bpb_KN: measured BPB.
      folds: parts that the runs are split into, of sizes that differ by one at most; K of them is leave-one-out.
      seed: of the shuffle that makes the folds, and of the fits' starts.
      starts: starting points per task and fold.
      tasks: names for messages.

    Raises:
      UserError: fewer than two folds, more folds than runs, or a fit fails.
    """
    ratios_KM, bpb_KN = np.asarray(ratios_KM, np.float64), np.asarray(bpb_KN, np.float64)
    runs = len(ratios_KM)
    if folds < 2:
        raise UserError(f"cross-validation needs 2 folds or more, not {folds}")
    if runs < folds:
        raise UserError(f"{runs} runs cannot be split into {folds} folds; set fit.folds to {max(runs, 2)} or less")
    fold_K = rng.generator(seed, "quality.folds").permutation(runs) % folds
    weight_RK = (fold_K[None, :] != np.arange(folds)[:, None]).astype(np.float64)
    params = law.fit_weighted(ratios_KM, bpb_KN, weight_RK, starts=starts, seed=seed, tasks=tasks)
    with jax.enable_x64(True):
        predicted_RKN = jax.jit(jax.vmap(law.predict, in_axes=(0, None)))(params, ratios_KM)
    predicted_KN = np.asarray(predicted_RKN)[fold_K, np.arange(runs)]
    return Quality(predicted_KN, fold_K, *scores(predicted_KN, bpb_KN))


def scores(predicted_KN, bpb_KN) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """(spearman_N, r2_N, rmse_N, spearman_of_mean) of predictions against measurements; see :class:`Quality`.

    They are held-out scores only if the predictions are.
    """
    squared_N = ((predicted_KN - bpb_KN) ** 2).sum(axis=0)
    total_N = ((bpb_KN - bpb_KN.mean(axis=0)[None, :]) ** 2).sum(axis=0)
    varies_N = np.ptp(bpb_KN, axis=0) > 0
    r2_N = np.where(varies_N, 1 - squared_N / np.where(varies_N, total_N, 1), 0.0)
    mean_K1 = predicted_KN.mean(axis=1, keepdims=True), bpb_KN.mean(axis=1, keepdims=True)
    return spearman(predicted_KN, bpb_KN), r2_N, np.sqrt(squared_N / len(bpb_KN)), float(spearman(*mean_K1)[0])


def scores_on(law, params, fitted, other) -> dict:
    """Scores of a law on a swarm that it was not fitted on; domains and tasks are matched by name.

    Args:
      law: a module of :data:`olmix_jax.laws.LAWS`, with its fitted ``params``.
      fitted: the SwarmTable that they were fitted on.
      other: the held-out one. It may have more tasks; its domains must be the same.

    Raises:
      UserError: a domain or task of one table is not in the other.
    """
    strange = sorted(set(fitted.domains) ^ set(other.domains)) or [t for t in fitted.tasks if t not in other.tasks]
    if strange:
        raise UserError(f"the held-out swarm and the fitted one do not both have {', '.join(strange[:5])}")
    ratios_KM = other.ratios_KM[:, [other.domains.index(name) for name in fitted.domains]]
    bpb_KN = other.bpb_KN[:, [other.tasks.index(name) for name in fitted.tasks]]
    predicted_KN = evaluate(law.predict, params, ratios_KM)
    spearman_N, r2_N, rmse_N, of_mean = scores(predicted_KN, bpb_KN)
    columns = zip(fitted.tasks, spearman_N.tolist(), r2_N.tolist(), rmse_N.tolist(), strict=True)
    return {
        "runs": len(other.runs),
        "spearman_task_mean": float(spearman_N.mean()),
        "spearman_of_mean": of_mean,
        "tasks": {task: {"spearman": rank, "r2": r2, "rmse": rmse} for task, rank, r2, rmse in columns},
    }


def spearman(a_KN, b_KN) -> np.ndarray:
    """Rank correlation per column, ties sharing their mean rank; 0 where a column is constant."""

    def centred_ranks(x_KN):
        return scipy.stats.rankdata(x_KN, axis=0) - (len(x_KN) + 1) / 2

    a_KN, b_KN = centred_ranks(np.asarray(a_KN)), centred_ranks(np.asarray(b_KN))
    norm_N = np.sqrt((a_KN**2).sum(axis=0) * (b_KN**2).sum(axis=0))
    return np.where(norm_N > 0, (a_KN * b_KN).sum(axis=0) / np.where(norm_N > 0, norm_N, 1), 0.0)
