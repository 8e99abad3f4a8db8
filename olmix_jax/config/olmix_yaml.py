"""Translate a published YAML config of ``olmix fit`` to the settings of this package: ``--config.olmix_yaml=FILE``.

Every field of the format (:mod:`olmix_jax.config.olmix_schema`) is either translated, or logged as not used if it has
no effect here, or an error if it would change the result in a way that is not supported.
"""

import dataclasses
import json
import pathlib
from collections.abc import Collection
from typing import Any

from olmix_jax.config import olmix_proposer, olmix_schema
from olmix_jax.config.olmix_schema import FIELDS, Section
from olmix_jax.config.schema import Config
from olmix_jax.swarm.task_groups import FAMILIES
from olmix_jax.utils.files import read_object
from olmix_jax.utils.progress import log

# Fields without effect: the total is the sum of the token counts, and the number of simulated mixtures is our own.
_UNUSED = {
    "priors": ["total_tokens"],
    "eval": ["type"],
    "regression": ["alpha", "simulation_samples", "opt_avg_metric"],
}
# Not supported, although they would change the result; {field: what to do instead}. Values that switch a field off
# (null, false, 0, empty) are accepted.
_UNSUPPORTED = {
    "regression": {"n_test": "every run is fitted, and cross-validation measures the quality of the fit"},
    "constraints": {
        "target_chinchilla_multiple": "give `target_tokens`",
        "target_model_id": "give `target_tokens`",
    },
    "filtering": {
        "keep_sources": "delete the other runs from the CSV files",
        "support_domains": "delete the other domains and their runs from the CSV files",
    },
}
_LAWS = ("log_linear", "lightgbm", "search", "gp", "autoscale", "bimix")


def translated(config: Config, given: Collection[str] = ()) -> Config:
    """Return the config with the settings of its ``olmix_yaml`` file, and with that field emptied.

    Paths in the file are relative to the working directory or, if no such file exists, to the YAML file's folder.

    Args:
      config: returned unchanged if its ``olmix_yaml`` is empty.
      given: dotted names of fields that were set by flags. They keep the config's value; the log names them.

    Raises:
      UserError: the file cannot be read, or a field is unknown, has the wrong type or is not supported. The message
        names the field.
    """
    if not config.olmix_yaml:
        return config
    path = pathlib.Path(config.olmix_yaml)
    sections = olmix_schema.read(path)
    if "fit.granularity" in given:
        # The flag overrides the file's choice between tasks and families. `_tasks` below depends on it.
        sections["regression"].content["aggregate_task_families"] = config.fit.granularity == "family"
    settings = _tasks(sections, config.fit.families if "fit.families" in given else "")
    for translate in (_swarm, _priors, _regression, olmix_proposer.translated):
        settings |= translate(sections)
    _check_supported(sections)
    _log_unused(sections)
    for field in [f for f in settings if f in given]:
        log.info("%s: %s is given as a flag, which overrides the file", path, field)
        del settings[field]
    if "swarm.meta" in given:
        settings["swarm.meta"] = _with_drop(config.swarm.meta, sections["filtering"].names("drop_metrics"))
    for field in ("swarm.ratios", "swarm.metrics"):
        if field in settings:
            settings[field] = _locate(sections["swarm"], field.removeprefix("swarm."), settings[field])
    return _replaced(config, settings | {"olmix_yaml": ""})


def _swarm(sections: dict[str, Section]) -> dict[str, Any]:
    swarm = sections["swarm"]
    for field in FIELDS["swarm"]:
        if not swarm.get(field, str):
            raise swarm.fault(field, "missing; it must be the path of a CSV file")
    return {f"swarm.{field}": swarm.content[field] for field in FIELDS["swarm"]}


def _locate(swarm: Section, field: str, name: str) -> str:
    """Return the path of a table, relative to the working directory or else to the YAML file's folder."""
    beside = swarm.path.parent / name
    for place in (pathlib.Path(name), beside):
        if place.is_file():
            return str(place)
    raise swarm.fault(field, f"no file {name} in the working directory or at {beside}; correct it, or set it by a flag")


def _priors(sections: dict[str, Section]) -> dict[str, Any]:
    """Return ``swarm.meta``: natural distribution, token counts and columns to drop.

    With ``use_natural_kl`` the natural distribution is proportional to the token counts.
    """
    # Published lists name columns that some swarms lack. In a meta such names are only logged; in `fit.drop_metrics`
    # they would be errors.
    priors, drop = sections["priors"], sections["filtering"].names("drop_metrics")
    sizes, tokens = priors.numbers("relative_sizes"), priors.numbers("token_counts")
    if not sizes and not tokens:
        raise priors.fault("relative_sizes", "missing, and so is `token_counts`; give one of them")
    if sections["proposer"].get("use_natural_kl", bool) and tokens:
        sizes = {}
    meta = {"source": f"{priors.path}: priors"}
    values = {"relative_sizes": sizes, "token_counts": tokens, "drop_metrics": drop}
    return {"swarm.meta": json.dumps(meta | {name: value for name, value in values.items() if value})}


