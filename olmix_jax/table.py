"""SwarmTable: what was trained and how well it did, all that passes from training to deciding.

Two CSV files hold it: ``ratios.csv`` with columns ``run,name,index,‹domain…›`` and ``metrics.csv`` with
``run,name,index,‹task…›``, and ``meta.json`` what belongs to no run. They may have been written here
(:func:`write_swarm`) or elsewhere: the published Olmix and RegMix swarms are read as they are.
"""

import dataclasses
import math
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from olmix_jax import files, table_csv
from olmix_jax.errors import UserError
from olmix_jax.progress import log

# Rows of ratios off 1 by more than this are an error: RegMix rounds to three digits, 17 domains, 0.004 at most.
_SUM_TOLERANCE = 0.01
# Sums closer to 1 than this are left as they are, so that what was written is read back bit for bit.
_SUM_EXACT = 1e-9
_META = ("relative_sizes", "token_counts", "drop_metrics", "diverged")


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

    @classmethod
    def read(
        cls,
        ratios: str | os.PathLike,
        metrics: str | os.PathLike,
        meta: str | os.PathLike = "",
        *,
        drop_metrics: Sequence[str] = (),
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
          meta: path of ``meta.json``; empty for none.
          drop_metrics: task columns to leave out; those that do not exist are logged.
          missing: what to do about an empty score: "error", "drop_run" or "drop_task".

        Raises:
          UserError: anything else about the files; the message names file, line, run and column.
        """
        if missing not in ("error", "drop_run", "drop_task"):
            raise UserError(f"`missing` must be error, drop_run or drop_task, not {missing!r}")
        sheet_r, sheet_m = table_csv.read_sheets(ratios, metrics)
        about = _Meta.read(meta, sheet_r.columns)
        strange = sorted(set(about.diverged) - set(sheet_r.rows))
        if strange:
            raise UserError(f"{meta}: `diverged` names runs that are not in {sheet_r.path}: {', '.join(strange)}")
        runs = _common(sheet_r, sheet_m, set(about.diverged))
        tasks = _kept(sheet_m, (*about.drop_metrics, *drop_metrics))
        ratios_KM = _mixtures(sheet_r, runs)
        runs, tasks, kept_K, bpb_KN = _scores(sheet_m, runs, tasks, missing)
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

    def check_enough(self) -> None:
        """Refuses a table that no law can be fitted to: a law per task has M + 1 parameters and needs a run to spare.

        Raises:
          UserError: K < M + 2, or a domain has no weight in any run, so that nothing can be known about it.
        """
        if len(self.runs) < len(self.domains) + 2:
            raise UserError(
                f"{len(self.runs)} runs for {len(self.domains)} domains: a fit needs at least "
                f"{len(self.domains) + 2}, better {3 * (len(self.domains) + 1)}; train more or merge domains"
            )
        unseen = [d for d, seen in zip(self.domains, self.ratios_KM.any(axis=0)) if not seen]
        if unseen:
            raise UserError(
                f"no run has any weight on {', '.join(unseen)}: nothing can be learnt about it; leave the domain "
                "out or add runs that contain it"
            )


@dataclasses.dataclass(frozen=True)
class _Meta:
    natural_M: np.ndarray | None = None
    tokens_M: np.ndarray | None = None
    drop_metrics: tuple[str, ...] = ()
    diverged: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: str | os.PathLike, domains: tuple[str, ...]) -> "_Meta":
        if not path:
            return cls()
        content = files.read_json(path)
        if not isinstance(content, dict):
            raise UserError(f"{path}: must be a JSON object with {', '.join(_META)}, not a {type(content).__name__}")
        unused = sorted(set(content) - set(_META))
        if unused:
            log.info("%s: not used: %s", path, ", ".join(unused))
        tokens_M = _by_name(path, content, "token_counts", domains)
        natural_M = _by_name(path, content, "relative_sizes", domains)
        if natural_M is None:
            natural_M = tokens_M
        if natural_M is not None and abs(natural_M.sum() - 1) > _SUM_EXACT:
            natural_M = natural_M / natural_M.sum()
        drop, diverged = content.get("drop_metrics") or [], content.get("diverged") or {}
        if not isinstance(drop, list) or not all(isinstance(d, str) for d in drop):
            raise UserError(f"{path}: `drop_metrics` must be a list of task names, not {drop!r}")
        if not isinstance(diverged, dict):
            raise UserError(f"{path}: `diverged` must be an object of run: step, not {diverged!r}")
        return cls(natural_M, tokens_M, tuple(drop), tuple(diverged))


def _by_name(path, content: dict, field: str, domains: tuple[str, ...]) -> np.ndarray | None:
    """The positive numbers that ``field`` gives to the domains, in column order; None where the field is absent."""
    sizes = content.get(field)
    if sizes is None:
        return None
    if not isinstance(sizes, dict):
        raise UserError(f"{path}: `{field}` must be an object of domain: number, not {sizes!r}")
    lacking, unknown = [d for d in domains if d not in sizes], [d for d in sizes if d not in domains]
    if lacking or unknown:
        parts = [f"lacks {', '.join(lacking)}"] * bool(lacking) + [f"has unknown {', '.join(unknown)}"] * bool(unknown)
        raise UserError(f"{path}: `{field}` {' and '.join(parts)}; its names must be the columns of the ratios")
    for d in domains:
        v = sizes[d]
        if isinstance(v, bool) or not isinstance(v, (int, float)) or not math.isfinite(v) or v <= 0:
            raise UserError(f"{path}: `{field}`: {d} must be a positive number, not {v!r}")
    return np.array([sizes[d] for d in domains], np.float64)


def _common(ratios: table_csv.Sheet, metrics: table_csv.Sheet, diverged: set[str]) -> tuple[str, ...]:
    """Ids of the runs to use: in both tables and not diverged, in the order of the ratios."""
    if diverged:
        log.info("%s: left out, diverged in training: %s", ratios.path, ", ".join(sorted(diverged)))
    for one, other in ((ratios, metrics), (metrics, ratios)):
        alone = [run for run in one.rows if run not in other.rows and run not in diverged]
        if alone:
            log.info("%s: %d runs left out, not in %s: %s", one.path, len(alone), other.path, ", ".join(alone[:8]))
    runs = tuple(run for run in ratios.rows if run in metrics.rows and run not in diverged)
    if not runs:
        raise UserError(f"{ratios.path} and {metrics.path} have no {ratios.key} in common that can be used")
    return runs


def _kept(metrics: table_csv.Sheet, drop: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [d for d in dict.fromkeys(drop) if d not in metrics.columns]
    if unknown:
        log.info("%s: no such columns to drop: %s", metrics.path, ", ".join(unknown))
    tasks = tuple(c for c in metrics.columns if c not in drop)
    if not tasks:
        raise UserError(f"{metrics.path}: every task is dropped; keep one at least")
    return tasks


def _names(sheet: table_csv.Sheet, runs: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sheet.rows[run].cells.get("name") or run for run in runs)


def _mixtures(sheet: table_csv.Sheet, runs: tuple[str, ...]) -> np.ndarray:
    """ratios_KM, renormalised where the file has them rounded."""
    ratios_KM = np.array([[_weight(sheet, run, domain) for domain in sheet.columns] for run in runs])
    sums_K = ratios_KM.sum(axis=1)
    off_K = np.abs(sums_K - 1)
    worst = int(off_K.argmax())
    if off_K[worst] > _SUM_TOLERANCE:
        where = f"{sheet.path}: line {sheet.rows[runs[worst]].line} ({sheet.key} {runs[worst]})"
        raise UserError(f"{where}: weights sum to {sums_K[worst]:.6g}, not to 1")
    rounded_K = off_K > _SUM_EXACT
    if rounded_K.any():
        number = int(rounded_K.sum())
        log.info("%s: %d rows renormalised, run %s by %.2g", sheet.path, number, runs[worst], off_K[worst])
    return np.where(rounded_K[:, None], ratios_KM / np.where(rounded_K, sums_K, 1.0)[:, None], ratios_KM)


def _weight(sheet: table_csv.Sheet, run: str, domain: str) -> float:
    w = sheet.number(run, domain)
    if w is None or w < 0:
        raise UserError(f"{sheet.where(run, domain)}: {'empty' if w is None else f'negative weight {w}'}")
    return w


def _scores(
    sheet: table_csv.Sheet, runs: tuple[str, ...], tasks: tuple[str, ...], missing: str
) -> tuple[tuple[str, ...], tuple[str, ...], np.ndarray, np.ndarray]:
    """Runs and tasks that are left after ``missing``, which of ``runs`` they are, and their scores_KN."""
    cells = [[sheet.number(run, task) for task in tasks] for run in runs]
    empty_KN = np.array([[cell is None for cell in row] for row in cells])
    if empty_KN.any():
        k, n = np.argwhere(empty_KN)[0]
        first = f"{sheet.where(runs[k], tasks[n])}: empty"
        if missing == "error":
            raise UserError(f"{first}, one of {empty_KN.sum()}; complete it, or leave the run or the task out")
        log.info("%s, one of %d; %s", first, empty_KN.sum(), missing)
    kept_K = ~empty_KN.any(axis=1) if missing == "drop_run" else np.ones(len(runs), bool)
    kept_N = ~empty_KN.any(axis=0) if missing == "drop_task" else np.ones(len(tasks), bool)
    if not kept_K.any() or not kept_N.any():
        raise UserError(f"{sheet.path}: nothing is left after {missing}; {first}")
    bpb_KN = np.array([[0.0 if cell is None else cell for cell in row] for row in cells])[kept_K][:, kept_N]
    return tuple(np.array(runs)[kept_K].tolist()), tuple(np.array(tasks)[kept_N].tolist()), kept_K, bpb_KN


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
    table_csv.write_sheet(folder / "metrics.csv", runs, names, tasks, rows)
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
    table_csv.write_sheet(path, runs, names, domains, np.asarray(ratios_KM, np.float64).tolist())


def read_ratios(path: str | os.PathLike) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], np.ndarray]:
    """Reads mixtures alone: runs, names, domains and ratios_KM.

    Raises:
      UserError: as :meth:`SwarmTable.read`.
    """
    sheet = table_csv.read_sheet(path)
    runs = tuple(sheet.rows)
    return runs, _names(sheet, runs), sheet.columns, _mixtures(sheet, runs)
