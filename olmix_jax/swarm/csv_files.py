"""CSV files of a swarm: written so that they read back, read with errors that name file, line, run and column."""

import csv
import dataclasses
import difflib
import io
import math
import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log

# Columns that identify a run; every other column is a domain or a task.
KEYS = ("run", "name", "index")
# How pandas, R, JSON and spreadsheets write a value that is not there, in any case.
_MISSING = ("", "nan", "na", "n/a", "#n/a", "<na>", "null", "none")
# Rows of ratios off 1 by more than this are an error: RegMix rounds to three digits, 17 domains, 0.004 at most.
_SUM_TOLERANCE = 0.01
# Sums closer to 1 than this are left as they are, so that what was written is read back bit for bit.
_SUM_EXACT = 1e-9
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of a sheet: its number in the file and its cells by column."""

    line: int
    cells: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Sheet:
    """A CSV file: its value columns, in order, and its rows by run id, in order.

    ``key`` is the column joined by, and ``prefix`` what was taken off the names of the columns.
    """

    path: pathlib.Path
    key: str
    columns: tuple[str, ...]
    rows: dict[str, Row]
    prefix: str = ""

    def column(self, name: str) -> str | None:
        """The column of that name, which may be as the file has it or without the prefix; None if there is none."""
        return next((c for c in (name, name.removeprefix(self.prefix)) if c in self.columns), None)

    def where(self, run: str, column: str) -> str:
        """How an error names a cell."""
        return f"{self.path}: line {self.rows[run].line} ({self.key} {run}), column {column}"

    def number(self, run: str, column: str) -> float | None:
        """The finite number in a cell; None if the cell is empty, or says that the value is missing (nan, NA, null).

        Raises:
          UserError: the cell holds anything else.
        """
        text = self.rows[run].cells[column]
        if text.casefold() in _MISSING:
            return None
        if _NUMBER.fullmatch(text) and math.isfinite(float(text)):
            return float(text)
        hint = "; decimals are written with a point" if re.fullmatch(r"[+-]?\d*,\d+([eE][+-]?\d+)?", text) else ""
        raise UserError(f"{self.where(run, column)}: {text!r} is not a finite number{hint}")

    def said(self, run: str, column: str) -> str:
        """How an error quotes a cell that has no number."""
        return repr(self.rows[run].cells[column]) if self.rows[run].cells[column] else "empty"


def read_sheets(ratios: str | os.PathLike, metrics: str | os.PathLike) -> tuple[Sheet, Sheet]:
    """Reads the two tables of a swarm, keyed by ``run`` (or ``run_id``), or by ``index`` where either has no ``run``.

    Where both tables name a run, the names must agree: rows that were pasted beside other runs' ids are found so. In a
    table without ``run`` (RegMix's shape) the prefixes ``train_`` and ``metric/`` are taken off its columns.

    Raises:
      UserError: a file is missing, not UTF-8, not comma-separated, has a torn header or row, a column or run twice,
        a row without a key or without any value; or the tables call a run by different names.
    """
    a, b = _read_lines(ratios), _read_lines(metrics)
    key = "run" if "run" in a[1] and "run" in b[1] else "index"
    sheets = _sheet(*a, key, "train_"), _sheet(*b, key, "metric/")
    _check_names(*sheets)
    return sheets


def _check_names(a: Sheet, b: Sheet) -> None:
    for run in (run for run in a.rows if run in b.rows):
        one, other = (sheet.rows[run].cells.get("name", "") for sheet in (a, b))
        if one and other and one != other:
            raise UserError(
                f"{b.where(run, 'name')}: {other!r}, but {one!r} on line {a.rows[run].line} of {a.path}; the rows of "
                "one table may stand beside other runs' ids"
            )


def read_sheet(path: str | os.PathLike) -> Sheet:
    """Reads one table, keyed by ``run``. Errors as :func:`read_sheets`."""
    return _sheet(*_read_lines(path), "run", "")


def choose(metrics: Sheet, shared: Sequence[str], drop: Sequence[str], keep: Sequence[str]) -> tuple[str, ...]:
    """The columns to read, in the file's order: all of them or those to keep, but for those to drop.

    Args:
      metrics: the sheet.
      shared: names to drop in a list that several sheets share; those that are not there are logged.
      drop: names to drop.
      keep: names to keep; empty for all.

    Raises:
      UserError: a name of ``drop`` is not there, or one of ``keep`` that is not dropped; or nothing is left.
    """
    unknown = [name for name in dict.fromkeys(shared) if metrics.column(name) is None]
    if unknown:
        log.info("%s: no such columns to drop: %s", metrics.path, ", ".join(unknown))
    wanted = [name for name in keep if name not in (*shared, *drop)]
    for why, names in (("to leave out (`drop_metrics`)", drop), ("that the fit asks for (`keep_metrics`)", wanted)):
        lacking = [name for name in names if metrics.column(name) is None]
        if lacking:
            near = difflib.get_close_matches(lacking[0], metrics.columns, n=1, cutoff=0.0)[0]
            raise UserError(
                f"{metrics.path}: line 1: no column {', '.join(lacking)} {why}; the nearest to {lacking[0]} is {near}"
            )
    dropped, kept = {metrics.column(name) for name in (*shared, *drop)}, {metrics.column(name) for name in keep}
    columns = tuple(c for c in metrics.columns if c not in dropped and (not kept or c in kept))
    if not columns:
        raise UserError(f"{metrics.path}: every task is dropped; keep one at least")
    return columns


def _read_lines(path: str | os.PathLike) -> tuple[pathlib.Path, list[str], list[tuple[int, list[str]]]]:
    """The path, the header and the other lines with their numbers; blank lines are skipped."""
    path = pathlib.Path(path)
    try:
        # Excel writes a byte-order mark; as text it would become a part of the first column's name.
        text = path.read_text(encoding="utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        lines = [(reader.line_num, [cell.strip() for cell in line]) for line in reader if line]
    except FileNotFoundError as e:
        raise UserError(f"{path}: no such file") from e
    except OSError as e:
        raise UserError(f"{path}: cannot be read: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise UserError(f"{path}: not UTF-8 text: {e}; save it as comma-separated UTF-8") from e
    except csv.Error as e:
        raise UserError(f"{path}: line {reader.line_num}: not valid CSV: {e}") from e
    if len(lines) < 2:
        raise UserError(f"{path}: no rows: a header and a row per run are needed")
    # A column without a name, as pandas gives it back.
    header = ["" if re.fullmatch(r"Unnamed: \d+", cell) else cell for cell in lines[0][1]]
    if "run_id" in header and "run" not in header:
        header[header.index("run_id")] = "run"
    if len(header) == 1 and re.search(r"[;\t]", header[0]):
        raise UserError(f"{path}: line 1: columns must be separated by commas, and decimals written with a point")
    return path, header, lines[1:]


def _sheet(path, header: list[str], lines: list[tuple[int, list[str]]], key: str, prefix: str) -> Sheet:
    header, skip, prefix = _header(path, header, key, prefix)
    columns = tuple(c for c in header if c not in KEYS)
    rows = {}
    for line, cells in lines:
        row = _row(path, header, line, cells[skip:], skip)
        run = row.cells[key]
        # Two ids that are not known are no match.
        if run.casefold() in ("", "nan"):
            raise UserError(f"{path}: line {line}, column {key}: {run or 'empty'}; every row needs its {key}")
        if run in rows:
            raise UserError(f"{path}: line {line}: {key} {run} is on line {rows[run].line} already")
        rows[run] = row
    return Sheet(path, key, columns, rows, prefix)


def _header(path, header: list[str], key: str, prefix: str) -> tuple[list[str], int, str]:
    """The names of the columns, how many at the left were skipped, and the prefix that was taken off."""
    if key not in header:
        raise UserError(
            f"{path}: line 1: no column to join by: both tables need `run`, or both `index`; the header is "
            f"{', '.join(header)[:80]}"
        )
    named = [c for c in header if c and c not in KEYS]
    if "run" in header or not all(c.startswith(prefix) and c.removeprefix(prefix) not in KEYS for c in named):
        prefix = ""
    header = [c if c in KEYS else c.removeprefix(prefix) for c in header]
    # pandas writes its row numbers into a first column without a name.
    skip = 1 if header[0] == "" else 0
    header = header[skip:]
    if "" in header:
        raise UserError(f"{path}: line 1: column {header.index('') + 1 + skip} has no name; the header may be torn")
    twice = sorted({c for c in header if header.count(c) > 1})
    if twice:
        raise UserError(f"{path}: line 1: column more than once: {', '.join(twice)}")
    if set(header) <= set(KEYS):
        raise UserError(f"{path}: line 1: no columns beside {', '.join(header)}")
    unclear = [c for c in header if c not in KEYS and _is_reserved(c)]
    if unclear:
        raise UserError(
            f"{path}: line 1: column {unclear[0]} is neither a domain nor a task, and not one of {', '.join(KEYS)}; "
            "rename it, or take it out"
        )
    return header, skip, prefix


def _is_reserved(column: str) -> bool:
    """Whether a name is, or looks like, that of a column of ids; numbers in such a column would pass for scores."""
    return column.casefold() in (*KEYS, "run_id")


def _row(path, header: list[str], line: int, cells: list[str], skip: int) -> Row:
    if len(cells) != len(header):
        raise UserError(
            f"{path}: line {line} ({cells[0] if cells else ''}) has {len(cells) + skip} cells and the header "
            f"{len(header) + skip}; the file may be cut short, or decimals written with a comma"
        )
    if not any(cells):
        raise UserError(f"{path}: line {line}: an empty row; delete it")
    return Row(line, dict(zip(header, cells)))


def write_sheet(
    path: str | os.PathLike, runs: Sequence[str], names: Sequence[str], columns: Sequence[str], rows: Sequence[Sequence]
) -> None:
    """Writes columns ``run,name,index`` and ``columns``; floats as the shortest text that reads back the same.

    Raises:
      UserError: the file cannot be written, or would not be read back: a run twice, a column twice, empty or reserved.
    """
    bad = [c for c in columns if c != c.strip() or not c or _is_reserved(c) or list(columns).count(c) > 1]
    if bad:
        raise UserError(f"{path}: cannot have a column {bad[0]!r}: rename that domain or task")
    twice = [run for run in runs if run != run.strip() or not run or list(runs).count(run) > 1]
    if twice:
        raise UserError(f"{path}: cannot have a run {twice[0]!r}, or not twice: rename it")
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*KEYS, *columns])
    for index, (run, name, row) in enumerate(zip(runs, names, rows, strict=True)):
        writer.writerow([run, name, index, *row])
    files.write_text(path, text.getvalue())


def mixtures(sheet: Sheet, runs: tuple[str, ...]) -> np.ndarray:
    """ratios_KM, renormalised where the file has them rounded."""
    ratios_KM = np.array([[_weight(sheet, run, domain) for domain in sheet.columns] for run in runs])
    sums_K = ratios_KM.sum(axis=1)
    off_K = np.abs(sums_K - 1)
    worst = int(off_K.argmax())
    if off_K[worst] > _SUM_TOLERANCE:
        where = f"{sheet.path}: line {sheet.rows[runs[worst]].line} ({sheet.key} {runs[worst]})"
        percent = abs(sums_K[worst] / 100 - 1) <= _SUM_TOLERANCE
        advice = "percentages must be divided by 100" if percent else "they are shares of the run, one for every domain"
        raise UserError(f"{where}: weights sum to {sums_K[worst]:.6g}, not to 1; {advice}")
    rounded_K = off_K > _SUM_EXACT
    if rounded_K.any():
        number = int(rounded_K.sum())
        log.info("%s: %d rows renormalised, run %s by %.2g", sheet.path, number, runs[worst], off_K[worst])
    return np.where(rounded_K[:, None], ratios_KM / np.where(rounded_K, sums_K, 1.0)[:, None], ratios_KM)


def _weight(sheet: Sheet, run: str, domain: str) -> float:
    w = sheet.number(run, domain)
    if w is None:
        why = f"{sheet.said(run, domain)}, which is no weight; write 0 for a domain that the run has nothing of"
        raise UserError(f"{sheet.where(run, domain)}: {why}")
    if w < 0:
        raise UserError(f"{sheet.where(run, domain)}: negative weight {w}")
    return w


def scores(
    sheet: Sheet, runs: tuple[str, ...], tasks: tuple[str, ...], missing: str
) -> tuple[tuple[str, ...], tuple[str, ...], np.ndarray, np.ndarray]:
    """Runs and tasks that are left after ``missing``, which of ``runs`` they are, and their scores_KN."""
    cells = [[sheet.number(run, task) for task in tasks] for run in runs]
    empty_KN = np.array([[cell is None for cell in row] for row in cells])
    if empty_KN.any():
        k, n = np.argwhere(empty_KN)[0]
        first = f"{sheet.where(runs[k], tasks[n])}: {sheet.said(runs[k], tasks[n])}, one of {empty_KN.sum()} missing"
        if missing == "error":
            raise UserError(f"{first}; complete it, or set --config.fit.missing=drop_run or drop_task")
    kept_K = ~empty_KN.any(axis=1) if missing == "drop_run" else np.ones(len(runs), bool)
    kept_N = ~empty_KN.any(axis=0) if missing == "drop_task" else np.ones(len(tasks), bool)
    left_out = [*np.array(runs)[~kept_K].tolist(), *np.array(tasks)[~kept_N].tolist()]
    if not kept_K.any() or not kept_N.any():
        raise UserError(f"{first}; nothing is left after {missing}; complete them, or take the other of the two ways")
    if left_out:
        log.info("%s; %s leaves out %d: %s", first, missing, len(left_out), ", ".join(left_out[:8]))
    bpb_KN = np.array([[0.0 if cell is None else cell for cell in row] for row in cells])[kept_K][:, kept_N]
    return tuple(np.array(runs)[kept_K].tolist()), tuple(np.array(tasks)[kept_N].tolist()), kept_K, bpb_KN