def _with_drop(meta: str, drop: list[str]) -> str:
    """Return a ``swarm.meta`` given as a flag, with more columns to drop. Errors in it are raised when it is read."""
    if not drop:
        return meta
    where, content = read_object(meta or "{}", "swarm.meta")
    given = content.get("drop_metrics") or []
    if not isinstance(given, list):
        return meta
    return json.dumps(content | {"source": where, "drop_metrics": [*given, *drop]})


def _tasks(sections: dict[str, Section], families: str = "") -> dict[str, Any]:
    """Return which columns are read, how they are grouped into tasks, and the weights of the tasks.

    Args:
      sections: the sections of the file.
      families: ``fit.families`` if it was set by a flag; empty for the families of the file.
    """
    by_family = sections["regression"].get("aggregate_task_families", bool, False)
    named, dropped = _families(sections, by_family)
    used = read_object(families, "fit.families")[1] if families.strip() else named or FAMILIES
    weights = _weights(sections["filtering"], dropped)
    if by_family and not weights:
        log.info(
            "%s: families have equal weights, whatever their number of tasks, as in `olmix fit`", sections["eval"].path
        )
        weights = dict.fromkeys(used, 1.0)
    return {
        "fit.keep_metrics": tuple(name for members in named.values() for name in members),
        "fit.granularity": "family" if by_family else "task",
        "fit.families": json.dumps(used) if by_family else "",
        "propose.task_weights": json.dumps(weights) if weights else "",
    }


def _families(sections: dict[str, Section], by_family: bool) -> tuple[dict[str, list[str]], list[str]]:
    """Return {family: columns} without dropped columns, and the dropped names: columns, and families left empty.

    A family is a list of columns (offline evaluation) or a mapping of task ids to columns (in-loop evaluation).
    """
    section, drop = sections["eval"], sections["filtering"].names("drop_metrics")
    families = {}
    for family, tasks in section.get("tasks", dict, {}).items():
        names = list(tasks.values()) if isinstance(tasks, dict) else tasks
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise section.fault(f"tasks.{family}", f"must be a list of metric columns, not {tasks!r}")
        families[family] = [name for name in names if name not in drop and not (by_family and family in drop)]
    empty = [family for family, names in families.items() if not names]
    if empty:
        log.info("%s: `filtering.drop_metrics` drops all tasks of %s", section.path, ", ".join(empty))
    if empty and len(empty) == len(families):
        raise section.fault("tasks", "`filtering.drop_metrics` drops all of them; keep at least one")
    return {family: names for family, names in families.items() if names}, [*drop, *empty]


def _weights(filtering: Section, dropped: list[str]) -> dict[str, float]:
    """Return the ``obj_weights`` of names that are not dropped; empty if there are no weights."""
    weights = filtering.numbers("obj_weights")
    kept = {name: weight for name, weight in weights.items() if name not in dropped}
    if weights and not kept:
        raise filtering.fault("obj_weights", f"`drop_metrics` drops every name in it: {', '.join(weights)}")
    if len(kept) < len(weights):
        ignored = ", ".join(name for name in weights if name not in kept)
        log.info("%s: `filtering.obj_weights`: ignored, because of `drop_metrics`: %s", filtering.path, ignored)
    if kept:
        log.info("%s: `filtering.obj_weights`: tasks that are not named have weight 0", filtering.path)
    return kept


def _regression(sections: dict[str, Section]) -> dict[str, Any]:
    regression = sections["regression"]
    law = regression.get("type", str, "log_linear")
    if law not in _LAWS:
        raise regression.fault("type", f"must be one of {', '.join(_LAWS)}, not {law!r}")
    split = regression.content.get("train_split")
    if isinstance(split, list):
        if len(split) != 1:
            raise regression.fault("train_split", f"must be one number, not {split!r}, because there is one swarm")
        split = split[0]
    split = 1.0 if split is None else regression.parsed("train_split", split)
    return {"fit.law": law, "fit.train_split": split, "seed": regression.get("seed", int, 0)}


def _check_supported(sections: dict[str, Section]) -> None:
    for name, reasons in _UNSUPPORTED.items():
        for field, instead in reasons.items():
            if sections[name].content.get(field):
                raise sections[name].fault(field, f"is not supported. Remove it; {instead}")


def _log_unused(sections: dict[str, Section]) -> None:
    unused = [
        f"{name}.{field}"
        for name, fields in _UNUSED.items()
        for field in fields
        if sections[name].content.get(field) is not None
    ]
    if not sections["constraints"].content.get("enabled"):
        unused += [f"constraints.{f}" for f in FIELDS["constraints"][1:3] if sections["constraints"].content.get(f)]
    path = sections["swarm"].path
    if unused:
        log.info("%s: fields not used: %s", path, ", ".join(unused))
    if sections["proposer"].get("fit_only", bool):
        log.info("%s: `proposer.fit_only` is not used; choose stages with --stages=fit", path)


def _replaced(config: Config, settings: dict[str, Any]) -> Config:
    """Return the config with fields replaced; ``settings`` has dotted names."""
    for field, value in settings.items():
        section, _, name = field.rpartition(".")
        if section:
            value = dataclasses.replace(getattr(config, section), **{name: value})
        config = dataclasses.replace(config, **{section or name: value})
    return config
