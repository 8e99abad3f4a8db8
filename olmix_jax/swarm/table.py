"""SwarmTable: what was trained and how well it did, all that passes from training to deciding.

Two CSV files hold it: ``ratios.csv`` with columns ``run,name,index,‹domain…›`` and ``metrics.csv`` with
``run,name,index,‹task…›``, and ``meta.json`` what belongs to no run. They may have been written here
(:func:`write_swarm`) or elsewhere: the published Olmix and RegMix swarms are read as they are.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from olmix_jax.swarm import csv_files
from olmix_jax.swarm.meta import Meta
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log

# Fewer runs than this are refused whatever is fitted to them.
_FEWEST = 4


class Inherited(NamedTuple):
    """Runs of an earlier domain set, expressed on this one; a law is fitted to them as well, and judged on none.

    Attributes:
      ratios_JM: their mixtures.
      bpb_JN: their scores.
      trust_J: what each counts, 1 for as much as a run of this set: their noise is 1/trust times its variance.
    """

    ratios_JM: np.ndarray
    bpb_JN: np.ndarray
    trust_J: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class SwarmTable:
    """Realised mixtures of K runs over M domains and their scores on N tasks; row k of both belongs to ``runs[k]``.

    Attributes:
      runs: K run ids.
      domains: M names, the columns of ``ratios_KM``, ``natural_M`` and ``tokens_M``.
      tasks: N names, the columns of ``bpb_KN``.
      ratios_KM: float64, ≥ 0, rows summing to 1.
      bpb_KN: float64, bits per byte (or another loss; lower is better), finite.
      natural_M: the natural distribution p0, positive, summing to 1; None if not known.
      tokens_M: unique tokens N_j per domain; None if not known.
      names: K names for people, the ``name`` column; the run ids where there is none.
      diverged: ids of runs that diverged in training and were left out.
      columns: the columns of the metrics that the tasks were made of; given none, the tasks.
      sizes_N: how many tasks each of ``tasks`` stands for, to weigh it by: 1, or a family's number of tasks (see
        :mod:`olmix_jax.swarm.task_groups`); given none, ones.
      inherited: what earlier runs tell; None for nothing.
    """

    runs: tuple[str, ...]
    domains: tuple[str, ...]
    tasks: tuple[str, ...]
    ratios_KM: np.ndarray
    bpb_KN: np.ndarray
    natural_M: np.ndarray | None
    tokens_M: np.ndarray | None
    names: tuple[str, ...]
    diverged: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    sizes_N: np.ndarray | None = None
    inherited: Inherited | None = None

    def __post_init__(self):
        object.__setattr__(self, "columns", self.columns or self.tasks)
        object.__setattr__(self, "sizes_N", np.ones(len(self.tasks)) if self.sizes_N is None else self.sizes_N)

    @classmethod
    def read(
        cls,
        ratios: str | os.PathLike,
        metrics: str | os.PathLike,
        meta: str | os.PathLike | Mapping = "",
        *,
        drop_metrics: Sequence[str] = (),
        keep_metrics: Sequence[str] = (),
        missing: str = "error",
    ) -> "SwarmTable":
        """Reads a swarm, its tables joined by run id whatever their order, in the order of ``ratios``.

        ``meta.json`` may hold ``relative_sizes`` and ``token_counts`` by domain name, ``drop_metrics`` (task columns
        left out, together with the argument's) and ``diverged`` ({run: step}, runs left out). Without relative sizes
        the natural distribution is that of the token counts. Rows of ratios that sum to 1 within 0.01 are
        renormalised. Runs in only one of the tables are left out, and the log says so.

        Args:
          ratios: path of the mixtures.
          metrics: path of the scores.
          meta: path of ``meta.json``, or its content, as text or as a mapping; empty for none.
          drop_metrics: task columns to leave out, named as in the file or as in ``tasks``. One that does not exist is
            an error; in meta's own list, which swarms share, it is only logged.
          keep_metrics: the only task columns to read, named likewise, but for those to leave out; empty for all.
          missing: what to do about a score that is empty, NaN, NA or null: "error", "drop_run" or "drop_task".

        Raises:
          UserError: anything else about the files; the message names file, line, run and column.
        """
        if missing not in ("error", "drop_run", "drop_task"):
            raise UserError(f"`missing` must be error, drop_run or drop_task, not {missing!r}")
        sheet_r, sheet_m = csv_files.read_sheets(ratios, metrics)
        about = Meta.read(meta, sheet_r.columns)
        strange = sorted(set(about.diverged) - set(sheet_r.rows))
        if strange:
            raise UserError(f"{about.where}: `diverged` names runs not in {sheet_r.path}: {', '.join(strange)}")
        runs = _common(sheet_r, sheet_m, set(about.diverged))
        tasks = csv_files.choose(sheet_m, about.drop_metrics, drop_metrics, keep_metrics)
        ratios_KM = csv_files.mixtures(sheet_r, runs)
        runs, tasks, kept_K, bpb_KN = csv_files.scores(sheet_m, runs, tasks, missing)
        return cls(
            runs=runs,
            domains=sheet_r.columns,
            tasks=tasks,
            ratios_KM=ratios_KM[kept_K],
            bpb_KN=bpb_KN,
            natural_M=about.natural_M,
            tokens_M=about.tokens_M,
            names=_names(sheet_r, runs),
            diverged=tuple(run for run in sheet_r.rows if run in about.diverged),
        )

    def check_enough(self, parameters: int) -> None:
        """Refuses a table that a law of ``parameters`` numbers per task cannot be fitted to, with a run to spare.

        Args:
          parameters: what the data alone must settle: M + 1 for a plain log-linear law; fewer, down to 0, for a law
            that a prior or shrinkage settles where the data do not.

        Raises:
          UserError: there are fewer than ``parameters`` + 1 runs, or fewer than 4.
        """
        needed, runs = max(parameters + 1, _FEWEST), len(self.runs)
        if self.inherited is not None:
            runs += len(self.inherited.trust_J)
        if runs < needed:
            raise UserError(
                f"{runs} runs for {len(self.domains)} domains: a fit of this law needs at least {needed}, "
                f"better {max(3 * (len(self.domains) + 1), needed)}; train more runs, merge domains, or choose a "
                "`fit.law` that needs fewer"
            )

    def ordered(self, domains: Sequence[str]) -> "SwarmTable":
        """The table with its columns of domains in another order.

        Raises:
          UserError: these are other domains.
        """
        if set(domains) != set(self.domains):
            other = ", ".join(sorted(set(domains) ^ set(self.domains)))
            raise UserError(f"the swarm's domains are not those of the domain set; not in both: {other}")
        at = [self.domains.index(name) for name in domains]
        sizes = {f: None if (x := getattr(self, f)) is None else x[at] for f in ("natural_M", "tokens_M")}
        return dataclasses.replace(self, domains=tuple(domains), ratios_KM=self.ratios_KM[:, at], **sizes)

    def barely_sampled(self, minimum_runs: int = 3) -> dict[str, dict]:
        """Domains that fewer than ``minimum_runs`` runs have weight on, so that the law knows little about them.

        Returns:
          {domain: {"runs": how many runs have weight on it, "max": the largest weight}}, in the order of the domains.
        """
        runs_M, most_M = (self.ratios_KM > 0).sum(axis=0), self.ratios_KM.max(axis=0)
        found = zip(self.domains, runs_M.tolist(), most_M.tolist())
        return {domain: {"runs": runs, "max": most} for domain, runs, most in found if runs < minimum_runs}

    def thinned(self, split: float, seed: int) -> "SwarmTable":
        """The table with a random part of its runs, in their order: a share ``split`` ≤ 1 of them, or that many.

        Raises:
          UserError: there are fewer runs, or none would be left.
        """
        total = len(self.runs)
        number = round(split * total) if split <= 1 else int(split)
        if not 0 < number <= total:
            raise UserError(
                f"config field `fit.train_split` asks for {number} runs, and the swarm has {total} of use; up to 1 it "
                "is a share of them, above 1 a number of runs"
            )
        kept = np.sort(np.random.default_rng(seed).permutation(total)[:number])
        return dataclasses.replace(
            self,
            runs=tuple(self.runs[k] for k in kept),
            names=tuple(self.names[k] for k in kept),
            ratios_KM=self.ratios_KM[kept],
            bpb_KN=self.bpb_KN[kept],
        )


def _common(ratios: csv_files.Sheet, metrics: csv_files.Sheet, diverged: set[str]) -> tuple[str, ...]:
    """Ids of the runs to use: in both tables and not diverged, in the order of the ratios."""
    if diverged:
        log.info("%s: left out, diverged in training: %s", ratios.path, ", ".join(sorted(diverged)))
    for one, other in ((ratios, metrics), (metrics, ratios)):
        alone = [run for run in one.rows if run not in other.rows and run not in diverged]
        if alone:
            log.info("%s: %d runs left out, not in %s: %s", one.path, len(alone), other.path, ", ".join(alone[:8]))
    runs = tuple(run for run in ratios.rows if run in metrics.rows and run not in diverged)
    if not runs:
        examples = [next((run for run in sheet.rows if run not in diverged), "none") for sheet in (ratios, metrics)]
        raise UserError(
            f"{ratios.path} and {metrics.path} have no {ratios.key} in common that can be used: the one has, for "
            f"example, {examples[0]}, the other {examples[1]}; write the same {ratios.key} in both"
        )
    return runs


def _names(sheet: csv_files.Sheet, runs: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sheet.rows[run].cells.get("name") or run for run in runs)


def write_swarm(
    folder: str | os.PathLike,
    runs: Sequence[str],
    names: Sequence[str],
    domains: Sequence[str],
    tasks: Sequence[str],
    ratios_KM: np.ndarray,
    bpb_KN: np.ndarray,
    natural_M: np.ndarray,
    tokens_M: np.ndarray,
    diverged: Mapping[str, int],
) -> None:
    """Writes ``ratios.csv``, ``metrics.csv`` and ``meta.json`` into ``folder``; :meth:`SwarmTable.read` gives it back.

    Numbers are written as the shortest text that reads back as the same float64, so equal tables are equal files.
    Runs in ``diverged`` ({run: step at which it became non-finite}) have empty cells in ``metrics.csv``, whatever
    their row of ``bpb_KN`` holds.

    Raises:
      UserError: a file cannot be written, or a run that has not diverged has a score that is not finite.
    """
    folder = pathlib.Path(folder)
    write_ratios(folder / "ratios.csv", runs, names, domains, ratios_KM)
    bpb_KN = np.asarray(bpb_KN, np.float64)
    for run, row in zip(runs, bpb_KN, strict=True):
        if run not in diverged and not np.isfinite(row).all():
            task = tasks[int(np.argmin(np.isfinite(row)))]
            raise UserError(f"run {run}: the score of task {task} is not finite; it cannot be fitted")
    rows = [[""] * len(tasks) if run in diverged else row.tolist() for run, row in zip(runs, bpb_KN)]
    csv_files.write_sheet(folder / "metrics.csv", runs, names, tasks, rows)
    meta = {
        "relative_sizes": dict(zip(domains, np.asarray(natural_M).tolist(), strict=True)),
        "token_counts": dict(zip(domains, np.asarray(tokens_M).tolist(), strict=True)),
        "diverged": {run: int(diverged[run]) for run in runs if run in diverged},
    }
    files.write_json(folder / "meta.json", meta)


def write_ratios(
    path: str | os.PathLike,
    runs: Sequence[str],
    names: Sequence[str],
    domains: Sequence[str],
    ratios_KM: np.ndarray,
) -> None:
    """Writes mixtures alone, as a swarm has them before it is trained."""
    csv_files.write_sheet(path, runs, names, domains, np.asarray(ratios_KM, np.float64).tolist())


def read_ratios(path: str | os.PathLike) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], np.ndarray]:
    """Reads mixtures alone: runs, names, domains and ratios_KM.

    Raises:
      UserError: as :meth:`SwarmTable.read`.
    """
    sheet = csv_files.read_sheet(path)
    runs = tuple(sheet.rows)
    return runs, _names(sheet, runs), sheet.columns, csv_files.mixtures(sheet, runs)
