"""The set of allowed mixtures: repetition caps, bounds per domain and per group of domains, and the anchor.

A run of R tokens with weight p_j takes p_j·R/N_j passes over the N_j unique tokens of domain j. At most k passes are
allowed, which bounds the weight: p_j ≤ k·N_j/R (METHOD §2, step 4).
"""

import dataclasses
import difflib
import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from olmix_jax.propose.ranges import Ranges
from olmix_jax.solver import bounds as solver_bounds
from olmix_jax.solver.bounds import Bounds
from olmix_jax.solver.feasibility import feasible
from olmix_jax.utils.errors import UserError


def repetition_caps(tokens_M, target_tokens: float, max_repeats: float) -> np.ndarray:
    """Return the largest weight of each domain, upper_M = min(1, k·N_j/R).

    Args:
      tokens_M: N, unique tokens per domain.
      target_tokens: R, tokens of the target run.
      max_repeats: k, the most passes over a domain.
    """
    with np.errstate(over="ignore"):
        return np.minimum(1.0, max_repeats * np.asarray(tokens_M, np.float64) / target_tokens)


@dataclasses.dataclass(frozen=True, eq=False)
class Repetition:
    """A limit on how often the target run repeats a domain; fields are the arguments of :func:`repetition_caps`."""

    tokens_M: np.ndarray
    target_tokens: float
    max_repeats: float

    def caps(self, max_repeats: float | None = None) -> np.ndarray:
        """Return upper_M, optionally with another number of repeats."""
        return repetition_caps(
            self.tokens_M, self.target_tokens, self.max_repeats if max_repeats is None else max_repeats
        )

    def within(self, bounds: Bounds, user_upper_M, max_repeats: float | None = None) -> Bounds:
        """Return the bounds with these upper bounds and the caps.

        If no mixture meets them, but some mixture exceeds each cap by at most a token, the caps are a token larger. So
        a target run of exactly k passes over all tokens is feasible, however R, N and k·N are rounded.
        """
        caps_M = self.caps(max_repeats)
        strict, token_M = bounds._replace(upper_M=np.minimum(user_upper_M, caps_M)), np.sign(self.tokens_M)
        looser_M = np.minimum(user_upper_M, caps_M + token_M / self.target_tokens)
        looser = bounds._replace(upper_M=looser_M)
        return looser if not feasible(strict) and feasible(looser) else strict


@dataclasses.dataclass(frozen=True, eq=False)
class Constraints:
    """The set of allowed mixtures, and where its upper bounds come from.

    Attributes:
      names: of the M domains, or of blocks of domains.
      bounds: the set.
      groups: names of the groups in ``bounds``.
      user_upper_M: upper bounds without those of repetition; None if all are 1.
      repetition: the limit on repeats; None if repetition is not capped.
    """

    names: Sequence[str]
    bounds: Bounds
    groups: tuple[str, ...] = ()
    user_upper_M: np.ndarray | None = None
    repetition: Repetition | None = None


