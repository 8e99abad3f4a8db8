"""The stages of a run, each from the files of a workdir to more of them."""

import pathlib

import numpy as np

from olmix_jax import budget, files, fitting, laws, next_runs, propose, report, rng, swarm, table, task_groups
from olmix_jax.config import Config
from olmix_jax.corpus import prepare as corpus_prepare
from olmix_jax.corpus import store, tokenizer
from olmix_jax.corpus import tasks as corpus_tasks
from olmix_jax.domains import DomainSet
from olmix_jax.errors import UserError
from olmix_jax.laws import quality
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


def fit(config: Config, workdir: pathlib.Path) -> None:
    """A law per task, and how well it predicts runs that it has not seen."""
    swarm_table, f = _table(config, workdir), config.fit
    options = fitting.Options(f.law, f.starts, f.folds, f.resamples, rng.derive(config.seed, "fit"))
    content = fitting.fit(swarm_table, options, workdir / "fit")
    for name in content["unseen"]:
        log.warning("fit: no run contains %s; the swarm says nothing of it, its effect is the prior's", name)
    for name, seen in content["barely_sampled"].items():
        if seen["runs"]:
            log.warning("fit: %s is in %d runs only, weight %.3f at most", name, seen["runs"], seen["max"])
    if config.swarm.test_ratios:
        law = laws.LAWS[f.law]
        params = laws.store.load(workdir / "fit/params.npz", law)
        stretch_N = np.array([task["stretch"] for task in content["tasks"].values()])
        other = _test_table(config, swarm_table)
        content["test"] = quality.scores_on(law, params, swarm_table, other, stretch_N)
    files.write_json(workdir / "fit/fit.json", content)
    log.info(
        "fit: held-out Spearman %.3f over tasks, %.3f for the average, %d folds; 90 %% intervals hold %.0f %%; %.1f s",
        content["spearman_cv_mean"],
        content["spearman_of_mean_cv"],
        content["folds"],
        100 * content["coverage_cv_mean"],
        content["wall_s"],
    )


def propose_mixture(config: Config, workdir: pathlib.Path) -> None:
    """The mixture that minimises the law under KL and repetition caps."""
    swarm_table = _table(config, workdir)
    fitted = files.read_json(workdir / "fit/fit.json")
    if (fitted["law"], tuple(fitted["tasks"])) != (config.fit.law, swarm_table.tasks):
        raise UserError(f"{workdir / 'fit'}: of another law or other tasks than the config's; run --stages=fit,propose")
    law = laws.LAWS[config.fit.law]
    if swarm_table.natural_M is None:
        raise UserError("the natural distribution is not known: give --config.swarm.meta=… with `relative_sizes`")
    target, tokens_M = config.propose.target_tokens, swarm_table.tokens_M
    if not config.swarm.ratios:
        # A stream reads whole sequences; the tokens after the last one are never trained on.
        length = config.proxy.length
        tokens_M = [_store(workdir, name).sequences(length) * length for name in swarm_table.domains]
        target = budget.target_tokens(config)
    path, drawn = workdir / "fit/params.npz", workdir / "fit/samples.npz"
    content = propose.propose(
        law,
        laws.store.load(path, law),
        samples=laws.store.load(drawn, law) if drawn.is_file() else None,
        ratios_KM=swarm_table.ratios_KM,
        tasks=swarm_table.tasks,
        domains=swarm_table.domains,
        natural_M=swarm_table.natural_M,
        tokens_M=tokens_M,
        kl_weight=config.propose.kl_weight,
        max_repeats=config.propose.max_repeats,
        target_tokens=target,
        task_weights=config.propose.task_weights,
        sizes_N=swarm_table.sizes_N,
        seed=rng.derive(config.seed, "propose"),
    )
    content["next_runs"] = _propose_next(config, workdir, law, fitted, swarm_table, content)
    files.write_json(workdir / "propose/proposal.json", {**content, "fit": fitted["digest"]})
    for line in (f"propose: {content['status']}", *content["warnings"]):
        log.info("%s", line)


