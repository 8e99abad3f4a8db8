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

from olmix_jax.swarm import bookkeeping, csv_lines, run_ids
from olmix_jax.swarm.bookkeeping import KEYS
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.names import normal, shown

# Prefix of the columns of scores in RegMix's format.
PREFIX = "metric/"
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
      key: the column that identifies a row: ``run``, ``name`` or ``index``.
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
        name = normal(name)
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
        if csv_lines.is_missing(text):
            return None
        if (value := number_in(text)) is not None:
            return value
        hint = "; write decimals with a point" if re.fullmatch(r"[+-]?\d*,\d+([eE][+-]?\d+)?", text) else ""
        raise UserError(f"{self.where(run, column)}: {text!r} is not a finite number{hint}")

    def quoted(self, run: str, column: str) -> str:
        """Return the text of a cell without a number, for an error: in quotes, or ``empty``."""
        return repr(self.rows[run].cells[column]) if self.rows[run].cells[column] else "empty"


def number_in(cell: str) -> float | None:
    """Return the finite number in a cell; None if it holds anything else."""
    return float(cell) if _NUMBER.fullmatch(cell) and math.isfinite(float(cell)) else None


class Sheets(NamedTuple):
    """The two tables of a swarm."""

    ratios: Sheet
    metrics: Sheet


class _Header(NamedTuple):
    """The column names, how many columns at the left to skip, and the prefix that was removed from the names."""

    columns: list[str]
    skip: int
    prefix: str


def read_sheets(ratios: str | os.PathLike, metrics: str | os.PathLike) -> Sheets:
    """Read the two tables of a swarm, keyed by the columns that :func:`olmix_jax.swarm.run_ids.choose` finds.

    If both tables name a run, the names must agree; this finds rows that were pasted beside the ids of other runs. In
    a table without ``run`` (RegMix's format) the prefixes ``train_`` and ``metric/`` are removed from the columns.

    Raises:
      UserError: a file is missing, not UTF-8 or not separated by commas, semicolons or tabs; its header or a row is cut
        short; a column or run is repeated; a row has no key or no value; a table is transposed; or the two tables give
        one run different names.
    """
    one, other = csv_lines.read(ratios), csv_lines.read(metrics)
    keys = run_ids.choose(one, other)
    sheets = Sheets(_sheet(one, keys[0], "train_"), _sheet(other, keys[1], PREFIX))
    _check_names(sheets)
    return sheets


def _check_names(sheets: Sheets) -> None:
    for run in (run for run in sheets.ratios.rows if run in sheets.metrics.rows):
        one, other = (sheet.rows[run].cells.get("name", "") for sheet in sheets)
        if one and other and one != other and {sheet.key for sheet in sheets} != {"name", "run"}:
            raise UserError(
                f"{sheets.metrics.where(run, 'name')}: {other!r}, but {one!r} on line {sheets.ratios.rows[run].line} "
                f"of {sheets.ratios.path}; check that each row of both tables has the {sheets.ratios.key} it belongs to"
            )


def read_sheet(path: str | os.PathLike) -> Sheet:
    """Read one table, keyed by its runs. Errors as for :func:`read_sheets`."""
    lines = csv_lines.read(path)
    return _sheet(lines, run_ids.only(lines), "")


def _sheet(content: csv_lines.Lines, key: str, prefix: str) -> Sheet:
    names = run_ids.labelled(content)
    path, header = content.path, _header(content, names, prefix)
    columns = tuple(c for c in header.columns if c not in KEYS)
    ids = run_ids.ids(content, names.index(key))
    rows: dict[str, Row] = {}
    for (line, cells), run in zip(content.lines, ids, strict=True):
        row = _row(path, header, line, cells[header.skip :])
        row.cells[key] = run
        # Two missing ids must not match each other.
        if run.casefold() in ("", "nan"):
            raise UserError(f"{path}: line {line}, column {key}: {run or 'empty'}; every row needs its {key}")
        if run in rows:
            raise UserError(
                f"{path}: line {line}: {key} {run} is already on line {rows[run].line}; write one row per run, with a "
                "column per domain or task"
            )
        rows[run] = row
    return Sheet(path, key, columns, rows, header.prefix)


def _header(content: csv_lines.Lines, names: list[str], prefix: str) -> _Header:
    """Check the header, and remove ``prefix`` from the names of all value columns if all of them have it."""
    path, header = content.path, names
    named = [c for c in header if c not in KEYS and not bookkeeping.by_name(c)]
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
        raise UserError(f"{path}: line 1: repeated column: {', '.join(map(shown, repeated))}; rename one")
    if set(header) <= set(KEYS):
        raise UserError(f"{path}: line 1: no columns besides {', '.join(header)}; add one per domain or task")
    return _Header(header, skip, prefix)


def _row(path: pathlib.Path, header: _Header, line: int, cells: list[str]) -> Row:
    if len(cells) != len(header.columns):
        raise UserError(
            f"{path}: line {line} ({cells[0] if cells else ''}) has {len(cells) + header.skip} cells and the header "
            f"{len(header.columns) + header.skip}; the file may be cut short, or decimals written with a comma"
        )
    if not any(cells):
        raise UserError(f"{path}: line {line}: an empty row; delete it")
    return Row(line, dict(zip(header.columns, cells)))


def _is_reserved(column: str) -> bool:
    """Return whether a column of values would be mistaken for one of those that are written with the ids."""
    return column.casefold() in KEYS


def write_sheet(
    path: str | os.PathLike, runs: Sequence[str], names: Sequence[str], columns: Sequence[str], rows: Sequence[Sequence]
) -> None:
    """Write a table with columns ``run,name,index`` and ``columns``; floats as the shortest text that reads back equal.

    Raises:
      UserError: the file cannot be written, or could not be read back: a run is repeated or empty, or a column is
        repeated, empty or reserved.
    """
    bad = [c for c in columns if c != normal(c) or not c or _is_reserved(c) or list(columns).count(c) > 1]
    if bad:
        raise UserError(
            f"{path}: {bad[0]!r} cannot be a column (repeated, empty or reserved): rename the domain or task"
        )
    bad = [run for run in runs if run != normal(run) or not run or list(runs).count(run) > 1]
    if bad:
        raise UserError(f"{path}: {bad[0]!r} cannot be a run id (repeated, empty or with spaces around it): rename it")
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*KEYS, *columns])
    for index, (run, name, row) in enumerate(zip(runs, names, rows, strict=True)):
        writer.writerow([run, name, index, *row])
    files.write_text(path, text.getvalue())