def constraints(
    bounds: Mapping[str, Any] | None,
    domains: Sequence[str],
    *,
    tokens_M=None,
    target_tokens: float | None = None,
    max_repeats: float | None = None,
    trusted: Ranges | None = None,
) -> Constraints:
    """Combine ``propose.bounds`` with the repetition caps.

    Args:
      bounds: {name: [low, high]}, with None for no limit, or {name: weight} to fix it. A domain's name bounds its
        weight; a pattern ("stack-edu:*") bounds the summed weight of all matching domains.
      domains: M names.
      tokens_M, target_tokens, max_repeats: see :func:`repetition_caps`. Without the first two, repetition is not
        capped.
      trusted: bounds of weights besides those of ``bounds``.

    Raises:
      UserError: a name matches no domain, a bound is not a weight, or two groups overlap and neither contains the
        other.
    """
    repetition = None
    if tokens_M is not None and target_tokens is not None and max_repeats is not None:
        repetition = Repetition(np.asarray(tokens_M, np.float64), target_tokens, max_repeats)
    lower_M, user_upper_M = np.zeros(len(domains)), np.ones(len(domains))
    groups: dict[str, tuple[np.ndarray, float, float]] = {}
    for name, value in (bounds or {}).items():
        low, high = _range(name, value)
        if name in domains:
            j = list(domains).index(name)
            lower_M[j], user_upper_M[j] = low, high
        else:
            groups[name] = _members(name, domains), low, high
    if trusted is not None:
        lower_M, user_upper_M = np.maximum(lower_M, trusted.low_M), np.minimum(user_upper_M, trusted.high_M)
    # Inner groups before the groups that contain them.
    names = sorted(groups, key=lambda name: groups[name][0].sum())
    member_GM = np.array([groups[name][0] for name in names], bool).reshape(-1, len(domains))
    if overlap := solver_bounds.overlapping(member_GM):
        one, other = (names[g] for g in overlap)
        raise UserError(
            f"propose.bounds: {one} and {other} overlap; choose patterns that are disjoint or of which one contains "
            "the other"
        )
    low_G, high_G = (np.array([groups[name][i] for name in names]) for i in (1, 2))
    limits = Bounds(lower_M, user_upper_M, member_GM, low_G, high_G)
    return Constraints(
        names=domains,
        bounds=limits if repetition is None else repetition.within(limits, user_upper_M),
        groups=tuple(names),
        user_upper_M=user_upper_M,
        repetition=repetition,
    )


def mixture(weights: Mapping[str, float], domains: Sequence[str], field: str) -> np.ndarray:
    """Return the mixture {domain: weight} as weights_M of sum 1. Domains without a weight get 0.

    Args:
      weights: of sum 1 within 0.01.
      domains: M names.
      field: the config field that ``weights`` comes from, for errors.

    Raises:
      UserError: a domain is unknown, a weight is not a number of 0 or more, or the sum is not 1.
    """
    for name, weight in weights.items():
        if name not in domains:
            raise UserError(f"{field}: no domain is called {name}; {_nearest(name, domains)}")
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < np.inf:
            raise UserError(f"{field}: the weight of {name} must be a number of 0 or more, not {weight!r}")
    weights_M = np.array([float(weights.get(name, 0)) for name in domains])
    if abs(weights_M.sum() - 1) > 0.01:
        raise UserError(f"{field}: the weights must sum to 1, not {weights_M.sum():.6g}")
    return weights_M / weights_M.sum()


def _range(name: str, value: Any) -> tuple[float, float]:
    """Return (low, high) of a bound."""
    ends = value if isinstance(value, (list, tuple)) else [value, value]
    numbers = [end for end in ends if isinstance(end, (int, float)) and not isinstance(end, bool)]
    nulls = [end for end in ends if end is None]
    if len(ends) != 2 or len(numbers) + len(nulls) != 2 or (nulls and not isinstance(value, (list, tuple))):
        raise UserError(
            f"propose.bounds: {name} must be [low, high], with null for no limit, or one weight, not {value!r}"
        )
    low, high = (default if end is None else float(end) for end, default in zip(ends, (0.0, 1.0)))
    if not 0 <= low <= high <= 1:
        raise UserError(f"propose.bounds: {name} must satisfy 0 ≤ low ≤ high ≤ 1, but is {value!r}")
    return low, high


def _members(pattern: str, domains: Sequence[str]) -> np.ndarray:
    """Return member_M, whether each domain matches."""
    member_M = np.array([fnmatch.fnmatchcase(domain, pattern) for domain in domains])
    if not member_M.any():
        raise UserError(f"propose.bounds: no domain is called or matches {pattern}; {_nearest(pattern, domains)}")
    return member_M


def _nearest(name: str, domains: Sequence[str]) -> str:
    return f"the nearest name is {difflib.get_close_matches(name, domains, n=1, cutoff=0.0)[0]}"
