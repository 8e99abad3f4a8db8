"""The stages that prepare, sample and train; :mod:`olmix_jax.pipeline.deciding` has the others."""

import dataclasses
import pathlib

import numpy as np

from olmix_jax.config import budget, part
from olmix_jax.config.schema import Config
from olmix_jax.corpus import prepare as corpus_prepare
from olmix_jax.corpus import store, tokenizer
from olmix_jax.corpus import tasks as corpus_tasks
from olmix_jax.propose import blocks as reuse
from olmix_jax.proxy import coordination, data, merging, model, state, train, waves
from olmix_jax.swarm import apportion, sampling, table
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.update import update_plan
from olmix_jax.utils import files, rng
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log


def prepare(config: Config, workdir: pathlib.Path) -> None:
    """Text to tokens per domain, and tasks."""
    corpus_prepare.prepare(config, workdir)
    corpus_tasks.make_tasks(config, workdir)


def sample(config: Config, workdir: pathlib.Path) -> None:
    """The swarm's mixtures, on the grid of a run's sequences."""
    domains = DomainSet.read(workdir / "domains.json")
    total = config.train.steps * config.train.batch
    size = config.swarm.size if config.swarm.size is not None else 3 * (len(domains) + 1)
    blocks, known, plan = reuse.blocks({}, domains.names), 0, update_plan.read_for(config, workdir)
    if plan is not None:
        blocks, size = plan.kept_blocks, plan.proxies
        known = sum(older.runs for older in plan.old_runs)
    seed = config.swarm.seed if config.swarm.seed is not None else rng.derive(config.seed, "swarm")
    counts_KD = sampling.sample(
        reuse.collapse(domains.natural_M, blocks),
        size,
        total,
        names=blocks.names,
        sparsity=config.swarm.sparsity,
        strength=config.swarm.strength,
        min_weight=config.swarm.min_weight,
        min_distance=config.swarm.min_distance,
        min_runs=config.swarm.min_runs,
        known=known,
        seed=seed if plan is None else plan.derive_seed(seed),
    )
    # Domains of a block share its sequences in their kept ratios, as nearly as whole sequences can.
    counts_KM = np.array([apportion.snap(weights_M, total) for weights_M in reuse.expand(counts_KD / total, blocks)])
    runs = tuple(f"run-{k:04d}" for k in range(size))
    table.write_ratios(workdir / "swarm/ratios.csv", runs, runs, domains.names, counts_KM / counts_KM.sum(1)[:, None])
    for domain, seen in sampling.coverage(counts_KM, domains.names).items():
        log.info(
            "%-24s in %3d of %d runs, weight %.3f on average, %.3f at most",
            domain,
            seen.runs,
            size,
            seen.mean,
            seen.max,
        )


@dataclasses.dataclass(frozen=True)
class Job:
    """What is trained in a stage, and where: :func:`olmix_jax.proxy.waves.in_waves` takes it."""

    swarm: train.Swarm
    tasks: corpus_tasks.TaskSet
    folder: pathlib.Path
    what: str
    at_once: int | None

    def run(self) -> train.Trained:
        """Trains it; a model that lies over all devices with all processes, which :func:`join_training` then."""
        if waves.is_large(self.swarm.train, self.swarm.member):
            coordination.everyones(coordination.JOIN)
        return self.run_here()

    def run_here(self) -> train.Trained:
        """This process's share of :meth:`run`."""
        return waves.in_waves(self.swarm, self.tasks, self.folder, self.what, self.at_once)


def is_large(config: Config, workdir: pathlib.Path) -> bool:
    """Whether a proxy is to lie over all devices."""
    vocabulary = tokenizer.Tokenizer.read(workdir / "corpus/tokenizer.json").size
    member = state.member(model.PRESETS[config.proxy.preset], vocabulary, config.train, config.proxy.dtype)
    return waves.is_large(config.train, member)


def join_training(config: Config, workdir: pathlib.Path) -> None:
    """Train a proxy that is sharded over all processes, as one of the processes that do not write results."""
    _proxies(config, workdir).run_here()


def join_validation(config: Config, workdir: pathlib.Path) -> None:
    """Train the validation models, as one of the processes that do not write results."""
    _validated(config, workdir).run_here()


