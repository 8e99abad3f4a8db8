"""A stage of the pipeline: what it reads, what makes its result stale, and what it writes.

A finished stage is skipped. ``stamps.json`` records the settings and the content of the files behind each result. If
these have changed, a cheap stage runs again; a costly one raises an error that names the files to delete.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

from olmix_jax.config import part
from olmix_jax.config import workdir as workdirs
from olmix_jax.config.paths import LOCAL
from olmix_jax.config.schema import Config
from olmix_jax.update.update_plan import UpdatePlan
from olmix_jax.utils import files
from olmix_jax.utils.digests import Digests
from olmix_jax.utils.errors import UserError

# Settings that name a file or folder. Its content counts, not its name. Of the parent and of a workdir whose trunk is
# copied, only a part counts: it is evidence of the stages that read it.
NOT_INPUTS = ("olmix_yaml", "update.parent", "swarm.trunk_from")
PATHS = tuple(name for name in ("corpus.path", *LOCAL) if name not in NOT_INPUTS)
# Settings that change how members are computed, or how many rounds follow, not the results. They may change between
# runs, for example on a machine with less memory.
NOT_STAMPED = (
    "train.mapping train.map_batch train.micro_batch train.remat train.checkpoint_every swarm.members_per_device "
    "swarm.part swarm.trunk_from rounds.number"
).split()


def no_reason(config: Config, workdir: pathlib.Path) -> str:
    """Return "", the default of :attr:`Stage.skip` and :attr:`Stage.wait`."""
    del config, workdir
    return ""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage of the pipeline.

    Attributes:
      name: as in ``--stages``.
      run: (config, workdir) → None.
      by_default: (config) → whether it runs without ``--stages``.
      reads: (config, workdir) → files of earlier stages that the stage needs, relative to the workdir.
      writes: result files, relative to the workdir, in the order in which they are written.
      settings: config fields or sections that its result depends on.
      evidence: (config, workdir) → {name: digest} of further inputs that make its result stale.
      costly: results that are expensive, so a change of inputs is an error; empty for a cheap stage, which reruns.
      resumable: whether an unfinished run leaves checkpoints worth keeping.
      repeat: whether it runs even if it is finished.
      rehearses: whether the settings of later stages are checked first.
      records_config: whether it writes its settings to ``config.json`` when it ends.
      stamps: file that its stamp is written to, relative to the workdir.
      check: (config) → raises ``UserError`` if the stage cannot run with this config.
      skip: (config, workdir) → why the stage has nothing to do; empty if it has to run.
      wait: (config, workdir) → why the run has to end before this stage; empty if it can continue.
      expands: whether ``--stages=NAME`` with only this stage runs all default stages.
      first: (config, workdir) → stages that run before all requested stages, because those replace what these read.
      before: (config, workdir) → stages that run before this one. Each is requested after the one before has ended.
      count_models: (config, workdir) → number of models that processes divide among them; 0 if they train all models
        together. None if the stage trains nothing.
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
    rehearses: bool = False
    records_config: bool = True
    stamps: str = "stamps.json"
    check: Callable[[Config], None] = lambda config: None
    skip: Callable[[Config, pathlib.Path], str] = no_reason
    wait: Callable[[Config, pathlib.Path], str] = no_reason
    expands: bool = False
    first: Callable[[Config, pathlib.Path], Iterable["Stage"]] = lambda config, workdir: ()
    before: Callable[[Config, pathlib.Path], Iterable["Stage"]] = lambda config, workdir: ()
    count_models: Callable[[Config, pathlib.Path], int] | None = None
    join: Callable[[Config, pathlib.Path], None] | None = None


def for_job(config: Config, stage: Stage) -> Stage:
    """Return a stage for one job of an array, with separate results and stamp, because jobs share a workdir."""
    job = part.parse(config.swarm.part)
    if job is None or stage.count_models is None:
        return stage
    result = part.result_path(pathlib.Path(stage.name), job)
    return dataclasses.replace(
        stage,
        writes=(str(result),),
        costly=(str(result), f"{stage.name}/{job.name}"),
        stamps=str(result.with_suffix(".json")),
        records_config=False,
    )


@dataclasses.dataclass(frozen=True)
class Stamp:
    """What a result was made from.

    Attributes:
      settings: values by dotted field.
      inputs: digests of files and of the stage's further inputs, by name.
      finished: whether the stage ended.
    """

    settings: dict[str, Any]
    inputs: dict[str, str]
    finished: bool = False

    def covers(self, other: "Stamp") -> bool:
        """Return whether a result with this stamp is still valid for the stamp ``other``."""
        same = all(self.value(name) == value for name, value in other.settings.items())
        return same and self.inputs == other.inputs

    def value(self, name: str) -> Any:
        """Return the setting that the result was made with. One that is newer than the result had its default."""
        return self.settings[name] if name in self.settings else _defaults().get(name)

    def refuse_changes(self, new: "Stamp", costly: list[pathlib.Path]) -> None:
        """Raise an error if the settings or inputs of ``new`` differ from those that costly files were made with.

        Raises:
          UserError: names the first change, and the files to delete.
        """
        changes = [(name, self.value(name), value) for name, value in new.settings.items()]
        changes = [change for change in changes if change[1] != change[2]]
        inputs = [name for name in new.inputs | self.inputs if self.inputs.get(name) != new.inputs.get(name)]
        # Fields first: with another field, other files may be read.
        fields = _defaults()
        inputs.sort(key=lambda name: name not in fields)
        if not changes and not inputs:
            return
        listed = " and ".join(str(path) for path in costly)
        if changes:
            field, old, value = changes[0]
            change, remedy = f"made with {field} = {old!r}, now it is {value!r}", "restore the old value"
        else:
            change, remedy = f"made before {inputs[0]} changed", f"restore the old {inputs[0]}"
        raise UserError(f"{listed}: {change}; use another --workdir, {remedy}, or delete {listed} to compute it again")


@functools.lru_cache
def _defaults() -> dict[str, Any]:
    """Return the default of every setting, by dotted field."""
    return {
        f"{section}.{name}": value
        for section, content in files.plain(Config()).items()
        for name, value in (content.items() if isinstance(content, dict) else ())
    }


def read_stamps(path: pathlib.Path) -> dict[str, Stamp]:
    """Return the stamps in a file, by stage; empty if the file does not exist."""
    if not path.exists():
        return {}
    return {name: Stamp(**content) for name, content in files.read_json(path).items()}


def stamp_of(stage: Stage, config: Config, workdir: pathlib.Path, writers: dict[str, str]) -> Stamp:
    """Return the stamp of a result that the stage would make now.

    Args:
      stage: the stage.
      config: all settings.
      workdir: the folder with its inputs.
      writers: {file: name of the stage that writes it}.

    Raises:
      UserError: an input is missing; the message names the stage that writes it.
    """
    settings, digests = _settings(stage, config), Digests(workdir / "digests.json")
    inputs = {}
    for file in stage.reads(config, workdir):
        path = workdirs.table_path(config, workdir, file)
        if path is None:
            continue
        if not path.is_file():
            advice = (
                "correct swarm.ratios, swarm.metrics or swarm.meta"
                if config.swarm.ratios and file in (workdirs.RATIOS, workdirs.METRICS, workdirs.META)
                else f"run --stages={writers.get(file, 'rounds')} first"
            )
            missing = "is no file" if path.exists() else "does not exist"
            raise UserError(f"{stage.name} needs {path}, which {missing}; {advice}")
        inputs[file] = UpdatePlan.read(path).digest if file == workdirs.UPDATE_PLAN else digests.of(path)
    for field in PATHS:
        if settings.get(field) and not settings[field].lstrip().startswith("{"):
            # The same files may be reached by another path, or may have moved.
            inputs[field] = digests.of(pathlib.Path(settings[field]))
            settings[field] = "given"
    return Stamp(settings, inputs | stage.evidence(config, workdir))


def _settings(stage: Stage, config: Config) -> dict[str, Any]:
    """Return the settings that a stage's result depends on, by dotted field."""
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
    return {field: value for field, value in settings.items() if field not in NOT_STAMPED}
