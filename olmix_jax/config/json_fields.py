"""Read config fields that hold a mapping as text, or the path of a JSON file with one."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from olmix_jax.config import typed_text
from olmix_jax.config.schema import Config
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.names import with_normal_names

# An example of the value of each field that holds a mapping.
EXAMPLES = {
    "swarm.trunk_mixture": '{"web": 0.6, "code": 0.4}',
    "swarm.meta": '{"token_counts": {"web": 5e9, "code": 3e9}}',
    "fit.families": '{"mine": ["task_a", "qa_*"]}',
    "propose.task_weights": '{"task_a": 1, "task_b": 0.5}',
    "propose.bounds": '{"web": [0, 0.5]}',
    "propose.anchor": '{"web": 0.6, "code": 0.4}',
    "propose.keep_ratios": '{"block": {"web": 2, "code": 1}}',
}


def as_json(config: Config) -> Config:
    """Return the config with every mapping that is typed in another form, such as ``t1=1,t2=0.5``, as JSON text.

    Paths and JSON text stay as they are.

    Raises:
      UserError: a field holds neither a mapping nor a path; the message has an example.
    """
    for field in EXAMPLES:
        section, _, name = field.partition(".")
        text = getattr(getattr(config, section), name)
        if text.strip() and (content := _typed(text, field)) is not None:
            part = dataclasses.replace(getattr(config, section), **{name: json.dumps(content, ensure_ascii=False)})
            config = dataclasses.replace(config, **{section: part})
    return config


def _typed(text: str, field: str) -> dict[str, Any] | None:
    """Return the mapping that a field holds in another form than JSON; None for JSON text and for a path."""
    bracketed = text.lstrip().startswith("{")
    if not bracketed and (pathlib.Path(text).exists() or not typed_text.is_mapping(text)):
        return None
    try:
        json.loads(text)
        return None
    except json.JSONDecodeError as error:
        try:
            return typed_text.read_mapping(text, f"config field `{field}`")
        except ValueError:
            raise UserError(f"config field `{field}`: not valid JSON: {error}; {_remedy(field)}") from error


def _remedy(field: str) -> str:
    return f"set it to a JSON object, for example {field}='{EXAMPLES[field]}', or to the path of a file with one"


def read_mapping(spec: str, field: str) -> dict[str, Any] | None:
    """Return the JSON object of a config field; None for an empty field.

    Args:
      spec: JSON text, or the path of a file with JSON text.
      field: the field's name, for errors.

    Raises:
      UserError: the file cannot be read, the text is not a JSON object, or a key appears twice.
    """
    if not spec.strip():
        return None
    remedy = _remedy(field)
    if spec.lstrip().startswith("{"):
        text, source = spec, f"config field `{field}`"
    else:
        # The user wrote this file, so the advice to rerun a stage does not apply.
        try:
            text, source = files.read_text(spec), spec
        except UserError as e:
            raise UserError(f"config field `{field}`: {e}; {remedy}") from e
    try:
        content = files.load_json(text, source)
    except json.JSONDecodeError as e:
        raise UserError(f"config field `{field}`: {_of(source, field)}not valid JSON: {e}; {remedy}") from e
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise UserError(f"config field `{field}`: {_of(source, field)}must be a JSON object, not {kind}; {remedy}")
    return with_normal_names(content)


def _of(source: str, field: str) -> str:
    """Return the path of a file, for an error that names the field already."""
    return "" if field in source else f"{source}: "


def families(config: Config) -> Mapping[str, Any] | None:
    """Return ``fit.families`` as {family: task names or patterns}; None for the built-in families."""
    return read_mapping(config.fit.families, "fit.families")


def families_of_tasks(config: Config, tasks: Sequence[str]) -> Mapping[str, Any] | None:
    """Return the families of the tasks that a law is fitted to.

    Unless it is fitted to single tasks, these are families or the mean of all tasks, and each is a family alone.
    """
    return families(config) if config.fit.granularity == "task" else {task: [task] for task in tasks}


def _mixture(spec: str, field: str) -> dict[str, Any] | None:
    """Return the weights in a config field, which may name a ``proposal.json``; None for an empty field."""
    content = read_mapping(spec, field)
    return content["weights"] if content is not None and isinstance(content.get("weights"), dict) else content


def trunk_mixture(config: Config) -> dict[str, Any] | None:
    """Return ``swarm.trunk_mixture`` as {domain: weight}; None for the natural mixture."""
    return _mixture(config.swarm.trunk_mixture, "swarm.trunk_mixture")


def propose_options(config: Config) -> dict[str, Any]:
    """Return the section ``propose`` as keyword arguments of :class:`olmix_jax.propose.options.Options`.

    Raises:
      UserError: a field cannot be read; the message names it.
    """
    section = config.propose
    return {
        "kl_weight": section.kl_weight,
        "choose_kl_weight": section.choose_kl_weight,
        "max_repeats": section.max_repeats,
        "target_tokens": section.target_tokens,
        "task_weights": read_mapping(section.task_weights, "propose.task_weights"),
        "bounds": read_mapping(section.bounds, "propose.bounds"),
        "anchor": _mixture(section.anchor, "propose.anchor"),
        "keep_ratios": read_mapping(section.keep_ratios, "propose.keep_ratios"),
        "guard": section.guard,
        "guard_by": section.guard_by,
        "tail": section.tail,
        "trust": section.trust,
        "worst": section.worst,
        "method": section.method,
        "explore": section.explore,
    }
