"""The stages that train, each from the files of a workdir to more; :mod:`olmix_jax.stages` has the others."""

import pathlib

import numpy as np

from olmix_jax import budget, files, lineage, part, reuse, rng, swarm, table
from olmix_jax.config import Config
from olmix_jax.corpus import prepare as corpus_prepare
from olmix_jax.corpus import store, tokenizer
from olmix_jax.corpus import tasks as corpus_tasks
from olmix_jax.domains import DomainSet
from olmix_jax.errors import UserError
from olmix_jax.progress import log
from olmix_jax.proxy import data, model, parts, train, waves


def prepare(config: Config, workdir: pathlib.Path) -> None:
    """Text to tokens per domain, and tasks."""
    corpus_prepare.prepare(config, workdir)
    corpus_tasks.make_tasks(config, workdir)


def sample(config: Config, workdir: pathlib.Path) -> None:
    """The swarm's mixtures, on the grid of a run's sequences."""
    domains = DomainSet.read(workdir / "domains.json")
    total = config.train.steps * config.train.batch
    size = config.swarm.size if config.swarm.size is not None else 3 * (len(domains) + 1)
    blocks, known, plan = reuse.blocks({}, domains.names), 0, lineage.own_plan(config, workdir)
    if plan is not None:
        blocks, size = lineage.blocks_of(plan), plan["proxies"]
        known = sum(older["runs"] for older in plan["old_runs"])
    seed = config.swarm.seed if config.swarm.seed is not None else rng.derive(config.seed, "swarm")
    counts_KD = swarm.sample(
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
        seed=_own_seed(seed, plan),
    )
    # Domains of a block share its sequences in their kept ratios, as nearly as whole sequences can.
    counts_KM = np.array([swarm.snap(weights_M, total) for weights_M in reuse.expand(counts_KD / total, blocks)])
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


def _own_seed(seed: int, plan: dict | None) -> int:
    """The seed; of an update another than its parent's, or the same runs would be trained again and count twice."""
    return seed if plan is None else rng.derive(seed, f"update {len(plan['history'])}")


def train_proxies(config: Config, workdir: pathlib.Path) -> None:
    """All K proxies in one program, or one part of them; the swarm's table, which needs all parts."""
    domains = DomainSet.read(workdir / "domains.json")
    runs, names, columns, ratios_KM = table.read_ratios(workdir / "swarm/ratios.csv")
    if columns != domains.names:
        raise UserError(f"{workdir / 'swarm/ratios.csv'}: its domains are not those of domains.json; sample again")
    counts_KM = swarm.realise(ratios_KM, config.train.steps * config.train.batch, domains.names)
    seed = config.train.seed if config.train.seed is not None else rng.derive(config.seed, "train")
    seed = _own_seed(seed, lineage.own_plan(config, workdir))
    seed_K = np.array([seed if config.train.common else rng.derive(seed, run) for run in runs])
    share = min(1.0, budget.tokens(config) / budget.target_tokens(config)) if config.train.match_repeats else 1.0
    if share < 1:
        log.info("train: proxies have %.3f of every domain, to repeat it as the target run would", share)
    proxies = _swarm(config, workdir, domains, data.Runs(runs, counts_KM, seed_K, seed_K), share)
    tasks, share_of = _tasks(config, workdir), part.parse(config.swarm.part)
    about, at_once = files.digest([domains, tasks]), config.swarm.members_per_device
    if share_of is not None:
        some = parts.members(proxies, share_of)
        done = waves.in_waves(some, tasks, workdir / "train" / share_of.name, f"swarm, part {share_of}", at_once)
        parts.write(workdir, share_of, some, tasks.names, done, about)
        return
    done = parts.merged(workdir, proxies, tasks.names, about)
    if done is None:
        done = waves.in_waves(proxies, tasks, workdir / "train", "swarm", at_once)
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
    mixtures = {
        "natural": domains.natural_M,
        "uniform": np.full(len(domains), 1 / len(domains)),
        "proposed": np.array([proposal["weights"][name] for name in domains.names]),
    }
    caps_M = np.array([proposal["caps"][name] for name in domains.names])
    found, facts = compare(config, workdir, mixtures, {"proposed": caps_M})
    content = {"mixtures": found, "proposal": proposal["weights"], **facts}
    files.write_json(workdir / "validate/validation.json", content)


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
    domains, target = DomainSet.read(workdir / "domains.json"), budget.validated(config)
    total, seeds = target.train.steps * target.train.batch, config.validate.seeds
    counts = {name: swarm.snap(p_M, total, (caps or {}).get(name)) for name, p_M in mixtures.items()}
    names = tuple(f"{mixture}/{s}" for mixture in counts for s in range(seeds))
    # The same seeds for every mixture: differences between mixtures are then of mixtures alone.
    seed_K = np.tile([rng.derive(config.seed, f"validate/{s}") for s in range(seeds)], len(counts))
    for mixture in ("natural", "uniform"):
        for j in np.flatnonzero(counts[mixture] == 0) if mixture in counts else ():
            log.warning("validate: %s has less than half a sequence of %s and goes without", mixture, domains.names[j])
    runs = data.Runs(names, np.repeat(np.stack(list(counts.values())), seeds, axis=0), seed_K, seed_K)
    # A number for proxies says nothing of other models.
    same = target.proxy.preset == config.proxy.preset
    tasks, at_once = _tasks(config, workdir), config.swarm.members_per_device if same else None
    done = waves.in_waves(_swarm(target, workdir, domains, runs), tasks, workdir / "validate", "validate", at_once)
    _write_curves(workdir / "validate/curves.npz", names, done, target)
    if (done.died_K >= 0).any():
        raise UserError("a validation model diverged; lower `validate.lr`, delete the validate folder, and run again")
    bpb_CSN = done.bpb_KN.reshape(len(counts), seeds, -1)
    found = {
        name: {"weights": dict(zip(domains.names, counts_M / total)), **_over_seeds(bpb_SN, tasks.names)}
        for (name, counts_M), bpb_SN in zip(counts.items(), bpb_CSN)
    }
    facts = {"seeds": seeds, "steps": target.train.steps, "tokens": done.info["tokens_per_member"]}
    return found, {**facts, "parameters": done.info["parameters"], "preset": target.proxy.preset}


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
    with files.write_whole(path, "wb") as f:
        np.savez_compressed(
            f, runs=np.array(runs, str), steps_T=steps_T, loss_KT=done.loss_KT, tokens_per_step=np.int64(tokens)
        )
