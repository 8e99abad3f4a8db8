"""The proposed mixture for trainers: what to put into each trainer's file, and which weights the trainer will realise.

:mod:`olmix_jax.propose.trainer_formats` has the formats. Most trainers round the weights, so each file comes with the
shares that its trainer really trains on. Nothing is written here: ``olmix_jax/pipeline/handover.py`` writes the files.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from olmix_jax.utils.errors import UserError
from olmix_jax.utils.files import file_name

# A repetition cap counts as exceeded from this share above it; one sample more or less does not matter.
TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True)
class Mixture:
    """A mixture to export. All files list the domains in this order.

    Attributes:
      weights: share of the run's tokens per domain, at least 0; normalised where used.
      counts: tokens of the run per domain (:func:`olmix_jax.swarm.rounding.counts`); if given, they are the weights.
      target_tokens: R, tokens of the run; the sum of ``counts`` if they are given.
      unique_tokens: N, unique tokens per domain.
      max_repeats: k, the most epochs over a domain.
      sequence_length: tokens of a training sequence.
      tokens_per_record: mean tokens of a record in the domain's files, for trainers that draw records (documents)
        instead of sequences; None if all records are alike, as sequences are.
      paths: where the trainer finds a domain's data; ``{domain}`` stands for :func:`file_name` of the domain.

    Raises:
      UserError: a weight or count is not a number ≥ 0, all are 0, domains differ, or ``paths`` lacks ``{domain}``.
    """

    weights: Mapping[str, float]
    counts: Mapping[str, int] | None = None
    target_tokens: float | None = None
    unique_tokens: Mapping[str, float] | None = None
    max_repeats: float | None = None
    sequence_length: int = 4096
    tokens_per_record: Mapping[str, float] | None = None
    paths: str = "data/{domain}"

    def __post_init__(self) -> None:
        if "{domain}" not in self.paths:
            raise UserError(f"paths must contain {{domain}}, or all domains have the same data: {self.paths!r}")
        for name in ("weights", "counts", "unique_tokens", "tokens_per_record"):
            values = self.weights if getattr(self, name) is None else getattr(self, name)
            if set(values) != set(self.weights):
                differing = sorted(set(values) ^ set(self.weights))
                raise UserError(f"{name} must have the same domains as the weights; they differ in {differing}")
            if not all(math.isfinite(v) and v >= 0 for v in values.values()) or not any(values.values()):
                raise UserError(f"{name} must be finite, not negative and not all zero: {dict(values)}")
            if name in ("unique_tokens", "tokens_per_record") and (none := [d for d in self.shares if not values[d]]):
                raise UserError(f"{', '.join(none)}: {name} must be above 0, because the weight is")

    @property
    def shares(self) -> dict[str, float]:
        """Shares of the tokens, of sum 1; domains of share 0 are left out."""
        parts = self.counts or self.weights
        return normalised({d: parts[d] for d in self.weights if parts[d] > 0})

    @property
    def records(self) -> dict[str, float]:
        """Shares of the records that give these shares of the tokens."""
        return normalised({d: w / self.record(d) for d, w in self.shares.items()})

    @property
    def target(self) -> float:
        """R [tokens]; 0 if unknown."""
        return float(sum(self.counts.values()) if self.counts else self.target_tokens or 0)

    @property
    def caps(self) -> dict[str, float]:
        """Largest weights min(1, k·N/R); empty if k, N or R is unknown."""
        if self.unique_tokens is None or self.max_repeats is None or not self.target:
            return {}
        return {d: min(1.0, self.max_repeats * n / self.target) for d, n in self.unique_tokens.items()}

    def record(self, domain: str) -> float:
        """Return the tokens of a record, or of a sequence if all records are alike."""
        return (self.tokens_per_record or {}).get(domain, self.sequence_length)

    def path(self, domain: str) -> str:
        """Return where the data of ``domain`` is."""
        return self.paths.replace("{domain}", file_name(domain))

    def tokens(self, records: Mapping[str, float]) -> dict[str, float]:
        """Return the shares of the tokens that these numbers of records give."""
        return normalised({d: n * self.record(d) for d, n in records.items()})


@dataclasses.dataclass(frozen=True)
class LargestDeviation:
    """The domain whose realised share deviates most, by how much, and relative to its weight."""

    domain: str
    by: float
    relative: float


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The weights that a trainer realises, compared with the mixture.

    Attributes:
      realised: shares of the tokens that the trainer trains on, zeros included.
      largest_deviation: the largest difference.
      lost: domains with a weight that get no data.
      epochs_over_cap: epochs over the domains whose repetition cap is exceeded.
    """

    realised: dict[str, float]
    largest_deviation: LargestDeviation
    lost: tuple[str, ...]
    epochs_over_cap: dict[str, float]


@dataclasses.dataclass(frozen=True)
class TrainerFile:
    """One trainer's file.

    Attributes:
      file: its name.
      content: text, or an object to write as JSON or YAML by the file's suffix; None if the format cannot express the
        mixture.
      comparison: the weights that the trainer realises, compared with the mixture.
      not_written: why there is no content.
    """

    file: str
    content: Any = None
    comparison: Comparison | None = None
    not_written: str | None = None


def normalised(parts: Mapping[str, float]) -> dict[str, float]:
    """Return the parts divided by their sum; all 0 if they are."""
    total = sum(parts.values())
    return {d: float(part / total) if total else 0.0 for d, part in parts.items()}


def compare(mixture: Mixture, realised: Mapping[str, float]) -> Comparison:
    """Compare the shares that a trainer realises with the mixture."""
    difference = {d: realised[d] - w for d, w in mixture.shares.items()}
    worst = max(difference, key=lambda d: abs(difference[d]))
    k = mixture.max_repeats or 0.0
    epochs = {d: realised.get(d, 0.0) / c * k for d, c in mixture.caps.items() if c}
    return Comparison(
        realised={d: realised.get(d, 0.0) for d in mixture.weights},
        largest_deviation=LargestDeviation(worst, difference[worst], difference[worst] / mixture.shares[worst]),
        lost=tuple(d for d in mixture.shares if not realised[d]),
        epochs_over_cap={d: n for d, n in epochs.items() if n > k * (1 + TOLERANCE)},
    )
