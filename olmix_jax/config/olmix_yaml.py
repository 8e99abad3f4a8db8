"""The published YAML configs of ``olmix fit``, as settings of ours: ``--config.olmix_yaml=FILE``.

Every field of the format (:mod:`olmix_jax.config.olmix_schema`) is here: translated, logged as not used where it
decides nothing here, or an error where it would change the answer in a way that is not supported.
"""

import dataclasses
import json
import pathlib
from collections.abc import Collection
from typing import Any

from olmix_jax.config import olmix_schema
from olmix_jax.config.olmix_schema import FIELDS, Section
from olmix_jax.swarm.task_groups import FAMILIES
from olmix_jax.utils.files import read_object
from olmix_jax.utils.progress import log

# Decide nothing here: the total is the sum of the counts, and an exact solver simulates nothing.
_UNUSED = {
    "priors": ["total_tokens"],
    "eval": ["type"],
    "regression": ["alpha", "simulation_samples", "opt_avg_metric"],
    "proposer": ["temperature"],
}
# Would change the answer: only what leaves them off is accepted.
_UNSUPPORTED = {
    "regression": {"n_test": "every run is fitted, and cross-validation tells how good the fit is"},
    "proposer": {"make_worst_mix": "there is no worst mixture to be had here"},
    "constraints": {
        "target_chinchilla_multiple": "give `target_tokens`",
        "target_model_id": "give `target_tokens`",
        "requested_tokens": "give `target_tokens`",
    },
    "filtering": {
        "keep_sources": "leave the other runs out of the CSV files",
        "support_domains": "leave the other domains and their runs out of the CSV files",
        "fixed_weight": "no weight can be fixed beforehand",
    },
}
_LAWS = ("log_linear", "lightgbm", "search", "gp", "autoscale", "bimix")


def translated(config, given: Collection[str] = ()):
    """The config with the settings of its ``olmix_yaml`` file, and that field empty; unchanged where it is empty.

    Paths in the file are looked for in the working directory, then beside the file.

    Args:
      config: an :class:`olmix_jax.config.schema.Config`.
      given: dotted fields that keep the config's value whatever the file says; the log names them.

    Raises:
      UserError: the file cannot be read, or has a field that is unknown, ill-typed or cannot be followed; it is named.
    """
    if not config.olmix_yaml:
        return config
    path = pathlib.Path(config.olmix_yaml)
    sections = olmix_schema.read(path)
    if "fit.granularity" in given:
        # Families and their weights follow from the granularity that is used.
        sections["regression"].content["aggregate_task_families"] = config.fit.granularity == "family"
    settings = _tasks(sections, config.fit.families if "fit.families" in given else "")
    for translate in (_swarm, _priors, _regression, _proposer, _constraints):
        settings |= translate(sections)
    _tell(sections)
    for field in [f for f in settings if f in given]:
        log.info("%s: %s is given as a flag, and the file's value not used", path, field)
        del settings[field]
    if "swarm.meta" in given:
        settings["swarm.meta"] = _dropping(config.swarm.meta, sections["filtering"].names("drop_metrics"))
    for field in ("swarm.ratios", "swarm.metrics"):
        if field in settings:
            settings[field] = _found(sections["swarm"], field.removeprefix("swarm."), settings[field])
    return _replaced(config, settings | {"olmix_yaml": ""})


def _swarm(sections: dict[str, Section]) -> dict[str, Any]:
    swarm = sections["swarm"]
    for field in FIELDS["swarm"]:
        if not swarm.get(field, str):
            raise swarm.fault(field, "missing; it is the path of a CSV file")
    return {f"swarm.{field}": swarm.content[field] for field in FIELDS["swarm"]}


def _found(swarm: Section, field: str, name: str) -> str:
    """Where the table is: as named, or beside the YAML file."""
    beside = swarm.path.parent / name
    for place in (pathlib.Path(name), beside):
        if place.is_file():
            return str(place)
    raise swarm.fault(field, f"no file {name}, neither in the working directory nor at {beside}; or give it as a flag")


def _priors(sections: dict[str, Section]) -> dict[str, Any]:
    """The natural distribution, the tokens' own where ``use_natural_kl`` asks for it; the tokens; what to drop."""
    # Published lists to drop name columns that not every swarm has; of the lists here only the meta's may.
    priors, drop = sections["priors"], sections["filtering"].names("drop_metrics")
    sizes, tokens = priors.numbers("relative_sizes"), priors.numbers("token_counts")
    if not sizes and not tokens:
        raise priors.fault("relative_sizes", "missing, and `token_counts` too; one of them is needed")
    if sections["proposer"].get("use_natural_kl", bool) and tokens:
        sizes = {}
    meta = {"source": f"{priors.path}: priors"}
    values = {"relative_sizes": sizes, "token_counts": tokens, "drop_metrics": drop}
    return {"swarm.meta": json.dumps(meta | {name: value for name, value in values.items() if value})}


def _dropping(meta: str, drop: list[str]) -> str:
    """A meta that was given as a flag, with more columns to drop; what is wrong in it is found where it is read."""
    if not drop:
        return meta
    where, content = read_object(meta or "{}", "swarm.meta")
    own = content.get("drop_metrics") or []
    if not isinstance(own, list):
        return meta
    return json.dumps(content | {"source": where, "drop_metrics": [*own, *drop]})


