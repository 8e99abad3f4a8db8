"""Check that the columns of a swarm are scores: losses, lower is better, of which no two are the same.

What cannot be a loss per byte is an error. What may be a mistake, and may be right, is a warning.
"""

import json
from collections.abc import Collection, Sequence

import numpy as np

from olmix_jax.swarm import bookkeeping
from olmix_jax.swarm.csv_files import Sheet, number_in
from olmix_jax.swarm.csv_values import Scores
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.names import listed

# Bits per byte are above 0. A model of bytes that knows nothing has 8; losses per token reach 17 (2^17 entries).
HIGHEST = 30.0
# The fewest runs in which equal or whole numbers are no coincidence.
_FEWEST = 4
# Two columns are the same if no run differs by more than this share of their range without outliers. On the published
# swarms two columns are equal, and the next ones differ by 11 %.
SAME = 0.02
# A column is of another scale if its level and its spread are more than this multiple of the lower quartiles of those
# of the other columns. On the published swarms the highest level is 2.5 times the lower quartile.
SCALE = 4.0
# A run stopped early if it has less than this share of the median run's steps or tokens.
EARLY = 0.9
# Rank correlation with the other scores, and with a single one, below which a column may be better when higher. On the
# published swarms the lowest are -0.2 and -0.5.
AGAINST_ALL, AGAINST_ONE = -0.6, -0.8


def check(sheet: Sheet, scores: Scores, chosen: bool, cheap: Collection[str] = ()) -> list[str]:
    """Return the warnings about scores. Cheap runs may have another level and length, so they are checked apart.

    Args:
      sheet: the table that they are read from.
      scores: the scores.
      chosen: whether the user has named the columns to read, so that even impossible ones are only a warning.
      cheap: ids of the cheap runs.

    Raises:
      UserError: a column cannot be a loss per byte. The message names a run and all such columns.
    """
    is_cheap_K, texts = np.array([run in cheap for run in scores.runs], bool), _same_runs(scores)
    for kind, chosen_K in (("", ~is_cheap_K), ("cheap runs: ", is_cheap_K)):
        if not chosen_K.any():
            continue
        runs, bpb_KN = tuple(np.array(scores.runs)[chosen_K].tolist()), scores.bpb_KN[chosen_K]
        if not chosen:
            _refuse_impossible(sheet, runs, scores.tasks, bpb_KN)
        new = [*_unfinished(sheet, runs), *warnings(scores.tasks, bpb_KN)]
        texts += [kind + text for text in new if text not in texts]
    return texts


def _unfinished(sheet: Sheet, runs: Sequence[str]) -> list[str]:
    """Return a sentence that names the runs that crashed or stopped early, according to other columns of the table."""
    found: dict[str, str] = {}
    for column in sheet.columns:
        cells = {run: sheet.rows[run].cells[column] for run in runs}
        found |= {run: f"{column} {cell}" for run, cell in cells.items() if bookkeeping.is_unfinished(column, cell)}
        numbers = [number_in(cell) for cell in cells.values()]
        values_K = np.array([np.nan if value is None else value for value in numbers])
        if bookkeeping.is_progress(column) and np.isfinite(values_K).all():
            early = np.array(runs)[values_K < EARLY * np.median(values_K)].tolist()
            found |= {run: f"{column} {cells[run]}" for run in early}
    if not found:
        return []
    which = listed([f"{run} ({what})" for run, what in found.items()])
    names = json.dumps(list(found)[:8], ensure_ascii=False)
    return [
        f"these runs may not have been trained to the end: {which}; unless their scores are final, leave them out with "
        f'{{"diverged": {names}}} in meta.json'
    ]


def _same_runs(scores: Scores) -> list[str]:
    """Return a sentence for each group of runs with the same scores in all of 3 or more tasks."""
    runs_of: dict[bytes, list[str]] = {}
    for run, y_N in zip(scores.runs, scores.bpb_KN):
        runs_of.setdefault(y_N.tobytes(), []).append(run)
    return [
        f"runs {listed(runs)} have the same scores in all {len(scores.tasks)} tasks; if one is a copy, correct it, "
        "or name it in `diverged` in meta.json"
        for runs in runs_of.values()
        if len(runs) > 1 and len(scores.tasks) > 2
    ]


def _refuse_impossible(sheet: Sheet, runs: Sequence[str], tasks: Sequence[str], bpb_KN: np.ndarray) -> None:
    reasons = {task: reason for task, y_K in zip(tasks, bpb_KN.T) if (reason := _impossible(y_K))}
    if not reasons:
        return
    task, reason = next(iter(reasons.items()))
    y_K = bpb_KN[:, list(tasks).index(task)]
    bad_K = ~_possible(y_K)
    k = int(bad_K.argmax())
    single = reason.startswith("bits") and bad_K.sum() <= len(runs) / 2
    remedy = "correct it, or name the run in `diverged` in meta.json" if single else "if this is no score"
    raise UserError(
        f"{sheet.where(runs[k], task)}: {y_K[k]:.6g}: {reason}; {remedy}{', or' if single else ','} leave out "
        f"{'the column' if len(reasons) == 1 else 'such columns'} with --config.fit.drop_metrics={_flag(reasons)}; to "
        "read it as another loss, name every task to read in fit.keep_metrics"
    )


def _possible(y_K: np.ndarray) -> np.ndarray:
    return (y_K > 0) & (y_K <= HIGHEST)


def _impossible(y_K: np.ndarray) -> str:
    """Return why a column cannot be a loss per byte; "" if it can."""
    if len(y_K) >= _FEWEST and np.ptp(y_K) == 0:
        return "the column is the same in every run"
    if len(y_K) >= _FEWEST and (y_K == np.round(y_K)).all():
        return "the column has only whole numbers"
    return "" if _possible(y_K).all() else f"bits per byte are above 0 and at most {HIGHEST:.0f}"


