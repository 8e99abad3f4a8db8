"""The choices behind a proposal, as plain values."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from olmix_jax.utils.errors import UserError

METHODS = ("exact", "search", "simulation")
GUARD_BY = ("task", "family")


@dataclasses.dataclass(frozen=True)
class Options:
    """What a proposal minimises, and within which constraints.

    Attributes:
      kl_weight: λ ≥ 0, the weight of KL(p ‖ anchor) [BPB per nat].
      choose_kl_weight: whether to choose λ from the swarm's runs instead.
      max_repeats: k, the most epochs over a domain in the target run.
      target_tokens: R, tokens of the target run; None leaves repetition uncapped.
      task_weights: {task or family: weight ≥ 0}; None weighs tasks by the swarm's ``sizes_N``.
      bounds: {domain or pattern: [low, high] or a fixed weight}; None inside a pair means no limit. The pattern
        "stack-edu:*" bounds the summed weight of all matching domains.
      anchor: the mixture {domain: weight} that KL pulls towards; None for the natural distribution.
      keep_ratios: blocks of domains that keep their relative ratios, {block: {domain: ratio}}.
      guard: largest predicted rise over natural that a task or family may have [BPB]; None for no guards.
      guard_by: "task" or "family".
      tail: share of the law's worst samples whose mean is minimised, 0 for the worst sample alone; None minimises the
        law itself.
      trust: how far beyond its range in the runs a weight may lie, 1 or more: at most ``trust`` times the largest and
        at least 1/``trust`` of the smallest weight of any run; None for no limit.
      worst: whether to find the worst mixture instead of the best.
      method: "exact", or a published baseline: "search" (the best run) or "simulation" (the best sampled mixture).
      explore: whether to add the path over λ and k, the front between families and the choice of λ.
    """

    kl_weight: float = 0.05
    choose_kl_weight: bool = False
    max_repeats: float = 4.0
    target_tokens: float | None = None
    task_weights: Mapping[str, float] | None = None
    bounds: Mapping[str, Any] | None = None
    anchor: Mapping[str, float] | None = None
    keep_ratios: Mapping[str, Mapping[str, float]] | None = None
    guard: float | None = None
    guard_by: str = "task"
    tail: float | None = None
    trust: float | None = None
    worst: bool = False
    method: str = "exact"
    explore: bool = True

    def __post_init__(self) -> None:
        for name, value, choices in (("method", self.method, METHODS), ("guard_by", self.guard_by, GUARD_BY)):
            if value not in choices:
                raise UserError(f"propose.{name} must be one of {', '.join(choices)}, not {value!r}")
        if self.trust is not None and not 1 <= self.trust < float("inf"):
            raise UserError(f"propose.trust must be a number of 1 or more, or None for no limit, not {self.trust!r}")
