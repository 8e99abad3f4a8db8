"""Finished workdirs as what a later domain set comes from: their domains, law, mixture, and runs.

A workdir made by an update has a parent, which may have one in turn, so runs of any age can be looked up.
"""

import dataclasses
import hashlib
import pathlib

import numpy as np

from olmix_jax import laws
from olmix_jax.config.schema import Config
from olmix_jax.config.workdir import ancestors, read_config, read_table
from olmix_jax.laws import FittedLaw, params_files
from olmix_jax.laws.fit_result import FitResult
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.swarm.table import SwarmTable
from olmix_jax.update import changes
from olmix_jax.update.update_plan import read_if_any
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log

# A run says something of the new set if it has more than this share of its weight there.
MOST = 0.5


@dataclasses.dataclass(frozen=True)
class Runs:
    """Runs of one workdir, expressed on the domains of a later one.

    Attributes:
      ratios_KM: their mixtures.
      bpb_KN: their scores, as they would be without what the later set cannot express.
      doubt_K: variance that this adds to a run's noise, in units of it.
      age: updates since.
    """

    ratios_KM: np.ndarray
    bpb_KN: np.ndarray
    doubt_K: np.ndarray
    age: int


def parent_config(config: Config) -> Config:
    """The config of an update's parent.

    Raises:
      UserError: the parent is not finished.
    """
    parent = pathlib.Path(config.update.parent)
    if not (parent / "propose/proposal.json").is_file():
        raise UserError(f"config field `update.parent`: {parent} holds no propose/proposal.json; finish that run first")
    return read_config(parent)


def evidence(workdir: pathlib.Path) -> str:
    """A digest of all that an update of ``workdir`` is told by it and by what it comes from: runs, laws, mixtures."""
    told = []
    for folder in ancestors(workdir):
        swarm = read_config(folder).swarm
        own = [folder / "swarm/ratios.csv", folder / "swarm/metrics.csv"]
        tables = [pathlib.Path(swarm.ratios), pathlib.Path(swarm.metrics)] if swarm.ratios else own
        paths = [*tables, *(folder / "fit" / name for name in ("params.npz", "samples.npz"))]
        told += [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()]
        plan = read_if_any(folder)
        told += [] if plan is None else [plan.digest]
        told += [files.read_json(folder / "propose/proposal.json")["weights"]]
    return files.digest(told)


def read_domains(workdir: pathlib.Path, swarm: SwarmTable | None = None) -> DomainSet:
    """The workdir's domains: as it has them, or of its table, for a swarm that was trained elsewhere.

    Raises:
      UserError: unique tokens are not known.
    """
    if (workdir / "domains.json").is_file():
        return DomainSet.read(workdir / "domains.json")
    if swarm is None or swarm.tokens_M is None:
        raise UserError(f"{workdir}: unique tokens of its domains are not known; it needs `token_counts` in its meta")
    return DomainSet(swarm.domains, tuple(int(n) for n in swarm.tokens_M))


def text(workdir: pathlib.Path) -> str:
    """A digest of what the text of an update of ``workdir`` depends on: tokenizer, tasks, and all that was held out."""
    paths = [workdir / "corpus/tokenizer.json", *sorted((workdir / "tasks").glob("*"))]
    for folder in ancestors(workdir):
        paths += sorted((folder / "corpus/heldout").glob("*.jsonl"))
    return files.digest([hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()])


def read_law(workdir: pathlib.Path, config: Config | None = None) -> FittedLaw:
    """The law over a workdir's domains: its own, or its parent's where it needed no runs.

    Args:
      workdir: with a finished fit.
      config: the workdir's; read there without it.

    Raises:
      UserError: there is none; the workdir is not finished.
    """
    plan, config = read_if_any(workdir), read_config(workdir) if config is None else config
    if plan is not None and plan.needs_no_runs:
        return read_law(pathlib.Path(plan.parent)).through(_back(plan.change))
    path = workdir / "fit/fit.json"
    if not path.is_file():
        raise UserError(f"{workdir}: has no fitted law; finish it with --stages=fit,propose first")
    result, found = FitResult.read(path), params_files.load_fitted(workdir / "fit", laws.LAWS[config.fit.law])
    if plan is not None and result.over == "blocks":
        return found.through((plan.kept_blocks.ratios_DM > 0).T)
    return found


