"""The stage ``trunk``: the first steps of a branched swarm, which all its members share. It belongs to ``train``."""

import pathlib
from collections.abc import Callable

from olmix_jax.config import budget
from olmix_jax.config import workdir as workdirs
from olmix_jax.config.schema import Config
from olmix_jax.pipeline.stage import Stage
from olmix_jax.proxy.train_result import TrunkInfo
from olmix_jax.utils import files, records
from olmix_jax.utils.errors import UserError

# What decides how many steps a swarm trains.
SIZE = ("swarm.size", "swarm.trunk", "swarm.merged")


def result(config: Config) -> tuple[str, ...]:
    """Return the file that members read the trunk from; empty for full proxies."""
    return (workdirs.TRUNK,) if budget.trunk_steps(config) else ()


def warnings(config: Config) -> tuple[str, ...]:
    """Return what a proposal has to say about a law of branches; empty for full proxies."""
    if not budget.trunk_steps(config):
        return ()
    share = config.swarm.trunk
    return (
        f"the proxies are branches: they share {100 * share:.0f} % of their tokens (swarm.trunk), so the predicted "
        "differences between mixtures, the promised gain among them, are smaller than for models that train on one "
        "mixture only",
    )


def stage(
    settings: tuple[str, ...],
    plan_of_update: Callable[[Config], tuple[str, ...]],
    skip: Callable[[Config, pathlib.Path], str],
) -> Stage:
    """Return the stage.

    Args:
      settings: config fields or sections that the training of proxies depends on.
      plan_of_update: (config) → the file with the plan of an update, if it is one.
      skip: as for :class:`Stage`.
    """
    return Stage(
        "trunk",
        _run,
        by_default=lambda config: False,
        reads=lambda config, workdir: ("domains.json", "tasks/tasks.json", *plan_of_update(config)),
        writes=(workdirs.TRUNK,),
        settings=(*settings, "swarm.trunk", "swarm.trunk_mixture"),
        evidence=_evidence,
        # Not in a folder `trunk`: members start from the last checkpoint, also those of later rounds, so it stays.
        costly=("swarm/trunk",),
        resumable=True,
        check=_check,
        skip=skip,
        join=_join,
        rehearses=True,
    )


def _run(config: Config, workdir: pathlib.Path) -> None:
    from olmix_jax.pipeline import trunk  # it loads the training libraries

    trunk.run(budget.experts(config), workdir)


def _join(config: Config, workdir: pathlib.Path) -> None:
    from olmix_jax.pipeline import trunk

    trunk.join(budget.experts(config), workdir)


def _check(config: Config) -> None:
    if not config.swarm.trunk:
        raise UserError("stage trunk needs config field `swarm.trunk`, the share of the steps that all proxies share")
    if config.swarm.part:
        raise UserError("stage trunk cannot be used with config field `swarm.part`: all parts share one trunk")


def _evidence(config: Config, workdir: pathlib.Path) -> dict[str, str]:
    del workdir
    if not config.swarm.trunk_from:
        return {}
    return {"swarm.trunk_from": files.digest(records.plain(source(config)))}


def source(config: Config) -> TrunkInfo:
    """Return the facts of the trunk in ``swarm.trunk_from``.

    Raises:
      UserError: that workdir has no trunk, or one with other steps than this config's.
    """
    path, steps = pathlib.Path(config.swarm.trunk_from) / workdirs.TRUNK, budget.trunk_steps(budget.experts(config))
    info = TrunkInfo.read(path)
    if info.steps != steps:
        raise UserError(
            f"config field `swarm.trunk_from`: {path} has {info.steps} steps, but swarm.trunk = {config.swarm.trunk:g} "
            f"of train.steps = {config.train.steps} are {steps}; change one of them"
        )
    return info
