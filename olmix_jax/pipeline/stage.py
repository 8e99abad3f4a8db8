"""A stage of the pipeline: what it reads, what makes its result stale, and what it writes.

A finished stage is skipped. ``stamps.json`` records the settings and the content of the files behind each result. If
these have changed, a cheap stage runs again; a costly one raises an error that names the files to delete.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable
from typing import Any

from olmix_jax.config import workdir as workdirs
from olmix_jax.config.schema import Config
from olmix_jax.update.update_plan import UpdatePlan
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError

# Settings that name a file or folder. Its content counts, not its name.
PATHS = tuple(
    "corpus.path corpus.tokenizer tasks.path tasks.olmes swarm.test_ratios swarm.test_metrics swarm.meta fit.families "
    "update.file propose.task_weights propose.bounds propose.anchor propose.keep_ratios".split()
)
# How members are computed. These settings may change between runs, for example on a machine with less memory.
FREE = ("train.mapping", "train.map_batch", "train.micro_batch", "train.remat")


def nothing(config: Config, workdir: pathlib.Path) -> str:
    """The default of :attr:`Stage.skip` and :attr:`Stage.wait`: no reason."""
    del config, workdir
    return ""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage of the pipeline.

    Attributes:
      name: as in ``--stages``.
      run: (config, workdir) → None.
      by_default: (config) → whether it runs without ``--stages``.
      reads: (config, workdir) → files of earlier stages that it needs, relative to the workdir.
      writes: its results, relative to the workdir; the last one is written last.
      settings: config fields or sections that its result depends on.
      evidence: (config, workdir) → {name: digest} of further inputs that make its result stale.
      costly: results that are too expensive to compute again unasked; empty for a cheap stage.
      resumable: whether an unfinished run leaves checkpoints worth keeping.
      repeat: whether it runs whenever it is asked for.
      records_config: whether it writes ``config.json``.
      stamps: file of its stamp, relative to the workdir.
      check: (config) → raises ``UserError`` if the stage cannot run with this config.
      skip: (config, workdir) → why there is nothing to do; empty if there is.
      wait: (config, workdir) → why the run has to end before this stage; empty if it can go on.
      for_job: (config) → this stage for one job of an array of jobs.
      expands: whether the stage alone stands for all default stages of its run.
      divisible: whether processes divide its members among them.
      join: (config, workdir) → what other processes do while the first one trains a model with all of them.
    """

    name: str
    run: Callable[[Config, pathlib.Path], None]
    by_default: Callable[[Config], bool]
    reads: Callable[[Config, pathlib.Path], tuple[str, ...]]
    writes: tuple[str, ...]
    settings: tuple[str, ...] = ()
    evidence: Callable[[Config, pathlib.Path], dict[str, str]] = lambda config, workdir: {}
    costly: tuple[str, ...] = ()
    resumable: bool = False
    repeat: bool = False
    records_config: bool = True
    stamps: str = "stamps.json"
    check: Callable[[Config], None] = lambda config: None
    skip: Callable[[Config, pathlib.Path], str] = nothing
    wait: Callable[[Config, pathlib.Path], str] = nothing
    for_job: Callable[[Config], "Stage"] | None = None
    expands: bool = False
    divisible: bool = False
    join: Callable[[Config, pathlib.Path], None] | None = None


@dataclasses.dataclass(frozen=True)
class Stamp:
    """What a result was made from.

    Attributes:
      settings: values by dotted field.
      inputs: digests of files and of other evidence, by name.
      finished: whether the stage ended.
    """

    settings: dict[str, Any]
    inputs: dict[str, str]
    finished: bool = False

    def covers(self, other: "Stamp") -> bool:
        """Whether a result made from this would be the same made from ``other``."""
        return other.settings.items() <= self.settings.items() and self.inputs == other.inputs

    def refuse_changes(self, new: "Stamp", costly: list[pathlib.Path]) -> None:
        """Raises an error if costly files were made from something else than would be used now.

        Raises:
          UserError: names the first change, and the files to delete.
        """
        changes = [(name, self.settings.get(name), value) for name, value in new.settings.items()]
        changes = [change for change in changes if change[1] != change[2]]
        others = [name for name, digest in new.inputs.items() if self.inputs.get(name) != digest]
        changes += [(name, "another file", "this one") for name in others]
        if changes:
            field, old, value = changes[0]
            listed = " and ".join(str(path) for path in costly)
            raise UserError(
                f"{listed}: made with {field} = {old!r}, now it is {value!r}; use another --workdir, restore the old "
                f"value, or delete {listed} to compute it again"
            )


def read_stamps(path: pathlib.Path) -> dict[str, Stamp]:
    """Stamps by stage; empty without a file."""
    if not path.exists():
        return {}
    return {name: Stamp(**content) for name, content in files.read_json(path).items()}


def stamp_of(stage: Stage, config: Config, workdir: pathlib.Path, writers: dict[str, str]) -> Stamp:
    """The settings and inputs that the stage's result would be made from now.

    Args:
      stage: the stage.
      config: all settings.
      workdir: where its inputs are.
      writers: the stage that writes a file, by file.

    Raises:
      UserError: an input is missing; the message names the stage that writes it.
    """
    settings = _settings(stage, config)
    inputs = {}
    for file in stage.reads(config, workdir):
        path = workdirs.table_path(config, workdir, file)
        if path is None:
            continue
        if not path.is_file():
            advice = (
                "check the config's swarm section" if config.swarm.ratios else f"run --stages={writers[file]} first"
            )
            raise UserError(f"{stage.name} needs {path}, which does not exist; {advice}")
        inputs[file] = UpdatePlan.read(path).digest if file == workdirs.UPDATE_PLAN else content_digest(path)
    inputs |= {
        field: content_digest(pathlib.Path(settings[field]))
        for field in PATHS
        if settings.get(field) and not settings[field].lstrip().startswith("{")
    }
    return Stamp(settings, inputs | stage.evidence(config, workdir))


def _settings(stage: Stage, config: Config) -> dict[str, Any]:
    """The settings that a stage's result depends on, by dotted field."""
    everything = files.plain(config)
    settings = {}
    for field in stage.settings:
        section, _, rest = field.partition(".")
        value = everything[section]
        if rest:
            settings[field] = value[rest]
        elif isinstance(value, dict):
            settings |= {f"{section}.{name}": v for name, v in value.items()}
        else:
            settings[section] = value
    return {field: value for field, value in settings.items() if field not in FREE}


def content_digest(path: pathlib.Path) -> str:
    """A digest of a file's bytes; for a folder, whose text may be large, of names, sizes and modification times."""
    if path.is_dir():
        found = [(f, f.stat()) for f in files.list_files(path)]
        return files.digest([(str(f.relative_to(path)), s.st_size, s.st_mtime_ns) for f, s in found])
    if not path.exists():
        return "missing"
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
