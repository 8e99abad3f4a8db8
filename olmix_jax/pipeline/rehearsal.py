"""Check the settings of later stages before anything is trained.

The checks are those of the later stages themselves. They run on a stand-in for the swarm's table: its runs, domains and
tasks with made-up scores, which is written and read like the real one.
"""

import pathlib
import tempfile

import numpy as np

from olmix_jax.config import budget, json_fields, yaml_files
from olmix_jax.config import workdir as workdirs
from olmix_jax.config.schema import Config
from olmix_jax.corpus import domain_names, tasks
from olmix_jax.laws import LAWS, FittedLaw, fitting, log_linear, quality, scores
from olmix_jax.pipeline import sample, trunk_stage
from olmix_jax.pipeline.propose import options_of, swarm_facts
from olmix_jax.propose import baselines, blocks, exploration, optimum
from olmix_jax.propose.constraints import constraints, mixture
from olmix_jax.propose.formulation import Formulation, formulate
from olmix_jax.propose.options import Options
from olmix_jax.proxy import tracking
from olmix_jax.swarm import apportion, sampling, table
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.update import changes, changes_file, history, update_plan
from olmix_jax.update.update_plan import UpdatePlan
from olmix_jax.utils import rng
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import errors_only, log

# The warnings that this process has logged.
_WARNED: set[str] = set()


def check_settings(config: Config) -> None:
    """Raise an error for settings that a later stage would refuse, as far as the config alone tells.

    Raises:
      UserError: a setting contradicts another, or a file that a later stage reads is missing or malformed.
    """
    options, law = Options(**json_fields.propose_options(config)), LAWS[config.fit.law]
    json_fields.families(config)
    optimum.check_options(law, options, has_samples=bool(config.fit.resamples) and law.cheap_refits)
    if config.update.parent and config.update.file:
        steps = changes_file.parse(config.update.file, yaml_files.read(config.update.file, names=True))
        before, parent = history.parent_config(config), pathlib.Path(config.update.parent)
        external = workdirs.read_table(before, parent) if before.swarm.ratios else None
        changes.change(history.read_domains(parent, external).names, steps)
    if config.swarm.ratios:
        return
    _check_trunk(config)
    _check_vocabulary(config)
    fitting.check_library(config.fit.law)
    tracking.check_libraries(config.track)
    _check_budget(config)


def _check_trunk(config: Config) -> None:
    """Check a trunk that is copied, and warn of an update whose proxies have another share in common."""
    if config.swarm.trunk_from:
        trunk_stage.source(config)
    if config.update.parent:
        before = history.parent_config(config).swarm
        if not before.ratios and before.trunk != config.swarm.trunk:
            _warn(
                f"swarm.trunk = {config.swarm.trunk:g}, but {before.trunk:g} in {config.update.parent}: differences "
                "between mixtures are smaller the longer the trunk is, so earlier runs are a poor guide to the new ones"
            )


def _check_vocabulary(config: Config) -> None:
    """Raise an error for an update whose proxies have another vocabulary, so that earlier runs are of other models."""
    if config.update.parent:
        before = history.parent_config(config)
        if not before.swarm.ratios and before.proxy.vocabulary != config.proxy.vocabulary:
            raise UserError(
                f"config field `proxy.vocabulary` is {config.proxy.vocabulary}, but {before.proxy.vocabulary} in "
                f"update.parent={config.update.parent}, whose runs are reused; give it the parent's value"
            )


def check_names(config: Config) -> None:
    """Raise an error for settings that do not suit the names of the corpus's domains, before text is read.

    Raises:
      UserError: a domain has a name that cannot be used, a setting names an unknown domain, or the swarm has too few
        runs for the domains.
    """
    if config.swarm.ratios:
        return
    names, options = domain_names.list_names(config.corpus), Options(**json_fields.propose_options(config))
    if config.update.parent:
        return
    if (trunk := json_fields.trunk_mixture(config)) is not None:
        mixture(trunk, names, "swarm.trunk_mixture")
    constraints(options.bounds, names)
    blocks.form_blocks(options.keep_ratios or {}, names)
    if options.anchor is not None:
        mixture(options.anchor, names, "propose.anchor")
    sampling.check(**sample.request(config, DomainSet(names, (1,) * len(names)), None))


def _check_budget(config: Config) -> None:
    """Compare the lengths of proxies, validation models, target run and tasks."""
    own, target = budget.tokens(config), budget.target_tokens(config)
    validated = budget.tokens(budget.validated(config))
    if own > target:
        found = f"a proxy trains on {own:,} tokens, more than the target run's {target:,.0f}"
        shorter = "lower train.steps" if config.train.steps > 1 else "lower train.batch or proxy.length"
        longer = "set propose.target_tokens" if config.propose.target_tokens is None else "raise propose.target_tokens"
        remedy = f"{shorter}, {'raise validate.steps, ' * (config.propose.target_tokens is None)}or {longer}"
        if config.train.match_repeats:
            raise UserError(f"{found}, so it repeats text more often: {remedy}, or set train.match_repeats=False")
        _warn(f"{found}; {remedy}")
    elif validated < own:
        _warn(f"a validation model trains on {validated:,} tokens, less than a proxy's {own:,}; raise validate.steps")
    if validated > target:
        _warn(
            f"a validation model trains on {validated:,} tokens, more than the target run's {target:,.0f}, so it "
            "repeats text more often; lower validate.steps"
        )
    if (config.train.warmup or 0) > 0.5:
        _warn(f"the warm-up takes {config.train.warmup:.0%} of the steps; lower train.warmup")
    if config.tasks.length > config.proxy.length:
        _warn(
            f"tasks are cut to {config.tasks.length} tokens (tasks.length), and proxies train on sequences of only "
            f"{config.proxy.length} (proxy.length)"
        )


