"""How good a law is on runs that it was not fitted on (METHOD §5; Spearman as in the paper's Figures 3 to 6)."""

import dataclasses

import numpy as np
import scipy.optimize
import scipy.stats

from olmix_jax.laws.law import evaluate, evaluate_each, evaluate_spread, evaluate_spread_each
from olmix_jax.utils import rng
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log

# Share of new runs that an interval is meant to hold.
LEVEL = 0.9


@dataclasses.dataclass(frozen=True)
class Quality:
    """Held-out quality of a law.

    Attributes:
      predicted_KN: BPB of every run, predicted by the fit that left the run's fold out.
      spread_KN: the standard deviation that this fit gave it [BPB]; ones where the law knows none.
      fold_K: the fold each run was left out in.
      stretch_N: how many spreads an interval must reach to either side to hold LEVEL of new runs.
      reach_KN: half-width of each run's own interval [BPB], from the stretch of all other folds, so that coverage is
        held-out as well.
      spearman_N: rank correlation of prediction and measurement over runs, per task; 0 where either is constant.
      r2_N: 1 − Σ(y − ŷ)² / Σ(y − ȳ)²; 0 where y is constant.
      rmse_N: root mean squared error [BPB].
      spearman_of_mean: rank correlation of the averages over tasks.
      coverage_N: share of runs inside their interval.
    """

    predicted_KN: np.ndarray
    spread_KN: np.ndarray
    fold_K: np.ndarray
    stretch_N: np.ndarray
    reach_KN: np.ndarray
    spearman_N: np.ndarray
    r2_N: np.ndarray
    rmse_N: np.ndarray
    spearman_of_mean: float
    coverage_N: np.ndarray


def cross_validate(
    law, ratios_KM, bpb_KN, *, folds: int = 5, seed: int = 0, starts: int = 16, tasks=None, inherited=None
) -> Quality:
    """Fits ``law`` once per fold, on the other folds alone, all folds by one program of fixed shape.

    Args:
      law: the family, such as ``log_linear.LAW``.
      ratios_KM: mixtures.
      bpb_KN: measured BPB.
      folds: parts that the runs are split into (:func:`folds_of`); K of them is leave-one-out, all refitted.
      seed: of the shuffle that makes the folds, and of the fits' starts.
      starts: starting points per task and fold.
      tasks: names for messages.
      inherited: further runs that all folds learn from (:class:`olmix_jax.swarm.table.Inherited`).

    Raises:
      UserError: fewer than two folds, more folds than runs, or a fit fails.
    """
    ratios_KM, bpb_KN = np.asarray(ratios_KM, np.float64), np.asarray(bpb_KN, np.float64)
    fold_K = folds_of(ratios_KM, folds, seed)
    weight_RK = (fold_K[None, :] != np.arange(folds)[:, None]).astype(np.float64)
    data = joined(ratios_KM, bpb_KN, weight_RK, inherited)
    params = law.fit_weighted(*data, starts=starts, seed=seed, tasks=tasks)
    own = fold_K, np.arange(len(ratios_KM))
    predicted_KN = evaluate_each(law, params, ratios_KM)[own]
    spread_RKN = evaluate_spread_each(law, params, ratios_KM)
    spread_KN = np.ones_like(bpb_KN) if spread_RKN is None else spread_RKN[own]
    reach_KN = np.empty_like(bpb_KN)
    for fold in range(folds):
        mine_K = fold_K == fold
        reach_KN[mine_K] = spread_KN[mine_K] * stretch(predicted_KN, bpb_KN, spread_KN, ~mine_K)
    stretch_N, covered_KN = stretch(predicted_KN, bpb_KN, spread_KN), np.abs(predicted_KN - bpb_KN) <= reach_KN
    found = scores(predicted_KN, bpb_KN)
    return Quality(predicted_KN, spread_KN, fold_K, stretch_N, reach_KN, *found, covered_KN.mean(axis=0))


def joined(ratios_KM, bpb_KN, weight_RK, inherited):
    """Runs and their weights in R refits, and behind them the inherited ones with their own."""
    if inherited is None:
        return ratios_KM, bpb_KN, weight_RK
    trust_RJ = np.broadcast_to(inherited.trust_J, (len(weight_RK), len(inherited.trust_J)))
    return (
        np.concatenate([ratios_KM, inherited.ratios_JM]),
        np.concatenate([bpb_KN, inherited.bpb_JN]),
        np.concatenate([weight_RK, trust_RJ], axis=1),
    )


def folds_of(ratios_KM, folds: int, seed: int = 0) -> np.ndarray:
    """fold_K, drawn: runs of the same mixture share a fold, so that none is predicted from its own replicate.

    Where mixtures differ, sizes of folds differ by one at most.

    Raises:
      UserError: fewer than two folds, or more than there are mixtures.
    """
    which_K = mixtures(ratios_KM)
    number = which_K.max() + 1
    if folds < 2:
        raise UserError(f"cross-validation needs 2 folds or more, not {folds}")
    if number < folds:
        raise UserError(
            f"{number} different mixtures cannot be split into {folds} folds; set fit.folds to {max(number, 2)} or less"
        )
    return (rng.generator(seed, "quality.folds").permutation(number) % folds)[which_K]


