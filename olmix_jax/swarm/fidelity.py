"""Cheap runs beside real ones in one swarm: the column ``fidelity`` of ``ratios.csv``, ``real`` or ``cheap``.

Cheap runs are merged models, branches of a trunk, shorter or smaller runs: whatever shows how a mixture's effects
compare, but not how large they are. An empty cell stands for ``real``, as does a missing column.
"""

import dataclasses
import os
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from olmix_jax.swarm import csv_files, csv_values
from olmix_jax.swarm.csv_files import Sheet, Sheets, number_in
from olmix_jax.swarm.lengths import groups
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.names import listed

if TYPE_CHECKING:
    from olmix_jax.swarm.table import SwarmTable

COLUMN, REAL, CHEAP = "fidelity", "real", "cheap"


class Cheap(NamedTuple):
    """Cheap runs, on the domains and tasks of the real ones. A law may be fitted to them, but is never scored on them.

    Attributes:
      runs: J run ids.
      ratios_JM: mixtures.
      bpb_JN: scores.
      cost: of a further run, as a share of a real one's: by the median training tokens, if ``swarm.tokens`` says that
        cheap runs have fewer, 0 for merged members, whose experts are trained, and None if it is not known.
    """

    runs: tuple[str, ...]
    ratios_JM: np.ndarray
    bpb_JN: np.ndarray
    cost: float | None = None


def taken(sheets: Sheets) -> tuple[Sheets, frozenset[str]]:
    """Return the tables without the column ``fidelity``, in any case, and the ids of the cheap runs.

    A column ``fidelity`` of numbers alone is a domain.

    Raises:
      UserError: a cell is neither ``real`` nor ``cheap``, or the column is among the scores.
    """
    ratios, metrics = sheets
    for column in _marking(metrics):
        if any(row.cells[column].casefold() == CHEAP for row in metrics.rows.values()):
            raise UserError(f"{metrics.path}: move the column {column} to {ratios.path}, where it marks cheap runs")
    ratios, cheap = marked(ratios)
    return Sheets(ratios, metrics), cheap


def marked(ratios: Sheet) -> tuple[Sheet, frozenset[str]]:
    """Return mixtures without the column ``fidelity``, and the ids of the cheap runs, as :func:`taken`."""
    marking = _marking(ratios)
    if not marking or all(number_in(row.cells[marking[0]]) is not None for row in ratios.rows.values()):
        return ratios, frozenset()
    if len(marking) > 1:
        raise UserError(f"{ratios.path}: line 1: the columns {listed(marking)} have one name; keep one of them")
    (column,) = marking
    for run, row in ratios.rows.items():
        if row.cells[column].casefold() not in (REAL, CHEAP, ""):
            raise UserError(
                f"{ratios.where(run, column)}: {row.cells[column]!r} is neither {REAL} nor {CHEAP}; write one of them, "
                "or leave the cell empty for a real run"
            )
    rest = dataclasses.replace(ratios, columns=tuple(name for name in ratios.columns if name != column))
    cheap = frozenset(run for run, row in ratios.rows.items() if row.cells[column].casefold() == CHEAP)
    return rest, cheap


def _marking(sheet: Sheet) -> list[str]:
    """Return the columns called ``fidelity``, in any case."""
    return [column for column in sheet.columns if column.casefold() == COLUMN]


def apart(table: "SwarmTable", cheap: Collection[str], *, all_cheap: bool = False) -> "SwarmTable":
    """Return a table of runs of both kinds with the cheap ones as its ``cheap``.

    Raises:
      UserError: all runs are cheap, unless ``all_cheap`` allows that.
    """
    is_cheap_K = np.array([run in cheap for run in table.runs])
    if not is_cheap_K.any():
        return table
    if is_cheap_K.all() and not all_cheap:
        raise UserError(
            f"all {len(table.runs)} runs are {CHEAP}, and nothing says how large effects are; add real runs"
        )
    real, of = table.only(np.flatnonzero(~is_cheap_K)), table.only(np.flatnonzero(is_cheap_K))
    cost = None
    if real.lengths is not None and of.lengths is not None:
        share = float(np.median(of.lengths.tokens_K) / np.median(real.lengths.tokens_K))
        # Other cheap runs are smaller models, or tokens do not tell what they save.
        cost = share if share < 1 else None
    if real.lengths is not None and not groups(real.lengths).max():
        # Only the cheap runs are of another length.
        real = dataclasses.replace(real, lengths=None)
    return dataclasses.replace(real, cheap=Cheap(of.runs, of.ratios_KM, of.bpb_KN, cost))


def both(one: Cheap | None, other: Cheap | None, tasks: Sequence[int]) -> Cheap | None:
    """Return the runs of ``one``, and those of ``other`` that it lacks; ``tasks`` are its columns of one's tasks."""
    if other is None:
        return one
    other = other._replace(bpb_JN=other.bpb_JN[:, list(tasks)])
    if one is None:
        return other
    new = [j for j, run in enumerate(other.runs) if run not in one.runs]
    ratios_JM, bpb_JN = (np.concatenate([x, y[new]]) for x, y in zip(one[1:3], other[1:3]))
    return Cheap(one.runs + tuple(other.runs[j] for j in new), ratios_JM, bpb_JN, one.cost)


def joined(table: "SwarmTable", ratios: str | os.PathLike, metrics: str | os.PathLike) -> "SwarmTable":
    """Return a table of real runs with the cheap runs that two other files hold.

    Raises:
      UserError: a file is missing or malformed, or lacks a domain or a task.
    """
    sheets, _ = taken(csv_files.read_sheets(ratios, metrics))
    for sheet, columns in zip(sheets, (table.domains, table.columns)):
        if lacking := [name for name in columns if name not in sheet.columns]:
            raise UserError(f"{sheet.path}: line 1: no column {listed(lacking)}; make the file again")
    runs, _ = csv_values.common_runs(sheets, set())
    bpb_JN = csv_values.scores(sheets.metrics, runs, table.columns, "error").bpb_KN
    ratios_JM = csv_values.mixtures(sheets.ratios, runs, table.domains)
    return dataclasses.replace(table, cheap=Cheap(runs, ratios_JM, bpb_JN, cost=0.0))


def with_column(
    domains: Sequence[str], rows: Sequence[Sequence], runs: Sequence[str], cheap: Collection[str]
) -> tuple[Sequence[str], Sequence[Sequence]]:
    """Return the columns and rows of ``ratios.csv``, with the column ``fidelity`` if there are cheap runs."""
    if not cheap:
        return domains, rows
    return [*domains, COLUMN], [[*row, CHEAP if run in cheap else REAL] for run, row in zip(runs, rows, strict=True)]