def _warn(text: str) -> None:
    """Log a warning once, although several stages check the same settings."""
    if text not in _WARNED:
        _WARNED.add(text)
        log.warning("%s", text)


def check_prepared(config: Config, workdir: pathlib.Path) -> None:
    """Raise an error for settings that a later stage would refuse, given the domains and tasks of a workdir.

    Nothing is checked before domains and tasks exist, and for an update before its plan exists.

    Raises:
      UserError: as the stages sample, fit, propose and validate do.
    """
    if config.swarm.ratios or not (workdir / workdirs.DOMAINS).is_file() or not (workdir / tasks.INDEX).is_file():
        return
    plan = update_plan.read_for(config, workdir)
    if (config.update.parent and plan is None) or (plan is not None and plan.needs_no_runs):
        return
    domains = workdirs.read_domains(workdir)
    sampling.check(**sample.request(config, domains, plan))
    swarm = _stand_in(config, workdir, domains, plan)
    settings = config.fit
    if plan is None:
        fitting.check(swarm, fitting.Options(settings.law, settings.starts, settings.folds, settings.resamples, 0))
    else:
        quality.folds_of(swarm.ratios_KM, settings.folds)
    if config.swarm.test_ratios:
        with errors_only():
            scores.check_columns(swarm, workdirs.read_test_table(config, swarm))
    options, law = options_of(config, workdir, plan), LAWS[config.fit.law]
    facts = swarm_facts(config, workdir, swarm)
    formulation = formulate(_flat_law(swarm), facts, options)
    optimum.check_options(law, options, has_samples=bool(config.fit.resamples) and law.cheap_refits)
    optimum.check_families(facts, options)
    exploration.check_choice(law, options, swarm.ratios_KM)
    if optimum.proposes_a_run(law, options) and (workdir / workdirs.RATIOS).is_file():
        baselines.runs_within(formulation.problem.bounds, swarm.ratios_KM)
    _check_validation(config, formulation)


def _stand_in(config: Config, workdir: pathlib.Path, domains: DomainSet, plan: UpdatePlan | None) -> table.SwarmTable:
    """Return the table that the stage ``fit`` will read, with made-up scores, and mixtures if none are sampled yet."""
    names, path = tasks.task_names(workdir), workdir / workdirs.RATIOS
    draw = rng.generator(0, "rehearsal")
    ratios_KM = draw.dirichlet(np.ones(len(domains)), size=sample.size(config, domains, plan))
    if path.is_file():
        ratios_KM = table.read_ratios(path).ratios_KM
    # Scores that no check of the reader takes for another quantity: they differ, and rise together.
    bpb_KN = 1 + 0.1 * draw.random((len(ratios_KM), 1)) + 0.01 * draw.random((len(ratios_KM), len(names)))
    runs = [f"run-{k:04d}" for k in range(len(ratios_KM))]
    with tempfile.TemporaryDirectory() as folder, errors_only():
        place = pathlib.Path(folder)
        domains.write(place / workdirs.DOMAINS)
        mixtures = runs, runs, domains.names, names, ratios_KM, bpb_KN, domains.natural_M, domains.tokens_M
        table.write_swarm(place / "swarm", *mixtures, {})
        try:
            return workdirs.read_table(config, place)
        except UserError as e:
            raise UserError(str(e).replace(folder, str(workdir))) from e


def _flat_law(swarm: table.SwarmTable) -> FittedLaw:
    """Return a law that predicts the same for every mixture."""
    tasks, domains = len(swarm.tasks), len(swarm.domains)
    return FittedLaw(log_linear.LAW, log_linear.Params(np.zeros(tasks), np.zeros((tasks, domains))))


def _check_validation(config: Config, formulation: Formulation) -> None:
    """Round mixtures to whole sequences of a validation model, within the caps."""
    train = budget.validated(config).train
    natural_D = formulation.collapse(formulation.natural_M)[None]
    allowed_M = formulation.expand(formulation.reduced.project(natural_D))[0]
    total = train.steps * train.batch
    try:
        apportion.snap(allowed_M, total, formulation.problem.bounds.upper_M)
    except UserError as e:
        # Rounding down takes less than one sequence from each domain.
        by = np.ceil(1e4 * len(allowed_M) / total) / 100
        raise UserError(
            f"validation models of {train.steps} steps: {e} (all by {by:g} %: propose.bounds, propose.max_repeats, or "
            "a lower propose.target_tokens), or raise validate.steps"
        ) from e