def _flag(names: Collection[str]) -> str:
    """Return names as a flag's value that the shell leaves alone."""
    plain = all(name.replace("_", "").replace(":", "").replace(".", "").isalnum() for name in names)
    return ",".join(names) if plain else f"'{json.dumps(list(names), ensure_ascii=False)}'"


def warnings(tasks: Sequence[str], bpb_KN: np.ndarray) -> list[str]:
    """Return sentences about columns that are out of range, the same as another, or better when higher."""
    texts = []
    odd = [task for task, y_K in zip(tasks, bpb_KN.T) if not _possible(y_K).all()]
    if odd:
        texts.append(f"Outside the range of bits per byte, but named in fit.keep_metrics and so read: {listed(odd)}")
    counting = [task for task, y_K in zip(tasks, bpb_KN.T) if len(y_K) >= 8 and (np.diff(y_K) > 0).all()]
    if counting:
        texts.append(
            f"{listed(counting)}: each row is higher than the one before; if this is a counter or a time, leave it out "
            f"with --config.fit.drop_metrics={_flag(counting)}"
        )
    copies = _same(bpb_KN)
    for group in copies:
        names = [tasks[n] for n in group]
        texts.append(
            f"{listed(names)} are the same scores, up to rounding or a factor, so they count {len(names)} times; leave "
            f"out the copies with --config.fit.drop_metrics={_flag(names[1:])}"
        )
    large = [n for n in _of_another_scale(bpb_KN) if tasks[n] not in counting]
    if large:
        names = [tasks[n] for n in large]
        texts.append(
            f"{listed(names)}: level and spread are over {SCALE:.0f} times those of other tasks, so little else "
            "counts in the mean; if this is another measure (a perplexity, a percentage, a sum), leave it out with "
            f"--config.fit.drop_metrics={_flag(names)}, else consider propose.task_weights"
        )
    for n in sorted(set(_higher_is_better(bpb_KN)) - {n for group in [*copies, large] for n in group}):
        texts.append(
            f"{tasks[n]} rises in the runs in which other scores fall; if it is an accuracy, leave it out with "
            f"--config.fit.drop_metrics={_flag([tasks[n]])}, because lower has to be better; a loss may do so where "
            "domains compete"
        )
    return texts


def _of_another_scale(bpb_KN: np.ndarray) -> list[int]:
    """Return the columns whose level and spread exceed the lower quartiles of those of the others by SCALE."""
    level_N, spread_N = np.median(bpb_KN, axis=0), np.ptp(np.quantile(bpb_KN, (0.25, 0.75), axis=0), axis=0)
    tasks = np.arange(bpb_KN.shape[1])
    return [
        n
        for n in tasks.tolist()
        if len(tasks) > 1 and all(x_N[n] > SCALE * np.quantile(x_N[tasks != n], 0.25) for x_N in (level_N, spread_N))
    ]


def _same(bpb_KN: np.ndarray) -> list[list[int]]:
    """Return the groups of columns that are the same, up to rounding or, from 8 runs on, a factor and an offset."""
    unit_KN = _unit(bpb_KN)
    group_of: dict[int, list[int]] = {}
    for i, j in np.argwhere(np.triu(unit_KN.T @ unit_KN, 1) > 0.99).tolist():
        if j not in group_of and _equal(bpb_KN[:, i], bpb_KN[:, j]):
            group = group_of.setdefault(i, [i])
            group.append(j)
            group_of[j] = group
    return [group for first, group in group_of.items() if group[0] == first]


def _equal(one_K: np.ndarray, other_K: np.ndarray) -> bool:
    # Twice the range of the middle half, so that one outlying run does not make everything else look the same.
    room = SAME * min(np.ptp(one_K), 2 * np.ptp(np.quantile(one_K, (0.25, 0.75))))
    if np.abs(other_K - one_K).max() <= room:
        return True
    if len(one_K) < 8:
        return False
    slope, offset = np.polyfit(other_K, one_K, 1)
    return bool(np.abs(one_K - offset - slope * other_K).max() <= room)


def _higher_is_better(bpb_KN: np.ndarray) -> list[int]:
    """Return the columns in the range of an accuracy whose ranks run against those of the other columns."""
    runs, tasks = bpb_KN.shape
    if runs < 6 or tasks < 2:
        return []
    import scipy.stats  # takes a second, and most uses of the package do not need it

    unit_KN = _unit(scipy.stats.rankdata(bpb_KN, axis=0))
    others_KN = _unit(unit_KN.sum(axis=1, keepdims=True) - unit_KN)
    against_N = (unit_KN * others_KN).sum(axis=0)
    share_N = bpb_KN.max(axis=0) <= 1
    found = []
    for n in range(tasks):
        # If most scores are at most 1, the range says nothing, and tasks of competing domains look the same.
        telling = share_N[n] and (share_N.sum() - 1) < 0.5 * (tasks - 1)
        lowest = float((unit_KN.T @ unit_KN[:, n]).min())
        if telling and (against_N[n] <= AGAINST_ALL or lowest <= AGAINST_ONE):
            found.append(n)
    return found


def _unit(x_KN: np.ndarray) -> np.ndarray:
    """Return the columns with mean 0 and length 1, so that their products are correlations; constant columns are 0."""
    off_KN = x_KN - x_KN.mean(axis=0)
    size_N = np.sqrt((off_KN**2).sum(axis=0))
    return off_KN / np.where(size_N > 1e-9, size_N, np.inf)
