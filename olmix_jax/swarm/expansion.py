"""How many tokens a text has in the proxies' vocabulary, if that is smaller than the corpus'."""

import dataclasses
import os

import numpy as np

from olmix_jax.swarm import apportion
from olmix_jax.utils import records
from olmix_jax.utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Expansion:
    """The size of every domain in two vocabularies.

    Weights, domain sizes N_j and the target run R are in tokens of the corpus' tokenizer, which the target run has.
    Lengths and steps of proxies and validation models are in tokens of ``proxy.vocabulary``.

    Attributes:
      vocabulary: entries of the proxies' vocabulary.
      tokens: tokens of each domain by the corpus' tokenizer.
      proxy_tokens: tokens of the same text in the proxies' vocabulary.
    """

    SCHEMA = 1

    vocabulary: int
    tokens: dict[str, int]
    proxy_tokens: dict[str, int]

    @property
    def mean(self) -> float:
        """Proxy tokens per token of the whole corpus, and so of the natural mixture."""
        return sum(self.proxy_tokens.values()) / sum(self.tokens.values())

    def by_domain(self, names: tuple[str, ...]) -> tuple[float, ...]:
        """Return the proxy tokens per token of these domains."""
        return tuple(self.proxy_tokens[name] / self.tokens[name] for name in names)

    @classmethod
    def read(cls, path: str | os.PathLike) -> "Expansion":
        """Read ``corpus/proxy/tokens.json``.

        Raises:
          UserError: the file is missing or invalid.
        """
        result = records.read(path, cls, "prepare")
        if result.tokens.keys() != result.proxy_tokens.keys() or not all(n > 0 for n in result.tokens.values()):
            raise UserError(f"{path}: needs tokens and proxy_tokens of the same domains; rerun --stages=prepare")
        return result

    def write(self, path: str | os.PathLike) -> None:
        """Write ``corpus/proxy/tokens.json`` atomically."""
        records.write(path, self)


def sequences(counts_M: np.ndarray, factors: tuple[float, ...]) -> np.ndarray:
    """Return the sequences to read for a mixture of ``counts_M``, counted in tokens of the corpus' tokenizer.

    A domain whose text has more proxy tokens per token needs more sequences for the same weight. The numbers are
    proportional to counts · factor, rounded as in :func:`olmix_jax.swarm.apportion.snap`, with the same sum. A domain
    with sequences keeps at least one.

    Args:
      counts_M: int ≥ 0.
      factors: proxy tokens per token, by domain; empty if all are 1.
    """
    if not factors or not counts_M.any():
        return counts_M
    result_M = apportion.snap(counts_M * np.array(factors), int(counts_M.sum()))
    for j in np.flatnonzero((counts_M > 0) & (result_M == 0)):
        result_M[j] += 1
        result_M[result_M.argmax()] -= 1
    return result_M