def tied(workdir: pathlib.Path) -> set[str]:
    """The workdir's domains whose ratios to each other its law cannot judge, as it is fitted over them as one block."""
    plan = read_if_any(workdir)
    if plan is None:
        return set()
    if plan.needs_no_runs:
        before = tied(pathlib.Path(plan.parent))
        return {new for new, old in {**plan.change.origin, **plan.change.parts}.items() if old in before}
    over = FitResult.read(workdir / "fit/fit.json").over
    return {name for ratios in plan.kept.values() for name in ratios} if over == "blocks" else set()


def _back(change: changes.Change) -> np.ndarray:
    """matrix_MO: new mixtures as old ones, where every new domain is unaffected or a part."""
    of = {**change.origin, **change.parts}
    return np.array([[float(of.get(new) == old) for old in change.old] for new in change.new])


def own_table(workdir: pathlib.Path) -> SwarmTable | None:
    """The table of the workdir's own runs over its domains; None for an update that needed no runs."""
    plan = read_if_any(workdir)
    return None if plan is not None and plan.needs_no_runs else read_table(read_config(workdir), workdir)


def runs_before(workdir: pathlib.Path, change: changes.Change, tokens_M, tasks) -> list[Runs]:
    """All runs of ``workdir`` and of those it comes from, expressed on the domains that ``change`` leads to.

    A run with weight on a domain that is lost is told as it would have been without: the law of its own set says what
    that changes, and as much is added to its noise. Runs with most of their weight there are left out, as are those of
    a workdir whose law lacks a task.

    Args:
      workdir: the parent.
      change: from its domains.
      tokens_M: of the new domains.
      tasks: N names, the order of the scores.
    """
    noise, plan, found = read_noise(workdir)[0], read_if_any(workdir), []
    missing = [task for task in tasks if task not in noise]
    if missing:
        log.info("update: runs of %s are left out, as they were not scored on %s", workdir, ", ".join(missing))
        return []
    swarm = own_table(workdir)
    if swarm is not None:
        columns = [swarm.tasks.index(task) for task in tasks]
        found.append(Runs(swarm.ratios_KM, swarm.bpb_KN[:, columns], np.zeros(len(swarm.runs)), 0))
    if plan is not None:
        domains = DomainSet.read(workdir / "domains.json")
        found += runs_before(pathlib.Path(plan.parent), plan.change, domains.tokens_M, tasks)
    law, columns = read_law(workdir), [list(noise).index(task) for task in tasks]
    noise_N = np.array([noise[task] for task in tasks])

    def predicted(ratios_KM):
        return law.predict(ratios_KM)[:, columns]

    expressed = [_expressed(runs, change.expressed(tokens_M), predicted, noise_N) for runs in found]
    return [runs for runs in expressed if len(runs.doubt_K)]


def read_noise(workdir: pathlib.Path) -> tuple[dict[str, float], float]:
    """({task: standard deviation of held-out errors [BPB]}, share of its square that a run's tasks have in common)."""
    path, plan = workdir / "fit/fit.json", read_if_any(workdir)
    if not path.is_file() and plan is not None:
        return read_noise(pathlib.Path(plan.parent))
    result = FitResult.read(path)
    noise = {name: max(task.rmse_cv, 1e-6) for name, task in result.tasks.items()}
    error_NK = np.array([np.subtract(result.measured[t], result.predicted_cv[t]) for t in noise])
    if len(noise) < 2 or error_NK.shape[1] < 3:
        return noise, 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation_NN = np.nan_to_num(np.corrcoef(error_NK))
    shared = correlation_NN[~np.eye(len(noise), dtype=bool)].mean()
    return noise, float(np.clip(shared, 0.0, 0.9))


def _expressed(runs: Runs, matrix_OM, predicted, noise_N) -> Runs:
    """Runs on the domains that ``matrix_OM`` leads to; ``predicted`` is their own domains' law, ratios_KM → bpb_KN."""
    left_KM = runs.ratios_KM @ matrix_OM
    left_K = left_KM.sum(axis=1)
    kept_K = left_K > MOST
    kept_KO = np.where(matrix_OM.any(axis=1), runs.ratios_KM, 0.0)[kept_K] / left_K[kept_K, None]
    moved_KN = np.zeros_like(runs.bpb_KN[kept_K])
    if (left_K[kept_K] < 1 - 1e-9).any():
        moved_KN = predicted(kept_KO) - predicted(runs.ratios_KM[kept_K])
    doubt_K = runs.doubt_K[kept_K] + (moved_KN**2 / noise_N**2).mean(axis=1)
    return Runs(left_KM[kept_K] / left_K[kept_K, None], runs.bpb_KN[kept_K] + moved_KN, doubt_K, runs.age + 1)
