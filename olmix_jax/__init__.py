"""Choose the data mixture that a language model is pretrained on.

The public API, for swarms trained elsewhere and for scripts:

    swarm = olmix_jax.read_swarm("ratios.csv", "metrics.csv", "meta.json")
    fitted = olmix_jax.fit_law(swarm)
    quality = olmix_jax.judge_law(swarm)
    proposal = olmix_jax.propose_mixture(fitted, swarm, kl_weight=0.05, target_tokens=1e12, max_repeats=4)

Functions that take a config and a workdir, as the command line does: :func:`sample_swarm`, :func:`train_swarm`,
:func:`plan_update` and :func:`run`. Functions import what they need when they are called, so ``import olmix_jax`` is
quick.

Dim letters are suffixes of array names throughout:

====== =========================== ====== ===========================
``K``  members of the swarm        ``B``  sequences in a batch
``M``  domains                     ``L``  tokens in a sequence
``N``  evaluation tasks            ``D``  width of the model
``S``  starts or samples of a fit  ``H``  attention heads
``R``  resamples or folds          ``V``  vocabulary
``E``  evaluation examples         ``T``  steps
====== =========================== ====== ===========================
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from olmix_jax.swarm.table import SwarmTable
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log

if TYPE_CHECKING:
    from olmix_jax.config import Config
    from olmix_jax.laws import FittedLaw
    from olmix_jax.laws.quality import Quality
    from olmix_jax.propose.proposal import Proposal
    from olmix_jax.update.update_plan import UpdatePlan

__all__ = [
    "SwarmTable",
    "UserError",
    "fit_law",
    "judge_law",
    "plan_update",
    "propose_mixture",
    "read_swarm",
    "run",
    "sample_swarm",
    "train_swarm",
]


def read_swarm(
    ratios: str | os.PathLike,
    metrics: str | os.PathLike,
    meta: str | os.PathLike | Mapping[str, Any] = "",
    tokens: str | os.PathLike = "",
    **options: Any,
) -> SwarmTable:
    """Read the mixtures and scores of a swarm.

    Args:
      ratios: CSV with a row per run and a column per domain: shares of the training tokens.
      metrics: CSV with a row per run and a column per task: bits per byte. Rows are joined by run id.
      meta: JSON file or object with ``relative_sizes``, ``token_counts`` and ``drop_metrics``, all optional.
      tokens: CSV with a row per run and the columns ``run,tokens,‹domain…›``, if runs differ in training tokens or in
        the unique tokens of domains (docs/external-swarm.md).
      **options: ``drop_metrics``, ``keep_metrics`` and ``missing``, as :meth:`SwarmTable.read` takes them.

    Raises:
      UserError: names the file, row and column at fault.
    """
    table = SwarmTable.read(ratios, metrics, meta, tokens=tokens, **options)
    for text in table.warnings:
        log.warning("%s", text)
    return table


def fit_law(
    swarm: SwarmTable, law: str = "floored_gp", *, samples: int = 100, starts: int = 16, seed: int = 0
) -> "FittedLaw":
    """Fit a law from mixture to BPB for every task.

    Args:
      swarm: mixtures and scores.
      law: a key of :data:`olmix_jax.laws.LAWS`; "log_linear" is the published objective. With cheap runs,
        "two_fidelity" takes the place of the default.
      samples: samples of the parameters, for error bars; 0 for none.
      starts: starting points per task, for laws that need them.
      seed: seed of the starting points and of the samples.

    Raises:
      UserError: the law is unknown, the runs are too few, or a fit fails.
    """
    from olmix_jax.laws import FittedLaw, fitting

    family = _law(fitting.law_for(law, swarm))
    swarm.check_enough(family.parameters(len(swarm.domains)))
    data, options = (swarm.ratios_KM, swarm.bpb_KN), fitting.base_of(family, swarm, seed)
    for text in fitting.warnings(family, swarm):
        log.warning("%s", text)
    options |= {"starts": starts, "seed": seed, "tasks": swarm.tasks, **family.reads(swarm.lengths)}
    params = family.fit(*data, **options).params
    drawn = fitting.samples(family, params, *data, samples, seed) if samples and family.cheap_refits else None
    return FittedLaw(family, params, drawn)


def judge_law(swarm: SwarmTable, law: str = "floored_gp", *, folds: int = 5, seed: int = 0) -> "Quality":
    """Measure by cross-validation how well a law predicts runs that it has not seen.

    Args:
      swarm: mixtures and scores.
      law: a key of :data:`olmix_jax.laws.LAWS`.
      folds: number of folds; as many folds as runs is leave-one-out.
      seed: seed of the division into folds.

    Raises:
      UserError: the law is unknown, or the runs cannot be split into the folds.
    """
    from olmix_jax.laws import fitting, quality

    family, data = _law(fitting.law_for(law, swarm)), (swarm.ratios_KM, swarm.bpb_KN)
    base = fitting.base_of(family, swarm, seed)
    options: dict[str, Any] = {"seed": seed, "tasks": swarm.tasks}
    begin = family.fit(*data, **options, **base).params if base else None
    options |= {"folds": folds, "starts": 4, "lengths": swarm.lengths, "begin": begin}
    return quality.cross_validate(family, *data, **options)


def propose_mixture(
    fitted: "FittedLaw",
    swarm: SwarmTable,
    *,
    families: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
    **options: Any,
) -> "Proposal":
    """Find the mixture that minimises a law within constraints.

    Args:
      fitted: the law; its samples, if any, give error bars.
      swarm: the swarm that the law was fitted to. Its ``token_counts`` cap repetition.
      families: {family: task names or patterns}; None for the paper's families.
      seed: seed of all random draws.
      **options: fields of :class:`olmix_jax.propose.options.Options`, such as ``kl_weight``, ``max_repeats``,
        ``target_tokens``, ``task_weights`` and ``bounds``.

    Raises:
      UserError: no mixture meets the constraints, an option is unknown or invalid, or the natural
        distribution is unknown.
    """
    from olmix_jax.propose.make_proposal import propose
    from olmix_jax.propose.options import Options
    from olmix_jax.propose.swarm_facts import SwarmFacts

    valid = [field.name for field in dataclasses.fields(Options)]
    if unknown := sorted(set(options) - set(valid)):
        raise UserError(f"no option {unknown[0]!r}; options are {', '.join(valid)}")
    return propose(fitted, SwarmFacts.from_table(swarm, families), Options(**options), seed=seed)


def sample_swarm(config: "Config", workdir: str | os.PathLike) -> pathlib.Path:
    """Draw the mixtures of a swarm on a prepared corpus; return the path of ``ratios.csv``.

    Raises:
      UserError: an input is missing; the message says which stage writes it.
    """
    run(config, workdir, ("sample",))
    return pathlib.Path(workdir) / "swarm/ratios.csv"


def train_swarm(config: "Config", workdir: str | os.PathLike) -> SwarmTable:
    """Train and score all proxies of a sampled swarm; resume if it was interrupted.

    Raises:
      UserError: an input is missing, or all members diverged.
    """
    run(config, workdir, ("train",))
    from olmix_jax.config.workdir import read_table

    return read_table(config, pathlib.Path(workdir))


def plan_update(config: "Config", workdir: str | os.PathLike) -> "UpdatePlan":
    """Decide what a changed domain set keeps and recomputes, before anything is trained.

    Args:
      config: its ``update`` section names the parent, a finished workdir.
      workdir: folder that holds the ``domains.json`` of the new set.

    Raises:
      UserError: the parent is unfinished, or the change contradicts the domains' content.
    """
    from olmix_jax.config import workdir as workdirs
    from olmix_jax.pipeline import lock, runner, stages
    from olmix_jax.update.update_plan import UpdatePlan
    from olmix_jax.utils import files

    path = files.local_path(workdir, "workdir")
    with lock.locked(config, path):
        runner.run_stage(config, path, stages.UPDATE)
    return UpdatePlan.read(path / workdirs.UPDATE_PLAN)


def run(config: "Config", workdir: str | os.PathLike, stages: Iterable[str] = ()) -> None:
    """Run stages, as the command line does. Finished stages are skipped.

    Args:
      config: all settings, for example ``olmix_jax.config.from_dict({"corpus": {"path": "my_text"}})``.
      workdir: the folder for all results.
      stages: names of stages; empty for all that the config calls for.

    Raises:
      UserError: a stage cannot run; the message says what to change.
    """
    from olmix_jax.config import paths
    from olmix_jax.pipeline import processes, runner
    from olmix_jax.utils import files

    folder = files.local_path(workdir, "workdir")
    paths.check_workdir(config, folder)
    processes.run(config, folder, tuple(stages) or runner.default_stages(config))


def _law(name: str) -> Any:
    """Return the law called ``name``.

    Raises:
      UserError: no law has this name; the message lists the names.
    """
    from olmix_jax.laws import LAWS

    if name not in LAWS:
        raise UserError(f"no law {name!r}; laws are {', '.join(LAWS)}")
    return LAWS[name]
