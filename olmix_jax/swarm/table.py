"""SwarmTable: the mixtures of a swarm's runs and their scores. Fitting and proposing need nothing else.

Three files hold it: ``ratios.csv`` with columns ``run,name,index,‹domain…›``, ``metrics.csv`` with columns
``run,name,index,‹task…›``, and ``meta.json`` with the sizes of the domains. :func:`write_swarm` writes them. Swarms
that were trained elsewhere, such as the published Olmix and RegMix swarms, are read in their own format.
"""

import dataclasses
import os
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from olmix_jax.swarm import csv_files, csv_values, fidelity, score_checks
from olmix_jax.swarm.coverage import Coverage, by_domain
from olmix_jax.swarm.lengths import Lengths, read_lengths
from olmix_jax.swarm.meta import Meta
from olmix_jax.swarm.mixtures import Mixtures, Planned, display_names, read_planned, read_ratios, write_ratios
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError

__all__ = [
    "Inherited",
    "Mixtures",
    "Planned",
    "SwarmTable",
    "read_planned",
    "read_ratios",
    "write_ratios",
    "write_swarm",
]

# The fewest runs that any law is fitted to.
_FEWEST = 4


class Inherited(NamedTuple):
    """Runs of an earlier domain set, expressed on the current one. A law is fitted to them but never scored on them.

    Attributes:
      ratios_JM: mixtures of the J runs.
      bpb_JN: scores of the J runs.
      trust_J: weight of each run relative to a run of the current set; its noise variance is 1/trust times as large.
    """

    ratios_JM: np.ndarray
    bpb_JN: np.ndarray
    trust_J: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class SwarmTable:
    """Realised mixtures of K runs over M domains, and their scores on N tasks. Row k of both belongs to ``runs[k]``.

    Attributes:
      runs: K run ids.
      domains: M names, the columns of ``ratios_KM``, ``natural_M`` and ``tokens_M``.
      tasks: N names, the columns of ``bpb_KN``.
      ratios_KM: float64, ≥ 0, rows summing to 1.
      bpb_KN: float64, finite, bits per byte or another loss; lower is better.
      natural_M: the natural distribution p0, positive, summing to 1; None if not known.
      tokens_M: unique tokens N_j per domain; None if not known.
      names: K display names, from the ``name`` column; the run id if a name is empty.
      diverged: ids of runs that diverged in training. They are not among ``runs``.
      columns: the metric columns that the tasks were made from; by default the tasks.
      sizes_N: number of tasks that each of ``tasks`` stands for: 1, or a family's number of tasks (see
        :mod:`olmix_jax.swarm.task_groups`). Averages over tasks use it as weights. Default: ones.
      inherited: runs of an earlier domain set, or None.
      cheap: cheap runs (:mod:`olmix_jax.swarm.fidelity`), which are not among ``runs``; None without.
      warnings: what was left out of the files, and what in them may be a mistake, a sentence each.
      lengths: training tokens and unique tokens of each run; None if all runs are alike, or not known.
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
    sizes_N: np.ndarray = None  # type: ignore[assignment]  # never None after __post_init__
    inherited: Inherited | None = None
    warnings: tuple[str, ...] = ()
    lengths: Lengths | None = None
    cheap: fidelity.Cheap | None = None

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
        tokens: str | os.PathLike = "",
        drop_metrics: Sequence[str] = (),
        keep_metrics: Sequence[str] = (),
        missing: str = "error",
        every_column: bool = False,
        all_cheap: bool = False,
    ) -> "SwarmTable":
        """Read a swarm. The two tables are joined by run id; the order of the runs is that of ``ratios``.

        ``meta.json`` may hold ``relative_sizes``, ``token_counts``, ``drop_metrics`` and ``diverged``
        (:class:`~olmix_jax.swarm.meta.Meta`). Mixtures that sum to 1 within 0.01 are renormalised. Runs in only one
        table, and columns that are no score (:mod:`~olmix_jax.swarm.bookkeeping`), are left out, with ``warnings``.

        Args:
          ratios, metrics, tokens: paths of mixtures, scores and, if runs differ in them, lengths (lengths.py).
          meta: path of ``meta.json``, or its content as text or as a mapping; empty for none.
          drop_metrics: columns to drop, named as in the file or ``tasks``. An unknown one is an error (meta's: logged).
          keep_metrics: task columns to read, unless they are also dropped; empty for all that are not recognised as
            something else. A column that is named here is read whatever its name and values say.
          missing: what to do about a missing score (empty, NaN, NA, null): "error", "drop_run" or "drop_task".
          every_column, all_cheap: that all columns are tasks, as in :func:`write_swarm`; that no run needs to be real.

        Raises:
          UserError: the files are malformed or disagree; the message names file, line, run and column.
        """
        if missing not in ("error", "drop_run", "drop_task"):
            raise UserError(f"`missing` must be error, drop_run or drop_task, not {missing!r}")
        sheets, cheap = fidelity.taken(csv_files.read_sheets(ratios, metrics))
        domains = csv_values.domain_columns(sheets.ratios)
        about = Meta.read(meta, domains.names, str(sheets.ratios.path))
        if unknown := sorted(set(about.diverged) - set(sheets.ratios.rows)):
            raise UserError(f"{about.where}: `diverged` names runs not in {sheets.ratios.path}: {', '.join(unknown)}")
        runs, unmatched = csv_values.common_runs(sheets, set(about.diverged))
        drop = about.drop_metrics, drop_metrics
        weights = csv_values.weights_among(sheets.metrics, sheets.ratios, runs, domains.names)
        tasks = csv_values.choose_columns(sheets.metrics, *drop, keep_metrics, every=every_column, others=weights)
        ratios_KM = csv_values.mixtures(sheets.ratios, runs, domains.names)
        scores = csv_values.scores(sheets.metrics, runs, tasks.names, missing)
        left_out = [csv_values.left_out_text(sheet, c) for sheet, c in zip(sheets, (domains, tasks)) if c.left_out]
        doubts = [] if every_column else score_checks.check(sheets.metrics, scores, bool(keep_metrics), cheap)
        table = cls(
            runs=scores.runs,
            domains=domains.names,
            tasks=scores.tasks,
            ratios_KM=ratios_KM[scores.kept_K],
            bpb_KN=scores.bpb_KN,
            natural_M=about.natural_M,
            tokens_M=about.tokens_M,
            names=display_names(sheets.ratios, scores.runs),
            diverged=tuple(run for run in sheets.ratios.rows if run in about.diverged),
            lengths=read_lengths(tokens, sheets.ratios, scores.runs, domains.names, about.tokens_M),
            warnings=(*left_out, *unmatched, *scores.dropped, *doubts),
        )
        return fidelity.apart(table, cheap, all_cheap=all_cheap)

    def check_enough(self, parameters: int) -> None:
        """Raise an error if the table has too few runs to fit ``parameters`` numbers per task with one run to spare.

        Args:
          parameters: numbers that the data alone must determine: M + 1 without a prior or shrinkage, down to 0 with.

        Raises:
          UserError: there are fewer than ``parameters`` + 1 runs, or fewer than 4.
        """
        needed = max(parameters + 1, _FEWEST)
        runs = len(self.runs) + (0 if self.inherited is None else len(self.inherited.trust_J))
        if runs < needed:
            remedy = "train more runs"
            if needed > _FEWEST:
                remedy += ", merge domains, or choose a `fit.law` that needs fewer"
            raise UserError(
                f"{runs} runs for {len(self.domains)} domains, but a fit of this law needs at least {needed}, "
                f"better {max(3 * (len(self.domains) + 1), needed)}; {remedy}"
            )

    def ordered(self, domains: Sequence[str]) -> "SwarmTable":
        """Return the table with its domains in the order of ``domains``.

        Raises:
          UserError: ``domains`` holds other names than the table.
        """
        if set(domains) != set(self.domains):
            differing = ", ".join(sorted(set(domains) ^ set(self.domains)))
            raise UserError(f"the swarm's domains and the domain set differ in {differing}; both need the same domains")
        at = [self.domains.index(name) for name in domains]
        return dataclasses.replace(
            self,
            domains=tuple(domains),
            ratios_KM=self.ratios_KM[:, at],
            natural_M=None if self.natural_M is None else self.natural_M[at],
            tokens_M=None if self.tokens_M is None else self.tokens_M[at],
            lengths=self.lengths and self.lengths._replace(unique_KM=self.lengths.unique_KM[:, at]),
            cheap=None if self.cheap is None else self.cheap._replace(ratios_JM=self.cheap.ratios_JM[:, at]),
        )

    def barely_sampled(self, minimum_runs: int = 3) -> dict[str, Coverage]:
        """Return the domains that fewer than ``minimum_runs`` runs sample. A law's effects for them are uncertain."""
        coverage = by_domain(self.ratios_KM, self.domains)
        return {domain: sampled for domain, sampled in coverage.items() if sampled.runs < minimum_runs}

    def subsampled(self, split: float, seed: int) -> "SwarmTable":
        """Return the table with a random subset of its runs, in their order.

        Args:
          split: share of the runs (at most 1), or number of runs (above 1).
          seed: seed of the draw.

        Raises:
          UserError: ``split`` asks for more runs than the table has, or for none.
        """
        total = len(self.runs)
        number = round(split * total) if split <= 1 else int(split)
        if not 0 < number <= total:
            raise UserError(
                f"config field `fit.train_split` asks for {number} runs, and the swarm has {total}; a value up to 1 is "
                "a share of the runs, a value above 1 a number of runs"
            )
        if number < _FEWEST <= total:
            raise UserError(
                f"config field `fit.train_split` keeps {number} of {total} runs, and a fit needs at least {_FEWEST}; "
                "raise it"
            )
        return self.only(np.sort(np.random.default_rng(seed).permutation(total)[:number]))

    def only(self, rows: np.ndarray) -> "SwarmTable":
        """Return the table with the runs at these rows."""
        runs, names = (tuple(of[k] for k in rows) for of in (self.runs, self.names))
        return dataclasses.replace(
            self,
            runs=runs,
            names=names,
            ratios_KM=self.ratios_KM[rows],
            bpb_KN=self.bpb_KN[rows],
            lengths=self.lengths and Lengths(*(x[rows] for x in self.lengths)),
        )


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
    cheap: Collection[str] = (),
) -> None:
    """Write ``ratios.csv``, ``metrics.csv`` and ``meta.json`` into ``folder``, for :meth:`SwarmTable.read`.

    Numbers are written as the shortest text that reads back as the same float64, so equal tables give equal files.

    Args:
      folder: created if necessary.
      runs, names: K run ids and K display names.
      domains, tasks: M and N names.
      ratios_KM: realised mixtures.
      bpb_KN: scores; rows of diverged runs are ignored, and their cells left empty.
      natural_M, tokens_M: the natural distribution, and unique tokens per domain.
      diverged: {run: step at which its loss became non-finite}.
      cheap: ids of the cheap runs among ``runs``.

    Raises:
      UserError: a file cannot be written, or a run outside ``diverged`` has a score that is not finite.
    """
    folder = pathlib.Path(folder)
    write_ratios(folder / "ratios.csv", runs, names, domains, ratios_KM, cheap)
    bpb_KN = np.asarray(bpb_KN, np.float64)
    for run, row in zip(runs, bpb_KN, strict=True):
        if run not in diverged and not np.isfinite(row).all():
            task = tasks[int(np.argmin(np.isfinite(row)))]
            raise UserError(f"run {run}: the score of task {task} is not finite; name the run in `diverged`")
    rows = [[""] * len(tasks) if run in diverged else row.tolist() for run, row in zip(runs, bpb_KN)]
    csv_files.write_sheet(folder / "metrics.csv", runs, names, tasks, rows)
    meta = {
        "relative_sizes": dict(zip(domains, np.asarray(natural_M).tolist(), strict=True)),
        "token_counts": dict(zip(domains, np.asarray(tokens_M).tolist(), strict=True)),
        "diverged": {run: int(diverged[run]) for run in runs if run in diverged},
    }
    files.write_json(folder / "meta.json", meta)
