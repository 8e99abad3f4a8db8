"""The stages that train, each from the files of a workdir to more; :mod:`olmix_jax.stages` has the others."""

import pathlib

import numpy as np

from olmix_jax import budget, files, rng, swarm, table
from olmix_jax.config import Config
from olmix_jax.corpus import prepare as corpus_prepare
from olmix_jax.corpus import store, tokenizer
from olmix_jax.corpus import tasks as corpus_tasks
from olmix_jax.domains import DomainSet
from olmix_jax.errors import UserError
from olmix_jax.progress import log
from olmix_jax.proxy import data, model, train


def prepare(config: Config, workdir: pathlib.Path) -> None:
    """Text to tokens per domain, and tasks."""
    corpus_prepare.prepare(config, workdir)
    corpus_tasks.make_tasks(config, workdir)


def sample(config: Config, workdir: pathlib.Path) -> None:
    """The swarm's mixtures, on the grid of a run's sequences."""
    domains = DomainSet.read(workdir / "domains.json")
    size = config.swarm.size if config.swarm.size is not None else 3 * (len(domains) + 1)
    counts_KM = swarm.sample(
        domains.natural_M,
        size,
        config.train.steps * config.train.batch,
        names=domains.names,
        sparsity=config.swarm.sparsity,
        strength=config.swarm.strength,
        min_weight=config.swarm.min_weight,
        min_distance=config.swarm.min_distance,
        min_runs=config.swarm.min_runs,
        seed=config.swarm.seed if config.swarm.seed is not None else rng.derive(config.seed, "swarm"),
    )
    runs = tuple(f"run-{k:04d}" for k in range(size))
    table.write_ratios(workdir / "swarm/ratios.csv", runs, runs, domains.names, counts_KM / counts_KM.sum(1)[:, None])
    for domain, seen in swarm.sampled_report(counts_KM, domains.names).items():
        log.info(
            "%-24s in %3d of %d runs, weight %.3f on average, %.3f at most",
            domain,
            seen["runs"],
            size,
            seen["mean"],
            seen["max"],
        )


def train_proxies(config: Config, workdir: pathlib.Path) -> None:
    """All K proxies in one program; the swarm's table."""
    domains = DomainSet.read(workdir / "domains.json")
    runs, names, columns, ratios_KM = table.read_ratios(workdir / "swarm/ratios.csv")
    if columns != domains.names:
        raise UserError(f"{workdir / 'swarm/ratios.csv'}: its domains are not those of domains.json; sample again")
    counts_KM = swarm.realise(ratios_KM, config.train.steps * config.train.batch, domains.names)
    seed = config.train.seed if config.train.seed is not None else rng.derive(config.seed, "train")
    seed_K = np.array([seed if config.train.common else rng.derive(seed, run) for run in runs])
    share = min(1.0, budget.tokens(config) / budget.target_tokens(config)) if config.train.match_repeats else 1.0
    if share < 1:
        log.info("train: proxies have %.3f of every domain, to repeat it as the target run would", share)
    proxies = _swarm(config, workdir, domains, data.Runs(runs, counts_KM, seed_K, seed_K), share)
    tasks = _tasks(config, workdir)
    done = train.train(proxies, tasks, workdir / "train", "swarm")
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
    domains = DomainSet.read(workdir / "domains.json")
    proposal = files.read_json(workdir / "propose/proposal.json")
    target = budget.validated(config)
    total, seeds = target.train.steps * target.train.batch, config.validate.seeds
    proposed_M = np.array([proposal["weights"][name] for name in domains.names])
    caps_M = np.array([proposal["caps"][name] for name in domains.names])
    counts = {
        "natural": swarm.snap(domains.natural_M, total),
        "uniform": swarm.snap(np.full(len(domains), 1 / len(domains)), total),
        "proposed": swarm.snap(proposed_M, total, caps_M),
    }
    names = tuple(f"{mixture}/{s}" for mixture in counts for s in range(seeds))
    # The same seeds for every mixture: differences between mixtures are then of mixtures alone.
    seed_K = np.tile([rng.derive(config.seed, f"validate/{s}") for s in range(seeds)], len(counts))
    for mixture, counts_M in counts.items():
        for j in np.flatnonzero((counts_M == 0) & (domains.natural_M > 0)) if mixture != "proposed" else ():
            log.warning("validate: %s has less than half a sequence of %s and goes without", mixture, domains.names[j])
    runs = data.Runs(names, np.repeat(np.stack(list(counts.values())), seeds, axis=0), seed_K, seed_K)
    tasks = _tasks(config, workdir)
    done = train.train(_swarm(target, workdir, domains, runs), tasks, workdir / "validate", "validate")
    _write_curves(workdir / "validate/curves.npz", names, done, target)
    if (done.died_K >= 0).any():
        raise UserError("a validation model diverged; lower `validate.lr`, delete the validate folder, and run again")
    bpb_CSN = done.bpb_KN.reshape(len(counts), seeds, -1)
    mixtures = {}
    for (mixture, counts_M), bpb_SN in zip(counts.items(), bpb_CSN):
        mean_S, spread = bpb_SN.mean(axis=1), {"ddof": 1 if seeds > 1 else 0}
        mixtures[mixture] = {
            "weights": dict(zip(domains.names, counts_M / total)),
            "bpb_mean": mean_S.mean(),
            "bpb_std": mean_S.std(**spread),
            "per_seed": mean_S,
            "tasks": {
                task: {"mean": bpb_S.mean(), "std": bpb_S.std(**spread), "per_seed": bpb_S}
                for task, bpb_S in zip(tasks.names, bpb_SN.T)
            },
        }
    facts = {"seeds": seeds, "steps": target.train.steps, "tokens": done.info["tokens_per_member"]}
    files.write_json(
        workdir / "validate/validation.json",
        {
            "mixtures": mixtures,
            "proposal": proposal["weights"],
            **facts,
            "parameters": done.info["parameters"],
            "preset": target.proxy.preset,
        },
    )


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
    )


def _write_curves(path: pathlib.Path, runs, done: train.Trained, config: Config) -> None:
    steps_T = np.arange(1, done.loss_KT.shape[1] + 1)
    tokens = config.train.batch * config.proxy.length
    with files.write_whole(path, "wb") as f:
        np.savez_compressed(
            f, runs=np.array(runs, str), steps_T=steps_T, loss_KT=done.loss_KT, tokens_per_step=np.int64(tokens)
        )
