"""Text that is in two places: files and domains that repeat others are errors, documents are counted."""

import dataclasses
from collections.abc import Sequence

from olmix_jax.corpus.readers import Document
from olmix_jax.swarm.domains import CONTENT_MODULUS
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import counted, log

# Repeated text of a domain below this share is logged as information, above it as a warning.
_NOTABLE = 0.01


class FileContents:
    """The contents of the files read so far, by which a file that repeats another one is detected.

    What counts is the documents of a file, not its name, compression or their order. A file of one document is a
    document: it is dropped if it is repeated, and counted.
    """

    def __init__(self) -> None:
        # {(sum of the hashes of the documents, their number): path}
        self._paths: dict[tuple[int, int], str] = {}
        self._sum, self._documents = 0, 0

    def add(self, document: Document) -> None:
        """Add a document of the current file."""
        self._sum += document.digest
        self._documents += 1

    def end_file(self, path: str) -> None:
        """End the current file.

        Raises:
          UserError: it has the same documents as an earlier file.
        """
        content, documents = (self._sum % CONTENT_MODULUS, self._documents), self._documents
        self._sum, self._documents = 0, 0
        if documents > 1 and (first := self._paths.setdefault(content, path)) != path:
            raise UserError(
                f"{path} repeats {first}: both have the same {counted(documents, 'document')}, which would count "
                "twice; remove one of them"
            )


@dataclasses.dataclass(frozen=True)
class Repeats:
    """Documents of a domain that repeat others.

    Attributes:
      name: the domain.
      documents, bytes: all its documents, and their size.
      kept: documents that repeat no other.
      by_domain: number and bytes of documents that repeat one of another domain, by that domain.
      example: names of a document that repeats another one, and of that one; empty if there is none.
    """

    name: str
    documents: int
    bytes: int
    kept: int
    by_domain: dict[str, tuple[int, int]]
    example: tuple[str, str] | tuple[()] = ()

    def share(self, other: str) -> float:
        """Return the share of the domain's bytes that is also in another domain."""
        return self.by_domain[other][1] / max(1, self.bytes)

    @property
    def summary(self) -> str:
        """How much of the text is in other domains, in brackets; empty if none is."""
        shares = [f"{self.share(other):.0%} of its text is in {other}" for other in self.by_domain]
        return f" ({', '.join(shares)})" if shares else ""

    def log(self) -> None:
        """Log how many documents repeat others, and the shares that repeat other domains."""
        if self.example:
            log.info(
                "%s: %s of %s repeated, such as %s, which is near-identical to %s; the first counts",
                *(self.name, f"{self.documents - self.kept:,}", counted(self.documents, "document"), *self.example),
            )
        for other, (documents, _) in self.by_domain.items():
            share = self.share(other)
            level = log.warning if share >= _NOTABLE else log.info
            level(
                "%s: %s of %s (%.3g %% of its bytes) are also in %s, where they count",
                *(self.name, f"{documents:,}", counted(self.documents, "document"), 100 * share, other),
            )


def check(domains: Sequence[Repeats]) -> None:
    """Log the text that domains share.

    Raises:
      UserError: a domain has no document that is not in another one.
    """
    for domain in domains:
        if domain.by_domain and not domain.kept:
            other, (documents, _) = max(domain.by_domain.items(), key=lambda item: item[1])
            raise UserError(
                f"domain {domain.name} repeats domain {other}: {documents:,} of its "
                f"{counted(domain.documents, 'document')} are also in {other}, and none is only in {domain.name}, so "
                f"its text would count twice; remove {domain.name}, or its text from {other}"
            )
        domain.log()
