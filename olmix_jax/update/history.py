"""Finished workdirs as parents of an update: their domains, law, noise, runs and mixtures.

A workdir that was made by an update has a parent itself, so these functions follow the chain of parents.
"""

import dataclasses
import hashlib
import pathlib

import numpy as np

from olmix_jax import laws
from olmix_jax.config.schema import Config
from olmix_jax.config.workdir import ancestors, read_config, read_table
from olmix_jax.laws import FittedLaw, params_files
from olmix_jax.laws.fit_result import FitResult, Over
from olmix_jax.propose.proposal import Proposal
from olmix_jax.swarm import rounds
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.swarm.table import SwarmTable
from olmix_jax.swarm.task_means import task_mean
from olmix_jax.update import changes
from olmix_jax.update.update_plan import PastUpdate, read_if_any
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError

# Upper limit of the shared variance.
MAX_SHARED = 0.9


@dataclasses.dataclass(frozen=True)
class Noise:
    """Noise of a run's scores, from held-out errors of a law.

    Attributes:
      std: standard deviation by task [BPB].
      shared: share of the variance that all tasks of a run have in common.
    """

    std: dict[str, float]
    shared: float

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks, in the order of the law."""
        return tuple(self.std)


def parent_config(config: Config) -> Config:
    """Return the config of an update's parent.

    Raises:
      UserError: the parent is not finished.
    """
    parent = pathlib.Path(config.update.parent)
    if not (parent / "propose/proposal.json").is_file():
        raise UserError(f"config field `update.parent`: {parent} has no propose/proposal.json; finish that run first")
    return read_config(parent)


def evidence_digest(workdir: pathlib.Path) -> str:
    """Return a digest of everything an update of ``workdir`` reads from it and its ancestors: runs, laws, mixtures."""
    parts: list = []
    for folder in ancestors(workdir):
        swarm = read_config(folder).swarm
        trained = [folder / "swarm/ratios.csv", folder / "swarm/metrics.csv"]
        tables = [pathlib.Path(swarm.ratios), pathlib.Path(swarm.metrics)] if swarm.ratios else trained
        tables += [folder / file for file in rounds.tables(folder)]
        paths = [*tables, *(folder / "fit" / name for name in ("params.npz", "samples.npz"))]
        parts += [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()]
        plan = read_if_any(folder)
        parts += [] if plan is None else [plan.digest]
        parts.append(Proposal.read(folder / "propose/proposal.json").weights)
    return files.digest(parts)


def text_digest(workdir: pathlib.Path) -> str:
    """Return a digest of the tokenizer, tasks and held-out text that an update of ``workdir`` takes over."""
    paths = [workdir / "corpus/tokenizer.json", *sorted((workdir / "tasks").glob("*"))]
    for folder in ancestors(workdir):
        paths += sorted((folder / "corpus/heldout").glob("*.jsonl"))
    return files.digest([hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()])


def read_domains(workdir: pathlib.Path, swarm: SwarmTable | None = None) -> DomainSet:
    """Return the workdir's domains, from ``domains.json`` or, for an external swarm without it, from its table.

    Raises:
      UserError: unique tokens are unknown.
    """
    if (workdir / "domains.json").is_file():
        return DomainSet.read(workdir / "domains.json")
    if swarm is None or swarm.tokens_M is None:
        raise UserError(
            f"{workdir}: the unique tokens of its domains are unknown; add `token_counts` to the swarm's meta.json"
        )
    return DomainSet(swarm.domains, tuple(int(n) for n in swarm.tokens_M))


def trained_table(workdir: pathlib.Path) -> SwarmTable | None:
    """Return the table of the workdir's own runs over its domains; None for an update that needed no runs."""
    plan = read_if_any(workdir)
    return None if plan is not None and plan.needs_no_runs else read_table(read_config(workdir), workdir)


def read_law(workdir: pathlib.Path, config: Config | None = None) -> FittedLaw:
    """Return the law over a workdir's domains: its own, or its parent's if it needed no runs.

    Args:
      workdir: with a finished fit.
      config: the workdir's config; None: read it there.

    Raises:
      UserError: the workdir has no fitted law.
    """
    plan, config = read_if_any(workdir), read_config(workdir) if config is None else config
    if plan is not None and plan.needs_no_runs:
        return read_law(pathlib.Path(plan.parent)).through(_to_old_domains(plan.change))
    path = workdir / "fit/fit.json"
    if not path.is_file():
        raise UserError(f"{workdir} has no fitted law; run its --stages=fit,propose first")
    fit = FitResult.read(path)
    if fit.law not in laws.LAWS:
        raise UserError(f"{path}: the law {fit.law!r} is unknown; run --stages=fit,propose again")
    fitted = params_files.load_fitted(workdir / "fit", laws.LAWS[fit.law])
    if plan is not None and fit.over is Over.BLOCKS:
        return fitted.through((plan.kept_blocks.ratios_DM > 0).T)
    return fitted


