"""Lines that are in two domains, or twice in one: the same text cut into other documents, as .txt and as .jsonl."""

import hashlib
import zlib
from collections.abc import Iterable, Mapping

from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log

# Shorter lines are in many texts: brackets, headings, imports.
_CHARACTERS = 40
# Distinct lines of a domain that are kept, those with the smallest hashes; and the fewest that a share is taken of.
_KEPT, _FEWEST = 1 << 13, 50
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

    def add(self, domain: str, text: str) -> None:
        """Add a document of a domain."""
        lines = [line.strip() for line in text.split("\n") if len(line) >= _CHARACTERS]
        self.add_parts(domain, [line.encode() for line in lines if len(line) >= _CHARACTERS])

    def add_parts(self, domain: str, parts: Iterable[bytes]) -> None:
        """Add the parts of a document of a domain, such as lines, by which it is compared."""
        self._samples.setdefault(domain, _Sample()).add(parts)

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
        self.limit, self.counts = 1 << 32, dict[int, int]()

    def add(self, parts: Iterable[bytes]) -> None:
        """Add the lines of a document."""
        keys, limit, checksum = set(), self.limit, zlib.crc32
        for data in parts:
            short = checksum(data)  # fast; most lines are not below the limit
            if short < limit:
                keys.add(short << 64 | int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big"))
        for key in keys:
            self.counts[key] = self.counts.get(key, 0) + 1
        while len(self.counts) > 2 * _KEPT:
            self.limit //= 2
            self.counts = {key: count for key, count in self.counts.items() if key >> 64 < self.limit}

    def below(self, limit: int) -> set[int]:
        """Return the lines with hashes below a limit."""
        return {key for key in self.counts if key >> 64 < limit}
