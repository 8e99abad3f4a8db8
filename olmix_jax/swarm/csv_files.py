"""Read and write the CSV files of a swarm: one row per run, one column per domain or task.

Errors name the file, line, run and column. :mod:`olmix_jax.swarm.csv_values` turns the cells into arrays.
"""

import csv
import dataclasses
import io
import math
import os
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError

# Columns that identify a run; every other column is a domain or a task.
KEYS = ("run", "name", "index")
# Missing values as pandas, R, JSON and spreadsheets write them, in lower case.
_MISSING = ("", "nan", "na", "n/a", "#n/a", "<na>", "null", "none")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a sheet: its line number in the file and its cells by column."""

    line: int
    cells: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Sheet:
    """A CSV file as text.

    Attributes:
      path: the file.
      key: the column that identifies a row: ``run`` or ``index``.
      columns: the value columns, in the file's order.
      rows: rows by key, in the file's order.
      prefix: the prefix that was removed from the column names; empty for none.
    """

    path: pathlib.Path
    key: str
    columns: tuple[str, ...]
    rows: dict[str, Row]
    prefix: str = ""

    def column(self, name: str) -> str | None:
        """Return the column called ``name``, with or without the file's prefix; None if it does not exist."""
        return next((c for c in (name, name.removeprefix(self.prefix)) if c in self.columns), None)

    def where(self, run: str, column: str) -> str:
        """Return the place of a cell, for an error: file, line, run and column."""
        return f"{self.path}: line {self.rows[run].line} ({self.key} {run}), column {column}"

    def number(self, run: str, column: str) -> float | None:
        """Return the finite number in a cell; None if the cell is empty or marked as missing (nan, NA, null).

        Raises:
          UserError: the cell holds anything else.
        """
        text = self.rows[run].cells[column]
        if text.casefold() in _MISSING:
            return None
        if _NUMBER.fullmatch(text) and math.isfinite(float(text)):
            return float(text)
        hint = "; write decimals with a point" if re.fullmatch(r"[+-]?\d*,\d+([eE][+-]?\d+)?", text) else ""
        raise UserError(f"{self.where(run, column)}: {text!r} is not a finite number{hint}")

    def quoted(self, run: str, column: str) -> str:
        """Return the text of a cell without a number, for an error: in quotes, or ``empty``."""
        return repr(self.rows[run].cells[column]) if self.rows[run].cells[column] else "empty"


class Sheets(NamedTuple):
    """The two tables of a swarm."""

    ratios: Sheet
    metrics: Sheet


class _Lines(NamedTuple):
    """A CSV file split into cells: its header, and its other lines with their line numbers."""

    path: pathlib.Path
    header: list[str]
    lines: list[tuple[int, list[str]]]


class _Header(NamedTuple):
    """The column names, how many columns at the left to skip, and the prefix that was removed from the names."""

    columns: list[str]
    skip: int
    prefix: str


def read_sheets(ratios: str | os.PathLike, metrics: str | os.PathLike) -> Sheets:
    """Read the two tables of a swarm, keyed by ``run`` (or ``run_id``), or by ``index`` if either has no ``run``.

    If both tables name a run, the names must agree; this finds rows that were pasted beside the ids of other runs. In
    a table without ``run`` (RegMix's format) the prefixes ``train_`` and ``metric/`` are removed from the columns.

    Raises:
      UserError: a file is missing, not UTF-8 or not comma-separated; its header or a row is cut short; a column or run
        is repeated; a row has no key or no value; or the two tables give one run different names.
    """
    ratio_lines, metric_lines = _read_lines(ratios), _read_lines(metrics)
    key = "run" if "run" in ratio_lines.header and "run" in metric_lines.header else "index"
    sheets = Sheets(_sheet(ratio_lines, key, "train_"), _sheet(metric_lines, key, "metric/"))
    _check_names(sheets)
    return sheets


def _check_names(sheets: Sheets) -> None:
    for run in (run for run in sheets.ratios.rows if run in sheets.metrics.rows):
        one, other = (sheet.rows[run].cells.get("name", "") for sheet in sheets)
        if one and other and one != other:
            raise UserError(
                f"{sheets.metrics.where(run, 'name')}: {other!r}, but {one!r} on line {sheets.ratios.rows[run].line} "
                f"of {sheets.ratios.path}; check that each row of both tables has the {sheets.ratios.key} it belongs to"
            )


def read_sheet(path: str | os.PathLike) -> Sheet:
    """Read one table, keyed by ``run``. Errors as for :func:`read_sheets`."""
    return _sheet(_read_lines(path), "run", "")


