"""The stages, in the order in which they run.

Modules that train are imported when their stage runs, so that fitting and proposing load no training library.
"""

import pathlib

from olmix_jax.config import workdir as workdirs
from olmix_jax.config.schema import Config
from olmix_jax.laws import fitting
from olmix_jax.pipeline import fit, merge_stage, propose, rounds, sample, trunk_stage, update
from olmix_jax.pipeline.stage import Stage
from olmix_jax.update import history, update_plan
from olmix_jax.utils.errors import UserError

SAMPLER = tuple(f"swarm.{f}" for f in "size sparsity strength min_weight min_distance min_runs seed".split())
BUDGET = ("train.steps", "train.batch", "proxy.length")
TRAINER = ("seed", "proxy", "train", "tasks.length", "validate.steps", "propose.target_tokens")


def is_external_update(config: Config) -> bool:
    """Return whether this run updates a swarm that was trained elsewhere."""
    return bool(config.update.parent) and bool(history.parent_config(config).swarm.ratios)


def _trains(config: Config) -> bool:
    """Return whether this run trains the whole swarm: neither an external swarm nor one job of an array."""
    return not is_external_update(config) and not config.swarm.ratios and not config.swarm.part


def _decides(config: Config) -> bool:
    """Return whether this run ends with a proposal."""
    return is_external_update(config) or bool(config.swarm.ratios) or not config.swarm.part


def _needs_no_runs(workdir: pathlib.Path) -> bool:
    plan = update_plan.read_if_any(workdir)
    return plan is not None and plan.needs_no_runs


def _skip_training(config: Config, workdir: pathlib.Path) -> str:
    return "the update needs no runs" if config.update.parent and _needs_no_runs(workdir) else ""


def _wait_for_runs(config: Config, workdir: pathlib.Path) -> str:
    if config.swarm.ratios or not is_external_update(config) or _needs_no_runs(workdir):
        return ""
    return (
        f"train and score the mixtures of {workdir / 'swarm/ratios.csv'}, then run again with swarm.ratios and "
        "swarm.metrics"
    )


def _plan_of_update(config: Config) -> tuple[str, ...]:
    """Return the path of the update plan, which later stages read; empty for a first run."""
    return (workdirs.UPDATE_PLAN,) if config.update.parent else ()


def _parent_evidence(config: Config, workdir: pathlib.Path) -> dict[str, str]:
    del workdir
    return (
        {"update.parent": history.evidence_digest(pathlib.Path(config.update.parent))} if config.update.parent else {}
    )


# plan ----------------------------------------------------------------------------------------------------------------


def _plan(config: Config, workdir: pathlib.Path) -> None:
    from olmix_jax.pipeline import validate
    from olmix_jax.proxy import resources

    plan, models = update_plan.read_for(config, workdir), sum(validate.seeds_of(config).values())
    resources.run(config, workdir, None if plan is None else plan.proxies, models)


# prepare -------------------------------------------------------------------------------------------------------------


def _prepare(config: Config, workdir: pathlib.Path) -> None:
    from olmix_jax.pipeline import prepare

    prepare.run(config, workdir)


def _prepare_evidence(config: Config, workdir: pathlib.Path) -> dict[str, str]:
    del workdir
    digests = {}
    if config.update.parent:
        digests["update.parent"] = history.text_digest(pathlib.Path(config.update.parent))
    if config.corpus.path:
        from olmix_jax.corpus import token_files

        # Token files are large and may be remote, so the digest covers their listing, not their content.
        listing = token_files.stamp(config.corpus.path)
        digests |= {"corpus.path": listing} if listing else {}
    return digests


# update --------------------------------------------------------------------------------------------------------------


def _update_reads(config: Config, workdir: pathlib.Path) -> tuple[str, ...]:
    del workdir
    return () if is_external_update(config) else ("domains.json",)


def _check_update(config: Config) -> None:
    if not config.update.parent:
        raise UserError("stage update needs config field `update.parent`, the finished workdir to update")


# train ---------------------------------------------------------------------------------------------------------------


def _train(config: Config, workdir: pathlib.Path) -> None:
    from olmix_jax.pipeline import train

    train.run(config, workdir)


def _join_training(config: Config, workdir: pathlib.Path) -> None:
    from olmix_jax.pipeline import train

    train.join(config, workdir)


def _shared(config: Config) -> tuple[Stage, ...]:
    """Return what is trained before the proxies. Jobs of an array share it, and it is trained before them."""
    if not config.swarm.trunk or config.swarm.part:
        return ()
    return (TRUNK, MERGE) if config.swarm.merged else (TRUNK,)


def _count_proxies(config: Config, workdir: pathlib.Path) -> int:
    from olmix_jax.pipeline import train

    return train.count_models(config, workdir)


# fit, propose, rounds, validate, report ------------------------------------------------------------------------------


def _fit_evidence(config: Config, workdir: pathlib.Path) -> dict[str, str]:
    return {"code": fitting.code()} | _parent_evidence(config, workdir)


def _propose_reads(config: Config, workdir: pathlib.Path) -> tuple[str, ...]:
    if config.update.parent and _needs_no_runs(workdir):
        return ("domains.json", workdirs.UPDATE_PLAN)
    return ("fit/fit.json", "fit/params.npz", *workdirs.table_files(workdir), *_plan_of_update(config))


