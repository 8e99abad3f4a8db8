"""The stages of a run: what each reads, makes and leaves behind.

A stage's finished work is found and not repeated. What it was made from (the config sections and the files that it
read) is kept in ``stamps.json``; where that has changed, a cheap stage is done again, and a costly one is an error that
says which file stands in the way.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable

import numpy as np

from olmix_jax import files, laws, propose, report, rng, swarm, table
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
    for domain, line in swarm.sampled_report(counts_KM, domains.names).items():
        log.info("%s: %s", domain, line)


def train_proxies(config: Config, workdir: pathlib.Path) -> None:
    """All K proxies in one program; the swarm's table."""
    domains = DomainSet.read(workdir / "domains.json")
    runs, names, columns, ratios_KM = table.read_ratios(workdir / "swarm/ratios.csv")
    if columns != domains.names:
        raise UserError(f"{workdir / 'swarm/ratios.csv'}: its domains are not those of domains.json; sample again")
    counts_KM = swarm.realise(ratios_KM, config.train.steps * config.train.batch, domains.names)
    seed = config.train.seed if config.train.seed is not None else rng.derive(config.seed, "train")
    one_each = np.zeros(len(runs), int) if config.train.common else np.arange(len(runs))
    proxies = _swarm(config, workdir, domains, data.Runs(runs, counts_KM, seed + one_each, seed + one_each))
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
    swarm_table = _table(config, workdir)
    swarm_table.check_enough()
    law = laws.LAWS.get(config.fit.law)
    if law is None:
        raise UserError(f"config field `fit.law` must be one of {', '.join(laws.LAWS)}, not {config.fit.law!r}")
    content = quality.fit_report(
        config.fit.law,
        swarm_table,
        starts=config.fit.starts,
        folds=config.fit.folds,
        seed=rng.derive(config.seed, "fit"),
    )
    files.write_json(workdir / "fit/fit.json", content)
    log.info(
        "fit: held-out Spearman %.3f over tasks, %.3f for the average, %d folds",
        content["spearman_cv_mean"],
        content["spearman_of_mean_cv"],
        content["folds"],
    )


def propose_mixture(config: Config, workdir: pathlib.Path) -> None:
    """The mixture that minimises the law under KL and repetition caps."""
    swarm_table = _table(config, workdir)
    fitted = files.read_json(workdir / "fit/fit.json")
    law = laws.LAWS[fitted["law"]]
    if swarm_table.natural_M is None:
        raise UserError("the natural distribution is not known: give --config.swarm.meta=… with `relative_sizes`")
    target = config.propose.target_tokens
    if target is None and not config.swarm.ratios:
        target = _validated(config).train.steps * config.train.batch * config.proxy.length
    content = propose.propose(
        law.predict,
        law.from_json(fitted, swarm_table.domains),
        tasks=tuple(fitted["tasks"]),
        domains=swarm_table.domains,
        natural_M=swarm_table.natural_M,
        tokens_M=swarm_table.tokens_M,
        kl_weight=config.propose.kl_weight,
        max_repeats=config.propose.max_repeats,
        target_tokens=target,
        task_weights=config.propose.task_weights,
    )
    files.write_json(workdir / "propose/proposal.json", content)
    for line in (f"propose: {content['status']}", *content["warnings"]):
        log.info("%s", line)


def validate(config: Config, workdir: pathlib.Path) -> None:
    """Fresh models on natural, uniform and proposed mixtures, several seeds each, in one program."""
    domains = DomainSet.read(workdir / "domains.json")
    proposal = files.read_json(workdir / "propose/proposal.json")
    target = _validated(config)
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
    seed_K = np.tile(rng.derive(config.seed, "validate") + np.arange(seeds), len(counts))
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
        {"mixtures": mixtures, **facts, "parameters": done.info["parameters"], "preset": target.proxy.preset},
    )


