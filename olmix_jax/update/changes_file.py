"""The file that says how a domain set changed: YAML or JSON.

updates:
  - add: [stack-edu:python, stack-edu:rust]
  - revise: [pdfs]
  - remove: [algebraic-stack]
  - partition: {pdfs: [pdfs:science, pdfs:law]}
  - rename: {wiki: wikipedia}
"""

import pathlib

from olmix_jax.update.changes import KINDS, Update
from olmix_jax.utils.errors import UserError


def parse(path: str | pathlib.Path, content) -> list[Update]:
    """The steps of an update file with this content; each of ``updates`` is as :meth:`Update.plain` has it.

    Raises:
      UserError: the content is not a list of steps; ``path`` names the file.
    """
    rows = content.get("updates") if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise UserError(f"{path}: needs a list `updates` of steps, as `- add: [a, b]` or `- partition: {{a: [x, y]}}`")
    unknown = [key for key in content if key != "updates"]
    if unknown:
        raise UserError(f"{path}: has an unknown field `{unknown[0]}`; there is `updates` alone")
    return [update for i, row in enumerate(rows) for update in step(f"{path}: updates[{i}]", row)]


def step(where: str, row) -> list[Update]:
    """A step as :meth:`Update.plain` has it; a partition or a renaming of several domains is a step for each.

    Raises:
      UserError: it is none; ``where`` names the place.
    """
    if not isinstance(row, dict) or len(row) != 1 or next(iter(row)) not in KINDS:
        raise UserError(f"{where}: must be one of {', '.join(KINDS)} and what it is of, not {row!r}")
    ((kind, of),) = row.items()
    if kind in ("partition", "rename"):
        if not isinstance(of, dict):
            shape = "{domain: [parts]}" if kind == "partition" else "{domain: its new name}"
            raise UserError(f"{where}: {kind} must be {shape}, not {of!r}")
        pairs = [(str(name), [into] if kind == "rename" else into) for name, into in of.items()]
        return [Update(kind, (name,), _names(f"{where}: {name}", into)) for name, into in pairs]
    return [Update(kind, _names(where, of))]


def _names(where: str, names) -> tuple[str, ...]:
    if isinstance(names, str):
        names = [names]
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and n for n in names):
        raise UserError(f"{where}: must be a list of domain names, not {names!r}")
    return tuple(names)