def _validate(config: Config, workdir: pathlib.Path) -> None:
    from olmix_jax.pipeline import validate

    validate.run(config, workdir)


def _count_validation_models(config: Config, workdir: pathlib.Path) -> int:
    from olmix_jax.pipeline import validate

    return validate.count_models(config, workdir)


def _join_validation(config: Config, workdir: pathlib.Path) -> None:
    from olmix_jax.pipeline import validate

    validate.join(config, workdir)


def _report(config: Config, workdir: pathlib.Path) -> None:
    from olmix_jax import report  # plotting libraries take half a second to import

    del config
    report.build(workdir)


def _report_reads(config: Config, workdir: pathlib.Path) -> tuple[str, ...]:
    if config.update.parent and _needs_no_runs(workdir):
        return ("propose/proposal.json",)
    return ("fit/fit.json", "propose/proposal.json")


PLAN = Stage(
    "plan",
    _plan,
    by_default=lambda config: False,
    reads=lambda config, workdir: (),
    writes=("plan/plan.json",),
    settings=("plan", "proxy", "train", "validate", "corpus.vocabulary", "corpus.tokenizer", *trunk_stage.SIZE),
    repeat=True,
    records_config=False,
    rehearses=True,
)
PREPARE = Stage(
    "prepare",
    _prepare,
    by_default=_trains,
    reads=lambda config, workdir: (),
    writes=("tasks/tasks.json", "domains.json"),
    settings=("seed", "corpus", "tasks", "proxy.vocabulary"),
    evidence=_prepare_evidence,
    costly=("domains.json", "corpus", "tasks"),
    rehearses=True,
)
UPDATE = Stage(
    "update",
    update.run,
    by_default=lambda config: is_external_update(config) or (_trains(config) and bool(config.update.parent)),
    reads=_update_reads,
    writes=(workdirs.UPDATE_PLAN,),
    settings=("seed", "update", "propose", "validate", "fit.families", "swarm.meta", *BUDGET),
    evidence=_parent_evidence,
    check=_check_update,
    expands=True,
)
SAMPLE = Stage(
    "sample",
    sample.run,
    by_default=lambda config: _trains(config) or (is_external_update(config) and not config.swarm.ratios),
    reads=lambda config, workdir: ("domains.json", *_plan_of_update(config)),
    writes=("swarm/ratios.csv",),
    settings=("seed", *SAMPLER, "train.steps", "train.batch", "swarm.trunk"),
    evidence=merge_stage.evidence,
    costly=("swarm/ratios.csv",),
    skip=_skip_training,
    rehearses=True,
)
TRUNK = trunk_stage.stage(TRAINER, _plan_of_update, _skip_training)
MERGE = merge_stage.stage((*TRAINER, *SAMPLER, "swarm.trunk"), _skip_training)
TRAIN = Stage(
    "train",
    _train,
    by_default=lambda config: not is_external_update(config) and not config.swarm.ratios,
    reads=lambda config, workdir: ("domains.json", "tasks/tasks.json", "swarm/ratios.csv", *trunk_stage.result(config)),
    writes=("swarm/meta.json", "swarm/metrics.csv"),
    settings=(*TRAINER, "swarm.trunk"),
    evidence=merge_stage.evidence,
    # Rounds add to the table of this swarm.
    costly=("swarm/metrics.csv", "train", rounds.FOLDER),
    resumable=True,
    skip=_skip_training,
    before=lambda config, workdir: _shared(config),
    count_models=_count_proxies,
    join=_join_training,
    rehearses=True,
)
FIT = Stage(
    "fit",
    fit.run,
    by_default=lambda config: bool(config.swarm.ratios) or _trains(config),
    reads=lambda config, workdir: (*workdirs.table_files(workdir), *_plan_of_update(config)),
    writes=("fit/params.npz", "fit/fit.json"),
    settings=("seed", "fit", "swarm", "update.old_runs"),
    evidence=_fit_evidence,
    skip=_skip_training,
)
PROPOSE = Stage(
    "propose",
    propose.run,
    by_default=_decides,
    reads=_propose_reads,
    writes=("propose/proposal.json",),
    settings=("seed", "propose", "fit", "validate", "swarm", *BUDGET),
    evidence=_parent_evidence,
    wait=_wait_for_runs,
)
ROUNDS = rounds.stage(TRAIN, FIT, PROPOSE)
VALIDATE = Stage(
    "validate",
    _validate,
    by_default=_trains,
    reads=lambda config, workdir: ("domains.json", "tasks/tasks.json", "propose/proposal.json"),
    writes=("validate/validation.json",),
    settings=("seed", "proxy", "train", "tasks.length", "validate"),
    costly=("validate",),
    resumable=True,
    count_models=_count_validation_models,
    join=_join_validation,
)
REPORT = Stage(
    "report",
    _report,
    by_default=_decides,
    reads=_report_reads,
    writes=("report/index.html",),
    repeat=True,
)
# The dry run comes after the stages that tell it the number of members. The trunk and what is merged are last because
# they belong to `train` and run alone only before the jobs of an array.
STAGES = (PREPARE, UPDATE, PLAN, SAMPLE, TRAIN, FIT, PROPOSE, ROUNDS, VALIDATE, REPORT, TRUNK, MERGE)
