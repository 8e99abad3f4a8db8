"""The designs of a swarm that are compared, and what is kept of each: its cost, its law's quality, its proposal."""

import dataclasses
import pathlib
import shutil

import ml_collections
import numpy as np

from olmix_jax import config as configs
from olmix_jax.config import budget
from olmix_jax.config import workdir as workdirs
from olmix_jax.laws.fit_result import FitResult
from olmix_jax.pipeline import merge, runner
from olmix_jax.propose.proposal import Proposal
from olmix_jax.proxy.train_result import TrainInfo
from olmix_jax.swarm import table
from olmix_jax.utils import rng

STAGES = ("prepare", "sample", "train", "fit", "propose")
# Share of the steps that branches, and the experts of merged members, have in common.
BRANCHED, MERGED = 0.5, 0.75
# Merged members per domain.
PER_DOMAIN = 15
# How many times smaller the effects of merged members are (docs/log.md). λ is in BPB per nat, so for their law alone it
# is divided by this. Effects of branches at .5 are 1.1 times smaller, for which λ is left as it is.
MERGED_EFFECTS = 2.0
# Folder of the merged members as a swarm.
ALONE = "alone"


@dataclasses.dataclass(frozen=True)
class Design:
    """A trained swarm and its proposal.

    Attributes:
      tokens: training tokens of everything that the proposal rests on, with trunk and experts.
      spearman_task_mean, spearman_of_mean: rank correlation of the law's predictions with the judge's proxies.
      promised, low, high: the proposal's gain over natural, with its 5 % and 95 % quantile [BPB].
      weights_M: the proposal, in the order of the domains of the workdir.
    """

    tokens: int
    spearman_task_mean: float
    spearman_of_mean: float
    promised: float
    low: float
    high: float
    weights_M: np.ndarray


def train_judge(settings: ml_collections.ConfigDict, prepared: pathlib.Path, workdir: pathlib.Path, size: int) -> None:
    """Train the swarm of full proxies that all designs are judged on, and fit its law."""
    config = _copy(settings, "judge")
    # Regret is measured from the optimum of the judge's law, so λ is small.
    config.swarm.size, config.propose.kl_weight = size, 0.01
    _run(config, prepared, workdir)


def run(
    settings: ml_collections.ConfigDict, prepared: pathlib.Path, workdir: pathlib.Path, judge: pathlib.Path, number: int
) -> dict[str, Design]:
    """Train every design.

    Args:
      settings: the config of the swarm of full proxies, with its size.
      prepared: a workdir with the corpus.
      workdir: for a folder per design.
      judge: workdir of the judge's swarm, which has other mixtures, initial weights and order of documents.
      number: of the repetition. Each has other mixtures, initial weights and orders of documents.

    Returns:
      {name: design}.
    """
    fifth, domains = settings.swarm.size / 5, len(workdirs.read_domains(prepared))
    settings = _copy(settings, "")
    settings.swarm.test_ratios, settings.swarm.test_metrics = (
        str(judge / workdirs.RATIOS),
        str(judge / workdirs.METRICS),
    )
    names = ("full", "few_full", "branches", "two_fidelity")
    full, few, branches, both = (_copy(settings, f"{number}/{name}") for name in names)
    few.swarm.size, few.swarm.min_runs = max(int(fifth), domains + 2), 1
    branches.swarm.trunk = BRANCHED
    both.swarm.trunk, both.swarm.merged, both.swarm.min_runs = MERGED, PER_DOMAIN * domains, 0
    # The experts cost a part of the fifth.
    both.swarm.size = max(int(fifth - MERGED - domains * (1 - MERGED)), 4)
    both.fit.folds = min(settings.fit.folds, both.swarm.size)
    designs = {}
    for name, config in zip(names, (full, few, branches, both)):
        _run(config, prepared, workdir / name)
        designs[name] = _read(workdir / name)
    # The merged members alone, as a swarm that was trained elsewhere.
    source, alone = workdir / "two_fidelity", _copy(settings, f"{number}/merges")
    swarm = workdirs.read_table(configs.from_dict(both), source)
    cheap, sizes = swarm.cheap, (swarm.natural_M, swarm.tokens_M, {})
    assert cheap is not None
    table.write_swarm(
        source / ALONE, cheap.runs, cheap.runs, swarm.domains, swarm.tasks, cheap.ratios_JM, cheap.bpb_JN, *sizes
    )
    tables = (source / ALONE / pathlib.Path(path).name for path in (workdirs.RATIOS, workdirs.METRICS, workdirs.META))
    alone.swarm.ratios, alone.swarm.metrics, alone.swarm.meta = map(str, tables)
    alone.propose.target_tokens = budget.target_tokens(configs.from_dict(full))
    alone.propose.kl_weight /= MERGED_EFFECTS
    runner.run(configs.from_dict(alone), workdir / "merges", ("fit", "propose"))
    designs["merges"] = _read(workdir / "merges", trained_in=source)
    return designs


def copy_prepared(prepared: pathlib.Path, workdir: pathlib.Path) -> None:
    """Make a workdir with the corpus, unless there is one."""
    if not workdir.is_dir():
        part = workdir.with_name(f"{workdir.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(prepared, part).rename(workdir)


def _copy(settings: ml_collections.ConfigDict, name: str) -> ml_collections.ConfigDict:
    """Return a copy. One with a name has its own mixtures, initial weights and order of documents."""
    config = settings.copy_and_resolve_references()
    if name:
        config.swarm.seed = rng.derive(settings.seed, f"{name}/swarm")
        config.train.seed = rng.derive(settings.seed, f"{name}/train")
    return config


def _run(settings: ml_collections.ConfigDict, prepared: pathlib.Path, workdir: pathlib.Path) -> None:
    copy_prepared(prepared, workdir)
    runner.run(configs.from_dict(settings), workdir, STAGES)


def _read(workdir: pathlib.Path, trained_in: pathlib.Path | None = None) -> Design:
    """Return the design that a workdir holds; ``trained_in`` has the experts of merged members alone."""
    test, proposal = FitResult.read(workdir / "fit/fit.json").test, Proposal.read(workdir / "propose/proposal.json")
    infos = [(trained_in or workdir) / merge.INFO] + ([] if trained_in else [workdir / "train/info.json"])
    tokens = sum(_tokens(TrainInfo.read(path)) for path in infos if path.is_file())
    assert test is not None and proposal.gain is not None, workdir
    return Design(
        tokens,
        test.spearman_task_mean,
        test.spearman_of_mean,
        proposal.gain.mean,
        proposal.gain.low,
        proposal.gain.high,
        np.array([*proposal.weights.values()]),
    )


def _tokens(info: TrainInfo) -> int:
    return info.own_tokens + info.trunk_tokens