def fitted_as_block(workdir: pathlib.Path) -> set[str]:
    """Return the workdir's domains that its law was fitted to as one block, so that it cannot judge their ratios."""
    plan = read_if_any(workdir)
    if plan is None:
        return set()
    if plan.needs_no_runs:
        in_parent, change = fitted_as_block(pathlib.Path(plan.parent)), plan.change
        return {new for new, old in {**change.origin, **change.parts}.items() if old in in_parent}
    if FitResult.read(workdir / "fit/fit.json").over is not Over.BLOCKS:
        return set()
    return {name for ratios in plan.kept.values() for name in ratios}


def read_noise(workdir: pathlib.Path) -> Noise:
    """Return the noise of a workdir's runs, or of its parent's if it needed no runs.

    The shared variance is the mean correlation between the held-out errors of two tasks. With one task, or fewer than
    three runs, it is 0.
    """
    path, plan = workdir / "fit/fit.json", read_if_any(workdir)
    if not path.is_file() and plan is not None:
        return read_noise(pathlib.Path(plan.parent))
    fit = FitResult.read(path)
    std = {name: max(task.rmse_cv, 1e-6) for name, task in fit.tasks.items()}
    error_NK = np.array([np.subtract(fit.measured[t], fit.predicted_cv[t]) for t in std])
    if len(std) < 2 or error_NK.shape[1] < 3:
        return Noise(std, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation_NN = np.nan_to_num(np.corrcoef(error_NK))
    shared = correlation_NN[~np.eye(len(std), dtype=bool)].mean()
    return Noise(std, float(np.clip(shared, 0.0, MAX_SHARED)))


def task_sizes(workdir: pathlib.Path) -> dict[str, float]:
    """Return how many tasks each task of the workdir's law stands for, from its table or its parent's."""
    table, plan = trained_table(workdir), read_if_any(workdir)
    if table is None and plan is not None:
        return task_sizes(pathlib.Path(plan.parent))
    return {} if table is None else dict(zip(table.tasks, table.sizes_N.tolist()))


def past_updates(workdir: pathlib.Path) -> tuple[PastUpdate, ...]:
    """Return a summary of ``workdir`` and each of its ancestors, the oldest first."""
    plan, proposal = read_if_any(workdir), Proposal.read(workdir / "propose/proposal.json")
    path = workdir / "validate/validation.json"
    if path.is_file():
        # Read as plain JSON: the record belongs to the training half, which an update does not import.
        mixtures = files.read_json(path)["mixtures"]
        natural, proposed = (mixtures[name]["bpb_mean"] for name in ("natural", "proposed"))
        plain = [
            float(task_mean({task: score["mean"] for task, score in mixtures[name]["tasks"].items()}))
            for name in ("natural", "proposed")
        ]
    else:
        natural, proposed = proposal.headline.natural, proposal.headline.proposed
        plain = [float(task_mean(bpb)) for bpb in (proposal.predicted_natural, proposal.predicted)]
    runs = len(FitResult.read(workdir / "fit/fit.json").runs) if plan is None else plan.proxies
    past = PastUpdate(
        workdir=str(workdir),
        strategy="first swarm" if plan is None else plan.strategy,
        updates=() if plan is None else plan.updates,
        validated=path.is_file(),
        natural=natural,
        proposed=proposed,
        plain_natural=plain[0],
        plain_proposed=plain[1],
        weights=proposal.weights,
        proxies=runs,
        proxies_full=runs if plan is None else plan.proxies_full,
    )
    return (*(() if plan is None else plan.history), past)


def _to_old_domains(change: changes.Change) -> np.ndarray:
    """Return matrix_MO, which expresses new mixtures on the old domains, if no new domain was added or revised."""
    sources = {**change.origin, **change.parts}
    return np.array([[float(sources.get(new) == old) for old in change.old] for new in change.new])
