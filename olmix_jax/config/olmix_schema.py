"""The format of the published YAML configs of ``olmix fit``: its sections and fields, and a strict reader.

Every error names the file and the field.
"""

import dataclasses
import difflib
import math
import pathlib
import re
from collections.abc import Collection, Iterable
from typing import Any

from olmix_jax.utils.errors import UserError
from olmix_jax.utils.files import read_object

# Sections and fields of the format, including those of earlier versions.
FIELDS = {
    section: fields.split()
    for section, fields in {
        "swarm": "ratios metrics",
        "priors": "relative_sizes token_counts total_tokens expanded_relative_sizes",
        "eval": "type tasks",
        "regression": "type seed n_test train_split aggregate_task_families alpha simulation_samples opt_avg_metric",
        "proposer": "type temperature kl_reg use_natural_kl fit_only make_worst_mix expanded_kl_source_mixtures",
        "constraints": (
            "enabled target_tokens repetition_factor target_chinchilla_multiple target_model_id requested_tokens"
        ),
        "filtering": "keep_sources support_domains drop_metrics fixed_weight obj_weights",
    }.items()
}
_NUMBER = r"[+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of the file, with typed access to its fields. A field that is null counts as absent."""

    path: pathlib.Path
    name: str
    content: dict

    def fault(self, field: str, why: str) -> UserError:
        """Return an error about a field, for the caller to raise."""
        return UserError(f"{self.path}: `{self.name}.{field}`: {why}")

    def get(self, field: str, kind: type, default=None) -> Any:
        """Return the value of a field of type ``kind``; the default if it is absent."""
        value = self.content.get(field)
        if value is None:
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            names = {str: "text", bool: "true or false", dict: "a mapping", list: "a list", int: "a whole number"}
            raise self.fault(field, f"must be {names[kind]}, not {value!r}")
        return value

    def number(self, field: str, default: float | None = None) -> float | None:
        """Return the number in a field, as :meth:`parsed`; the default if it is absent."""
        value = self.content.get(field)
        return default if value is None else self.parsed(field, value)

    def parsed(self, field: str, value) -> float:
        """Return a number, given as a number or as text: "0.5", "1e12" or a fraction "7/52.0". No code is evaluated."""
        number = value
        if isinstance(value, str) and (match := re.fullmatch(rf"\s*({_NUMBER})\s*(?:/\s*({_NUMBER})\s*)?", value)):
            top, bottom = (float((part or "1").replace("_", "")) for part in match.groups())
            number = top / bottom if bottom else None
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
            raise self.fault(field, f"must be a number or a fraction such as 7/52, not {value!r}")
        return number

    def numbers(self, field: str) -> dict[str, float]:
        """Return a mapping of names to numbers, which may be JSON text; empty if the field is absent."""
        text = self.content.get(field)
        if isinstance(text, str) and text.lstrip().startswith("{"):
            content = read_object(text, f"{self.name}.{field}").content
        else:
            content = self.get(field, dict, {})
        return {name: self.parsed(f"{field}.{name}", value) for name, value in content.items()}

    def names(self, field: str) -> list[str]:
        """Return a list of names; empty if the field is absent."""
        content = self.get(field, list, [])
        bad = [name for name in content if not isinstance(name, str)]
        if bad:
            raise self.fault(field, f"must be a list of names, and {bad[0]!r} is not text; put it in quotes")
        return content


def read(path: pathlib.Path) -> dict[str, Section]:
    """Return all sections of the format; sections that the file lacks are empty.

    Raises:
      UserError: the file cannot be read, a section or field is unknown, or `swarm` or `priors` is missing.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file; `olmix_yaml` must be the path of a config of `olmix fit`")
    from olmix_jax.config import yaml_files  # YAML is loaded only where a file is read

    content = yaml_files.read(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: must be a mapping with the sections {', '.join(FIELDS)}")
    _check_known(f"{path}: unknown section", content, FIELDS)
    for name in ("swarm", "priors"):
        if not content.get(name):
            raise UserError(f"{path}: has no section `{name}`, which every config of `olmix fit` needs")
    for name, section in content.items():
        if section is not None and not isinstance(section, dict):
            raise UserError(f"{path}: `{name}` must be a mapping, not {section!r}")
        _check_known(f"{path}: unknown field", section or {}, FIELDS[name], f"{name}.")
    return {name: Section(path, name, content.get(name) or {}) for name in FIELDS}


def _check_known(fault: str, names: Iterable, allowed: Collection[str], prefix: str = "") -> None:
    for name in names:
        homes = [section for section, fields in FIELDS.items() if name in fields]
        if name not in allowed and homes:
            raise UserError(f"{fault} `{prefix}{name}`; it belongs in the section `{homes[0]}`")
        if name not in allowed:
            near = difflib.get_close_matches(str(name), allowed, n=1, cutoff=0.0)
            raise UserError(f"{fault} `{prefix}{name}`; the nearest is `{prefix}{near[0]}`")
