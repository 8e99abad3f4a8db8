"""Split a CSV file into cells: separated by commas, semicolons or tabs, with names in their normal form."""

import csv
import io
import os
import pathlib
import re
from typing import NamedTuple

from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.names import normal

SEPARATORS = (",", ";", "\t")
# Missing values as pandas, R, JSON and spreadsheets write them, in lower case.
_MISSING = ("", "nan", "na", "n/a", "#n/a", "<na>", "null", "none")


class Lines(NamedTuple):
    """A CSV file split into cells: its header, and its other lines with their line numbers."""

    path: pathlib.Path
    header: list[str]
    lines: list[tuple[int, list[str]]]

    def column(self, at: int) -> list[str]:
        """Return the cells of a column; "" where a row is too short."""
        return [cells[at] if at < len(cells) else "" for _, cells in self.lines]


def is_missing(cell: str) -> bool:
    """Return whether a cell is empty or marked as missing (nan, NA, null)."""
    return cell.casefold() in _MISSING


def read(path: str | os.PathLike) -> Lines:
    """Split a file into cells; blank lines are skipped.

    The separator is a comma, unless only semicolons or only tabs give each line as many cells as the header.

    Raises:
      UserError: the file is missing, cannot be read, is not UTF-8, is not valid CSV or has no rows.
    """
    path, text = pathlib.Path(path), files.read_text(path)
    lines = _split(path, text, _separator(path, text))
    if len(lines) < 2:
        raise UserError(f"{path}: no rows: the file needs a header and one row per run")
    header = [normal(cell) for cell in lines[0][1]]
    if len(header) == 1:
        raise UserError(f"{path}: line 1: one column, {header[0][:80]}; separate columns by commas, semicolons or tabs")
    if len(header) > 2 and all(re.fullmatch(r"\d*\.\d+", name) for name in header[-2:]):
        raise UserError(f"{path}: line 1: numbers in place of names; add a header with the names of the columns")
    return Lines(path, header, lines[1:])


def _separator(path: pathlib.Path, text: str) -> str:
    for separator in SEPARATORS:
        try:
            widths = [len(cells) for _, cells in _split(path, text, separator)]
        except UserError:
            continue
        if widths and widths[0] > 1 and len(set(widths)) == 1:
            return separator
    # No separator fits every line. The most frequent one of the header gives the error about the line that is cut.
    header = text.partition("\n")[0]
    return max(SEPARATORS, key=header.count)


def _split(path: pathlib.Path, text: str, separator: str) -> list[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        return [(reader.line_num, [cell.strip() for cell in line]) for line in reader if line]
    except csv.Error as e:
        raise UserError(f"{path}: line {reader.line_num}: not valid CSV: {e}") from e