def mixtures(ratios_KM) -> np.ndarray:
    """Which of the different mixtures each run has, numbered from 0 in the order of their first runs."""
    _, first, which_K = np.unique(np.round(ratios_KM, 9), axis=0, return_index=True, return_inverse=True)
    order = np.empty(len(first), int)
    order[np.argsort(first)] = np.arange(len(first))
    return order[np.ravel(which_K)]


def stretch(predicted_KN, bpb_KN, spread_KN, among_K=slice(None), level: float = LEVEL) -> np.ndarray:
    """How many spreads hold ``level`` of the errors, per task: the ⌈(n + 1)·level⌉-th smallest (split conformal)."""
    error_KN = np.sort(np.abs(predicted_KN - bpb_KN)[among_K] / np.maximum(spread_KN[among_K], 1e-300), axis=0)
    return error_KN[min(int(np.ceil((len(error_KN) + 1) * level)), len(error_KN)) - 1]


def spread_of(law, params, ratios_KM, tasks: int) -> np.ndarray:
    """Standard deviation of a new run by the law's own account, std_KN [BPB]; ones where it has none."""
    std_KN = evaluate_spread(law, params, ratios_KM)
    return np.ones((len(ratios_KM), tasks)) if std_KN is None else std_KN


def leave_one_out(law, params, ratios_KM, bpb_KN, *, seed: int = 0, tasks=None, inherited=None) -> np.ndarray:
    """Every run as predicted by a quick refit to all runs of other mixtures, predicted_KN.

    Refits are made from ``params``, the fit to all runs, and keep its hyperparameters or begin at its minimum; these
    have seen the run, so this is kinder than cross-validation, at few runs much kinder. It shows single runs that stand
    out. Leave-one-out with all learnt anew is :func:`cross_validate` with as many folds as runs.
    """
    ratios_KM, which_K = np.asarray(ratios_KM, np.float64), mixtures(ratios_KM)
    if law.leave_one_out is not None and which_K[-1] == len(which_K) - 1:
        return law.leave_one_out(params)[: len(ratios_KM)]
    weight_RK = (which_K[:, None] != which_K[None, :]).astype(np.float64)
    refits = law.fit_weighted(*joined(ratios_KM, bpb_KN, weight_RK, inherited), seed=seed, tasks=tasks, near=params)
    return evaluate_each(law, refits, ratios_KM[:, None, :])[:, 0]


def learning_curve(
    law,
    ratios_KM,
    bpb_KN,
    held_out: Quality,
    *,
    repeats: int = 2,
    seed: int = 0,
    starts: int = 16,
    tasks=None,
    inherited=None,
) -> dict:
    """Held-out quality of laws fitted on fewer runs, and what another ten runs would bring.

    Args:
      held_out: of :func:`cross_validate`; its folds are the last point.
      repeats: random subsets of 2/5 and of 3/5 of the runs; each is scored on the runs that it leaves out.

    Returns:
      ``runs`` (sizes), ``spearman_mean`` over tasks with its standard error over subsets, ``spearman_of_mean`` and
      ``rmse_mean``; and Spearman and RMSE ``now`` (all runs) and ``next`` (ten more), extrapolated by RMSE² = a + b/k
      and 1 − Spearman = a + b/k with a, b ≥ 0: what more runs cannot lower, and an error that falls as variances do. A
      power law without the floor promised several times what ten runs brought (docs/log.md).
    """
    ratios_KM, bpb_KN = np.asarray(ratios_KM, np.float64), np.asarray(bpb_KN, np.float64)
    runs, draw = len(ratios_KM), rng.generator(seed, "quality.learning_curve")
    sizes = sorted({max(3, round(share * runs)) for share in (0.4, 0.6)})
    drawn = [(size, _subset(ratios_KM, size, draw)) for size in sizes for _ in range(repeats)]
    weight_RK = np.stack([in_K for _, in_K in drawn]).astype(np.float64)
    params = law.fit_weighted(*joined(ratios_KM, bpb_KN, weight_RK, inherited), starts=starts, seed=seed, tasks=tasks)
    predicted_RKN = evaluate_each(law, params, ratios_KM)
    subsets = [(size, ~in_K, p_KN) for (size, in_K), p_KN in zip(drawn, predicted_RKN)]
    folds = np.unique(held_out.fold_K)
    last = round(runs * (1 - 1 / len(folds)))
    if last > sizes[-1] and runs - last > 2:
        subsets += [(last, held_out.fold_K == fold, held_out.predicted_KN) for fold in folds]
        sizes = [*sizes, last]
    found = {size: [scores(p_KN[out], bpb_KN[out]) for n, out, p_KN in subsets if n == size] for size in sizes}
    spearman = [[s_N.mean() for s_N, *_ in of] for of in found.values()]
    rmse = [np.mean([rmse_N.mean() for _, _, rmse_N, _ in of]) for of in found.values()]
    lack, square = [1 - np.mean(s) for s in spearman], np.square(rmse)
    ahead = {
        name: {
            "runs": k,
            "spearman_mean": 1 - _extended(sizes, lack, k),
            "rmse_mean": np.sqrt(_extended(sizes, square, k)),
        }
        for name, k in (("now", runs), ("next", runs + 10))
    }
    return {
        "runs": sizes,
        "spearman_mean": [np.mean(s) for s in spearman],
        "spearman_mean_error": [np.std(s, ddof=1) / np.sqrt(len(s)) if len(s) > 1 else 0.0 for s in spearman],
        "spearman_of_mean": [np.mean([mean for *_, mean in of]) for of in found.values()],
        "rmse_mean": rmse,
        "repeats": repeats,
        **ahead,
    }


