"""Run stages in order. Finished stages are skipped."""

import contextlib
import dataclasses
import pathlib
import shutil
from collections.abc import Iterator

from olmix_jax.config import workdir as workdirs
from olmix_jax.config.schema import Config
from olmix_jax.laws import LAWS
from olmix_jax.pipeline.stage import Stage, Stamp, for_job, read_stamps, stamp_of
from olmix_jax.pipeline.stages import STAGES
from olmix_jax.update import history
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log


def default_stages(config: Config) -> tuple[str, ...]:
    """Names of the stages that run without ``--stages``: all that the config calls for."""
    return tuple(stage.name for stage in STAGES if stage.by_default(config))


def in_order(config: Config, names: tuple[str, ...]) -> list[Stage]:
    """Return the named stages in the order in which they run.

    Raises:
      UserError: a stage is unknown or cannot run with this config.
    """
    stages = {stage.name: stage for stage in STAGES}
    unknown = [name for name in names if name not in stages]
    if unknown:
        raise UserError(f"no stage {unknown[0]!r}; stages are {', '.join(stages)}")
    for name in names:
        stages[name].check(config)
    if len(names) == 1 and stages[names[0]].expands:
        names = default_stages(config)
    return [stage for stage in STAGES if stage.name in names]


def steps(config: Config, workdir: pathlib.Path, names: tuple[str, ...]) -> Iterator[Stage]:
    """Yield the stages that must come first, then the named ones in order, each after the stages that it consists of.

    Request the next one when the one before has ended, because they depend on the results of those before.

    Raises:
      UserError: as for :func:`in_order`.
    """
    stages = in_order(config, names)
    for stage in stages:
        yield from stage.first(config, workdir)
    for stage in stages:
        yield from stage.before(config, workdir)
        yield stage


def run(config: Config, workdir: pathlib.Path, names: tuple[str, ...]) -> None:
    """Run the named stages in order. Finished stages are skipped.

    Raises:
      UserError: a stage is unknown, an input is missing, or a costly file was made with other settings.
    """
    for i, stage in enumerate(steps(config, workdir, names)):
        if i and (reason := stage.wait(config, workdir)):
            log.info("stopped before %s: %s", stage.name, reason)
            break
        run_stage(config, workdir, stage)


def run_stage(config: Config, workdir: pathlib.Path, stage: Stage) -> None:
    """Run one stage, unless it is finished.

    Raises:
      UserError: as for :func:`run`.
    """
    _check_names(config)
    if config.update.parent:
        _check_parent(config, workdir)
    _check_same_swarm(config, workdir, stage)
    if reason := stage.skip(config, workdir):
        log.info("%s: nothing to do, %s", stage.name, reason)
        return
    stage = for_job(config, stage)
    state = _state(config, workdir, stage)
    if state.finished:
        _remove_checkpoints(workdir, stage)
        log.info("%s: finished, skipped (%s)", stage.name, workdir / stage.writes[-1])
        _rehearse_prepared(config, workdir, stage)
        return
    _rehearse(config, workdir, stage)
    files.write_json(workdir / stage.stamps, state.stamps | {stage.name: state.stamp})
    log.info("%s", stage.name)
    stage.run(config, workdir)
    if stage.records_config and not config.swarm.part:
        _record_config(config, workdir, stage)
    finished = dataclasses.replace(state.stamp, finished=True)
    files.write_json(workdir / stage.stamps, state.stamps | {stage.name: finished})
    _remove_checkpoints(workdir, stage)
    _rehearse_prepared(config, workdir, stage)


def is_finished(config: Config, workdir: pathlib.Path, stage: Stage) -> bool:
    """Return whether the results of a stage exist and were made from the present settings and inputs.

    Raises:
      UserError: an input is missing, or a costly file was made with other settings.
    """
    return _state(config, workdir, stage).finished


@dataclasses.dataclass(frozen=True)
class _State:
    """What the stamps file says about a stage.

    Attributes:
      stamps: the content of the file, by stage.
      stamp: what the stage would be made from now.
      finished: whether its results exist and were made from that.
    """

    stamps: dict[str, Stamp]
    stamp: Stamp
    finished: bool


