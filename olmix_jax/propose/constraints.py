"""What a config says of where a mixture may be: bounds per domain and per group of domains, and another anchor."""

import difflib
import fnmatch
import json
import pathlib
from collections.abc import Sequence

import numpy as np

from olmix_jax.solver import bounds as bounds_of
from olmix_jax.solver.bounds import Bounds
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.files import read_object


def read_bounds(spec: str, domains: Sequence[str], upper_M) -> tuple[Bounds, tuple[str, ...]]:
    """Caps, tightened by ``propose.bounds``; and the groups' names.

    Args:
      spec: a JSON object, or the path of a file with one, of {name: [least, most]}, null for no limit, or {name:
        weight} to fix it. A domain's name limits its weight; a pattern ("stack-edu:*") the sum over all that match.
      domains: M names.
      upper_M: the caps.

    Raises:
      UserError: a name matches no domain; values are no weights; two groups overlap without one being in the other.
    """
    lower_M, upper_M = np.zeros(len(domains)), np.array(upper_M, np.float64)
    groups = {}
    where, wishes = read(spec, "propose.bounds") if spec.strip() else ("", {})
    for name, wish in wishes.items():
        low, high = _range(where, name, wish)
        if name in domains:
            j = list(domains).index(name)
            lower_M[j], upper_M[j] = low, min(high, upper_M[j])
        else:
            groups[name] = _members(where, name, domains), low, high
    names = sorted(groups, key=lambda name: groups[name][0].sum())
    member_GM = np.array([groups[name][0] for name in names], bool).reshape(-1, len(domains))
    if overlapping := bounds_of.overlapping(member_GM):
        one, other = (names[g] for g in overlapping)
        raise UserError(f"{where}: {one} and {other} overlap; make one part of the other, or the two disjoint")
    low_G, high_G = (np.array([groups[name][i] for name in names]) for i in (1, 2))
    return Bounds(lower_M, upper_M, member_GM, low_G, high_G), tuple(names)


def read_mixture(spec: str, field: str, domains: Sequence[str]) -> np.ndarray:
    """A mixture {domain: weight} from JSON text, a file, or a proposal's file; of sum 1 within 0.01, then exactly.

    Raises:
      UserError: a domain is unknown, or a weight is no number of 0 or more, or the sum is not 1.
    """
    where, weights = read(spec, field)
    weights = weights.get("weights", weights) if isinstance(weights.get("weights"), dict) else weights
    for name, weight in weights.items():
        if name not in domains:
            raise UserError(f"{where}: no domain {name}; {_nearest(name, domains)}")
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < np.inf:
            raise UserError(f"{where}: the weight of {name} must be a number of 0 or more, not {weight!r}")
    found_M = np.array([float(weights.get(name, 0)) for name in domains])
    if abs(found_M.sum() - 1) > 0.01:
        raise UserError(f"{where}: the weights sum to {found_M.sum():.6g}, not to 1")
    return found_M / found_M.sum()


def read(spec: str, field: str) -> tuple[str, dict]:
    """How errors name a JSON object of the config, and the object, from its text or from the path of a file with one.

    Raises:
      UserError: it is neither, naming the field; or a name stands in it twice, of which JSON would drop the first.
    """
    try:
        where, found = read_object(spec, field)
    except UserError as e:
        if f"`{field}`" in str(e):
            raise
        # A stage wrote none of these files, whatever else is said of a file that cannot be read.
        why = str(e).split("; delete the file")[0]
        raise UserError(f"config field `{field}`: {why}; give a JSON object, or the path of a file with one") from e

    def once(pairs):
        names = [name for name, _ in pairs]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise UserError(f"{where}: {twice} is there twice; give it once")
        return dict(pairs)

    text = spec if spec.lstrip().startswith("{") else pathlib.Path(spec).read_text(encoding="utf-8-sig")
    json.loads(text, object_pairs_hook=once)
    return where, found


def _range(where: str, name: str, wish) -> tuple[float, float]:
    """(least, most) of a wish."""
    ends = wish if isinstance(wish, list) else [wish, wish]
    numbers = [end for end in ends if isinstance(end, (int, float)) and not isinstance(end, bool)]
    nulls = [end for end in ends if end is None]
    if len(ends) != 2 or len(numbers) + len(nulls) != 2 or (nulls and not isinstance(wish, list)):
        raise UserError(f"{where}: {name} must be [least, most], null for no limit, or one weight, not {wish!r}")
    low, high = (default if end is None else float(end) for end, default in zip(ends, (0.0, 1.0)))
    if not 0 <= low <= high <= 1:
        raise UserError(f"{where}: {name}: 0 ≤ least ≤ most ≤ 1 does not hold of {wish!r}; weights are shares of 1")
    return low, high


def _members(where: str, pattern: str, domains: Sequence[str]) -> np.ndarray:
    member_M = np.array([fnmatch.fnmatchcase(domain, pattern) for domain in domains])
    if not member_M.any():
        raise UserError(f"{where}: no domain is or matches {pattern}; {_nearest(pattern, domains)}")
    return member_M


def _nearest(name: str, domains: Sequence[str]) -> str:
    return f"the nearest is {difflib.get_close_matches(name, domains, n=1, cutoff=0.0)[0]}"
