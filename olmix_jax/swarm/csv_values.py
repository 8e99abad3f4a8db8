"""Turn the cells of a swarm's CSV files into arrays: which columns are tasks, the mixtures, the scores."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from olmix_jax.swarm import bookkeeping, run_ids
from olmix_jax.swarm.csv_files import Sheet, Sheets, number_in
from olmix_jax.swarm.csv_lines import is_missing
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.names import listed, shown
from olmix_jax.utils.progress import counted, log

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
      dropped: what is dropped and why, as one sentence; empty for nothing.
    """

    runs: tuple[str, ...]
    tasks: tuple[str, ...]
    kept_K: np.ndarray
    bpb_KN: np.ndarray
    dropped: tuple[str, ...] = ()


class Columns(NamedTuple):
    """The columns that are domains or tasks, in the file's order, and the others: {column: what it is}."""

    names: tuple[str, ...]
    left_out: dict[str, str]


def domain_columns(ratios: Sheet) -> Columns:
    """Return the domains: all columns but text.

    Columns with names of bookkeeping are domains only if their weights bring the sums closer to 1.
    """
    left_out = {c: bookkeeping.by_name(c) or "text" for c in ratios.columns if bookkeeping.is_text(_cells(ratios, c))}
    names = tuple(c for c in ratios.columns if c not in left_out)
    odd = {c: what for c in names if (what := bookkeeping.by_name(c))}
    if odd and len(odd) < len(names) and _off_one(ratios, [c for c in names if c not in odd]) < _off_one(ratios, names):
        left_out |= odd
    return Columns(tuple(c for c in names if c not in left_out), left_out)


def _off_one(ratios: Sheet, columns: Sequence[str]) -> float:
    """Return the largest error of a row's sum over columns; cells without a number count as 0."""
    rows = [[number_in(row.cells[c]) or 0.0 for c in columns] for row in ratios.rows.values()]
    return round(max(abs(sum(row) - 1) for row in rows), 9)


def not_scores(metrics: Sheet) -> dict[str, str]:
    """Return the columns of scores that are recognised as something else: {column: what it is}."""
    found = {}
    for column in metrics.columns:
        cells = _cells(metrics, column)
        values, original = _numbers(cells), re.sub(r"\.\d+$", "", column)
        # Scores of Indonesian, whose code is `id`, have fractions; ids have none.
        is_code = column.casefold() == "id" and bookkeeping.has_fractions(cells)
        if not is_code and (what := bookkeeping.by_name(column)):
            found[column] = what
        elif bookkeeping.is_text(cells):
            found[column] = "text"
        elif original != column and original in metrics.columns and cells == _cells(metrics, original):
            found[column] = f"a copy of {original}"
        elif values and bookkeeping.is_higher_better(column, values):
            found[column] = "better when higher"
        elif bookkeeping.is_perplexity(column) and not all(map(bookkeeping.is_perplexity, metrics.columns)):
            found[column] = "a perplexity beside other scores"
        elif of := bookkeeping.original(column, metrics.columns):
            other = _numbers(_cells(metrics, of))
            if len(values) == len(other) > 0 and bookkeeping.is_statistic(column, values, other):
                found[column] = f"a statistic of {of}"
    return found


def weights_among(metrics: Sheet, ratios: Sheet, runs: Sequence[str], domains: Sequence[str]) -> dict[str, str]:
    """Return the columns of scores that repeat the weights of a domain: {column: what it is}."""
    weights = {tuple(number_in(ratios.rows[run].cells[d]) for run in runs): d for d in reversed(domains)}
    of = {c: weights.get(tuple(number_in(metrics.rows[run].cells[c]) for run in runs)) for c in metrics.columns}
    return {column: f"the weights of {domain}" for column, domain in of.items() if domain is not None}


def _cells(sheet: Sheet, column: str) -> list[str]:
    return [row.cells[column] for row in sheet.rows.values()]


def _numbers(cells: Sequence[str]) -> list[float]:
    """Return the numbers in a column; empty if a cell that is not missing holds none."""
    found = [number_in(cell) for cell in cells if not is_missing(cell)]
    return [] if None in found else [value for value in found if value is not None]


