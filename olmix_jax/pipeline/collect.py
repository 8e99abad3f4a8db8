"""Rounds of an external swarm: take the scores of runs of ``propose/next.csv`` that were trained elsewhere."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from olmix_jax.config import workdir as workdirs
from olmix_jax.config.schema import Config
from olmix_jax.pipeline import next_runs
from olmix_jax.swarm import csv_files, table
from olmix_jax.swarm.csv_files import Sheet
from olmix_jax.swarm.rounds import Rounds, folder
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.names import listed
from olmix_jax.utils.progress import counted, log

# The runs that were proposed for a round. Its ratios.csv has those with scores.
PLANNED = "next.csv"


def run(config: Config, workdir: pathlib.Path) -> None:
    """Add the runs with scores in ``rounds.metrics`` to their rounds, and measure all gains again.

    Scored runs of ``propose/next.csv`` begin a new round. Scores of an earlier ``rounds.metrics`` stay, unless this one
    has others.

    Raises:
      UserError: the file lacks a task, has a run that was never proposed, or a score that is missing or no number.
    """
    metrics, rounds = _read(config.rounds.metrics), Rounds.read(workdir)
    places = [workdir / folder(number) / PLANNED for number in range(1, len(rounds.rounds) + 1)]
    proposed = set(next_runs.read(workdir).runs) if (workdir / next_runs.PATH).is_file() else set()
    planned = {run for place in places for run in table.read_ratios(place).runs}
    _check_known(metrics, planned | proposed, config, workdir)
    scored = _scored(metrics, planned | proposed, config, workdir)
    if (proposed - planned) & set(scored):
        places.append(workdir / folder(len(places) + 1) / PLANNED)
        table.write_ratios(places[-1], *next_runs.read(workdir))
        rounds = rounds.with_round(len(places), next_runs.promise(config, workdir))
    if not places:
        log.info("rounds: %s has no scores of runs of %s yet", metrics.path, workdir / next_runs.PATH)
    for number, place in enumerate(places, start=1):
        runs = _add(place, metrics, scored)
        rounds = rounds.with_round(number, dataclasses.replace(rounds.rounds[number - 1], runs=len(runs)))
        if missing := [run for run in table.read_ratios(place).runs if run not in runs]:
            log.info("round %d: %s without scores: %s", number, counted(len(missing), "run"), listed(missing))
    swarm = workdirs.read_table(config, workdir)
    Rounds(tuple(each.measure(swarm) for each in rounds.rounds)).write(workdir)


def _read(path: str) -> Sheet:
    """Read scores. RegMix's prefix of the columns is removed, also beside the run ids that its own tables lack."""
    sheet, prefix = csv_files.read_sheet(path), csv_files.PREFIX
    if not all(column.startswith(prefix) for column in sheet.columns):
        return sheet
    rows = {
        run: csv_files.Row(row.line, {name.removeprefix(prefix): cell for name, cell in row.cells.items()})
        for run, row in sheet.rows.items()
    }
    columns = tuple(column.removeprefix(prefix) for column in sheet.columns)
    return dataclasses.replace(sheet, columns=columns, rows=rows, prefix=prefix)


def _scored(metrics: Sheet, planned: set[str], config: Config, workdir: pathlib.Path) -> list[str]:
    """Return the planned runs with scores. A run whose scores are all missing is not trained yet."""
    columns = {task: metrics.column(task) for task in workdirs.read_table(config, workdir).columns}
    if lacking := [task for task, column in columns.items() if column is None]:
        raise UserError(
            f"{metrics.path}: line 1: no column {listed(lacking)}; it needs the scores of all {len(columns)} tasks of "
            f"{config.swarm.metrics}, with the same names"
        )
    scored = []
    for run in planned & set(metrics.rows):
        empty = [column for column in columns.values() if column and metrics.number(run, column) is None]
        if len(empty) == len(columns):
            continue
        if empty and config.fit.missing == "error":
            raise UserError(
                f"{metrics.where(run, empty[0])}: {metrics.quoted(run, empty[0])}; complete the scores of the run, or "
                "leave all of them empty until it is trained"
            )
        scored.append(run)
    return scored


def _check_known(metrics: Sheet, planned: set[str], config: Config, workdir: pathlib.Path) -> None:
    """Raise an error for a run that is in no ``next.csv``, nor in the swarm."""
    unknown = set(metrics.rows) - planned - set(csv_files.read_sheet(config.swarm.ratios).rows)
    if unknown:
        raise UserError(
            f"{metrics.path}: {listed(sorted(unknown))}: no such run in {workdir / next_runs.PATH}, in earlier rounds "
            "or in swarm.ratios. If it was in a next.csv that has since been replaced, add its mixture to swarm.ratios "
            "and its scores to swarm.metrics"
        )


def _add(place: pathlib.Path, metrics: Sheet, scored: Sequence[str]) -> list[str]:
    """Write the mixtures and scores of a round, new and old ones; return the runs that have scores."""
    planned, path = table.read_ratios(place), place.with_name("metrics.csv")
    rows = {run: metrics.rows[run].cells for run in scored}
    columns = metrics.columns
    if path.is_file():
        earlier = csv_files.read_sheet(path)
        rows = {run: row.cells for run, row in earlier.rows.items()} | rows
        columns = tuple(dict.fromkeys((*columns, *earlier.columns)))
    at = [k for k, run in enumerate(planned.runs) if run in rows]
    runs = [planned.runs[k] for k in at]
    cells = [[rows[run].get(column, "") for column in columns] for run in runs]
    table.write_ratios(place.with_name("ratios.csv"), runs, runs, planned.domains, np.array(planned.ratios_KM)[at])
    csv_files.write_sheet(path, runs, runs, columns, cells)
    return runs