def _proxies(config: Config, workdir: pathlib.Path) -> Job:
    """All members of the swarm, or of a part."""
    domains = DomainSet.read(workdir / "domains.json")
    mixtures = table.read_ratios(workdir / "swarm/ratios.csv")
    if mixtures.domains != domains.names:
        raise UserError(f"{workdir / 'swarm/ratios.csv'}: its domains are not those of domains.json; sample again")
    counts_KM = apportion.realise(mixtures.ratios_KM, config.train.steps * config.train.batch, domains.names)
    seed = config.train.seed if config.train.seed is not None else rng.derive(config.seed, "train")
    plan = update_plan.read_for(config, workdir)
    seed = seed if plan is None else plan.derive_seed(seed)
    seed_K = np.array([seed if config.train.common else rng.derive(seed, run) for run in mixtures.runs])
    share = min(1.0, budget.tokens(config) / budget.target_tokens(config)) if config.train.match_repeats else 1.0
    proxies = _swarm(config, workdir, domains, data.Runs(mixtures.runs, counts_KM, seed_K, seed_K), share)
    tasks, at_once = _tasks(config, workdir), config.swarm.members_per_device
    share_of = part.parse(config.swarm.part)
    if share_of is None:
        return Job(proxies, tasks, workdir / "train", "swarm", at_once)
    some = merging.members(proxies, share_of)
    return Job(some, tasks, workdir / "train" / share_of.name, f"swarm, part {share_of}", at_once)


def train_proxies(config: Config, workdir: pathlib.Path) -> None:
    """All K proxies in one program, or one part of them; the swarm's table, which needs all parts."""
    domains, job = DomainSet.read(workdir / "domains.json"), _proxies(config, workdir)
    if job.swarm.share < 1:
        log.info("train: proxies have %.3f of every domain, to repeat it as the target run would", job.swarm.share)
    tasks, about = job.tasks, files.digest([domains, job.tasks])
    if config.swarm.part:
        merging.write(workdir, part.parse(config.swarm.part), job.swarm, tasks.names, job.run(), about)
        return
    done = merging.merged(workdir, job.swarm, tasks.names, about)
    if done is None:
        done = job.run()
    runs, counts_KM = job.swarm.runs.names, job.swarm.runs.counts_KM
    names = table.read_ratios(workdir / "swarm/ratios.csv").names
    _write_curves(workdir / "swarm/curves.npz", runs, done, config)
    died = {run: int(step) for run, step in zip(runs, done.died_K) if step >= 0}
    if len(died) == len(runs):
        raise UserError("every member diverged; lower `train.lr`, delete the workdir's train folder, and run again")
    table.write_swarm(
        workdir / "swarm",
        runs,
        names,
        domains.names,
        tasks.names,
        counts_KM / counts_KM.sum(1)[:, None],
        done.bpb_KN,
        domains.natural_M,
        domains.tokens_M,
        died,
    )
    files.write_json(workdir / "train/info.json", {"preset": config.proxy.preset, **done.info})


def validate(config: Config, workdir: pathlib.Path) -> None:
    """Fresh models on natural, uniform and proposed mixtures, several seeds each, in one program."""
    found, facts = compare(config, workdir, *_candidates(workdir))
    proposal = files.read_json(workdir / "propose/proposal.json")
    content = {"mixtures": found, "proposal": proposal["weights"], **facts}
    files.write_json(workdir / "validate/validation.json", content)


def _candidates(workdir: pathlib.Path) -> tuple[dict, dict]:
    """The mixtures that are validated, and their caps, as :func:`compare` takes them."""
    domains = DomainSet.read(workdir / "domains.json")
    proposal = files.read_json(workdir / "propose/proposal.json")
    mixtures = {
        "natural": domains.natural_M,
        "uniform": np.full(len(domains), 1 / len(domains)),
        "proposed": np.array([proposal["weights"][name] for name in domains.names]),
    }
    return mixtures, {"proposed": np.array([proposal["caps"][name] for name in domains.names])}


def _validated(config: Config, workdir: pathlib.Path) -> Job:
    return _models(config, workdir, *_candidates(workdir))