def _subset(ratios_KM, size: int, draw: np.random.Generator) -> np.ndarray:
    """in_K: a random choice of mixtures that together have ``size`` runs, or a few more where mixtures repeat."""
    which_K = mixtures(ratios_KM)
    rank_K = draw.permutation(which_K.max() + 1)[which_K]
    in_K = rank_K <= np.sort(rank_K)[size - 1]
    # One mixture at least is left to be scored on.
    return in_K & (rank_K < rank_K.max())


def _extended(sizes, values, size: float) -> float:
    """The value at ``size`` of a + b/k, a, b ≥ 0, fitted by least squares."""
    inverse_C2 = np.stack([np.ones(len(sizes)), 1 / np.asarray(sizes, np.float64)], axis=1)
    found, _ = scipy.optimize.nnls(inverse_C2, np.asarray(values, np.float64))
    return float(found @ [1.0, 1 / size])


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


def scores_on(law, params, fitted, other, stretch_N) -> dict:
    """Scores of a law on a swarm that it was not fitted on; domains and tasks are matched by name.

    Args:
      law: the family, with its fitted ``params``.
      fitted: the SwarmTable that they were fitted on.
      other: the held-out one. It may have more tasks; its domains must be the same.
      stretch_N: of :func:`cross_validate`, for the intervals.

    Raises:
      UserError: a domain or task of one table is not in the other.
    """
    strange = sorted(set(fitted.domains) ^ set(other.domains)) or [t for t in fitted.tasks if t not in other.tasks]
    if strange:
        raise UserError(f"the held-out swarm and the fitted one do not both have {', '.join(strange[:5])}")
    ratios_KM = other.ratios_KM[:, [other.domains.index(name) for name in fitted.domains]]
    bpb_KN = other.bpb_KN[:, [other.tasks.index(name) for name in fitted.tasks]]
    seen = {(p_M.tobytes(), y_N.tobytes()) for p_M, y_N in zip(fitted.ratios_KM, fitted.bpb_KN)}
    shared = sum((p_M.tobytes(), y_N.tobytes()) in seen for p_M, y_N in zip(ratios_KM, bpb_KN))
    if shared:
        log.warning("fit: %d of %d held-out runs are among the fitted ones; they flatter the law", shared, len(bpb_KN))
    predicted_KN = evaluate(law, params, ratios_KM)
    spearman_N, r2_N, rmse_N, of_mean = scores(predicted_KN, bpb_KN)
    reach_KN = stretch_N * spread_of(law, params, ratios_KM, len(fitted.tasks))
    covered_N = (np.abs(predicted_KN - bpb_KN) <= reach_KN).mean(axis=0)
    columns = zip(fitted.tasks, spearman_N.tolist(), r2_N.tolist(), rmse_N.tolist(), covered_N.tolist(), strict=True)
    return {
        "runs": len(other.runs),
        "runs_also_fitted": shared,
        "spearman_task_mean": float(spearman_N.mean()),
        "spearman_of_mean": of_mean,
        "coverage": float(covered_N.mean()),
        "tasks": {task: dict(zip(("spearman", "r2", "rmse", "coverage"), values)) for task, *values in columns},
    }


def spearman(a_KN, b_KN) -> np.ndarray:
    """Rank correlation per column, ties sharing their mean rank; 0 where a column is constant."""

    def centred_ranks(x_KN):
        return scipy.stats.rankdata(x_KN, axis=0) - (len(x_KN) + 1) / 2

    a_KN, b_KN = centred_ranks(np.asarray(a_KN)), centred_ranks(np.asarray(b_KN))
    norm_N = np.sqrt((a_KN**2).sum(axis=0) * (b_KN**2).sum(axis=0))
    return np.where(norm_N > 0, (a_KN * b_KN).sum(axis=0) / np.where(norm_N > 0, norm_N, 1), 0.0)
