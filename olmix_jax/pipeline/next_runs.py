"""The runs to train next: those that test a proposal, and the most informative ones, in ``propose/next.csv``."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from olmix_jax import laws
from olmix_jax.config import budget
from olmix_jax.config import workdir as workdirs
from olmix_jax.config.schema import Config
from olmix_jax.laws import two_fidelity
from olmix_jax.laws.fit_result import FitResult
from olmix_jax.propose import next_runs
from olmix_jax.propose.next_kinds import NextKinds
from olmix_jax.propose.proposal import Proposal
from olmix_jax.swarm import apportion, rounds, table
from olmix_jax.swarm.rounds import Round
from olmix_jax.utils import files, records, rng
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import counted, log

PATH = "propose/next.csv"
# Every next.csv of an external swarm, and beside it what its proposal promises, as a round in JSON.
ARCHIVE = "rounds/proposed"
# Sequences of a run that trains elsewhere. Next runs have weights in multiples of 1/TOTAL.
TOTAL = 10_000


def write(
    config: Config,
    workdir: pathlib.Path,
    fitted_law: laws.FittedLaw,
    fit_result: FitResult | None,
    swarm_table: table.SwarmTable,
    proposal: Proposal,
) -> Proposal:
    """Write the next runs to ``propose/next.csv``: those that test the proposal, then the most informative ones.

    A run's id ends with a digest of its mixture, so that scores of an earlier file are never taken for those of this.

    Returns:
      The proposal with its ``next_runs``, which are empty if the law has no covariances, and so no most informative
      runs, ``next_tokens`` and ``next_kinds``.
    """
    number, proposal = config.propose.next_runs, dataclasses.replace(proposal, next_runs={})
    if not number or fit_result is None or fitted_law.law != laws.LAWS[fit_result.law]:
        return proposal
    testing = _testing_runs(config, workdir, swarm_table, proposal)[:number]
    first_FM = np.array([mixture_M for _, mixture_M in testing]).reshape(-1, len(swarm_table.domains))
    roles = [role for role, _ in testing]
    # These stay if no others can be found.
    runs = _write(workdir, roles, swarm_table.domains, first_FM)
    if next_runs.possible(fitted_law):
        chosen = next_runs.propose_next(
            fitted_law,
            number,
            natural_M=swarm_table.natural_M,
            domains=swarm_table.domains,
            existing_KM=swarm_table.ratios_KM,
            first_FM=first_FM,
            cheap=swarm_table.cheap,
            noise_N=np.array([task.rmse_cv**2 for task in fit_result.tasks.values()]),
            task_weights_N=list(proposal.task_weights.values()),
            **_sampler(config, workdir),
        )
        roles += ["cheap" if cheap else "next" for cheap in chosen.cheap_B[len(roles) :]]
        runs = _write(workdir, roles, swarm_table.domains, chosen.ratios_BM, chosen.cheap_B)
        proposal = dataclasses.replace(
            proposal,
            next_runs=dict(zip(runs, chosen.left_B.tolist())),
            next_tokens=tokens(swarm_table) if runs else None,
            next_kinds=_kinds(fitted_law, swarm_table, chosen) if runs else None,
        )
        if len(runs) < number:
            log.info(
                "propose: no more next runs are at least swarm.min_distance = %g from all others",
                config.swarm.min_distance,
            )
    if runs and config.swarm.ratios and not config.update.parent:
        _archive(config, workdir, proposal, fit_result)
    if runs:
        log.info("propose: the mixtures to train next (%s) are in %s", counted(len(runs), "run"), workdir / PATH)
        if (length := tokens(swarm_table)) is not None:
            log.info("propose: train them on %.3g tokens each, as the median run, for which they were chosen", length)
    if proposal.next_kinds is not None:
        log.info("propose: %s", proposal.next_kinds)
    return proposal


def _kinds(fitted_law: laws.FittedLaw, swarm_table: table.SwarmTable, chosen: next_runs.NextRuns) -> NextKinds | None:
    """Return how many runs are of each kind; None for a swarm or a law without cheap runs."""
    if swarm_table.cheap is None or fitted_law.law != two_fidelity.LAW:
        return None
    cheap, left = int(chosen.cheap_B.sum()), float(chosen.left_B[-1])
    used = two_fidelity.predicts_real(fitted_law.params)
    return NextKinds(len(chosen.cheap_B) - cheap, cheap, used, swarm_table.cheap.cost, left, chosen.left_alone)


def tokens(swarm_table: table.SwarmTable) -> float | None:
    """Return the training tokens of the next runs: the median, if the runs differ, which a law reads mixtures at."""
    return None if swarm_table.lengths is None else float(np.median(swarm_table.lengths.tokens_K))


def _write(
    workdir: pathlib.Path, roles: Sequence[str], domains: Sequence[str], ratios_BM: np.ndarray, cheap_B=()
) -> list[str]:
    """Write mixtures to ``propose/next.csv``, unless there are none, and return their run ids."""
    runs = [f"{role}-{files.digest(mixture_M.tolist())[:8]}" for role, mixture_M in zip(roles, ratios_BM, strict=True)]
    if runs:
        cheap = [run for run, is_cheap in zip(runs, cheap_B) if is_cheap]
        table.write_ratios(workdir / PATH, runs, runs, domains, ratios_BM, cheap)
    return runs


def _testing_runs(
    config: Config, workdir: pathlib.Path, swarm_table: table.SwarmTable, proposal: Proposal
) -> list[tuple[str, np.ndarray]]:
    """Return the mixtures that test a proposal and that the swarm lacks, the most important first, as (role, mixture).

    They are the proposal, natural, and two points between them, unless these are too close to each other.
    """
    if proposal.worst:
        return []
    natural_M, proposed_M = (as_trained(config, workdir, of) for of in (proposal.natural, proposal.weights))
    testing, existing_KM = [("proposal", proposed_M), ("natural", natural_M)], swarm_table.ratios_KM
    if next_runs.total_variation(natural_M[None], proposed_M[None]) >= 3 * config.swarm.min_distance:
        for share in (2 / 3, 1 / 3):
            point_M = share * proposed_M + (1 - share) * natural_M
            point = dict(zip(swarm_table.domains, point_M.tolist()))
            testing.append(("path", as_trained(config, workdir, point)))
    kept = []
    for role, mixture_M in testing:
        if (next_runs.total_variation(mixture_M[None], existing_KM) > rounds.SAME).all():
            existing_KM = np.concatenate([existing_KM, mixture_M[None]])
            kept.append((role, mixture_M))
    return kept


def as_trained(config: Config, workdir: pathlib.Path, weights: Mapping[str, float]) -> np.ndarray:
    """Return a mixture as a run trains it: in whole sequences of a proxy, if proxies are trained here."""
    weights_M, total = np.array(list(weights.values())), budget.sequences(config)
    if workdirs.trained_here(config, workdir):
        return apportion.snap(weights_M, total) / total
    return weights_M / weights_M.sum()


def read(workdir: pathlib.Path) -> table.Planned:
    """Read ``propose/next.csv``.

    Raises:
      UserError: the proposal has no next runs.
    """
    if not (workdir / PATH).is_file():
        raise UserError(
            f"{workdir / PATH} does not exist, because the proposal has no next runs: raise propose.next_runs, lower "
            "swarm.min_distance, or see the log of propose; then run --stages=propose"
        )
    return table.read_planned(workdir / PATH)


def _archive(config: Config, workdir: pathlib.Path, proposal: Proposal, fit: FitResult) -> None:
    """Keep ``propose/next.csv`` and its promise, because it may be trained when another proposal has replaced it."""
    mixtures = read(workdir)
    path = workdir / ARCHIVE / f"{files.digest(mixtures.runs)}.csv"
    records.write(path.with_suffix(".json"), _promise(config, workdir, proposal, fit))
    table.write_ratios(path, *mixtures)


def archived(workdir: pathlib.Path) -> list[tuple[table.Planned, Round]]:
    """Return all runs that were proposed for an external swarm, by proposal, each with its promise."""
    paths = sorted((workdir / ARCHIVE).glob("*.csv"))
    return [(table.read_planned(path), records.read(path.with_suffix(".json"), Round, "propose")) for path in paths]


def promise(config: Config, workdir: pathlib.Path) -> Round:
    """Return a round that has not been trained, with the gain that the proposal promises."""
    proposal, fit = Proposal.read(workdir / "propose/proposal.json"), FitResult.read(workdir / "fit/fit.json")
    return _promise(config, workdir, proposal, fit)


def _promise(config: Config, workdir: pathlib.Path, proposal: Proposal, fit: FitResult) -> Round:
    natural, proposed = (
        dict(zip(weights, as_trained(config, workdir, weights).tolist()))
        for weights in (proposal.natural, proposal.weights)
    )
    weights, gain = proposal.task_weights, proposal.gain
    by_law = sum(w * (proposal.predicted_natural[t] - proposal.predicted[t]) for t, w in weights.items())
    error_K = sum(w * np.subtract(fit.measured[t], fit.predicted_cv[t]) for t, w in weights.items())
    return Round(
        natural,
        proposed,
        weights,
        promised=float(by_law) if gain is None else gain.mean,
        low=None if gain is None else gain.low,
        high=None if gain is None else gain.high,
        run_error=float(np.sqrt(np.mean(np.square(error_K)))),
        swarm=rounds.run_digests(workdirs.read_swarm(config, workdir)) if config.swarm.ratios else (),
        settings=settings_digest(config),
    )


def settings_digest(config: Config) -> str:
    """Return a digest of the settings of fit and propose that differ from their defaults; new settings keep it."""
    pairs = ((section, type(section)()) for section in (config.fit, config.propose))
    changed = [{k: v for k, v in vars(ours).items() if v != getattr(usual, k)} for ours, usual in pairs]
    return files.digest(changed)


def _sampler(config: Config, workdir: pathlib.Path) -> dict[str, Any]:
    """Return the settings of ``swarm`` for the sampler that draws candidates of the next runs."""
    swarm = config.swarm
    total = budget.sequences(config) if workdirs.trained_here(config, workdir) else TOTAL
    if swarm.min_weight and not workdirs.trained_here(config, workdir):
        total = max(total, math.ceil(1 / swarm.min_weight))
    return {
        "total": total,
        "sparsity": swarm.sparsity,
        "strength": swarm.strength,
        "min_weight": swarm.min_weight,
        "min_distance": swarm.min_distance,
        "min_runs": swarm.min_runs,
        "seed": rng.derive(config.seed if swarm.seed is None else swarm.seed, "next_runs"),
    }
