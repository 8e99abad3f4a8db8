"""The stage ``validate``: train new models on the natural, uniform and proposed mixtures and score them."""

import dataclasses
import pathlib
from collections.abc import Mapping

import numpy as np

from olmix_jax.config import budget, json_fields, part
from olmix_jax.config import workdir as workdirs
from olmix_jax.config.schema import Config
from olmix_jax.pipeline import jobs
from olmix_jax.propose.proposal import Proposal
from olmix_jax.proxy import data, equivalent_compute, trainer
from olmix_jax.proxy.train_result import TrainResult
from olmix_jax.proxy.validation_result import MixtureScore, TaskScore, Validation
from olmix_jax.swarm import apportion, task_means
from olmix_jax.swarm.task_means import task_mean
from olmix_jax.utils import rng
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.optional import LeftOut
from olmix_jax.utils.progress import log

MIXTURES = ("natural", "uniform", "proposed")
# Models are scored after each eighth of their steps. In the quickstart, all scores but the last take a fifth of the
# time of these models' training (docs/log.md). It is a smaller share of longer training.
POINTS = 8
# Most models of the uniform mixture, which is there for comparison. It differs from others by many standard errors.
UNIFORM_SEEDS = 3


def run(config: Config, workdir: pathlib.Path) -> None:
    """Train several seeds per mixture in one program and write ``validate/validation.json``.

    With ``swarm.part``, train one part of the models and write their results, which a later run merges.
    """
    proposal = Proposal.read(workdir / "propose/proposal.json")
    mixtures, caps = _candidates(workdir, proposal)
    seeds = seeds_of(config)
    job = _job(config, workdir, mixtures, caps, seeds)
    trained = job.results(part.parse(config.swarm.part), workdirs.read_domains(workdir))
    if trained is None:
        return
    weights = _weights_of_tasks(config, workdir, proposal)
    validation = _judge(config, workdir, job, seeds, trained, proposal.weights, weights)
    validation.write(workdir / "validate/validation.json")
    if validation.equivalent_compute is not None:
        log.info("validate: %s", equivalent_compute.text(validation.equivalent_compute))


def seeds_of(config: Config) -> dict[str, int]:
    """Return the number of models of each mixture of the stage."""
    seeds = config.validate.seeds
    return dict.fromkeys(MIXTURES, seeds) | {"uniform": min(seeds, UNIFORM_SEEDS)}


def count_models(config: Config, workdir: pathlib.Path) -> int:
    """Return how many models several processes can divide; 0 if each is sharded over all devices."""
    path = workdir / "propose/proposal.json"
    # Without the file, the first process raises the error.
    if not path.is_file() or jobs.is_sharded_over_all(budget.validated(config), workdir):
        return 0
    return sum(seeds_of(config).values())


def join(config: Config, workdir: pathlib.Path) -> None:
    """Train models that are sharded over all processes, as a process that writes no results."""
    mixtures, caps = _candidates(workdir, Proposal.read(workdir / "propose/proposal.json"))
    _job(config, workdir, mixtures, caps, seeds_of(config)).run_here()


def compare(
    config: Config,
    workdir: pathlib.Path,
    mixtures: Mapping[str, np.ndarray],
    caps: Mapping[str, np.ndarray] | None = None,
    proposal: Mapping[str, float] | None = None,
    task_weights: Mapping[str, float] | None = None,
) -> Validation:
    """Train new models on each mixture, several seeds each, in one program.

    Args:
      config: the section ``validate`` defines the models.
      workdir: folder of a prepared corpus; checkpoints go to its ``validate`` folder.
      mixtures: {name: weights_M} in the order of the workdir's domains.
      caps: {name: upper_M} of mixtures whose caps must hold after rounding to whole sequences.
      proposal: the proposed weights, for the record.
      task_weights: weights of the tasks in the mean; equal by default.

    Raises:
      UserError: a model diverged on another mixture than uniform.
    """
    seeds = dict.fromkeys(mixtures, config.validate.seeds)
    job = _job(config, workdir, mixtures, caps or {}, seeds)
    return _judge(config, workdir, job, seeds, job.run(), proposal or {}, task_weights or {})


def _judge(
    config: Config,
    workdir: pathlib.Path,
    job: jobs.Job,
    seeds: Mapping[str, int],
    trained: TrainResult,
    proposal: Mapping[str, float],
    task_weights: Mapping[str, float],
) -> Validation:
    """Return the scores of trained models, ``seeds`` of each mixture, and write their losses."""
    target, domains = budget.validated(config), workdirs.read_domains(workdir).names
    end_C = np.cumsum([*seeds.values()])
    counts_CM = job.swarm.runs.counts_KM[end_C - 1]
    for name, counts_M in zip(seeds, counts_CM):
        for j in np.flatnonzero(counts_M == 0) if name in ("natural", "uniform") else ():
            log.warning("validate: %s gives less than half a sequence to %s and trains without it", name, domains[j])
    jobs.write_curves(workdir / "validate/curves.npz", job, trained, target)
    of_mixtures = (np.split(values, end_C[:-1]) for values in (trained.died_K, trained.scores_KPN))
    weights, scores = dict(task_weights), {}
    for name, counts_M, died_S, bpb_SPN in zip(seeds, counts_CM, *of_mixtures):
        if (died_S >= 0).any():
            _check_optional(name)
            continue
        shares = dict(zip(domains, (counts_M / counts_M.sum()).tolist()))
        by_task = dict(zip(job.tasks.names, np.moveaxis(bpb_SPN, -1, 0)))
        final = _score(shares, {task: bpb_SP[:, -1] for task, bpb_SP in by_task.items()}, weights)
        scores[name] = dataclasses.replace(final, curves=tuple(map(tuple, task_mean(by_task, weights).tolist())))
    tokens_P = tuple(step * target.train.batch * target.proxy.length for step in job.swarm.stops)
    return Validation(
        scores,
        dict(proposal),
        config.validate.seeds,
        target.train.steps,
        trained.info.tokens_per_member,
        trained.info.parameters,
        target.proxy.preset,
        weights,
        tokens_P,
        _equivalent_compute(tokens_P, scores),
    )