def _state(config: Config, workdir: pathlib.Path, stage: Stage) -> _State:
    stamps = read_stamps(workdir / stage.stamps)
    stamp = stamp_of(stage, config, workdir, {file: other.name for other in STAGES for file in other.writes})
    old = stamps.get(stage.name)
    costly = [workdir / file for file in stage.costly if (workdir / file).exists()]
    # Results of an unfinished stage are computed again, except checkpoints.
    if old is not None and costly and (old.finished or stage.resumable):
        old.refuse_changes(stamp, costly)
    done = old is not None and old.finished and all((workdir / file).exists() for file in stage.writes)
    return _State(stamps, stamp, old is not None and done and old.covers(stamp) and not stage.repeat)


def _remove_checkpoints(workdir: pathlib.Path, stage: Stage) -> None:
    """Remove the checkpoints of a finished stage. A swarm of 100 proxies of 30M has 60 GB of them."""
    # They are in the folder that has the stage's name.
    own = [file for file in stage.costly if pathlib.PurePath(file).is_relative_to(stage.name)]
    folders = [path for file in own for path in (workdir / file).glob("**/checkpoints") if path.is_dir()]
    for folder in folders if stage.resumable else ():
        shutil.rmtree(folder, ignore_errors=True)


def _rehearse(config: Config, workdir: pathlib.Path, stage: Stage) -> None:
    """Check the settings of later stages before a stage that costs time."""
    if stage.rehearses:
        from olmix_jax.pipeline import rehearsal  # it loads the libraries that read text

        rehearsal.check_settings(config)
        if stage.name == "prepare":
            rehearsal.check_names(config)
        else:
            rehearsal.check_prepared(config, workdir)


def _rehearse_prepared(config: Config, workdir: pathlib.Path, stage: Stage) -> None:
    """Check the settings of later stages after ``prepare``, which stays finished if they are refused."""
    if stage.name == "prepare":
        from olmix_jax.pipeline import rehearsal

        rehearsal.check_prepared(config, workdir)


def _record_config(config: Config, workdir: pathlib.Path, stage: Stage) -> None:
    """Write the settings of a finished stage to ``config.json``.

    Settings of other stages stay as they are, so that the file describes what is in the workdir: a setting that a later
    stage refuses, or that belongs to a stage that has not run again, must not reach an update of this workdir. The
    first stage writes all settings.
    """
    path, recorded = workdir / workdirs.CONFIG, config
    if path.is_file():
        # A file of another version, which cannot be read, is replaced.
        with contextlib.suppress(UserError):
            recorded = workdirs.read_config(workdir)
    for field in stage.settings:
        section, _, name = field.partition(".")
        value = getattr(config, section)
        if name:
            value = dataclasses.replace(getattr(recorded, section), **{name: getattr(value, name)})
        recorded = dataclasses.replace(recorded, **{section: value})
    files.write_json(path, recorded)


def _check_parent(config: Config, workdir: pathlib.Path) -> None:
    """Raise an error if the parent is unfinished or descends from the workdir itself."""
    history.parent_config(config)
    parent = pathlib.Path(config.update.parent)
    if workdir.resolve() in [folder.resolve() for folder in workdirs.ancestors(parent)]:
        raise UserError(
            f"config field `update.parent`: {parent} is the workdir itself or an update of it; give another --workdir"
        )


def _check_same_swarm(config: Config, workdir: pathlib.Path, stage: Stage) -> None:
    """Raise an error if a swarm trained here would replace the results of an external one, or the reverse."""
    trained = workdir / workdirs.METRICS
    if config.swarm.ratios and trained.is_file() and trained.resolve() != pathlib.Path(config.swarm.metrics).resolve():
        raise UserError(
            f"config field `swarm.ratios`: {workdir} holds a swarm that was trained there ({trained}), whose fit and "
            "proposal would be replaced; give another --workdir"
        )
    if stage.name == "prepare" and (workdir / workdirs.CONFIG).is_file():
        earlier = workdirs.read_config(workdir).swarm.ratios
        if earlier and not config.swarm.ratios:
            raise UserError(
                f"{workdir} holds the fit and the proposal of an external swarm ({earlier}), which would be replaced; "
                "give another --workdir"
            )


def _check_names(config: Config) -> None:
    """Raise an error for an unknown law, before anything is trained."""
    if config.fit.law not in LAWS:
        raise UserError(f"config field `fit.law` must be one of {', '.join(LAWS)}, not {config.fit.law!r}")
