"""The stage ``merge``: many mixtures scored by merges of a few experts. It belongs to ``train``."""

import pathlib
from collections.abc import Callable

from olmix_jax.config import workdir as workdirs
from olmix_jax.config.schema import Config
from olmix_jax.pipeline.stage import Stage
from olmix_jax.utils.errors import UserError


def stage(settings: tuple[str, ...], skip: Callable[[Config, pathlib.Path], str]) -> Stage:
    """Return the stage.

    Args:
      settings: config fields or sections that the mixtures and the training of proxies depend on.
      skip: as for :class:`Stage`.
    """
    return Stage(
        "merge",
        _run,
        by_default=lambda config: False,
        reads=lambda config, workdir: ("domains.json", "tasks/tasks.json", workdirs.TRUNK),
        writes=(workdirs.MERGED_RATIOS, workdirs.MERGED),
        settings=(*settings, "swarm.merged"),
        costly=(workdirs.MERGED, "merge"),
        resumable=True,
        check=_check,
        skip=skip,
        join=_join,
        rehearses=True,
    )


def evidence(config: Config, workdir: pathlib.Path) -> dict[str, str]:
    """Return what the proxies depend on: whether there are merged members, not their number."""
    del workdir
    return {"swarm.merged": "full proxies"} if config.swarm.merged else {}


def _run(config: Config, workdir: pathlib.Path) -> None:
    from olmix_jax.pipeline import merge  # it loads the training libraries

    merge.run(config, workdir)


def _join(config: Config, workdir: pathlib.Path) -> None:
    from olmix_jax.pipeline import merge

    merge.join(config, workdir)


def _check(config: Config) -> None:
    if not config.swarm.merged:
        raise UserError("stage merge needs config field `swarm.merged`, the number of merged members")
    if config.swarm.part:
        raise UserError("stage merge cannot be used with config field `swarm.part`: all parts share the merged members")
