"""What the stages have written to a workdir, read and checked once for the whole report."""

import dataclasses
import pathlib
import zipfile

import numpy as np

from olmix_jax.config import workdir as workdir_files
from olmix_jax.config.schema import Config
from olmix_jax.laws.fit_result import FitResult
from olmix_jax.propose.proposal import Proposal
from olmix_jax.proxy.train_result import TrainInfo
from olmix_jax.proxy.validation_result import Validation
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.swarm.rounds import Round, Rounds
from olmix_jax.swarm.table import SwarmTable
from olmix_jax.update.update_plan import UpdatePlan
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log


@dataclasses.dataclass(frozen=True)
class Curves:
    """Training losses, one row per run.

    Attributes:
      runs: names of the runs.
      steps_T: training steps.
      loss_KT: training loss [nats/token]; NaN from the step at which a run diverged.
      tokens_per_step: tokens that a run consumes per step.
    """

    runs: tuple[str, ...]
    steps_T: np.ndarray
    loss_KT: np.ndarray
    tokens_per_step: int


@dataclasses.dataclass(frozen=True)
class Results:
    """The content of a workdir. A part that no stage has written is None.

    Attributes:
      workdir: the folder.
      config: the resolved config.
      domains: the domains and their unique tokens.
      table: the swarm that the law is fitted on.
      curves: training losses of the swarm.
      training: how the swarm was trained.
      experts: how the experts were trained that members are merged from; None without merged members.
      fit: quality of the law.
      proposal: the proposed mixture.
      validation: BPB of fresh models trained on the proposal and on other mixtures.
      validation_curves: training losses of these models.
      update: the plan of an update; None in the workdir of a first run.
      rounds: promises and measurements of the rounds; empty without rounds.
    """

    workdir: pathlib.Path
    config: Config | None = None
    domains: DomainSet | None = None
    table: SwarmTable | None = None
    curves: Curves | None = None
    training: TrainInfo | None = None
    experts: TrainInfo | None = None
    fit: FitResult | None = None
    proposal: Proposal | None = None
    validation: Validation | None = None
    validation_curves: Curves | None = None
    update: UpdatePlan | None = None
    rounds: tuple[Round, ...] = ()

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the fitted tasks; without a fit, those of the table."""
        if self.fit is not None:
            return tuple(self.fit.tasks)
        return self.table.tasks if self.table is not None else ()

    @property
    def natural(self) -> dict[str, float] | None:
        """The natural distribution by domain."""
        if self.proposal is not None:
            return self.proposal.natural
        if self.table is None or self.table.natural_M is None:
            return None
        return dict(zip(self.table.domains, self.table.natural_M.tolist()))

    @property
    def unique_tokens(self) -> dict[str, float]:
        """Unique tokens by domain; empty if unknown."""
        if self.domains is not None:
            return dict(zip(self.domains.names, self.domains.tokens))
        if self.table is None or self.table.tokens_M is None:
            return {}
        return dict(zip(self.table.domains, self.table.tokens_M.tolist()))

    @property
    def worst(self) -> bool:
        """Whether the proposal is the worst mixture (``propose.worst``), a counterfactual."""
        return self.proposal is not None and self.proposal.worst

    @property
    def compared(self) -> Validation | None:
        """The validation, if it holds both the natural and the proposed mixture."""
        complete = self.validation is not None and {"natural", "proposed"} <= self.validation.mixtures.keys()
        return self.validation if complete else None


def read(workdir: str | pathlib.Path) -> Results:
    """Read the results of all stages that have run.

    A proposal that belongs to another fit or to other domains is left out, and so is a validation of another proposal.
    A warning is logged for each.

    Raises:
      UserError: the workdir has no results, or a file is damaged; the message names the file and the field.
    """
    workdir = pathlib.Path(workdir)
    config = workdir_files.read_config(workdir) if (workdir / "config.json").exists() else None
    fit = _if_exists(FitResult.read, workdir / "fit/fit.json")
    update = _if_exists(UpdatePlan.read, workdir / "update/plan.json")
    proposal = _current_proposal(_if_exists(Proposal.read, workdir / "propose/proposal.json"), fit, update)
    measured = _if_exists(Validation.read, workdir / "validate/validation.json")
    validation = _current_validation(measured, proposal, workdir)
    results = Results(
        workdir=workdir,
        config=config,
        domains=_if_exists(DomainSet.read, workdir / "domains.json"),
        table=_read_table(config or Config(), workdir),
        curves=_optional_curves(workdir / "swarm/curves.npz"),
        training=_if_exists(TrainInfo.read, workdir / "train/info.json"),
        experts=_if_exists(TrainInfo.read, workdir / "merge/info.json"),
        fit=fit,
        proposal=proposal,
        validation=validation,
        validation_curves=_optional_curves(workdir / "validate/curves.npz") if validation else None,
        update=update,
        rounds=Rounds.read(workdir).rounds,
    )
    if all(part is None for part in (results.table, fit, proposal, validation)):
        raise UserError(f"{workdir} has no results to report; run the earlier stages first, or check --workdir")
    return results


def _if_exists(reader, path: pathlib.Path):
    return reader(path) if path.exists() else None


def _current_proposal(proposal: Proposal | None, fit: FitResult | None, update: UpdatePlan | None) -> Proposal | None:
    """Return the proposal if it belongs to this fit and to these domains."""
    if proposal and fit and proposal.fit and proposal.fit != fit.digest:
        log.warning("report: ignoring propose/proposal.json, made from another fit; run --stages=propose")
        return None
    if proposal and update and set(proposal.weights) != set(update.new):
        log.warning("report: ignoring propose/proposal.json, made for other domains; run --stages=fit,propose")
        return None
    return proposal


def _current_validation(
    validation: Validation | None, proposal: Proposal | None, workdir: pathlib.Path
) -> Validation | None:
    """Return the validation if it was run on this proposal."""
    if validation and (proposal is None or validation.proposal != proposal.weights):
        remedy = f"delete {workdir / 'validate'}, then run --stages=validate"
        log.warning("report: ignoring validate/validation.json, run on another proposal; %s", remedy)
        return None
    return validation


def _read_table(config: Config, workdir: pathlib.Path) -> SwarmTable | None:
    paths = [workdir_files.table_path(config, workdir, f"swarm/{name}.csv") for name in ("ratios", "metrics")]
    if not all(path is not None and path.is_file() for path in paths):
        return None
    return workdir_files.read_table(config, workdir)


def _optional_curves(path: pathlib.Path) -> Curves | None:
    """Return the curves; None, with a warning, for a damaged file: the results do not depend on it."""
    try:
        return _if_exists(_read_curves, path)
    except UserError as e:
        log.warning("report: training curves are left out: %s", e)
        return None


def _read_curves(path: pathlib.Path) -> Curves:
    try:
        with open(path, "rb") as f, np.load(f, allow_pickle=False) as data:
            runs, tokens = tuple(str(r) for r in data["runs"]), int(data["tokens_per_step"])
            curves = Curves(runs, data["steps_T"], data["loss_KT"], tokens)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as e:
        raise UserError(f"{path} is damaged ({e})") from e
    if curves.loss_KT.shape != (len(curves.runs), len(curves.steps_T)):
        raise UserError(f"{path}: loss_KT must have shape (runs, steps), not {curves.loss_KT.shape}")
    return curves
