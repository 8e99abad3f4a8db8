"""The stage ``propose``."""

import dataclasses
import json
import pathlib

import numpy as np

from olmix_jax import laws, propose
from olmix_jax.config import budget
from olmix_jax.config import workdir as workdirs
from olmix_jax.config.schema import Config
from olmix_jax.corpus import store
from olmix_jax.laws.fit_result import FitResult, Over
from olmix_jax.pipeline.fit import law_over_domains
from olmix_jax.propose import export, next_runs
from olmix_jax.propose.proposal import Counts, Export, Proposal, ReuseCost
from olmix_jax.swarm import rounding, table
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.update import history, update_plan
from olmix_jax.update.update_plan import UpdatePlan
from olmix_jax.utils import files, rng
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log


def propose_mixture(config: Config, workdir: pathlib.Path) -> None:
    """The mixture that minimises the law under KL, repetition caps and what else the config asks for."""
    plan = update_plan.read_for(config, workdir)
    swarm_table, fitted = _judged(config, workdir, plan)
    if swarm_table.natural_M is None:
        raise UserError("the natural distribution is not known: give --config.swarm.meta=… with `relative_sizes`")
    settings, tokens_M = config.propose, swarm_table.tokens_M
    if _trained_here(config, workdir):
        # A stream reads whole sequences; the tokens after the last one are never trained on.
        length = config.proxy.length
        stores = (store.open_store(store.store_path(workdir, name)) for name in swarm_table.domains)
        tokens_M = np.array([found.sequences(length) * length for found in stores])
        settings = dataclasses.replace(settings, target_tokens=budget.target_tokens(config))
    if plan is not None and plan.kept and not settings.keep_ratios.strip():
        settings = dataclasses.replace(settings, keep_ratios=json.dumps(plan.kept))
    found, measured = history.read_law(workdir, config), len(swarm_table.runs) > 0
    known = {
        "tasks": swarm_table.tasks,
        "domains": swarm_table.domains,
        "natural_M": swarm_table.natural_M,
        "ratios_KM": swarm_table.ratios_KM if measured else None,
        "tokens_M": tokens_M,
        "sizes_N": swarm_table.sizes_N,
        "families": config.fit.families if config.fit.granularity == "task" else _each_alone(swarm_table.tasks),
        "seed": rng.derive(config.seed, "propose"),
    }
    # λ is chosen by refits to the swarm's own runs, and a law seen through a matrix has none.
    bpb_KN = swarm_table.bpb_KN if found.law == laws.LAWS[config.fit.law] and measured else None
    proposal = propose.propose(
        found.law, found.params, settings=settings, samples=found.samples, bpb_KN=bpb_KN, **known
    )
    reuse = None
    if plan is not None:
        whole = law_over_domains(config, workdir, plan, fitted) if fitted and fitted.over is Over.BLOCKS else None
        reuse = _reuse(plan, fitted, found, whole, settings, proposal, known)
    counts, handover = _handed_over(config, workdir, settings, tokens_M, proposal)
    proposal = dataclasses.replace(
        proposal,
        reuse=reuse,
        next_runs=_propose_next(config, workdir, found, fitted, swarm_table, proposal),
        counts=counts,
        handover=handover,
        fit=files.digest([plan, proposal.weights]) if fitted is None else fitted.digest,
    )
    proposal.write(workdir / "propose/proposal.json")
    for line in (f"propose: {proposal.outcome}", *proposal.warnings):
        log.info("%s", line)


def _judged(
    config: Config, workdir: pathlib.Path, plan: UpdatePlan | None
) -> tuple[table.SwarmTable, FitResult | None]:
    """The swarm and its ``fit.json``; for an update that needed no runs a swarm of none, and None."""
    if plan is not None and plan.needs_no_runs:
        domains, tasks = DomainSet.read(workdir / "domains.json"), history.read_noise(workdir).tasks
        none = np.zeros((0, len(domains))), np.zeros((0, len(tasks)))
        return table.SwarmTable((), domains.names, tasks, *none, domains.natural_M, domains.tokens_M, ()), None
    swarm_table, fitted = workdirs.read_table(config, workdir), FitResult.read(workdir / "fit/fit.json")
    if (fitted.law, tuple(fitted.tasks)) != (config.fit.law, swarm_table.tasks):
        raise UserError(f"{workdir / 'fit'}: of another law or other tasks than the config's; run --stages=fit,propose")
    return swarm_table, fitted


def _trained_here(config: Config, workdir: pathlib.Path) -> bool:
    return not config.swarm.ratios and (workdir / "corpus").is_dir()


