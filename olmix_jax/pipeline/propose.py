"""The stage ``propose``: the mixture, its files for trainers, and the next runs."""

import dataclasses
import pathlib
import shutil
from collections.abc import Mapping

import numpy as np

from olmix_jax import laws, propose
from olmix_jax.config import budget, json_fields
from olmix_jax.config import workdir as workdirs
from olmix_jax.config.schema import Config
from olmix_jax.corpus import store
from olmix_jax.laws import fitting, held_out
from olmix_jax.laws.fit_result import FitResult, Over
from olmix_jax.pipeline import handover, next_runs, trunk_stage
from olmix_jax.pipeline.fit import law_over_domains
from olmix_jax.propose import export, make_proposal
from olmix_jax.propose.options import Options
from olmix_jax.propose.proposal import Proposal
from olmix_jax.propose.proposal_parts import Counts, ReuseCost, by_name
from olmix_jax.propose.swarm_facts import SwarmFacts
from olmix_jax.swarm import rounding, table
from olmix_jax.update import history, update_plan
from olmix_jax.update.update_plan import UpdatePlan
from olmix_jax.utils import files, rng
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.optional import LeftOut
from olmix_jax.utils.progress import log


def run(config: Config, workdir: pathlib.Path) -> None:
    """Propose a mixture and write it. Then add optional parts: error bars, files for trainers, next runs.

    The proposal is written as soon as it is solved. An optional part that fails is left out, with the reason.
    """
    plan = update_plan.read_for(config, workdir)
    swarm_table, fit_result = _fitted_swarm(config, workdir, plan)
    swarm, options = swarm_facts(config, workdir, swarm_table), options_of(config, workdir, plan)
    if fit_result is not None:
        swarm = dataclasses.replace(swarm, held_out=held_out.of_fit(fit_result))
    fitted_law = history.read_law(workdir, config)
    if fit_result is None or fitted_law.law != laws.LAWS[fit_result.law]:
        # Choosing λ refits the law to the swarm's scores. A law of the parent or over blocks cannot be refitted.
        swarm = dataclasses.replace(swarm, bpb_KN=None)
    seed = rng.derive(config.seed, "propose")
    solved = make_proposal.solve(fitted_law, swarm, options, seed=seed)
    fit = files.digest([plan, solved.proposal.weights]) if fit_result is None else fit_result.digest
    solved = dataclasses.replace(solved, proposal=dataclasses.replace(solved.proposal, fit=fit))
    path, left_out = workdir / "propose/proposal.json", LeftOut()
    # Files for an earlier proposal must not stay beside this one.
    (workdir / next_runs.PATH).unlink(missing_ok=True)
    shutil.rmtree(workdir / handover.FOLDER, ignore_errors=True)
    solved.proposal.write(path)
    log.info("propose: %s", solved.proposal.outcome)
    if solved.proposal.read_at is not None:
        log.info("propose: %s", solved.proposal.read_at)
    proposal = make_proposal.complete(solved)
    proposal = dataclasses.replace(proposal, warnings=(*proposal.warnings, *trunk_stage.warnings(config)))
    if plan is not None:
        with left_out.unless_fails("propose", "costs of kept ratios"):
            full_law = None
            if fit_result is not None and fit_result.over is Over.BLOCKS:
                full_law = law_over_domains(config, workdir, plan, fit_result)
            always_kept = json_fields.propose_options(config)["keep_ratios"]
            reuse = _reuse_cost(plan, fit_result, fitted_law, full_law, swarm, options, always_kept, proposal, seed)
            proposal = dataclasses.replace(proposal, reuse=reuse)
    with left_out.unless_fails("propose", "whole sequences or tokens per domain"):
        proposal = dataclasses.replace(proposal, counts=_counts(config, workdir, options, proposal))
    with left_out.unless_fails("propose", "files for trainers"):
        exports = handover.write(workdir, _mixture(config, swarm, options, proposal))
        proposal = dataclasses.replace(proposal, handover=exports)
    with left_out.unless_fails("propose", "next runs"):
        proposal = next_runs.write(config, workdir, fitted_law, fit_result, swarm_table, proposal)
    proposal = dataclasses.replace(proposal, left_out=(*proposal.left_out, *left_out.reasons))
    proposal.write(path)
    for line in proposal.warnings:
        log.info("%s", line)


def _fitted_swarm(
    config: Config, workdir: pathlib.Path, plan: UpdatePlan | None
) -> tuple[table.SwarmTable, FitResult | None]:
    """Read the swarm and its ``fit.json``; an update that needs no runs has an empty swarm and no fit."""
    if plan is not None and plan.needs_no_runs:
        domains, tasks = workdirs.read_domains(workdir), history.read_noise(workdir).tasks
        no_runs, sizes = (np.zeros((0, len(domains))), np.zeros((0, len(tasks)))), history.task_sizes(workdir)
        facts = domains.names, tasks, *no_runs, domains.natural_M, domains.tokens_M
        return table.SwarmTable((), *facts, (), sizes_N=np.array([sizes.get(task, 1.0) for task in tasks])), None
    swarm_table, fit_result = workdirs.read_table(config, workdir), FitResult.read(workdir / "fit/fit.json")
    law = fitting.law_for(config.fit.law, swarm_table)
    if (fit_result.law, tuple(fit_result.tasks)) != (law, swarm_table.tasks):
        raise UserError(f"{workdir / 'fit'}: fitted with a different law or different tasks; run --stages=fit,propose")
    return swarm_table, fit_result


