"""The files of a workdir: where they are, and the readers that need no more than the config."""

import pathlib

from olmix_jax.config.build import from_dict
from olmix_jax.config.schema import Config
from olmix_jax.swarm import task_groups
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.swarm.table import SwarmTable
from olmix_jax.utils import files, rng
from olmix_jax.utils.errors import UserError

PLAN = "update/plan.json"
# What of a plan is read, and of what kind.
FIELDS = {"parent": str, "updates": list, "old": list, "new": list, "kept": dict, "proxies": int, "history": list}


def read_config(workdir: pathlib.Path) -> Config:
    """The config that a workdir was made with."""
    return from_dict(files.read_json(workdir / "config.json"))


def read_plan(workdir: pathlib.Path) -> dict | None:
    """The plan of an update's workdir; None for a first run's.

    Raises:
      UserError: the file is no plan.
    """
    path = workdir / PLAN
    if not path.is_file():
        return None
    plan = files.read_json(path)
    for field, kind in FIELDS.items():
        if not isinstance(plan.get(field), kind):
            raise UserError(f"{path}: lacks `{field}`, so it is no plan; delete it and run --stages=update again")
    return plan


def own_plan(config: Config, workdir: pathlib.Path) -> dict | None:
    """The plan that a run of ``config`` in ``workdir`` follows; None for one that is no update, or not planned yet."""
    return read_plan(workdir) if config.update.parent else None


def ancestors(workdir: pathlib.Path) -> list[pathlib.Path]:
    """``workdir`` and the workdirs that it comes from, the youngest first.

    Raises:
      UserError: they go in a circle.
    """
    found, plan = [workdir], read_plan(workdir)
    while plan is not None:
        parent = pathlib.Path(plan["parent"])
        if parent.resolve() in [other.resolve() for other in found]:
            raise UserError(
                f"{found[-1] / PLAN}: comes from itself, by {parent}; give every update a workdir of its own"
            )
        found.append(parent)
        plan = read_plan(parent)
    return found


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
    found = found.thinned(f.train_split, rng.derive(config.seed, "train_split"))
    return task_groups.grouped(found, mmlu_groups=f.mmlu_groups, granularity=f.granularity, families=f.families)


def read_test_table(config: Config, fitted: SwarmTable) -> SwarmTable:
    """The held-out swarm, with the tasks of the fitted one: of scores that are missing only the run can be left out."""
    f, paths = config.fit, (config.swarm.test_ratios, config.swarm.test_metrics)
    missing = "drop_run" if f.missing == "drop_task" else f.missing
    found = SwarmTable.read(*paths, keep_metrics=fitted.columns, missing=missing)
    return task_groups.grouped(found, mmlu_groups=f.mmlu_groups, granularity=f.granularity, families=f.families)