def _propose_next(config: Config, workdir: pathlib.Path, law, fitted: dict, swarm_table, proposal: dict) -> dict:
    """Writes the mixtures that would tell the law most, ``propose/next.csv``; {run: share of its uncertainty left}."""
    path, drawn = workdir / "propose/next.csv", workdir / "fit/samples.npz"
    path.unlink(missing_ok=True)
    if not config.propose.next_runs or not (law is laws.warped_gp or drawn.is_file()):
        return {}
    found = next_runs.propose_next(
        law,
        laws.store.load(workdir / "fit/params.npz", law),
        config.propose.next_runs,
        natural_M=swarm_table.natural_M,
        domains=swarm_table.domains,
        existing_KM=swarm_table.ratios_KM,
        samples=laws.store.load(drawn, law) if drawn.is_file() else None,
        noise_N=np.array([task["rmse_cv"] ** 2 for task in fitted["tasks"].values()]),
        task_weights_N=list(proposal["task_weights"].values()),
        sparsity=config.swarm.sparsity,
        strength=config.swarm.strength,
        seed=rng.derive(config.seed, "next_runs"),
    )
    runs = tuple(f"next-{k:04d}" for k in range(len(found.ratios_BM)))
    table.write_ratios(path, runs, runs, swarm_table.domains, found.ratios_BM)
    log.info("propose: the %d mixtures that would tell most are in %s", len(runs), path)
    return dict(zip(runs, found.left_B))


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


def write_report(config: Config, workdir: pathlib.Path) -> None:
    """The page."""
    report.build(workdir)


def table_path(config: Config, workdir: pathlib.Path, file: str) -> pathlib.Path | None:
    """Where a stage's file lies: in the workdir, or where the config says for an external swarm; None: nowhere."""
    external = {
        "swarm/ratios.csv": config.swarm.ratios,
        "swarm/metrics.csv": config.swarm.metrics,
        "swarm/meta.json": config.swarm.meta,
    }
    if config.swarm.ratios and file in external:
        written = external[file] and not external[file].lstrip().startswith("{")
        return pathlib.Path(external[file]) if written else None
    return workdir / file


def _table(config: Config, workdir: pathlib.Path) -> table.SwarmTable:
    """The swarm trained here, or the external one that the config names."""
    ratios, metrics = (table_path(config, workdir, f"swarm/{file}") for file in ("ratios.csv", "metrics.csv"))
    meta = config.swarm.meta if config.swarm.ratios else workdir / "swarm/meta.json"
    f = config.fit
    found = table.SwarmTable.read(
        ratios, metrics, meta, drop_metrics=f.drop_metrics, keep_metrics=f.keep_metrics, missing=f.missing
    )
    found = found.thinned(f.train_split, rng.derive(config.seed, "train_split"))
    return task_groups.grouped(found, mmlu_groups=f.mmlu_groups, granularity=f.granularity, families=f.families)


def _test_table(config: Config, fitted: table.SwarmTable) -> table.SwarmTable:
    """The held-out swarm, with the tasks of the fitted one: of scores that are missing only the run can be left out."""
    f, paths = config.fit, (config.swarm.test_ratios, config.swarm.test_metrics)
    missing = "drop_run" if f.missing == "drop_task" else f.missing
    found = table.SwarmTable.read(*paths, keep_metrics=fitted.columns, missing=missing)
    return task_groups.grouped(found, mmlu_groups=f.mmlu_groups, granularity=f.granularity, families=f.families)


def _tasks(config: Config, workdir: pathlib.Path) -> corpus_tasks.TaskSet:
    words = tokenizer.Tokenizer.read(workdir / "corpus/tokenizer.json")
    return corpus_tasks.read_tasks(workdir, words, config.tasks.length)


def _store(workdir: pathlib.Path, domain: str) -> store.TokenStore:
    return store.open_store(store.store_path(workdir, domain))


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
        stores={name: _store(workdir, name) for name in domains.names},
        share=share,
    )


def _write_curves(path: pathlib.Path, runs, done: train.Trained, config: Config) -> None:
    steps_T = np.arange(1, done.loss_KT.shape[1] + 1)
    tokens = config.train.batch * config.proxy.length
    with files.write_whole(path, "wb") as f:
        np.savez_compressed(
            f, runs=np.array(runs, str), steps_T=steps_T, loss_KT=done.loss_KT, tokens_per_step=np.int64(tokens)
        )
