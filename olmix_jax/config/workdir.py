"""Files of a workdir that several stages read: their paths, and readers that need only the config."""

import dataclasses
import pathlib

from olmix_jax.config import json_fields
from olmix_jax.config.build import from_dict
from olmix_jax.config.schema import Config
from olmix_jax.swarm import fidelity, rounds, task_groups
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.swarm.expansion import Expansion
from olmix_jax.swarm.table import SwarmTable
from olmix_jax.utils import files, rng
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import counted

# Paths below the workdir.
CONFIG = "config.json"
DOMAINS = "domains.json"
RATIOS = "swarm/ratios.csv"
METRICS = "swarm/metrics.csv"
META = "swarm/meta.json"
UPDATE_PLAN = "update/plan.json"
PROXY_TOKENS = "corpus/proxy/tokens.json"
TRUNK = "swarm/trunk/trunk.json"
MERGED = "swarm/merged/metrics.csv"
MERGED_RATIOS = "swarm/merged/ratios.csv"


def read_config(workdir: pathlib.Path) -> Config:
    """Read the config that a workdir was made with."""
    return from_dict(files.read_json(workdir / CONFIG))


def read_domains(workdir: pathlib.Path) -> DomainSet:
    """Read the domains of a prepared workdir."""
    return DomainSet.read(workdir / DOMAINS)


def read_expansion(config: Config, workdir: pathlib.Path) -> Expansion | None:
    """Read how many tokens the domains have in ``proxy.vocabulary``; None if it is not set.

    Raises:
      UserError: the workdir was prepared with another value.
    """
    if config.proxy.vocabulary is None:
        return None
    result = Expansion.read(workdir / PROXY_TOKENS)
    if result.vocabulary != config.proxy.vocabulary:
        raise UserError(
            f"{workdir / PROXY_TOKENS}: made with proxy.vocabulary = {result.vocabulary}, now it is "
            f"{config.proxy.vocabulary}; use another --workdir, or restore the old value"
        )
    return result


def tokens_per_token(config: Config, workdir: pathlib.Path) -> float:
    """Return the proxies' tokens per token of the corpus' tokenizer, for the natural mixture."""
    expansion = read_expansion(config, workdir)
    return 1.0 if expansion is None else expansion.mean


def ancestors(workdir: pathlib.Path) -> list[pathlib.Path]:
    """Return ``workdir``, its parent, the parent's parent and so on; the youngest first.

    Raises:
      UserError: an update plan does not name its parent, or the parents form a cycle.
    """
    result = [workdir]
    while (path := result[-1] / UPDATE_PLAN).is_file():
        name = files.read_json(path).get("parent")
        if not isinstance(name, str):
            raise UserError(f"{path}: parent must be text; delete the file and run --stages=update again")
        parent = pathlib.Path(name)
        if parent.resolve() in [folder.resolve() for folder in result]:
            raise UserError(
                f"{path}: its parent {parent} is an update of this workdir; give each update another workdir"
            )
        result.append(parent)
    return result


def table_path(config: Config, workdir: pathlib.Path, file: str) -> pathlib.Path | None:
    """Return the path of a file such as ``RATIOS``: in the workdir, or for an external swarm the path in the config.

    None if an external swarm has no such file: ``swarm.meta`` is empty, or is JSON text.
    """
    external = {RATIOS: config.swarm.ratios, METRICS: config.swarm.metrics, META: config.swarm.meta}
    if config.swarm.ratios and file in external:
        is_path = external[file] and not external[file].lstrip().startswith("{")
        return pathlib.Path(external[file]) if is_path else None
    return workdir / file


def table_files(workdir: pathlib.Path) -> tuple[str, ...]:
    """Return the files with the runs that a law is fitted to, with those of the workdir's rounds and merged members."""
    merged = (MERGED_RATIOS, MERGED) if (workdir / MERGED).is_file() else ()
    return (RATIOS, METRICS, META, *rounds.tables(workdir), *merged)


def trained_here(config: Config, workdir: pathlib.Path) -> bool:
    """Return whether proxies are trained in the workdir, on its corpus."""
    return not config.swarm.ratios and (workdir / "corpus").is_dir()