def choose_columns(
    metrics: Sheet,
    shared_drop: Sequence[str],
    drop: Sequence[str],
    keep: Sequence[str],
    every: bool = False,
    others: Mapping[str, str] | None = None,
) -> Columns:
    """Return the task columns to read, in the file's order.

    Args:
      metrics: the table of scores.
      shared_drop: names to drop, in a list that several swarms share; unknown names are only logged.
      drop: names to drop; unknown names are errors.
      keep: names to read, unless they are also dropped; empty for all columns that are not recognised as something
        else, see :func:`not_scores`.
      every: whether all columns are tasks, so that none is recognised as something else.
      others: columns that the mixtures show to be no scores: {column: what it is}.

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
            commas = "; separate names by commas" if re.search(r"[;|\s]", unknown[0]) else ""
            raise UserError(
                f"{metrics.path}: line 1: no column {', '.join(map(shown, unknown))}, which `{field}` names; the "
                f"nearest to {unknown[0]} is {near}{commas}"
            )
    dropped, kept = {metrics.column(name) for name in (*shared_drop, *drop)}, {metrics.column(name) for name in keep}
    left_out = {} if every or kept else not_scores(metrics) | dict(others or {})
    left_out = {column: what for column, what in left_out.items() if column not in dropped}
    columns = tuple(c for c in metrics.columns if c not in dropped and (not kept or c in kept) and c not in left_out)
    if not columns and left_out:
        raise UserError(
            f"{metrics.path}: line 1: no column is a score: {described(left_out)}; add bits per byte, or name the "
            "columns that are scores in fit.keep_metrics"
        )
    if not columns:
        raise UserError(f"{metrics.path}: every task is dropped; keep at least one")
    return Columns(columns, left_out)


def described(left_out: Mapping[str, str], most: int = 8) -> str:
    """Return columns that are left out with what they are, as text."""
    return listed([f"{column} ({what})" for column, what in left_out.items()], most)


def left_out_text(sheet: Sheet, columns: Columns) -> str:
    """Return a sentence that names the columns that are left out."""
    kind = "domains" if sheet.path.name == "ratios.csv" else "scores"
    return f"{sheet.path}: these columns are no {kind} and are left out: {described(columns.left_out)}"


def common_runs(sheets: Sheets, diverged: set[str]) -> tuple[tuple[str, ...], list[str]]:
    """Return the runs that are in both tables and did not diverge, in the order of the ratios, and warnings."""
    ratios, metrics = sheets
    if diverged:
        log.info("%s: dropped, diverged in training: %s", ratios.path, ", ".join(sorted(diverged)))
    alone = [
        [run for run in one.rows if run not in other.rows and run not in diverged]
        for one, other in ((ratios, metrics), (metrics, ratios))
    ]
    runs = tuple(run for run in ratios.rows if run in metrics.rows and run not in diverged)
    if not runs:
        examples = [next((run for run in sheet.rows if run not in diverged), "none") for sheet in (ratios, metrics)]
        raise UserError(
            f"{ratios.path} and {metrics.path} have no usable {ratios.key} in common: the first has, for example, "
            f"{shown(examples[0])}, the second {shown(examples[1])}; use the same {ratios.key} in both"
        )
    run_ids.refuse_alike(str(ratios.path), str(metrics.path), alone[0], alone[1], list(ratios.rows), list(metrics.rows))
    warnings = [
        f"{counted(len(ids), 'run')} of {one.path} {'is' if len(ids) == 1 else 'are'} left out, because "
        f"{other.path} has no such {other.key}: {listed(ids)}; add the rows to it, or delete these"
        for ids, one, other in zip(alone, (ratios, metrics), (metrics, ratios))
        if ids
    ]
    return runs, warnings


def mixtures(sheet: Sheet, runs: tuple[str, ...], domains: tuple[str, ...]) -> np.ndarray:
    """Return ratios_KM. Rows with rounded weights are renormalised.

    Raises:
      UserError: a weight is missing, not a number or negative; or a row's sum differs from 1 by more than 0.01.
    """
    ratios_KM = np.array([[_weight(sheet, run, domain) for domain in domains] for run in runs])
    sums_K = ratios_KM.sum(axis=1)
    off_K = np.abs(sums_K - 1)
    worst = int(off_K.argmax())
    if off_K[worst] > _SUM_TOLERANCE:
        where = f"{sheet.path}: line {sheet.rows[runs[worst]].line} ({sheet.key} {runs[worst]})"
        percent = abs(sums_K[worst] / 100 - 1) <= _SUM_TOLERANCE
        advice = "divide percentages by 100" if percent else "give every domain its share of the run"
        odd = [domain for domain in domains if bookkeeping.by_name(domain)]
        advice = f"remove the column {odd[0]}, unless it is a domain" if odd else advice
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


def _score(sheet: Sheet, run: str, task: str) -> float | None:
    try:
        return sheet.number(run, task)
    except UserError as e:
        raise UserError(f"{e}; if {task} is no score, name it in fit.drop_metrics") from e


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
    cells = [[_score(sheet, run, task) for task in tasks] for run in runs]
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
    text = (f"{first}; {missing} leaves out {len(dropped)}: {listed(dropped)}",) if dropped else ()
    bpb_KN = np.array([[0.0 if cell is None else cell for cell in row] for row in cells])[kept_K][:, kept_N]
    runs, tasks = tuple(np.array(runs)[kept_K].tolist()), tuple(np.array(tasks)[kept_N].tolist())
    return Scores(runs, tasks, kept_K, bpb_KN, text)
