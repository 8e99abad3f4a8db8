"""The files of a workdir: where they are, and the readers that need no more than the config."""

import pathlib

from olmix_jax.config.build import from_dict
from olmix_jax.config.schema import Config
from olmix_jax.swarm import task_groups
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.swarm.table import SwarmTable
from olmix_jax.utils import files, rng
from olmix_jax.utils.errors import UserError

UPDATE_PLAN = "update/plan.json"


def read_config(workdir: pathlib.Path) -> Config:
    """The config that a workdir was made with."""
    return from_dict(files.read_json(workdir / "config.json"))


def ancestors(workdir: pathlib.Path) -> list[pathlib.Path]:
    """Returns ``workdir``, its parent, the parent's parent and so on; the youngest first.

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


def read_table(config: Config, workdir: pathlib.Path) -> SwarmTable:
    """The swarm trained here, or the external one that the config names."""
    ratios, metrics = (table_path(config, workdir, f"swarm/{file}") for file in ("ratios.csv", "metrics.csv"))
    meta = config.swarm.meta if config.swarm.ratios else workdir / "swarm/meta.json"
    f = config.fit
    found = SwarmTable.read(
        ratios, metrics, meta, drop_metrics=f.drop_metrics, keep_metrics=f.keep_metrics, missing=f.missing
    )
    if config.update.parent and (workdir / "domains.json").is_file():
        # The order that plan, law and proposal have, whatever order the tables came back in.
        found = found.ordered(DomainSet.read(workdir / "domains.json").names)
    found = found.subsampled(f.train_split, rng.derive(config.seed, "train_split"))
    return task_groups.grouped(found, mmlu_groups=f.mmlu_groups, granularity=f.granularity, families=f.families)


def read_test_table(config: Config, fitted: SwarmTable) -> SwarmTable:
    """The held-out swarm, with the tasks of the fitted one: of scores that are missing only the run can be left out."""
    f, paths = config.fit, (config.swarm.test_ratios, config.swarm.test_metrics)
    missing = "drop_run" if f.missing == "drop_task" else f.missing
    found = SwarmTable.read(*paths, keep_metrics=fitted.columns, missing=missing)
    return task_groups.grouped(found, mmlu_groups=f.mmlu_groups, granularity=f.granularity, families=f.families)
