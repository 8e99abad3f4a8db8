"""The content of an update file, which lists the steps of a change.

The file is YAML or JSON; :func:`olmix_jax.config.yaml_files.read` reads it. Names are text as written, also ``no`` and
``1.10``. Example:

    updates:
      - add: [stack-edu:python, stack-edu:rust]
      - revise: [pdfs]
      - remove: [algebraic-stack]
      - partition: {pdfs: [pdfs:science, pdfs:law]}
      - rename: {wiki: wikipedia}
"""

import pathlib
from typing import Any

from olmix_jax.update.changes import Kind, Update
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.names import with_normal_names


def parse(path: str | pathlib.Path, content: Any) -> list[Update]:
    """Parse the content of an update file.

    Args:
      path: the file, for errors.
      content: the content as plain values.

    Raises:
      UserError: the content is not a list of steps.
    """
    content = with_normal_names(content)
    rows = content.get("updates") if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise UserError(
            f"{path}: needs a list `updates` of steps, such as `- add: [a, b]` or `- partition: {{a: [x, y]}}`"
        )
    unknown = [key for key in content if key != "updates"]
    if unknown:
        raise UserError(f"{path}: unknown field `{unknown[0]}`; the only field is `updates`")
    return [update for i, row in enumerate(rows) for update in parse_step(f"{path}: updates[{i}]", row)]


def parse_step(where: str, row: Any) -> list[Update]:
    """Parse one entry of ``updates``, as :meth:`Update.plain` returns it.

    A ``partition`` or ``rename`` of several domains is one step for each.

    Args:
      where: the place of the entry, for errors.
      row: the entry.

    Raises:
      UserError: the entry is not a step.
    """
    kinds = [kind.value for kind in Kind]
    if not isinstance(row, dict) or len(row) != 1 or next(iter(row)) not in kinds:
        raise UserError(f"{where}: must be {{kind: domains}}, where kind is one of {', '.join(kinds)}; it is {row!r}")
    ((name, domains),) = row.items()
    kind = Kind(name)
    if kind not in (Kind.PARTITION, Kind.RENAME):
        return [Update(kind, _names(where, domains))]
    if not isinstance(domains, dict):
        shape = "{domain: [parts]}" if kind is Kind.PARTITION else "{domain: new name}"
        raise UserError(f"{where}: {kind} must be {shape}, not {domains!r}")
    return [
        Update(kind, (domain,), _names(f"{where}: {domain}", [into] if kind is Kind.RENAME else into))
        for domain, into in domains.items()
    ]


def _names(where: str, names: Any) -> tuple[str, ...]:
    """Return one name or a list of names as a tuple; anything else is an error."""
    if isinstance(names, str):
        names = [names]
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and n for n in names):
        raise UserError(f"{where}: must be a list of domain names, not {names!r}")
    return tuple(names)