def _tasks(sections: dict[str, Section], families: str = "") -> dict[str, Any]:
    """Which columns are read, how they are put together, and what each of the results weighs.

    Args:
      sections: the file's.
      families: the user's own, as ``fit.families`` has them; empty for the file's.
    """
    by_family = sections["regression"].get("aggregate_task_families", bool, False)
    named, lost = _families(sections, by_family)
    used = read_object(families, "fit.families")[1] if families.strip() else named or FAMILIES
    weights = _weights(sections["filtering"], lost)
    if by_family and not weights:
        log.info("%s: families weigh the same, however many tasks they have, as in `olmix fit`", sections["eval"].path)
        weights = dict.fromkeys(used, 1.0)
    return {
        "fit.keep_metrics": tuple(name for members in named.values() for name in members),
        "fit.granularity": "family" if by_family else "task",
        "fit.families": json.dumps(used) if by_family else "",
        "propose.task_weights": json.dumps(weights) if weights else "",
    }


def _families(sections: dict[str, Section], by_family: bool) -> tuple[dict[str, list[str]], list[str]]:
    """{family: columns} without those to drop, and what is lost by that: those columns and whole families.

    They are lists of columns (offline) or mappings of task ids to columns (in-loop).
    """
    section, drop = sections["eval"], sections["filtering"].names("drop_metrics")
    families = {}
    for family, tasks in section.get("tasks", dict, {}).items():
        names = list(tasks.values()) if isinstance(tasks, dict) else tasks
        if not isinstance(family, str):
            raise section.fault("tasks", f"the name {family!r} is read as no text; put it in quotes")
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise section.fault(f"tasks.{family}", f"must be a list of metric columns, not {tasks!r}")
        families[family] = [name for name in names if name not in drop and not (by_family and family in drop)]
    empty = [family for family, names in families.items() if not names]
    if empty:
        log.info("%s: `filtering.drop_metrics` leaves nothing of %s", section.path, ", ".join(empty))
    if empty and len(empty) == len(families):
        raise section.fault("tasks", "`filtering.drop_metrics` drops all of them; keep one at least")
    return {family: names for family, names in families.items() if names}, [*drop, *empty]


def _weights(filtering: Section, lost: list[str]) -> dict[str, float]:
    """``obj_weights`` of what is not lost; empty where there are none."""
    weights = filtering.numbers("obj_weights")
    left = {name: weight for name, weight in weights.items() if name not in lost}
    if weights and not left:
        raise filtering.fault("obj_weights", f"names only what `drop_metrics` leaves out: {', '.join(weights)}")
    if len(left) < len(weights):
        gone = ", ".join(name for name in weights if name not in left)
        log.info("%s: `filtering.obj_weights`: left out, as `drop_metrics` has it: %s", filtering.path, gone)
    if left:
        log.info("%s: `filtering.obj_weights`: tasks that it does not name weigh 0", filtering.path)
    return left


def _regression(sections: dict[str, Section]) -> dict[str, Any]:
    regression = sections["regression"]
    law = regression.get("type", str, "log_linear")
    if law not in _LAWS:
        raise regression.fault("type", f"must be one of {', '.join(_LAWS)}, not {law!r}")
    split = regression.content.get("train_split")
    if isinstance(split, list):
        if len(split) != 1:
            raise regression.fault("train_split", f"must be one number, not {split!r}: there is one swarm")
        split = split[0]
    split = 1.0 if split is None else regression.parsed("train_split", split)
    return {"fit.law": law, "fit.train_split": split, "seed": regression.get("seed", int, 0)}


def _proposer(sections: dict[str, Section]) -> dict[str, Any]:
    proposer = sections["proposer"]
    kind, law = proposer.get("type", str, "exact"), sections["regression"].get("type", str, "log_linear")
    if kind not in ("exact", "search"):
        raise proposer.fault("type", f"{kind!r} is not supported; `exact` solves what simulation only samples")
    if kind == "search" and law != "search":
        raise proposer.fault("type", "`search` takes the swarm's best run; it needs `regression.type: search`")
    return {"propose.kl_weight": proposer.number("kl_reg", 0.0)}


def _constraints(sections: dict[str, Section]) -> dict[str, Any]:
    constraints = sections["constraints"]
    target, repeats = constraints.number("target_tokens"), constraints.number("repetition_factor", 5.0)
    if not constraints.get("enabled", bool, False):
        return {"propose.target_tokens": None}
    if target is None:
        raise constraints.fault("target_tokens", "missing, and `enabled` is true; it is the tokens of the target run")
    if not sections["priors"].content.get("token_counts"):
        raise sections["priors"].fault("token_counts", "missing, and `constraints.enabled` is true")
    return {"propose.target_tokens": float(target), "propose.max_repeats": float(repeats)}


def _tell(sections: dict[str, Section]) -> None:
    """Refuses what cannot be followed, and logs what decides nothing here."""
    for name, reasons in _UNSUPPORTED.items():
        for field, instead in reasons.items():
            if sections[name].content.get(field):
                raise sections[name].fault(field, f"is not supported; {instead}. Take it out")
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
        log.info("%s: not used: %s", path, ", ".join(unused))
    if sections["proposer"].get("fit_only", bool):
        log.info("%s: `proposer.fit_only`: stages are chosen with --stages=fit", path)


def _replaced(config, settings: dict[str, Any]):
    """The config with dotted fields replaced."""
    for field, value in settings.items():
        section, _, name = field.rpartition(".")
        if section:
            value = dataclasses.replace(getattr(config, section), **{name: value})
        config = dataclasses.replace(config, **{section or name: value})
    return config
