"""Read config fields that hold a JSON object, or the path of a file with one."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from olmix_jax.config.schema import Config
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.files import read_object


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
    try:
        source, content = read_object(spec, field)
    except UserError as e:
        if f"`{field}`" in str(e):
            raise
        # The user wrote this file, so the advice to rerun a stage does not apply.
        reason = str(e).split("; delete the file")[0]
        raise UserError(
            f"config field `{field}`: {reason}; set it to a JSON object or to the path of a file with one"
        ) from e

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise UserError(f"{source}: the key {twice} appears twice; keep one of them")
        return dict(pairs)

    text = spec if spec.lstrip().startswith("{") else pathlib.Path(spec).read_text(encoding="utf-8-sig")
    json.loads(text, object_pairs_hook=unique)
    return content


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
