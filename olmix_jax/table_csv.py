"""CSV files of a swarm: written so that they read back, read with errors that name file, line, run and column."""

import csv
import dataclasses
import io
import math
import os
import pathlib
import re
from collections.abc import Sequence

from olmix_jax import files
from olmix_jax.errors import UserError

# Columns that identify a run; every other column is a domain or a task.
KEYS = ("run", "name", "index")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of a sheet: its number in the file and its cells by column."""

    line: int
    cells: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Sheet:
    """A CSV file: its value columns, in order, and its rows by run id, in order. ``key`` is the column joined by."""

    path: pathlib.Path
    key: str
    columns: tuple[str, ...]
    rows: dict[str, Row]

    def where(self, run: str, column: str) -> str:
        """How an error names a cell."""
        return f"{self.path}: line {self.rows[run].line} ({self.key} {run}), column {column}"

    def number(self, run: str, column: str) -> float | None:
        """The finite number in a cell; None if the cell is empty.

        Raises:
          UserError: the cell holds anything else.
        """
        text = self.rows[run].cells[column]
        if not text:
            return None
        if _NUMBER.fullmatch(text) and math.isfinite(float(text)):
            return float(text)
        hint = "; decimals are written with a point" if re.fullmatch(r"[+-]?\d*,\d+([eE][+-]?\d+)?", text) else ""
        raise UserError(f"{self.where(run, column)}: {text!r} is not a finite number{hint}")


def read_sheets(ratios: str | os.PathLike, metrics: str | os.PathLike) -> tuple[Sheet, Sheet]:
    """Reads the two tables of a swarm, keyed by ``run``, or by ``index`` where either has no ``run`` column.

    In a table without ``run`` (RegMix's shape) the prefixes ``train_`` and ``metric/`` are taken off its columns.

    Raises:
      UserError: a file is missing, not UTF-8, not comma-separated, has a torn header or row, a column or run twice,
        a row without a key or without any value.
    """
    a, b = _read_lines(ratios), _read_lines(metrics)
    key = "run" if "run" in a[1] and "run" in b[1] else "index"
    return _sheet(*a, key, "train_"), _sheet(*b, key, "metric/")


def read_sheet(path: str | os.PathLike) -> Sheet:
    """Reads one table, keyed by ``run``. Errors as :func:`read_sheets`."""
    return _sheet(*_read_lines(path), "run", "")


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
    header = lines[0][1]
    if len(header) == 1 and re.search(r"[;\t]", header[0]):
        raise UserError(f"{path}: line 1: columns must be separated by commas, and decimals written with a point")
    return path, header, lines[1:]


def _sheet(path, header: list[str], lines: list[tuple[int, list[str]]], key: str, prefix: str) -> Sheet:
    if key not in header:
        raise UserError(
            f"{path}: line 1: no column to join by: both tables need `run`, or both `index`; the header is "
            f"{', '.join(header)[:80]}"
        )
    if "run" not in header and all(c.startswith(prefix) for c in header if c and c not in KEYS):
        header = [c if c in KEYS else c.removeprefix(prefix) for c in header]
    # pandas writes its row numbers into a first column without a name.
    skip = 1 if header[0] == "" else 0
    header = header[skip:]
    if "" in header:
        raise UserError(f"{path}: line 1: column {header.index('') + 1 + skip} has no name; the header may be torn")
    twice = sorted({c for c in header if header.count(c) > 1})
    if twice:
        raise UserError(f"{path}: line 1: column more than once: {', '.join(twice)}")
    columns = tuple(c for c in header if c not in KEYS)
    if not columns:
        raise UserError(f"{path}: line 1: no columns beside {', '.join(header)}")
    rows = {}
    for line, cells in lines:
        row = _row(path, header, line, cells[skip:], skip)
        run = row.cells[key]
        if not run:
            raise UserError(f"{path}: line {line}, column {key}: empty; every row needs its {key}")
        if run in rows:
            raise UserError(f"{path}: line {line}: {key} {run} is on line {rows[run].line} already")
        rows[run] = row
    return Sheet(path, key, columns, rows)


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
    bad = [c for c in columns if c != c.strip() or not c or c in KEYS or list(columns).count(c) > 1]
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