def swarm_facts(config: Config, workdir: pathlib.Path, swarm_table: table.SwarmTable) -> SwarmFacts:
    """Return the facts that a proposal depends on. Token counts are those that a run can use."""
    swarm = SwarmFacts.from_table(swarm_table, json_fields.families_of_tasks(config, swarm_table.tasks))
    if not workdirs.trained_here(config, workdir):
        return swarm
    # A run reads whole sequences, so the tokens after a domain's last sequence are not used.
    length = config.proxy.length
    stores = (store.open_store(store.store_path(workdir, name)) for name in swarm_table.domains)
    return dataclasses.replace(swarm, tokens_M=np.array([tokens.sequences(length) * length for tokens in stores]))


def options_of(config: Config, workdir: pathlib.Path, plan: UpdatePlan | None) -> Options:
    """Return the config's options, with the target tokens of a swarm trained here and the ratios kept by an update."""
    options = Options(**json_fields.propose_options(config))
    if workdirs.trained_here(config, workdir):
        per_token = workdirs.tokens_per_token(config, workdir)
        options = dataclasses.replace(options, target_tokens=budget.target_tokens(config, per_token))
    if plan is not None and plan.kept:
        # The plan keeps the blocks of the config too.
        options = dataclasses.replace(options, keep_ratios=plan.kept)
    return options


def _reuse_cost(
    plan: UpdatePlan,
    fit_result: FitResult | None,
    fitted_law: laws.FittedLaw,
    full_law: laws.FittedLaw | None,
    swarm: SwarmFacts,
    options: Options,
    always_kept: Mapping[str, Mapping[str, float]] | None,
    proposal: Proposal,
    seed: int,
) -> ReuseCost:
    """Return the predicted cost of keeping ratios, and the cost by the new law [BPB]; ``always_kept`` costs nothing.

    The cost is the minimum with kept ratios minus the minimum without. A law over blocks gives only the first. In
    that case ``full_law``, fitted to old and new runs over all domains, is used instead, if it is not None.
    """
    unknown = ReuseCost(dataclasses.asdict(plan.predicted_loss), None)
    if options.worst:
        return unknown
    if options.keep_ratios == always_kept:
        return dataclasses.replace(unknown, loss=0.0, by="law")
    kept, by, law = proposal.objective, "law", fitted_law
    options = dataclasses.replace(options, explore=False)
    if fit_result is not None and fit_result.over is Over.BLOCKS:
        if full_law is None:
            return unknown
        # `tail` needs samples of the parameters, and this law has none.
        by, law, options = "old runs", full_law, dataclasses.replace(options, tail=None, guard=None)
        kept = propose.propose(law, swarm, options, seed=seed).objective
    best = propose.propose(law, swarm, dataclasses.replace(options, keep_ratios=always_kept), seed=seed)
    if not (best.status.converged and proposal.status.converged):
        return unknown
    loss = None if kept is None or best.objective is None else kept - best.objective
    return dataclasses.replace(unknown, loss=loss, free=best.weights, by=by)


def _counts(config: Config, workdir: pathlib.Path, options: Options, proposal: Proposal) -> Counts | None:
    """Return the mixture in whole sequences of the target run (for an external swarm: tokens), within all bounds."""
    if options.target_tokens is None:
        return None
    length = config.proxy.length if workdirs.trained_here(config, workdir) else 1
    names = list(proposal.weights)
    weights_M, lower_M, caps_M = (
        np.array([values[name] for name in names]) for values in (proposal.weights, proposal.lower, proposal.caps)
    )
    groups = [
        rounding.Group(
            np.array([names.index(name) for name in group.domains]),
            0.0 if group.low is None else group.low,
            1.0 if group.high is None else group.high,
        )
        for group in proposal.groups
    ]
    counts_M = rounding.counts(weights_M, int(options.target_tokens // length), lower_M, caps_M, groups, names)
    counts = dict(zip(names, counts_M.tolist()))
    return Counts(length, sequences=counts) if length > 1 else Counts(length, tokens=counts)


def _mixture(config: Config, swarm: SwarmFacts, options: Options, proposal: Proposal) -> export.Mixture:
    """Return the mixture to write for trainers."""
    tokens, counts = None, proposal.counts
    if counts is not None:
        tokens = {name: n * counts.length for name, n in (counts.sequences or counts.tokens or {}).items()}
    unique = None if swarm.tokens_M is None else by_name(swarm.domains, np.asarray(swarm.tokens_M, np.float64))
    return export.Mixture(
        proposal.weights,
        counts=tokens,
        target_tokens=options.target_tokens,
        unique_tokens=unique,
        max_repeats=options.max_repeats,
        sequence_length=config.proxy.length,
        paths=config.propose.data_path,
    )