def read_table(config: Config, workdir: pathlib.Path) -> SwarmTable:
    """Read the swarm to fit, trained in ``workdir`` or external, and the runs of its rounds.

    The tasks are grouped as the config's ``fit`` asks.

    Raises:
      UserError: as for :func:`read_swarm`; or a round has other domains or lacks tasks.
    """
    table = read_swarm(config, workdir).subsampled(config.fit.train_split, rng.derive(config.seed, "train_split"))
    return _grouped(config, _with_rounds(config, workdir, table))


def read_swarm(config: Config, workdir: pathlib.Path) -> SwarmTable:
    """Read all runs of the swarm, without those of its rounds, and with tasks that are not grouped.

    Raises:
      UserError: a file is missing or malformed, the domains or tasks do not match the config, or the workdir has a
        round of another swarm.
    """
    fit, swarm = config.fit, config.swarm
    if swarm.ratios:
        paths: tuple = (swarm.ratios, swarm.metrics, swarm.meta)
    else:
        paths = (workdir / RATIOS, workdir / METRICS, workdir / META)
    table = SwarmTable.read(
        *paths,
        tokens=swarm.tokens,
        drop_metrics=fit.drop_metrics,
        keep_metrics=fit.keep_metrics,
        missing=fit.missing,
        every_column=not swarm.ratios,  # the tasks of a swarm trained here are scores, whatever their names
    )
    if config.update.parent and (workdir / DOMAINS).is_file():
        # The update's plan, law and proposal use this order; external tables may have another order.
        table = table.ordered(DomainSet.read(workdir / DOMAINS).names)
    if config.update.parent and table.cheap is not None:
        text = f"an update is fitted to real runs alone; {counted(len(table.cheap.runs), 'cheap run')} left out"
        table = dataclasses.replace(table, cheap=None, warnings=(*table.warnings, text))
    if swarm.ratios:
        _check_rounds(config, workdir, table)
    if swarm.merged and (workdir / MERGED).is_file():
        table = fidelity.joined(table, workdir / MERGED_RATIOS, workdir / MERGED)
    return table


def _check_rounds(config: Config, workdir: pathlib.Path, swarm: SwarmTable) -> None:
    """Raise an error if an external swarm has no run of the swarm that a round belongs to."""
    digests = set(rounds.run_digests(swarm))
    for number, each in enumerate(rounds.Rounds.read(workdir).rounds, start=1):
        if each.swarm and digests.isdisjoint(each.swarm):
            raise UserError(
                f"{workdir / rounds.folder(number)} belongs to another swarm: {config.swarm.ratios} has none of its "
                f"runs; give another --workdir, or delete {workdir / rounds.FOLDER} to fit this swarm without rounds"
            )


def _with_rounds(config: Config, workdir: pathlib.Path, table: SwarmTable) -> SwarmTable:
    """Return the table with the runs of the workdir's rounds, which have the same domains and tasks."""
    for place in rounds.trained(workdir):
        ratios, metrics, meta = (workdir / place / name for name in ("ratios.csv", "metrics.csv", "meta.json"))
        try:
            more = SwarmTable.read(
                *(ratios, metrics, meta if meta.is_file() else ""),
                keep_metrics=table.columns,
                missing=run_or_error(config),
                every_column=True,
                all_cheap=True,
            )
            if other := sorted(set(more.domains) ^ set(table.domains)):
                raise UserError(f"{ratios}: its domains and those of the swarm differ in {', '.join(other)}")
        except UserError as e:
            raise UserError(f"{e}. Or delete {workdir / rounds.FOLDER} to fit the swarm without its rounds") from e
        table = rounds.joined(table, more)
    return table


def read_test_table(config: Config, fitted: SwarmTable) -> SwarmTable:
    """Read the held-out swarm, with the same tasks as ``fitted``.

    All tasks are needed, so with ``fit.missing=drop_task`` a missing score drops the run instead.
    """
    paths = (config.swarm.test_ratios, config.swarm.test_metrics)
    return _grouped(config, SwarmTable.read(*paths, keep_metrics=fitted.columns, missing=run_or_error(config)))


def run_or_error(config: Config) -> str:
    """Return what to do about a missing score, as ``fit.missing`` asks, in a table that needs all tasks."""
    return "drop_run" if config.fit.missing == "drop_task" else config.fit.missing


def _grouped(config: Config, table: SwarmTable) -> SwarmTable:
    return task_groups.grouped(
        table,
        mmlu_groups=config.fit.mmlu_groups,
        granularity=config.fit.granularity,
        families=json_fields.families(config),
    )
