"""The format of the published YAML configs of ``olmix fit``: its sections and fields, and how a file is read.

Every fault names the file and the field.
"""

import dataclasses
import difflib
import math
import pathlib
import re
from typing import Any

from olmix_jax.config import yaml_files
from olmix_jax.utils.errors import UserError

# Sections and fields of the format, those of its earlier versions included.
FIELDS = {
    section: fields.split()
    for section, fields in {
        "swarm": "ratios metrics",
        "priors": "relative_sizes token_counts total_tokens",
        "eval": "type tasks",
        "regression": "type seed n_test train_split aggregate_task_families alpha simulation_samples opt_avg_metric",
        "proposer": "type temperature kl_reg use_natural_kl fit_only make_worst_mix",
        "constraints": (
            "enabled target_tokens repetition_factor target_chinchilla_multiple target_model_id requested_tokens"
        ),
        "filtering": "keep_sources support_domains drop_metrics fixed_weight obj_weights",
    }.items()
}
_NUMBER = r"[+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of the file, which knows how to read a field and how to say where a fault is. null is no value."""

    path: pathlib.Path
    name: str
    content: dict

    def fault(self, field: str, why: str) -> UserError:
        return UserError(f"{self.path}: `{self.name}.{field}`: {why}")

    def get(self, field: str, kind: type, default=None) -> Any:
        """The value of a field that must be of a kind; the default where there is none."""
        value = self.content.get(field)
        if value is None:
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            names = {str: "text", bool: "true or false", dict: "a mapping", list: "a list", int: "a whole number"}
            raise self.fault(field, f"must be {names[kind]}, not {value!r}")
        return value

    def number(self, field: str, default: float | None = None) -> float | None:
        value = self.content.get(field)
        return default if value is None else self.parsed(field, value)

    def parsed(self, field: str, value) -> float:
        """A number, or its text: "0.5", "1e12", or a fraction "7/52.0". Nothing is evaluated."""
        number = value
        if isinstance(value, str) and (found := re.fullmatch(rf"\s*({_NUMBER})\s*(?:/\s*({_NUMBER})\s*)?", value)):
            top, over = (float((part or "1").replace("_", "")) for part in found.groups())
            number = top / over if over else None
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
            raise self.fault(field, f"must be a number or a fraction as 7/52, not {value!r}")
        return number

    def numbers(self, field: str) -> dict[str, float]:
        """A mapping of names to numbers; empty where there is none."""
        content = self.get(field, dict, {})
        bad = [name for name in content if not isinstance(name, str)]
        if bad:
            raise self.fault(field, f"the name {bad[0]!r} is read as no text; put it in quotes")
        return {name: self.parsed(f"{field}.{name}", value) for name, value in content.items()}

    def names(self, field: str) -> list[str]:
        """A list of texts; empty where there is none."""
        content = self.get(field, list, [])
        bad = [name for name in content if not isinstance(name, str)]
        if bad:
            raise self.fault(field, f"must be a list of names, and {bad[0]!r} is none; put it in quotes")
        return content


def read(path: pathlib.Path) -> dict[str, Section]:
    """All sections of the format, those that the file lacks empty; unknown sections and fields are errors."""
    if not path.exists():
        raise UserError(f"{path}: no such file; `olmix_yaml` names a config of `olmix fit`")
    content = yaml_files.read(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: must be a mapping with the sections {', '.join(FIELDS)}")
    _check_known(f"{path}: no section", content, FIELDS)
    for name in ("swarm", "priors"):
        if not content.get(name):
            raise UserError(f"{path}: has no section `{name}`, which every config of `olmix fit` has")
    for name, section in content.items():
        if section is not None and not isinstance(section, dict):
            raise UserError(f"{path}: `{name}` must be a mapping, not {section!r}")
        _check_known(f"{path}: no field", section or {}, FIELDS[name], f"{name}.")
    return {name: Section(path, name, content.get(name) or {}) for name in FIELDS}


def _check_known(what: str, names, known, prefix: str = "") -> None:
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.0)
            raise UserError(f"{what} `{prefix}{name}` is known; the nearest is `{prefix}{near[0]}`")