def write_report(config: Config, workdir: pathlib.Path) -> None:
    """The page."""
    report.build(workdir)


def _table(config: Config, workdir: pathlib.Path) -> table.SwarmTable:
    """The swarm trained here, or the external one that the config names."""
    s = config.swarm
    if s.ratios:
        return table.SwarmTable.read(s.ratios, s.metrics, s.meta, drop_metrics=config.fit.drop_metrics)
    place = workdir / "swarm"
    return table.SwarmTable.read(
        place / "ratios.csv", place / "metrics.csv", place / "meta.json", drop_metrics=config.fit.drop_metrics
    )


def _tasks(config: Config, workdir: pathlib.Path) -> corpus_tasks.TaskSet:
    words = tokenizer.Tokenizer.read(workdir / "corpus/tokenizer.json")
    return corpus_tasks.read_tasks(workdir, words, config.tasks.length)


def _swarm(config: Config, workdir: pathlib.Path, domains: DomainSet, runs: data.Runs) -> train.Swarm:
    shape = model.PRESETS.get(config.proxy.preset)
    if shape is None:
        raise UserError(f"no preset {config.proxy.preset!r}; one of {', '.join(model.PRESETS)}")
    return train.Swarm(
        shape=shape,
        vocabulary=tokenizer.Tokenizer.read(workdir / "corpus/tokenizer.json").size,
        length=config.proxy.length,
        dtype=config.proxy.dtype,
        train=config.train,
        runs=runs,
        stores={name: store.open_store(store.store_path(workdir, name)) for name in domains.names},
    )


def _validated(config: Config) -> Config:
    """The config of the validation models: the proxies', longer or larger."""
    v = config.validate
    changes = {name: value for name, value in (("steps", v.steps), ("lr", v.lr)) if value is not None}
    preset = v.preset if v.preset is not None else config.proxy.preset
    return dataclasses.replace(
        config,
        proxy=dataclasses.replace(config.proxy, preset=preset),
        train=dataclasses.replace(config.train, **changes),
    )