def _reuse(
    plan: UpdatePlan, fitted: FitResult | None, found: laws.FittedLaw, whole, settings, proposal: Proposal, known: dict
) -> ReuseCost:
    """Return what keeping ratios was predicted to cost, and what it costs by the new law.

    The cost is the minimum with kept ratios minus the minimum without. ``whole`` replaces a new law over blocks.
    """
    unknown = ReuseCost(dataclasses.asdict(plan.predicted_loss), None)
    if settings.worst:
        return unknown
    if not settings.keep_ratios.strip():
        return dataclasses.replace(unknown, loss=0.0, by="law")
    kept, by, law, samples = proposal.objective, "law", (found.law, found.params), found.samples
    if fitted is not None and fitted.over is Over.BLOCKS:
        if whole is None:
            return unknown
        # Of this law there are no samples to be cautious with.
        law, by, samples = (whole.law, whole.params), "old runs", None
        settings = dataclasses.replace(settings, tail=None, guard=None)
        kept = propose.propose(*law, settings=dataclasses.replace(settings, explore=False), **known).objective
    free = dataclasses.replace(settings, keep_ratios="", explore=False)
    best = propose.propose(*law, settings=free, samples=samples, **known)
    return dataclasses.replace(unknown, loss=kept - best.objective, free=best.weights, by=by)


def _handed_over(
    config: Config, workdir: pathlib.Path, settings, tokens_M, proposal: Proposal
) -> tuple[Counts | None, dict[str, Export]]:
    """Write the mixture as trainers read it to ``propose/handover``; return the proposal's counts and handover."""
    length = config.proxy.length if _trained_here(config, workdir) else 1
    counts = _counts(proposal, settings.target_tokens, length)
    names = list(proposal.weights)
    mixture = export.Mixture(
        proposal.weights,
        counts=None if counts is None else {name: n * length for name, n in counts.items()},
        target_tokens=settings.target_tokens,
        unique_tokens=None if tokens_M is None else dict(zip(names, np.asarray(tokens_M, np.float64).tolist())),
        max_repeats=settings.max_repeats,
        sequence_length=config.proxy.length,
        paths=settings.data_path,
    )
    folder = workdir / "propose/handover"
    export.write_all(folder, mixture)
    found = {}
    for name, entry in files.read_json(folder / "handover.json")["formats"].items():
        if "file" in entry:
            largest = abs(entry["largest_deviation"]["by"])
            found[name] = Export(f"propose/handover/{entry['file']}", entry["realised"], largest)
    if counts is None:
        return None, found
    return (Counts(length, sequences=counts) if length > 1 else Counts(length, tokens=counts)), found


def _counts(proposal: Proposal, target_tokens: float | None, length: int) -> dict[str, int] | None:
    """The mixture in whole sequences of the target run (tokens, where ``length`` is 1), within every bound."""
    if target_tokens is None:
        return None
    names = list(proposal.weights)
    weights_M, lower_M, caps_M = (
        np.array([values[name] for name in names]) for values in (proposal.weights, proposal.lower, proposal.caps)
    )
    groups = [
        rounding.Group(np.array([names.index(name) for name in group.domains]), group.low, group.high)
        for group in proposal.groups
    ]
    found_M = rounding.counts(weights_M, int(target_tokens // length), lower_M, caps_M, groups, names)
    return dict(zip(names, found_M.tolist()))


def _each_alone(tasks) -> str:
    """Families as `fit.families` gives them, of tasks that are families already."""
    return json.dumps({task: [task] for task in tasks})


def _propose_next(config: Config, workdir: pathlib.Path, found_law, fitted, swarm_table, proposal: Proposal) -> dict:
    """Writes the mixtures that would tell the law most, ``propose/next.csv``; {run: share of its uncertainty left}."""
    path, law = workdir / "propose/next.csv", laws.LAWS[config.fit.law]
    path.unlink(missing_ok=True)
    wanted = config.propose.next_runs and found_law.law == law and fitted is not None
    if not wanted or not (law == laws.LAWS["warped_gp"] or found_law.samples is not None):
        return {}
    found = next_runs.propose_next(
        law,
        found_law.params,
        config.propose.next_runs,
        natural_M=swarm_table.natural_M,
        domains=swarm_table.domains,
        existing_KM=swarm_table.ratios_KM,
        samples=found_law.samples,
        noise_N=np.array([task.rmse_cv**2 for task in fitted.tasks.values()]),
        task_weights_N=list(proposal.task_weights.values()),
        sparsity=config.swarm.sparsity,
        strength=config.swarm.strength,
        seed=rng.derive(config.seed, "next_runs"),
    )
    runs = tuple(f"next-{k:04d}" for k in range(len(found.ratios_BM)))
    table.write_ratios(path, runs, runs, swarm_table.domains, found.ratios_BM)
    log.info("propose: the %d mixtures that would tell most are in %s", len(runs), path)
    return dict(zip(runs, found.left_B))


def write_report(config: Config, workdir: pathlib.Path) -> None:
    """The page."""
    from olmix_jax import report

    report.build(workdir)
