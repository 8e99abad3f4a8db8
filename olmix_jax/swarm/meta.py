"""What a swarm's ``meta.json`` says: sizes of domains, columns to leave out, runs that diverged."""

import dataclasses
import math
import os
from collections.abc import Mapping

import numpy as np

from olmix_jax.utils.errors import UserError
from olmix_jax.utils.files import read_object
from olmix_jax.utils.progress import log

_FIELDS = ("relative_sizes", "token_counts", "drop_metrics", "diverged")
# A distribution closer to 1 than this is left as it is, so that what was written is read back bit for bit.
_SUM_EXACT = 1e-9


@dataclasses.dataclass(frozen=True)
class Meta:
    """The content of ``meta.json``.

    Attributes:
      where: how an error names it.
      natural_M: the natural distribution in the order of the ratios' columns, summing to 1; None if not known.
      tokens_M: unique tokens per domain in that order; None if not known.
      drop_metrics: columns of the metrics to leave out.
      diverged: ids of runs to leave out.
    """

    where: str = ""
    natural_M: np.ndarray | None = None
    tokens_M: np.ndarray | None = None
    drop_metrics: tuple[str, ...] = ()
    diverged: tuple[str, ...] = ()

    @classmethod
    def read(cls, meta: str | os.PathLike | Mapping, domains: tuple[str, ...]) -> "Meta":
        """Reads a path, a JSON object as text, or an object that was read already; nothing for an empty one.

        An object's ``source`` names the file that it is from, for errors.

        Raises:
          UserError: a field is not what it should be, or its names are not those of ``domains``.
        """
        if not meta:
            return cls()
        where, content = read_object(meta, "swarm.meta")
        unused = sorted(set(content) - {*_FIELDS, "source"})
        if unused:
            log.info("%s: not used: %s", where, ", ".join(unused))
        tokens_M = _by_name(where, content, "token_counts", domains)
        natural_M = _by_name(where, content, "relative_sizes", domains)
        if natural_M is None:
            natural_M = tokens_M
        if natural_M is not None and abs(natural_M.sum() - 1) > _SUM_EXACT:
            natural_M = natural_M / natural_M.sum()
        drop, diverged = content.get("drop_metrics") or [], content.get("diverged") or {}
        if not isinstance(drop, (list, tuple)) or not all(isinstance(d, str) for d in drop):
            raise UserError(f"{where}: `drop_metrics` must be a list of task names, not {drop!r}")
        if not isinstance(diverged, dict):
            raise UserError(f"{where}: `diverged` must be an object of run: step, not {diverged!r}")
        return cls(where, natural_M, tokens_M, tuple(drop), tuple(diverged))


def _by_name(where: str, content: dict, field: str, domains: tuple[str, ...]) -> np.ndarray | None:
    """The positive numbers that ``field`` gives to the domains, in column order; None where the field is absent."""
    sizes = content.get(field)
    if sizes is None:
        return None
    if not isinstance(sizes, dict):
        raise UserError(f"{where}: `{field}` must be an object of domain: number, not {sizes!r}")
    lacking, unknown = [d for d in domains if d not in sizes], [d for d in sizes if d not in domains]
    if lacking or unknown:
        parts = [f"lacks {', '.join(lacking)}"] * bool(lacking) + [f"has unknown {', '.join(unknown)}"] * bool(unknown)
        raise UserError(f"{where}: `{field}` {' and '.join(parts)}; its names must be the columns of the ratios")
    for d in domains:
        v = sizes[d]
        if isinstance(v, bool) or not isinstance(v, (int, float)) or not math.isfinite(v) or v <= 0:
            raise UserError(f"{where}: `{field}`: {d} must be a positive number, not {v!r}")
    return np.array([sizes[d] for d in domains], np.float64)
