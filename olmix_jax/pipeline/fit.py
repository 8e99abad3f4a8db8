"""The stage ``fit``: a law per task and its held-out quality."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from olmix_jax.config import workdir as workdirs
from olmix_jax.config.schema import Config
from olmix_jax.laws import LAWS, FittedLaw, fitting, params_files, quality, scores
from olmix_jax.laws.fit_result import FitResult, outliers_text
from olmix_jax.swarm.table import SwarmTable
from olmix_jax.update import old_runs, update_plan
from olmix_jax.update.old_runs import FitTable, Runs
from olmix_jax.update.update_plan import UpdatePlan
from olmix_jax.utils import rng
from olmix_jax.utils.names import listed
from olmix_jax.utils.progress import counted, log


def run(config: Config, workdir: pathlib.Path) -> None:
    """Fit the law, measure its quality and write ``fit/``. In an update, the fit may include earlier runs."""
    swarm, settings = workdirs.read_table(config, workdir), config.fit
    chosen = _with_earlier_runs(config, workdir, swarm)
    table = swarm if chosen is None else chosen.table
    seed = rng.derive(config.seed, "fit")
    law = fitting.law_for(settings.law, table)
    options = fitting.Options(law, settings.starts, settings.folds, settings.resamples, seed)
    warnings = *swarm.warnings, *fitting.warnings(LAWS[law], table)
    result = dataclasses.replace(fitting.fit(table, options, workdir / "fit"), warnings=warnings)
    if chosen is not None:
        errors = {str(trust): error for trust, error in chosen.error.items()}
        result = dataclasses.replace(result, over=chosen.over, trust=chosen.trust, error=errors)
    if config.swarm.test_ratios:
        fitted = FittedLaw(LAWS[law], params_files.load(workdir / "fit" / params_files.PARAMS, LAWS[law]))
        stretch_N = np.array([task.stretch for task in result.tasks.values()])
        held_out = workdirs.read_test_table(config, table)
        result = dataclasses.replace(result, warnings=(*result.warnings, *held_out.warnings))
        test = scores.score_swarm(fitted, table, held_out, stretch_N)
        result = dataclasses.replace(result, test=test)
    result.write(workdir / "fit/fit.json")
    _log(result)


def earlier_runs(config: Config, workdir: pathlib.Path, plan: UpdatePlan, tasks: Sequence[str]) -> list[Runs]:
    """Return earlier runs, expressed on the new domains; empty if the config or the law excludes them."""
    if not config.update.old_runs:
        return []
    if not LAWS[config.fit.law].cheap_refits:
        log.info("fit: earlier runs are left out because %s cannot weight runs", config.fit.law)
        return []
    domains = workdirs.read_domains(workdir)
    return old_runs.read_runs(pathlib.Path(plan.parent), plan.change, domains.tokens_M, tasks)


def law_over_domains(config: Config, workdir: pathlib.Path, plan: UpdatePlan, result: FitResult) -> FittedLaw | None:
    """Return a law over all domains, fitted to new and earlier runs; None without earlier runs.

    Unlike a law over blocks, it predicts mixtures that change the ratios within a block.
    """
    errors = {float(trust): error for trust, error in (result.error or {}).items() if float(trust) > 0}
    swarm = workdirs.read_table(config, workdir)
    runs = earlier_runs(config, workdir, plan, swarm.tasks) if errors else []
    if not runs:
        return None
    best = min(errors, key=lambda trust: errors[trust])
    law, swarm = LAWS[config.fit.law], old_runs.with_old(swarm, runs, best)
    equal_1K = np.ones((1, len(swarm.runs)))
    ratios_KM, bpb_KN, (weight_K,) = quality.joined(swarm.ratios_KM, swarm.bpb_KN, equal_1K, swarm.inherited)
    seed = rng.derive(config.seed, "fit")
    return FittedLaw(law, law.fit(ratios_KM, bpb_KN, seed=seed, tasks=swarm.tasks, weight_K=weight_K).params)


def _with_earlier_runs(config: Config, workdir: pathlib.Path, swarm: SwarmTable) -> FitTable | None:
    """Return the table that the law of an update is fitted to; None for a first run."""
    plan = update_plan.read_for(config, workdir)
    if plan is None:
        return None
    runs = earlier_runs(config, workdir, plan, swarm.tasks)
    return old_runs.choose_table(plan, swarm, runs, LAWS[config.fit.law], rng.derive(config.seed, "fit"))


def _log(result: FitResult) -> None:
    for text in result.warnings:
        log.warning("%s", text)
    if result.outliers:
        log.warning("fit: %s", outliers_text(result.outliers))
    if result.cheap is not None:
        log.info("fit: %s", result.cheap)
    if result.unseen:
        log.warning("fit: no run contains %s; their effects are the prior's", listed(result.unseen))
    rare = {name: sampled for name, sampled in result.barely_sampled.items() if sampled.runs}
    if rare:
        texts = [f"{name} ({counted(seen.runs, 'run')}, up to {seen.max:.3f})" for name, seen in rare.items()]
        log.warning("fit: few runs contain these domains, with weights up to: %s", listed(texts))
    log.info(
        "fit: held-out Spearman %.3f over tasks, %.3f for the average, %d folds; 90 %% intervals cover %.0f %%; %.1f s",
        result.spearman_cv_mean,
        result.spearman_of_mean_cv,
        result.folds,
        100 * result.coverage_cv_mean,
        result.wall_s,
    )
