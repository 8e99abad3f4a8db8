"""Turn the cells of a swarm's CSV files into arrays: which columns are tasks, the mixtures, the scores."""

import difflib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from olmix_jax.swarm.csv_files import Sheet
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log

# Largest error of a mixture's sum. RegMix rounds 17 weights to three digits, which is off by 0.004 at most.
_SUM_TOLERANCE = 0.01
# Renormalised rows are logged if a sum is off 1 by more than this; six decimals per weight stay below it.
_SUM_LOGGED = 1e-5
# Sums closer to 1 than this are not renormalised, so that a written table is read back bit for bit.
_SUM_EXACT = 1e-9


class Scores(NamedTuple):
    """Scores that remain after runs or tasks with missing scores are dropped.

    Attributes:
      runs: ids of the remaining runs.
      tasks: names of the remaining tasks.
      kept_K: whether each of the given runs remains.
      bpb_KN: scores of the remaining runs and tasks.
    """

    runs: tuple[str, ...]
    tasks: tuple[str, ...]
    kept_K: np.ndarray
    bpb_KN: np.ndarray


def choose_columns(
    metrics: Sheet, shared_drop: Sequence[str], drop: Sequence[str], keep: Sequence[str]
) -> tuple[str, ...]:
    """Return the task columns to read, in the file's order.

    Args:
      metrics: the table of scores.
      shared_drop: names to drop, in a list that several swarms share; unknown names are only logged.
      drop: names to drop; unknown names are errors.
      keep: names to read, unless they are also dropped; empty for all columns.

    Raises:
      UserError: a name in ``drop``, or one in ``keep`` that is not dropped, is unknown; or all columns are dropped.
    """
    unknown = [name for name in dict.fromkeys(shared_drop) if metrics.column(name) is None]
    if unknown:
        log.info("%s: no such columns to drop: %s", metrics.path, ", ".join(unknown))
    wanted = [name for name in keep if name not in (*shared_drop, *drop)]
    for field, names in (("drop_metrics", drop), ("keep_metrics", wanted)):
        unknown = [name for name in names if metrics.column(name) is None]
        if unknown:
            near = difflib.get_close_matches(unknown[0], metrics.columns, n=1, cutoff=0.0)[0]
            raise UserError(
                f"{metrics.path}: line 1: no column {', '.join(unknown)}, which `{field}` names; the nearest to "
                f"{unknown[0]} is {near}"
            )
    dropped, kept = {metrics.column(name) for name in (*shared_drop, *drop)}, {metrics.column(name) for name in keep}
    columns = tuple(c for c in metrics.columns if c not in dropped and (not kept or c in kept))
    if not columns:
        raise UserError(f"{metrics.path}: every task is dropped; keep at least one")
    return columns


def mixtures(sheet: Sheet, runs: tuple[str, ...]) -> np.ndarray:
    """Return ratios_KM. Rows with rounded weights are renormalised.

    Raises:
      UserError: a weight is missing, not a number or negative; or a row's sum differs from 1 by more than 0.01.
    """
    ratios_KM = np.array([[_weight(sheet, run, domain) for domain in sheet.columns] for run in runs])
    sums_K = ratios_KM.sum(axis=1)
    off_K = np.abs(sums_K - 1)
    worst = int(off_K.argmax())
    if off_K[worst] > _SUM_TOLERANCE:
        where = f"{sheet.path}: line {sheet.rows[runs[worst]].line} ({sheet.key} {runs[worst]})"
        percent = abs(sums_K[worst] / 100 - 1) <= _SUM_TOLERANCE
        advice = "divide percentages by 100" if percent else "give every domain its share of the run"
        raise UserError(f"{where}: weights sum to {sums_K[worst]:.6g}, not to 1; {advice}")
    rounded_K = off_K > _SUM_EXACT
    if off_K[worst] > _SUM_LOGGED:
        number = int(rounded_K.sum())
        log.info("%s: %d rows renormalised, run %s by %.2g", sheet.path, number, runs[worst], off_K[worst])
    return np.where(rounded_K[:, None], ratios_KM / np.where(rounded_K, sums_K, 1.0)[:, None], ratios_KM)


def _weight(sheet: Sheet, run: str, domain: str) -> float:
    weight = sheet.number(run, domain)
    if weight is None:
        raise UserError(
            f"{sheet.where(run, domain)}: {sheet.quoted(run, domain)}; write a weight, or 0 if the domain is not in "
            "the mixture"
        )
    if weight < 0:
        raise UserError(f"{sheet.where(run, domain)}: negative weight {weight}; weights must be 0 or more")
    return weight


def scores(sheet: Sheet, runs: tuple[str, ...], tasks: tuple[str, ...], missing: str) -> Scores:
    """Return the scores of ``runs`` on ``tasks``.

    Args:
      sheet: the table of scores.
      runs: ids of the runs.
      tasks: columns of the table.
      missing: what to do about a missing score: "error", or drop its run ("drop_run") or its task ("drop_task").

    Raises:
      UserError: a cell is not a number; a score is missing and ``missing`` is "error"; or no run or task remains.
    """
    cells = [[sheet.number(run, task) for task in tasks] for run in runs]
    empty_KN = np.array([[cell is None for cell in row] for row in cells])
    first = ""
    if empty_KN.any():
        k, n = np.argwhere(empty_KN)[0]
        cell = sheet.quoted(runs[k], tasks[n])
        first = f"{sheet.where(runs[k], tasks[n])}: {cell}, the first of {empty_KN.sum()} missing scores"
        if missing == "error":
            raise UserError(f"{first}; complete them, or set --config.fit.missing=drop_run or drop_task")
    kept_K, kept_N = np.ones(len(runs), bool), np.ones(len(tasks), bool)
    if missing == "drop_run":
        kept_K = np.asarray(~empty_KN.any(axis=1))
    elif missing == "drop_task":
        kept_N = np.asarray(~empty_KN.any(axis=0))
    dropped = [*np.array(runs)[~kept_K].tolist(), *np.array(tasks)[~kept_N].tolist()]
    if not kept_K.any() or not kept_N.any():
        other = "drop_task" if missing == "drop_run" else "drop_run"
        raise UserError(f"{first}; {missing} leaves nothing; complete them, or set --config.fit.missing={other}")
    if dropped:
        log.info("%s; %s leaves out %d: %s", first, missing, len(dropped), ", ".join(dropped[:8]))
    bpb_KN = np.array([[0.0 if cell is None else cell for cell in row] for row in cells])[kept_K][:, kept_N]
    return Scores(tuple(np.array(runs)[kept_K].tolist()), tuple(np.array(tasks)[kept_N].tolist()), kept_K, bpb_KN)
