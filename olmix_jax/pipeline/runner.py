"""Which stages run, on what, and which are done already.

A stage's finished work is found and not repeated. What it was made from (config fields, and the content of the files
that it read) is kept in ``stamps.json``; where that has changed, a cheap stage is done again, and a costly one is an
error that says which files stand in the way.
"""

import dataclasses
import hashlib
import importlib
import pathlib
from collections.abc import Callable

from olmix_jax import laws
from olmix_jax.config import part
from olmix_jax.config import workdir as workdirs
from olmix_jax.config.schema import Config
from olmix_jax.laws import fitting
from olmix_jax.pipeline import deciding
from olmix_jax.update import history
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage and what it depends on.

    Attributes:
      run: (config, workdir) → files.
      needs: files of earlier stages that it reads; relative to the workdir.
      makes: its results, the last of them written last.
      reads: config fields or sections that its result depends on.
      leaves: what would be wrong after a change, and is too costly to repeat unasked; empty for a cheap stage.
      code: names the code that the result comes from, where another version should do it again.
    """

    run: Callable[[Config, pathlib.Path], None]
    needs: tuple[str, ...]
    makes: tuple[str, ...]
    reads: tuple[str, ...]
    leaves: tuple[str, ...] = ()
    code: Callable[[], str] = str


def training(name: str) -> Callable:
    """A function of :mod:`olmix_jax.pipeline.training`, imported when it runs."""
    return lambda *arguments: getattr(importlib.import_module("olmix_jax.pipeline.training"), name)(*arguments)


SAMPLER = tuple(f"swarm.{f}" for f in "size sparsity strength min_weight min_distance min_runs seed".split())
BUDGET = ("train.steps", "train.batch", "proxy.length")
# Settings that name a file or folder stand for what is in it.
PATHS = tuple(
    "corpus.path corpus.tokenizer tasks.path tasks.olmes swarm.test_ratios swarm.test_metrics swarm.meta fit.families "
    "update.file propose.task_weights propose.bounds propose.anchor propose.keep_ratios".split()
)
# How members are computed, and in what pieces: free to change, as for a machine with less memory.
FREE = ("train.mapping", "train.map_batch", "train.micro_batch", "train.remat")
TABLE = ("swarm/ratios.csv", "swarm/metrics.csv", "swarm/meta.json")
STAGES = {
    "plan": Stage(
        lambda config, workdir: importlib.import_module("olmix_jax.proxy.resources").run(config, workdir),
        (),
        ("plan/plan.json",),
        ("plan", "proxy", "train", "swarm.size", "corpus.vocabulary", "corpus.tokenizer"),
    ),
    "prepare": Stage(
        training("prepare"), (), ("domains.json",), ("seed", "corpus", "tasks"), ("domains.json", "corpus", "tasks")
    ),
    "update": Stage(
        deciding.update,
        ("domains.json",),
        (workdirs.PLAN,),
        ("seed", "update", "propose", "validate", "fit.families", "swarm.meta", *BUDGET),
    ),
    "sample": Stage(
        training("sample"),
        ("domains.json",),
        ("swarm/ratios.csv",),
        ("seed", *SAMPLER, "train.steps", "train.batch"),
        ("swarm/ratios.csv",),
    ),
    "train": Stage(
        training("train_proxies"),
        ("domains.json", "tasks/tasks.json", "swarm/ratios.csv"),
        ("swarm/metrics.csv",),
        ("seed", "proxy", "train", "tasks.length", "validate.steps", "propose.target_tokens"),
        ("swarm/metrics.csv", "train"),
    ),
    "fit": Stage(
        deciding.fit,
        TABLE,
        ("fit/params.npz", "fit/fit.json"),
        ("seed", "fit", "swarm", "update.old_runs"),
        code=fitting.code,
    ),
    "propose": Stage(
        deciding.propose_mixture,
        ("fit/fit.json", "fit/params.npz", *TABLE),
        ("propose/proposal.json",),
        ("seed", "propose", "fit", "validate", "swarm", *BUDGET),
    ),
    "validate": Stage(
        training("validate"),
        ("domains.json", "tasks/tasks.json", "propose/proposal.json"),
        ("validate/validation.json",),
        ("seed", "proxy", "train", "tasks.length", "validate"),
        ("validate",),
    ),
    "report": Stage(deciding.write_report, ("fit/fit.json", "propose/proposal.json"), ("report/index.html",), ()),
}
EXTERNAL = ("fit", "propose", "report")
# What an update's plan is needed for, and what is not done where the plan needs no runs.
PLANNED, TRAINING = ("sample", "fit", "propose"), ("sample", "train", "fit")
# What an update's parent tells of.
TOLD = ("update", "fit", "propose")
# What is done again whenever it is asked for.
ALWAYS = ("plan", "report")


def default_stages(config: Config) -> tuple[str, ...]:
    """All stages; for a swarm that was trained elsewhere those that need no training; ``update`` for an update."""
    if _elsewhere(config):
        # Without tables yet, as far as that goes: to the mixtures to train or, where none is needed, to the end.
        return ("update", *EXTERNAL) if config.swarm.ratios else ("update", "sample", "propose", "report")
    if config.swarm.ratios:
        return EXTERNAL
    if config.swarm.part:
        return ("train",)
    return tuple(name for name in STAGES if name != "plan" and (name != "update" or config.update.parent))


def _elsewhere(config: Config) -> bool:
    """Whether there is an update, and its parent is of a swarm that was trained elsewhere."""
    return bool(config.update.parent) and bool(history.parent_config(config).swarm.ratios)


def in_order(config: Config, names: tuple[str, ...]) -> list[str]:
    """The stages that ``names`` stands for, in the order in which they run.

    Raises:
      UserError: a stage is unknown, or is of an update and there is none.
    """
    unknown = [n for n in names if n not in STAGES]
    if unknown:
        raise UserError(f"no stage {unknown[0]!r}; stages are {', '.join(STAGES)}")
    if "update" in names:
        if not config.update.parent:
            raise UserError("stage update needs config field `update.parent`, the finished workdir of the run before")
        # The one stage that is a name for all that a changed domain set takes.
        names = default_stages(config) if tuple(names) == ("update",) else names
    return [name for name in STAGES if name in names]


def run(config: Config, workdir: pathlib.Path, names: tuple[str, ...]) -> None:
    """Runs the named stages in order; finished work is kept.

    Raises:
      UserError: a stage is unknown, an earlier one is missing, or a file was made from another config.
    """
    names = in_order(config, names)
    for name in names:
        if name == "propose" and "update" in names and _awaits_runs(config, workdir):
            mixtures = workdir / "swarm/ratios.csv"
            log.info("update: train and score the mixtures of %s, then go on with swarm.ratios and .metrics", mixtures)
            break
        run_stage(config, workdir, name)


def run_stage(config: Config, workdir: pathlib.Path, name: str) -> None:
    """Runs one stage, unless its work is there.

    Raises:
      UserError: as :func:`run`.
    """
    _check_names(config)
    if config.update.parent:
        _check_parent(config, workdir)
    if name in TRAINING and config.update.parent and _needs_no_runs(workdir):
        log.info("%s: nothing to do, the update needs no runs", name)
        return
    stage, stamps_path = _of_part(STAGES[name], config, workdir, name)
    stamps = files.read_json(stamps_path) if stamps_path.exists() else {}
    stamp = _stamp(stage, config, workdir, name)
    results = [workdir / file for file in stage.makes]
    begun = stamps.get(name)
    left = [workdir / leaf for leaf in stage.leaves if (workdir / leaf).exists()]
    # What an unfinished stage left is done again, but for checkpoints: they are worth keeping.
    if begun is not None and left and (begun["finished"] or name in ("train", "validate")):
        _refuse_changes(begun, stamp, left)
    done = begun is not None and begun["finished"] and all(r.exists() for r in results)
    if done and _same(begun, stamp) and name not in ALWAYS:
        log.info("%s: found, finished (%s)", name, results[-1])
        return
    # A dry run has no say in what a workdir is, and a part's job is one of many.
    if name != "plan" and not config.swarm.part:
        files.write_json(workdir / "config.json", config)
    files.write_json(stamps_path, {**stamps, name: {**stamp, "finished": False}})
    log.info("%s", name)
    stage.run(config, workdir)
    files.write_json(stamps_path, {**stamps, name: {**stamp, "finished": True}})


def _of_part(stage: Stage, config: Config, workdir: pathlib.Path, name: str) -> tuple[Stage, pathlib.Path]:
    """The stage, and where its stamp is; the jobs of an array train side by side in a workdir, and share neither."""
    if name != "train" or not config.swarm.part:
        return stage, workdir / "stamps.json"
    mine = part.parse(config.swarm.part)
    made = str(part.path_of(pathlib.Path(), mine))
    stage = dataclasses.replace(stage, makes=(made,), leaves=(made, f"train/{mine.name}"))
    return stage, workdir / part.FOLDER / f"{mine.name}.json"


def _check_parent(config: Config, workdir: pathlib.Path) -> None:
    """Refuses an update of what is not finished, or comes from the workdir itself."""
    history.parent_config(config)
    parent = pathlib.Path(config.update.parent)
    if workdir.resolve() in [folder.resolve() for folder in workdirs.ancestors(parent)]:
        raise UserError(
            f"config field `update.parent`: the workdir itself, {workdir}, is what {parent} comes from; give another "
            "--workdir"
        )


def _needs_no_runs(workdir: pathlib.Path) -> bool:
    plan = workdirs.read_plan(workdir)
    return plan is not None and not plan["proxies"]


def _awaits_runs(config: Config, workdir: pathlib.Path) -> bool:
    """Whether the runs of an update are trained elsewhere, and not given yet."""
    return not config.swarm.ratios and _elsewhere(config) and not _needs_no_runs(workdir)


def _needs(name: str, config: Config, workdir: pathlib.Path) -> tuple[str, ...]:
    """Files of earlier stages that a stage reads, as things stand."""
    needs = STAGES[name].needs
    if not config.update.parent:
        return needs
    if name == "update" and _elsewhere(config):
        return ()
    if _needs_no_runs(workdir):
        needs = {"propose": ("domains.json",), "report": ("propose/proposal.json",)}.get(name, needs)
    return needs + ((workdirs.PLAN,) if name in PLANNED else ())


def _check_names(config: Config) -> None:
    """Refuses names that a late stage would stumble over, before anything is trained."""
    named = [("fit.law", config.fit.law, laws.LAWS)]
    if not config.swarm.ratios:
        presets = importlib.import_module("olmix_jax.proxy.model").PRESETS
        named += [("proxy.preset", config.proxy.preset, presets)]
        named += [("validate.preset", config.validate.preset or config.proxy.preset, presets)]
    for field, name, known in named:
        if name not in known:
            raise UserError(f"config field `{field}` must be one of {', '.join(known)}, not {name!r}")


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
    settings = {field: value for field, value in settings.items() if field not in FREE}
    inputs = {}
    for file in _needs(name, config, workdir):
        path = workdirs.table_path(config, workdir, file)
        if path is None:
            continue
        if not path.is_file():
            default = "train" if file in TABLE else "update" if file == workdirs.PLAN else "prepare"
            before = next((n for n, s in STAGES.items() if file in s.makes), default)
            how = "check the config's swarm section" if config.swarm.ratios else f"run --stages={before} first"
            raise UserError(f"{name} needs {path}, which is not there; {how}")
        inputs[file] = history.digest_of_plan(path) if file == workdirs.PLAN else _content(path)
    inputs |= {"code": stage.code()} if stage.code() else {}
    if config.update.parent and name in TOLD:
        inputs["update.parent"] = history.evidence(pathlib.Path(config.update.parent))
    if config.update.parent and name == "prepare":
        inputs["update.parent"] = history.text(pathlib.Path(config.update.parent))
    named = {field: settings.get(field) for field in PATHS}
    inputs |= {f: _content(pathlib.Path(v)) for f, v in named.items() if v and not v.lstrip().startswith("{")}
    corpus = settings.get("corpus.path")
    if corpus and (listed := importlib.import_module("olmix_jax.corpus.token_files").stamp(corpus)):
        inputs["corpus.path"] = listed
    return {"settings": settings, "inputs": inputs}


def _content(path: pathlib.Path) -> str:
    """A digest of a file's bytes; of a folder's names, sizes and times of change, as its text may be large."""
    if path.is_dir():
        found = [(f, f.stat()) for f in files.below(path)]
        return files.digest([(str(f.relative_to(path)), s.st_size, s.st_mtime_ns) for f, s in found])
    if not path.exists():
        return "missing"
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _same(old: dict, new: dict) -> bool:
    return new["settings"].items() <= old["settings"].items() and old["inputs"] == new["inputs"]


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
