"""Mixtures without scores: ``ratios.csv`` before a swarm is trained."""

import os
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from olmix_jax.swarm import csv_files, csv_values, fidelity
from olmix_jax.utils.progress import log


def display_names(sheet: csv_files.Sheet, runs: tuple[str, ...]) -> tuple[str, ...]:
    """Return the display names of runs: the column ``name``, or the run id where it is empty."""
    return tuple(sheet.rows[run].cells.get("name") or run for run in runs)


def write_ratios(
    path: str | os.PathLike,
    runs: Sequence[str],
    names: Sequence[str],
    domains: Sequence[str],
    ratios_KM: np.ndarray,
    cheap: Collection[str] = (),
) -> None:
    """Write mixtures without scores; ``cheap`` are the ids of the cheap runs among ``runs``."""
    rows = np.asarray(ratios_KM, np.float64).tolist()
    csv_files.write_sheet(path, runs, names, *fidelity.with_column(domains, rows, runs, cheap))


class Mixtures(NamedTuple):
    """Mixtures without scores: K run ids, K display names, M domains, and the weights."""

    runs: tuple[str, ...]
    names: tuple[str, ...]
    domains: tuple[str, ...]
    ratios_KM: np.ndarray


class Planned(NamedTuple):
    """Runs of both kinds to train: the fields of :class:`Mixtures`, and the ids of the cheap runs."""

    runs: tuple[str, ...]
    names: tuple[str, ...]
    domains: tuple[str, ...]
    ratios_KM: np.ndarray
    cheap: Collection[str] = ()

    def real(self) -> "Planned":
        """Return the real runs."""
        at = [k for k, run in enumerate(self.runs) if run not in self.cheap]
        runs, names = (tuple(of[k] for k in at) for of in (self.runs, self.names))
        return Planned(runs, names, self.domains, self.ratios_KM[at])


def read_ratios(path: str | os.PathLike) -> Mixtures:
    """Read mixtures without scores.

    Raises:
      UserError: as for :meth:`olmix_jax.swarm.table.SwarmTable.read`.
    """
    return Mixtures(*read_planned(path)[:4])


def read_planned(path: str | os.PathLike) -> Planned:
    """Read mixtures without scores and their kinds. Errors as for :func:`read_ratios`."""
    sheet, cheap = fidelity.marked(csv_files.read_sheet(path))
    runs, columns = tuple(sheet.rows), csv_values.domain_columns(sheet)
    if columns.left_out:
        log.warning("%s", csv_values.left_out_text(sheet, columns))
    ratios_KM = csv_values.mixtures(sheet, runs, columns.names)
    return Planned(runs, display_names(sheet, runs), columns.names, ratios_KM, cheap)
