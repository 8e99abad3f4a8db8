"""Read config fields that hold a JSON object, or the path of a file with one."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from olmix_jax.config.schema import Config
from olmix_jax.utils.errors import UserError


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
    remedy = "set it to a JSON object or to the path of a file with one"
    if spec.lstrip().startswith("{"):
        text, source = spec, f"config field `{field}`"
    else:
        # The user wrote this file, so the advice to rerun a stage does not apply.
        text, source = _text_of(spec, field, remedy), spec

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise UserError(f"{source}: the key {twice} appears twice; keep one of them")
        return dict(pairs)

    try:
        content = json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as e:
        raise UserError(f"config field `{field}`: {_of(source, field)}not valid JSON: {e}; {remedy}") from e
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise UserError(f"config field `{field}`: {_of(source, field)}must be a JSON object, not {kind}; {remedy}")
    return content


def _text_of(path: str, field: str, remedy: str) -> str:
    """Return the text of the file that a field names."""
    try:
        return pathlib.Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError as e:
        raise UserError(f"config field `{field}`: {path}: no such file; {remedy}") from e
    except OSError as e:
        raise UserError(f"config field `{field}`: {path}: cannot be read: {e.strerror}; {remedy}") from e
    except UnicodeDecodeError as e:
        raise UserError(f"config field `{field}`: {path}: not valid UTF-8: {e}; {remedy}") from e


def _of(source: str, field: str) -> str:
    """Return the path of a file, for an error that names the field already."""
    return "" if field in source else f"{source}: "


def families(config: Config) -> Mapping[str, Any] | None:
    """Return ``fit.families`` as {family: task names or patterns}; None for the built-in families."""
    return read_mapping(config.fit.families, "fit.families")


def propose_options(config: Config) -> dict[str, Any]:
    """Return the section ``propose`` as keyword arguments of :class:`olmix_jax.propose.options.Options`.

    Raises:
      UserError: a field cannot be read; the message names it.
    """
    section = config.propose
    anchor = read_mapping(section.anchor, "propose.anchor")
    if anchor is not None and isinstance(anchor.get("weights"), dict):
        anchor = anchor["weights"]  # the file is a proposal.json
    return {
        "kl_weight": section.kl_weight,
        "choose_kl_weight": section.choose_kl_weight,
        "max_repeats": section.max_repeats,
        "target_tokens": section.target_tokens,
        "task_weights": read_mapping(section.task_weights, "propose.task_weights"),
        "bounds": read_mapping(section.bounds, "propose.bounds"),
        "anchor": anchor,
        "keep_ratios": read_mapping(section.keep_ratios, "propose.keep_ratios"),
        "guard": section.guard,
        "guard_by": section.guard_by,
        "tail": section.tail,
        "worst": section.worst,
        "method": section.method,
        "explore": section.explore,
    }