def _read_lines(path: str | os.PathLike) -> _Lines:
    """Split a file into cells; blank lines are skipped."""
    path = pathlib.Path(path)
    try:
        # Excel writes a byte-order mark; "utf-8" would keep it as a part of the first column's name.
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
        raise UserError(f"{path}: no rows: the file needs a header and one row per run")
    # pandas calls a column without a name "Unnamed: ‹place›" when it writes the table again.
    header = ["" if re.fullmatch(r"Unnamed: \d+", cell) else cell for cell in lines[0][1]]
    if "run_id" in header and "run" not in header:
        header[header.index("run_id")] = "run"
    if len(header) == 1 and re.search(r"[;\t]", header[0]):
        raise UserError(f"{path}: line 1: columns must be separated by commas, and decimals written with a point")
    return _Lines(path, header, lines[1:])


def _sheet(content: _Lines, key: str, prefix: str) -> Sheet:
    path, header = content.path, _header(content, key, prefix)
    columns = tuple(c for c in header.columns if c not in KEYS)
    rows: dict[str, Row] = {}
    for line, cells in content.lines:
        row = _row(path, header, line, cells[header.skip :])
        run = row.cells[key]
        # Two missing ids must not match each other.
        if run.casefold() in ("", "nan"):
            raise UserError(f"{path}: line {line}, column {key}: {run or 'empty'}; every row needs its {key}")
        if run in rows:
            raise UserError(f"{path}: line {line}: {key} {run} is already on line {rows[run].line}")
        rows[run] = row
    return Sheet(path, key, columns, rows, header.prefix)


def _header(content: _Lines, key: str, prefix: str) -> _Header:
    """Check the header, and remove ``prefix`` from the names of all value columns if all of them have it."""
    path, header = content.path, content.header
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
        raise UserError(
            f"{path}: line 1: column {header.index('') + 1 + skip} has no name; the header may be cut short"
        )
    repeated = sorted({c for c in header if header.count(c) > 1})
    if repeated:
        raise UserError(f"{path}: line 1: repeated column: {', '.join(repeated)}; rename one")
    if set(header) <= set(KEYS):
        raise UserError(f"{path}: line 1: no columns besides {', '.join(header)}; add one per domain or task")
    unclear = [c for c in header if c not in KEYS and _is_reserved(c)]
    if unclear:
        raise UserError(
            f"{path}: line 1: column {unclear[0]} looks like an id, not like a domain or task; rename it to one of "
            f"{', '.join(KEYS)}, or remove it"
        )
    return _Header(header, skip, prefix)


def _is_reserved(column: str) -> bool:
    """Return whether a name is, or looks like, a column of ids, whose numbers could be mistaken for scores."""
    return column.casefold() in (*KEYS, "run_id")


def _row(path: pathlib.Path, header: _Header, line: int, cells: list[str]) -> Row:
    if len(cells) != len(header.columns):
        raise UserError(
            f"{path}: line {line} ({cells[0] if cells else ''}) has {len(cells) + header.skip} cells and the header "
            f"{len(header.columns) + header.skip}; the file may be cut short, or decimals written with a comma"
        )
    if not any(cells):
        raise UserError(f"{path}: line {line}: an empty row; delete it")
    return Row(line, dict(zip(header.columns, cells)))


def write_sheet(
    path: str | os.PathLike, runs: Sequence[str], names: Sequence[str], columns: Sequence[str], rows: Sequence[Sequence]
) -> None:
    """Write a table with columns ``run,name,index`` and ``columns``; floats as the shortest text that reads back equal.

    Raises:
      UserError: the file cannot be written, or could not be read back: a run is repeated or empty, or a column is
        repeated, empty or reserved.
    """
    bad = [c for c in columns if c != c.strip() or not c or _is_reserved(c) or list(columns).count(c) > 1]
    if bad:
        raise UserError(
            f"{path}: {bad[0]!r} cannot be a column (repeated, empty or reserved): rename the domain or task"
        )
    bad = [run for run in runs if run != run.strip() or not run or list(runs).count(run) > 1]
    if bad:
        raise UserError(f"{path}: {bad[0]!r} cannot be a run id (repeated, empty or with spaces around it): rename it")
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*KEYS, *columns])
    for index, (run, name, row) in enumerate(zip(runs, names, rows, strict=True)):
        writer.writerow([run, name, index, *row])
    files.write_text(path, text.getvalue())