def _write_curves(path: pathlib.Path, runs, done: train.Trained, config: Config) -> None:
    steps_T = np.arange(1, done.loss_KT.shape[1] + 1)
    tokens = config.train.batch * config.proxy.length
    with files.write_whole(path, "wb") as f:
        np.savez_compressed(
            f, runs=np.array(runs, str), steps_T=steps_T, loss_KT=done.loss_KT, tokens_per_step=np.int64(tokens)
        )


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage and what it depends on.

    Attributes:
      run: (config, workdir) → files.
      needs: files of earlier stages that it reads; relative to the workdir.
      makes: its result, written last.
      reads: config fields or sections that its result depends on.
      leaves: what would be wrong after a change, and is too costly to repeat unasked; empty for a cheap stage.
    """

    run: Callable[[Config, pathlib.Path], None]
    needs: tuple[str, ...]
    makes: str
    reads: tuple[str, ...]
    leaves: tuple[str, ...] = ()


STAGES = {
    "prepare": Stage(prepare, (), "domains.json", ("seed", "corpus", "tasks"), ("domains.json", "corpus", "tasks")),
    "sample": Stage(
        sample,
        ("domains.json",),
        "swarm/ratios.csv",
        ("seed", "swarm", "train.steps", "train.batch"),
        ("swarm/ratios.csv",),
    ),
    "train": Stage(
        train_proxies,
        ("domains.json", "swarm/ratios.csv"),
        "swarm/metrics.csv",
        ("seed", "proxy", "train"),
        ("swarm/metrics.csv", "train"),
    ),
    "fit": Stage(fit, ("swarm/ratios.csv", "swarm/metrics.csv"), "fit/fit.json", ("seed", "fit", "swarm")),
    "propose": Stage(
        propose_mixture,
        ("fit/fit.json",),
        "propose/proposal.json",
        ("propose", "validate", "train.steps", "train.batch", "proxy.length", "swarm"),
    ),
    "validate": Stage(
        validate,
        ("domains.json", "propose/proposal.json"),
        "validate/validation.json",
        ("seed", "proxy", "train", "validate"),
        ("validate",),
    ),
    "report": Stage(write_report, ("fit/fit.json", "propose/proposal.json"), "report/index.html", ()),
}
EXTERNAL = ("fit", "propose", "report")


def default_stages(config: Config) -> tuple[str, ...]:
    """All stages, or for a swarm that was trained elsewhere those that need no training."""
    return EXTERNAL if config.swarm.ratios else tuple(STAGES)


def run(config: Config, workdir: pathlib.Path, names: tuple[str, ...]) -> None:
    """Runs the named stages in order; finished work is kept.

    Raises:
      UserError: a stage is unknown, an earlier one is missing, or a file was made from another config.
    """
    unknown = [n for n in names if n not in STAGES]
    if unknown:
        raise UserError(f"no stage {unknown[0]!r}; stages are {', '.join(STAGES)}")
    stamps_path = workdir / "stamps.json"
    for name in (n for n in STAGES if n in names):
        stage = STAGES[name]
        stamps = files.read_json(stamps_path) if stamps_path.exists() else {}
        stamp = _stamp(stage, config, workdir, name)
        result = workdir / stage.makes
        begun = stamps.get(name)
        left = [workdir / leaf for leaf in stage.leaves if (workdir / leaf).exists()]
        if begun is not None and left:
            _refuse_changes(begun, stamp, left)
        files.write_json(workdir / "config.json", config)
        if begun is not None and begun["finished"] and _same(begun, stamp) and result.exists() and name != "report":
            log.info("%s: found, finished (%s)", name, result)
            continue
        files.write_json(stamps_path, {**stamps, name: {**stamp, "finished": False}})
        log.info("%s", name)
        stage.run(config, workdir)
        files.write_json(stamps_path, {**stamps, name: {**stamp, "finished": True}})


def _stamp(stage: Stage, config: Config, workdir: pathlib.Path, name: str) -> dict:
    """What a stage's result is made from: settings, flat, and the content of the files it reads."""
    everything = files.plain(config)
    settings = {}
    for field in stage.reads:
        section, _, rest = field.partition(".")
        value = everything[section]
        if rest:
            settings[field] = value[rest]
        elif isinstance(value, dict):
            settings |= {f"{section}.{k}": v for k, v in value.items()}
        else:
            settings[section] = value
    inputs = {}
    for file in stage.needs:
        path = _input(config, workdir, file)
        if not path.exists():
            before = next((n for n, s in STAGES.items() if s.makes == file), "prepare")
            raise UserError(f"{name} needs {path}, which is not there; run --stages={before} first")
        inputs[file] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return {"settings": settings, "inputs": inputs}


def _input(config: Config, workdir: pathlib.Path, file: str) -> pathlib.Path:
    external = {"swarm/ratios.csv": config.swarm.ratios, "swarm/metrics.csv": config.swarm.metrics}
    return pathlib.Path(external[file]) if config.swarm.ratios and file in external else workdir / file


def _same(old: dict, new: dict) -> bool:
    return old["settings"] == new["settings"] and old["inputs"] == new["inputs"]


def _refuse_changes(old: dict, new: dict, left: list[pathlib.Path]) -> None:
    """An error where costly work was made from something else than what would be used now."""
    changes = [(f, old["settings"].get(f), v) for f, v in new["settings"].items() if old["settings"].get(f) != v]
    changes += [(f, "another file", "this one") for f, v in new["inputs"].items() if old["inputs"].get(f) != v]
    if changes:
        field, was, now = changes[0]
        files_left = " and ".join(str(path) for path in left)
        raise UserError(
            f"{files_left}: made with {field} = {was!r}, now it is {now!r}; use another --workdir, put the old value "
            f"back, or delete {files_left} to do it again"
        )