def _equivalent_compute(
    tokens_P: tuple[int, ...], scores: Mapping[str, MixtureScore]
) -> equivalent_compute.EquivalentCompute | None:
    if not {"natural", "proposed"} <= scores.keys():
        return None
    curves_SP, compute = np.array(scores["proposed"].curves), None
    # A score along the run that is not finite must not cost the results of the whole training.
    with LeftOut().unless_fails("validate", "results on equivalent compute"):
        compute = equivalent_compute.equivalent_compute(tokens_P, scores["natural"].per_seed, curves_SP)
    return compute


def _check_optional(name: str) -> None:
    """Warn of a diverged model of the uniform mixture, which is there for comparison only; raise for other mixtures."""
    advice = "lower `validate.lr`, delete the validate folder, and run again"
    if name != "uniform":
        raise UserError(f"a validation model of the {name} mixture diverged; {advice}")
    log.warning("validate: a model of the uniform mixture diverged, so this mixture is left out; for it, %s", advice)


def _weights_of_tasks(config: Config, workdir: pathlib.Path, proposal: Proposal) -> dict[str, float]:
    """Return the proposal's task weights for the tasks that a model is scored on; empty if they are equal.

    The law may be over families, and without tasks that the config drops.
    """
    tasks = jobs.tasks_of(config, workdir).names
    # An update without new runs has no table; its law has the tasks of its parent.
    trained = (workdir / workdirs.METRICS).is_file()
    weights = task_means.weights_of_columns(
        proposal.task_weights,
        workdirs.read_table(config, workdir).columns if trained else tasks,
        mmlu_groups=config.fit.mmlu_groups,
        granularity=config.fit.granularity,
        families=json_fields.families(config),
    )
    weights = {task: weights.get(task, 0.0) for task in tasks}
    return {} if task_means.are_equal(weights) else weights


def _candidates(workdir: pathlib.Path, proposal: Proposal) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the arguments ``mixtures`` and ``caps`` of :func:`compare`."""
    domains = workdirs.read_domains(workdir)
    weights = (
        domains.natural_M,
        np.full(len(domains), 1 / len(domains)),
        np.array([proposal.weights[name] for name in domains.names]),
    )
    return dict(zip(MIXTURES, weights)), {"proposed": np.array([proposal.caps[name] for name in domains.names])}


def _job(
    config: Config,
    workdir: pathlib.Path,
    mixtures: Mapping[str, np.ndarray],
    caps: Mapping[str, np.ndarray],
    seeds: Mapping[str, int],
) -> jobs.Job:
    """Return the job that trains all seeds of the first mixture, then all seeds of the next, and so on."""
    domains, target = workdirs.read_domains(workdir), budget.validated(config)
    total = target.train.steps * target.train.batch
    counts_CM = np.stack([apportion.snap(weights_M, total, caps.get(name)) for name, weights_M in mixtures.items()])
    models = [(mixture, s) for mixture in mixtures for s in range(seeds[mixture])]
    # All mixtures share the seeds, so that differences between mixtures come from the mixtures alone.
    seed_K = np.array([rng.derive(config.seed, f"validate/{s}") for _, s in models])
    counts_KM = np.repeat(counts_CM, [seeds[mixture] for mixture in mixtures], axis=0)
    runs = data.Runs(tuple(f"{mixture}/{s}" for mixture, s in models), counts_KM, seed_K, seed_K)
    steps = target.train.steps
    points = sorted({round(steps * p / POINTS) for p in range(1, POINTS)} - {0, steps})
    swarm = jobs.swarm_of(target, workdir, domains, runs, score_steps=tuple(points))
    trainer.log_settings(target, swarm.train, "validate")
    return jobs.Job(
        swarm, jobs.tasks_of(config, workdir), workdir / "validate", "validate", target.swarm.members_per_device
    )


def _score(weights: dict[str, float], bpb: Mapping[str, np.ndarray], task_weights: dict[str, float]) -> MixtureScore:
    """Return the mean and standard deviation over seeds, for the mean over tasks and for each task, {task: bpb_S}."""
    mean_S = task_mean(bpb, task_weights)
    ddof = 1 if len(mean_S) > 1 else 0
    by_task = {
        task: TaskScore(float(bpb_S.mean()), float(bpb_S.std(ddof=ddof)), tuple(bpb_S.tolist()))
        for task, bpb_S in bpb.items()
    }
    return MixtureScore(weights, float(mean_S.mean()), float(mean_S.std(ddof=ddof)), tuple(mean_S.tolist()), by_task)
