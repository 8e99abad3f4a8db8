"""Lines that are in two domains, or twice in one: the same text cut into other documents, as .txt and as .jsonl."""

import hashlib
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from olmix_jax.corpus.text_streams import batches
from olmix_jax.corpus.workers import Answer, Workers
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log

# Shorter lines, in bytes, are in many texts: brackets, headings, imports.
_SHORTEST = 40
# Distinct lines of a domain that are kept, those with the smallest hashes; and the fewest that a share is taken of.
_KEPT, _FEWEST = 1 << 13, 50
# Characters of text that are worked on at once.
_BATCH = 1 << 18
# Shares of a domain's lines, beyond those of documents that were dropped. Lines of legal notices and menus are in many
# pages, but few of all different lines are.
_NOTABLE, _TWICE, _MOST, _ALL = 0.1, 0.4, 0.5, 0.9


class SharedLines:
    """A sample of the different lines of each domain, from which the share is estimated that another domain has too.

    The sample depends on the text only: a line is in the samples of all domains that have it, as far as these reach.
    Of token files the documents are compared instead.

    Args:
      part: what is compared, in the plural, for messages.
      whole: what has these parts.
    """

    def __init__(self, part: str = "lines", whole: str = "documents") -> None:
        self._part, self._whole = part, whole
        self._samples: dict[str, _Sample] = {}

    def add(self, domain: str, *texts: str) -> None:
        """Add documents of a domain."""
        self.add_texts(domain, texts)

    def add_texts(self, domain: str, texts: Iterable[str], several: Workers | None = None) -> None:
        """Add documents of a domain.

        Args:
          domain: the domain.
          texts: the documents, which are consumed one by one.
          several: processes that compute the hashes of lines; None for this one.
        """
        cut, sample = batches(texts, _BATCH), self._samples.setdefault(domain, _Sample())
        for (keys,) in several.map("lines", cut) if several else map(_line_keys, cut):
            sample.add(np.frombuffer(keys, np.uint64))

    def add_parts(self, domain: str, parts: Iterable[bytes]) -> None:
        """Add the parts of a document of a domain, such as lines, by which it is compared."""
        self._samples.setdefault(domain, _Sample()).add(_keys(parts))

    def share(self, domain: str, other: str) -> float:
        """Return the share of a domain's lines that are also in another domain; 0 if too few lines are known."""
        one, two = self._samples[domain], self._samples[other]
        limit = min(one.limit, two.limit)
        mine, their = one.below(limit), two.below(limit)
        return len(mine & their) / len(mine) if len(mine) >= _FEWEST else 0.0

    def repeated(self, domain: str) -> float:
        """Return the share of a domain's lines that it has in several documents; 0 if too few lines are known."""
        counts = self._samples[domain].counts
        return sum(count > 1 for count in counts.values()) / len(counts) if len(counts) >= _FEWEST else 0.0

    def check(self, dropped: Mapping[str, float], shared: Mapping[tuple[str, str], float]) -> None:
        """Log lines that are twice in a domain or in two of them, apart from those of near-identical documents.

        Args:
          dropped: share of each domain's text that was dropped, because near-identical documents repeat it.
          shared: share of a domain's text that is in near-identical documents of another one: {(domain, other): share}.

        Raises:
          UserError: the lines of a domain are also in another one.
        """
        names = list(self._samples)
        for name in names:
            lost = dropped.get(name, 0.0)
            # A dropped text has as many lines as the text that is kept for it.
            twice = self.repeated(name) - lost / max(1e-9, 1 - lost)
            if twice >= _TWICE:
                log.warning(
                    "%s: %.0f %% of its %s are in several of its %s; its text may count twice",
                    *(name, 100 * twice, self._part, self._whole),
                )
        for name, other in ((a, b) for a in names for b in names if a != b):
            share, dropped_share = self.share(name, other), shared.get((name, other), 0.0)
            if share >= _ALL and share - dropped_share >= _MOST:
                raise UserError(
                    f"domain {name} repeats domain {other}: {share:.0%} of its {self._part} are also in {other}, "
                    f"in other {self._whole}, so its text would count twice; remove {name}, or its text from {other}"
                )
            if share >= _NOTABLE + 1.25 * dropped_share:  # lines and bytes differ, and a sample has an error
                log.warning(
                    "%s: %.0f %% of its %s are also in %s, in other %s, and count in both",
                    *(name, 100 * share, self._part, other, self._whole),
                )


class _Sample:
    """The lines of a domain with hashes below a limit, and how many documents have them."""

    def __init__(self) -> None:
        self.limit, self.counts = (1 << 64) - 1, dict[int, int]()

    def add(self, keys: np.ndarray) -> None:
        """Add the hashes of lines: of each document those of its different lines, uint64."""
        for key in keys[keys < self.limit].tolist():
            self.counts[key] = self.counts.get(key, 0) + 1
        while len(self.counts) > 2 * _KEPT:
            self.limit //= 2
            self.counts = {key: count for key, count in self.counts.items() if key < self.limit}

    def below(self, limit: int) -> set[int]:
        """Return the lines with hashes below a limit."""
        return {key for key in self.counts if key < limit}


def task(_: bytes) -> Callable[[list[str]], Answer]:
    """Return the function that computes the hashes of lines in another process."""
    return _line_keys


def _line_keys(texts: Iterable[str]) -> Answer:
    """Return the hashes of each text's different lines, one text after another, uint64."""
    keys = []
    for text in texts:
        lines = (line.strip() for line in text.encode().split(b"\n") if len(line) >= _SHORTEST)
        keys.append(_keys(line for line in lines if len(line) >= _SHORTEST))
    return [np.concatenate(keys).tobytes()]


def _keys(parts: Iterable[bytes]) -> np.ndarray:
    """Return the hashes of the different parts of a document, uint64."""
    return np.frombuffer(b"".join(hashlib.blake2b(part, digest_size=8).digest() for part in set(parts)), np.uint64)
