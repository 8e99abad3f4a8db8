"""``meta.json`` of a swarm: sizes of the domains, metric columns to drop, runs that diverged."""

import dataclasses
import difflib
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from olmix_jax.utils.errors import UserError
from olmix_jax.utils.files import read_object
from olmix_jax.utils.names import normal, shown
from olmix_jax.utils.progress import log

_FIELDS = ("relative_sizes", "token_counts", "drop_metrics", "diverged")
# A distribution whose sum is closer to 1 than this is not renormalised, so that it is read back bit for bit.
_SUM_EXACT = 1e-9
# Largest error of its sum, as for the mixtures: rounded shares.
_SUM_TOLERANCE = 0.01


@dataclasses.dataclass(frozen=True)
class Meta:
    """The content of ``meta.json``.

    Attributes:
      where: the file or config field, for errors.
      natural_M: the natural distribution, summing to 1, in the order of the domains; None if not given.
      tokens_M: unique tokens per domain; None if not given.
      drop_metrics: metric columns to drop.
      diverged: ids of the runs that diverged in training.
    """

    where: str = ""
    natural_M: np.ndarray | None = None
    tokens_M: np.ndarray | None = None
    drop_metrics: tuple[str, ...] = ()
    diverged: tuple[str, ...] = ()

    @classmethod
    def read(cls, meta: str | os.PathLike | Mapping, domains: tuple[str, ...], source: str = "") -> "Meta":
        """Read a file, a JSON object as text, or a mapping. Empty input gives an empty ``Meta``.

        Errors name the file; for a mapping they name its ``source``, if it has one. Without ``relative_sizes`` the
        natural distribution is proportional to ``token_counts``. ``source`` is the file whose columns are the domains.

        Raises:
          UserError: a field has the wrong type, or its names differ from ``domains``.
        """
        if not meta:
            return cls()
        where, content = read_object(meta, "swarm.meta")
        content = {field: _normal(where, field, value) for field, value in content.items()}
        unused = sorted(set(content) - {*_FIELDS, "source"})
        for field in unused:
            near = difflib.get_close_matches(field.casefold(), _FIELDS, n=1, cutoff=0.8)
            if near and near[0] not in content:
                raise UserError(f"{where}: unknown field `{field}`; rename it to `{near[0]}`")
        if unused:
            log.info("%s: fields not used: %s", where, ", ".join(unused))
        tokens_M = _by_name(where, content, "token_counts", domains, source)
        natural_M = _by_name(where, content, "relative_sizes", domains, source)
        if tokens_M is not None and tokens_M.min() < 1:
            raise UserError(
                f"{where}: `token_counts` has {tokens_M.min():.6g} for {domains[int(tokens_M.argmin())]}; write unique "
                "tokens, and shares in `relative_sizes`"
            )
        if natural_M is not None and abs(natural_M.sum() - 1) > _SUM_TOLERANCE:
            raise UserError(
                f"{where}: `relative_sizes` must sum to 1, not to {natural_M.sum():.6g}; write each domain's share of "
                "the natural distribution, and tokens in `token_counts`"
            )
        if natural_M is None:
            natural_M = tokens_M
        if natural_M is not None and abs(natural_M.sum() - 1) > _SUM_EXACT:
            natural_M = natural_M / natural_M.sum()
        drop, diverged = content.get("drop_metrics") or [], content.get("diverged") or {}
        if not isinstance(drop, (list, tuple)) or not all(isinstance(d, str) for d in drop):
            raise UserError(f"{where}: `drop_metrics` must be a list of task names, not {drop!r}")
        if not isinstance(diverged, (dict, list)) or not all(isinstance(run, str) for run in diverged):
            raise UserError(f"{where}: `diverged` must be a list of runs or an object {{run: step}}, not {diverged!r}")
        return cls(where, natural_M, tokens_M, tuple(map(normal, drop)), tuple(map(normal, diverged)))


def _normal(where: str, field: str, value: Any) -> Any:
    """Return a field with its names in their normal form."""
    if not isinstance(value, dict):
        return value
    result = {normal(name): item for name, item in value.items()}
    if len(result) < len(value):
        twice = next(name for name in value if [normal(other) for other in value].count(normal(name)) > 1)
        raise UserError(f"{where}: `{field}` has {shown(normal(twice))} twice; keep one of them")
    return result


def _by_name(where: str, content: dict, field: str, domains: tuple[str, ...], source: str) -> np.ndarray | None:
    """Return the positive numbers of ``field`` in the order of ``domains``; None if the field is absent."""
    sizes = content.get(field)
    if sizes is None:
        return None
    if not isinstance(sizes, dict):
        raise UserError(f"{where}: `{field}` must be an object {{domain: number}}, not {sizes!r}")
    lacking, unknown = [d for d in domains if d not in sizes], [d for d in sizes if d not in domains]
    if lacking or unknown:
        faults = [f"lacks {', '.join(map(shown, lacking))}"] * bool(lacking)
        faults += [f"has unknown {', '.join(map(shown, unknown))}"] * bool(unknown)
        hint = f", the columns of {source}; remove those from it that are no domains" if source and lacking else ""
        raise UserError(
            f"{where}: `{field}` {' and '.join(faults)}; its names must be the domains {', '.join(domains)}{hint}"
        )
    for d in domains:
        v = sizes[d]
        if isinstance(v, bool) or not isinstance(v, (int, float)) or not math.isfinite(v) or v <= 0:
            raise UserError(f"{where}: `{field}`: {d} must be a positive number, not {v!r}")
    return np.array([sizes[d] for d in domains], np.float64)
