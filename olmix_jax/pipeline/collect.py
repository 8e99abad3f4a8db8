"""Rounds of an external swarm: take the scores of runs of ``propose/next.csv`` that were trained elsewhere."""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from olmix_jax.config import workdir as workdirs
from olmix_jax.config.schema import Config
from olmix_jax.pipeline import next_runs
from olmix_jax.swarm import csv_files, csv_values, table
from olmix_jax.swarm.csv_files import Sheet
from olmix_jax.swarm.rounds import Round, Rounds, folder, run_digests
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.names import listed
from olmix_jax.utils.progress import counted, log

# The runs that were proposed for a round. Its ratios.csv has those with scores.
PLANNED = "next.csv"


def run(config: Config, workdir: pathlib.Path) -> None:
    """Add the runs with scores in ``rounds.metrics`` to their rounds, and measure all gains again.

    Scored runs of a ``propose/next.csv``, the present one or an earlier one, begin a new round. Scores of an earlier
    ``rounds.metrics`` stay, unless this one has others.

    Raises:
      UserError: the file lacks a task, has a run that was never proposed or was proposed for another swarm, or a score
        that is missing or no number.
    """
    metrics, rounds = _read(config.rounds.metrics), Rounds.read(workdir)
    plans = [table.read_planned(workdir / folder(number) / PLANNED) for number in range(1, len(rounds.rounds) + 1)]
    proposals = _proposals(config, workdir)
    known = {run for plan in (*plans, *(mixtures for mixtures, _ in proposals)) for run in plan.runs}
    _check_known(metrics, known, config, workdir)
    swarm = workdirs.read_table(config, workdir)
    scored = _scored(metrics, known, swarm, config)
    for mixtures, promised in _begun(proposals, plans, scored):
        _check_swarm(mixtures, promised, config, workdir)
        plans.append(mixtures)
        rounds = rounds.with_round(len(plans), promised)
    for number, plan in enumerate(plans, start=1):
        # No stage reads it before the record has the round.
        table.write_ratios(workdir / folder(number) / PLANNED, *plan)
    if not plans:
        log.info("rounds: %s has no scores of runs of %s yet", metrics.path, workdir / next_runs.PATH)
    columns = _columns(config, swarm)
    contents = [
        _content(workdir / folder(number), plan, metrics, scored, columns) for number, plan in enumerate(plans, start=1)
    ]
    rounds = Rounds(
        tuple(dataclasses.replace(each, runs=len(rows)) for each, rows in zip(rounds.rounds, contents, strict=True))
    )
    rounds.write(workdir)
    for number, (plan, rows) in enumerate(zip(plans, contents), start=1):
        _write(workdir / folder(number), plan, rows, columns)
        if missing := [run for run in plan.runs if run not in rows]:
            log.info("round %d: %s without scores: %s", number, counted(len(missing), "run"), listed(missing))
    swarm = workdirs.read_table(config, workdir)
    Rounds(tuple(each.measure(swarm) for each in rounds.rounds)).write(workdir)


Proposed = tuple[table.Planned, Round]


def _proposals(config: Config, workdir: pathlib.Path) -> list[Proposed]:
    """Return the runs of every ``next.csv`` with their promise. Earlier versions kept only the present one."""
    proposals = next_runs.archived(workdir)
    if (workdir / next_runs.PATH).is_file():
        present = next_runs.read(workdir)
        if all(mixtures.runs != present.runs for mixtures, _ in proposals):
            proposals.append((present, next_runs.promise(config, workdir)))
        # Of proposals that share the scored runs, the present one is preferred.
        proposals.sort(key=lambda one: one[0].runs != present.runs)
    return proposals


def _begun(proposals: Sequence[Proposed], plans: Sequence[table.Planned], scored: Sequence[str]) -> Iterator[Proposed]:
    """Yield the proposals of new rounds. A run that several share belongs to the one with the most scored runs."""
    left = set(scored) - {run for plan in plans for run in plan.runs}
    while left:
        best = max(proposals, key=lambda one: len(left & set(one[0].runs)))
        yield best
        left -= set(best[0].runs)


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


def _scored(metrics: Sheet, planned: set[str], swarm: table.SwarmTable, config: Config) -> list[str]:
    """Return the planned runs with scores. A run whose scores are all missing is not trained yet."""
    columns = {task: metrics.column(task) for task in swarm.columns}
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


def _check_swarm(mixtures: table.Planned, promised: Round, config: Config, workdir: pathlib.Path) -> None:
    """Raise an error if the runs were proposed for another swarm."""
    swarm, remedy = workdirs.read_swarm(config, workdir), "give the swarm that it was made from, or another --workdir"
    if other := sorted(set(mixtures.domains) ^ set(swarm.domains)):
        raise UserError(
            f"{workdir / next_runs.PATH}: its domains and those of {config.swarm.ratios} differ in {listed(other)}; "
            f"{remedy}"
        )
    if set(run_digests(swarm)).isdisjoint(promised.swarm):
        raise UserError(
            f"{config.rounds.metrics}: {mixtures.runs[0]} was proposed for another swarm than {config.swarm.ratios}; "
            f"{remedy}"
        )


def _columns(config: Config, swarm: table.SwarmTable) -> list[str]:
    """Return the swarm's columns of scores, also those that the config drops at present."""
    sheet = csv_files.read_sheets(config.swarm.ratios, config.swarm.metrics).metrics
    no_scores = csv_values.not_scores(sheet)
    return [column for column in sheet.columns if column in swarm.columns or column not in no_scores]


def _content(
    place: pathlib.Path, plan: table.Planned, metrics: Sheet, scored: Sequence[str], columns: Sequence[str]
) -> dict[str, list[str]]:
    """Return the scores of a round as text, new and old ones: {run: a cell per column}."""
    path = place / "metrics.csv"
    sheets = {run: metrics for run in scored}
    if path.is_file():
        earlier = csv_files.read_sheet(path)
        sheets = dict.fromkeys(earlier.rows, earlier) | sheets
    return {run: [_cell(sheets[run], run, column) for column in columns] for run in plan.runs if run in sheets}


def _cell(sheet: Sheet, run: str, name: str) -> str:
    column = sheet.column(name)
    return "" if column is None else sheet.rows[run].cells[column]


def _write(place: pathlib.Path, plan: table.Planned, rows: dict[str, list[str]], columns: Sequence[str]) -> None:
    """Write the mixtures and scores of a round."""
    at, runs = [plan.runs.index(run) for run in rows], list(rows)
    cheap = set(plan.cheap) & set(runs)
    table.write_ratios(place / "ratios.csv", runs, runs, plan.domains, np.array(plan.ratios_KM)[at], cheap)
    csv_files.write_sheet(place / "metrics.csv", runs, runs, columns, list(rows.values()))