def compare(config: Config, workdir: pathlib.Path, mixtures: dict, caps: dict | None = None) -> tuple[dict, dict]:
    """Fresh models on each of ``mixtures`` ({name: weights_M}), several seeds each, in one program.

    Args:
      config: its ``validate`` section says what is trained.
      workdir: of a prepared corpus; results of training are in its ``validate`` folder.
      mixtures: in the order of the workdir's domains.
      caps: {name: upper_M} of those mixtures that must keep them when they are rounded to whole sequences.

    Returns:
      The ``mixtures`` of ``validation.json``, and what the models were.

    Raises:
      UserError: a model diverged.
    """
    job, target = _models(config, workdir, mixtures, caps or {}), budget.validated(config)
    counts_CM, seeds = job.swarm.runs.counts_KM[:: config.validate.seeds], config.validate.seeds
    domains = DomainSet.read(workdir / "domains.json").names
    for mixture, counts_M in zip(mixtures, counts_CM):
        for j in np.flatnonzero(counts_M == 0) if mixture in ("natural", "uniform") else ():
            log.warning("validate: %s has less than half a sequence of %s and goes without", mixture, domains[j])
    done = job.run()
    _write_curves(workdir / "validate/curves.npz", job.swarm.runs.names, done, target)
    if (done.died_K >= 0).any():
        raise UserError("a validation model diverged; lower `validate.lr`, delete the validate folder, and run again")
    bpb_CSN = done.bpb_KN.reshape(len(mixtures), seeds, -1)
    found = {
        name: {"weights": dict(zip(domains, counts_M / counts_M.sum())), **_over_seeds(bpb_SN, job.tasks.names)}
        for name, counts_M, bpb_SN in zip(mixtures, counts_CM, bpb_CSN)
    }
    facts = {"seeds": seeds, "steps": target.train.steps, "tokens": done.info["tokens_per_member"]}
    return found, {**facts, "parameters": done.info["parameters"], "preset": target.proxy.preset}


def _models(config: Config, workdir: pathlib.Path, mixtures: dict, caps: dict) -> Job:
    """Models on the mixtures, the seeds of each one after another."""
    domains, target = DomainSet.read(workdir / "domains.json"), budget.validated(config)
    total, seeds = target.train.steps * target.train.batch, config.validate.seeds
    counts_CM = np.stack([apportion.snap(p_M, total, caps.get(name)) for name, p_M in mixtures.items()])
    names = tuple(f"{mixture}/{s}" for mixture in mixtures for s in range(seeds))
    # The same seeds for every mixture: differences between mixtures are then of mixtures alone.
    seed_K = np.tile([rng.derive(config.seed, f"validate/{s}") for s in range(seeds)], len(mixtures))
    runs = data.Runs(names, np.repeat(counts_CM, seeds, axis=0), seed_K, seed_K)
    # A number for proxies says nothing of other models.
    at_once = config.swarm.members_per_device if target.proxy.preset == config.proxy.preset else None
    models = _swarm(target, workdir, domains, runs)
    return Job(models, _tasks(config, workdir), workdir / "validate", "validate", at_once)


def _over_seeds(bpb_SN, tasks) -> dict:
    """Means and standard deviations over seeds, of the mean over tasks and of each task."""
    mean_S, spread = bpb_SN.mean(axis=1), {"ddof": 1 if len(bpb_SN) > 1 else 0}
    each = {
        task: {"mean": bpb_S.mean(), "std": bpb_S.std(**spread), "per_seed": bpb_S}
        for task, bpb_S in zip(tasks, bpb_SN.T)
    }
    return {"bpb_mean": mean_S.mean(), "bpb_std": mean_S.std(**spread), "per_seed": mean_S, "tasks": each}


def _tasks(config: Config, workdir: pathlib.Path) -> corpus_tasks.TaskSet:
    words = tokenizer.Tokenizer.read(workdir / "corpus/tokenizer.json")
    return corpus_tasks.read_tasks(workdir, words, config.tasks.length)


def _swarm(
    config: Config, workdir: pathlib.Path, domains: DomainSet, runs: data.Runs, share: float = 1.0
) -> train.Swarm:
    return train.Swarm(
        shape=model.PRESETS[config.proxy.preset],
        vocabulary=tokenizer.Tokenizer.read(workdir / "corpus/tokenizer.json").size,
        length=config.proxy.length,
        dtype=config.proxy.dtype,
        train=config.train,
        runs=runs,
        stores={name: store.open_store(store.store_path(workdir, name)) for name in domains.names},
        share=share,
        track=config.track,
    )


def _write_curves(path: pathlib.Path, runs, done: train.Trained, config: Config) -> None:
    steps_T = np.arange(1, done.loss_KT.shape[1] + 1)
    tokens = config.train.batch * config.proxy.length
    with files.atomic_write(path, "wb") as f:
        np.savez_compressed(
            f, runs=np.array(runs, str), steps_T=steps_T, loss_KT=done.loss_KT, tokens_per_step=np.int64(tokens)
        )
