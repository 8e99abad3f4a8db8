"""Read, clean and split the text of all domains on disk, in memory that does not grow with the size of the text."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Iterator

import numpy as np

from olmix_jax.config.schema import Config
from olmix_jax.config.workdir import ancestors
from olmix_jax.corpus import holdout, readers, repeated, sources
from olmix_jax.corpus.duplicates import Fingerprints
from olmix_jax.corpus.shared_lines import SharedLines
from olmix_jax.corpus.spool import Spool
from olmix_jax.corpus.workers import Workers
from olmix_jax.utils.progress import Progress


@dataclasses.dataclass(frozen=True)
class DomainText:
    """The text of a domain, without near-identical documents.

    Attributes:
      spool: the documents, with name and content hash of the domain.
      train, heldout: rows of the spool, in the order of the training text.
      skipped: number of documents that are not valid.
      repeats: documents that repeat others.
    """

    spool: Spool
    train: np.ndarray
    heldout: np.ndarray
    skipped: int
    repeats: repeated.Repeats

    @property
    def name(self) -> str:
        """The name of the domain."""
        return self.spool.name

    @property
    def bytes(self) -> int:
        """Bytes of training text."""
        return int(self.train["size"].sum(dtype=np.int64))

    @property
    def kept_bytes(self) -> int:
        """Bytes of all text, training and held out."""
        return self.bytes + int(self.heldout["size"].sum(dtype=np.int64))


def collect(
    config: Config, folder: pathlib.Path, seed: int, share: float, several: Workers | None = None
) -> list[DomainText]:
    """Read all domains into ``folder``, drop near-identical documents and hold out a share of each domain.

    Args:
      config: the config.
      folder: where spools are written.
      seed: of the order of documents and of the split.
      share: of each domain's text that is held out.
      several: processes that compare documents and lines; None for this one.

    Raises:
      UserError: text cannot be read, a file or a domain repeats another one, or a domain has no text.
    """
    skipped, lines = readers.Skipped(), SharedLines()
    if config.corpus.path:
        spools = sources.read_user_text(config.corpus, folder, seed, skipped, lines, several)
        rows_of = [holdout.passages(spool, share) for spool in spools]
    else:
        # The built-in tasks need whole files, so they are not cut into passages.
        spools = sources.read_builtin(config.corpus, folder, seed)
        rows_of = [spool.rows() for spool in spools]
    skipped.log()
    starts, first_D = _fingerprint(config, folder, spools, rows_of, several)
    result = []
    for number, (spool, rows) in enumerate(zip(spools, rows_of)):
        own = np.arange(starts[number], starts[number + 1])
        domain_first_D = first_D[own]
        kept = domain_first_D == own
        owner_D = np.searchsorted(starts, domain_first_D, side="right") - 1
        by_domain = {}
        for other in np.unique(owner_D[(owner_D >= 0) & (owner_D != number)]):
            sizes = rows["size"][owner_D == other]
            by_domain[spools[other].name] = (len(sizes), int(sizes.sum(dtype=np.int64)))
        total = int(rows["size"].sum(dtype=np.int64))
        names = _example(spools, rows_of, starts, number, domain_first_D)
        repeats = repeated.Repeats(spool.name, len(rows), total, int(kept.sum()), by_domain, names)
        clean = rows[kept]
        clean = clean[np.argsort(clean["order"], kind="stable")]
        is_heldout = holdout.split(clean, share)
        result.append(DomainText(spool, clean[~is_heldout], clean[is_heldout], skipped.count(spool.name), repeats))
    repeated.check([domain.repeats for domain in result])
    sizes = {domain.name: max(1, domain.repeats.bytes) for domain in result}
    shared: dict[tuple[str, str], float] = {}
    for name, other, size in ((d.name, o, size) for d in result for o, (_, size) in d.repeats.by_domain.items()):
        shared |= {(name, other): size / sizes[name], (other, name): size / sizes[other]}
    lines.check({domain.name: 1 - domain.kept_bytes / sizes[domain.name] for domain in result}, shared)
    return result


def _fingerprint(
    config: Config,
    folder: pathlib.Path,
    spools: list[Spool],
    rows_of: list[np.ndarray],
    several: Workers | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Compare all documents.

    Returns:
      The number of the first document of each domain, and one past the last; and for each document the number of the
      first one that is near-identical to it. Text that was held out earlier has the first numbers, so no copy of it is
      kept.
    """
    size = sum(int(rows["size"].sum(dtype=np.int64)) for rows in rows_of)
    prints = Fingerprints(folder / "fingerprints")
    try:
        prints.add(held_out_earlier(config.update.parent))
        starts = np.cumsum([prints.documents, *map(len, rows_of)])
        with Progress("fingerprint", size, "bytes") as progress:
            for spool, rows in zip(spools, rows_of):
                texts = (stored.text.decode() for stored in spool.read(rows))
                prints.add(texts, several, functools.partial(progress.advance, note=spool.name))
        return starts, prints.firsts()
    finally:
        prints.close()


def _example(
    spools: list[Spool], rows_of: list[np.ndarray], starts: np.ndarray, number: int, first_D: np.ndarray
) -> tuple[str, str] | tuple[()]:
    """Return the names of a document of domain ``number`` that repeats another one, and of that one."""
    own = np.arange(starts[number], starts[number + 1])
    repeats = np.flatnonzero((first_D != own) & (first_D >= starts[0]))
    if not len(repeats):
        return ()
    places = own[repeats[0]], first_D[repeats[0]]
    owners = [int(np.searchsorted(starts, place, side="right")) - 1 for place in places]
    one, two = (
        next(spools[k].read(rows_of[k][[place - starts[k]]])).name for k, place in zip(owners, places, strict=True)
    )
    return one, two


def held_out_earlier(parent: str) -> Iterator[str]:
    """Yield the held-out documents of an update's parent and of all its ancestors. Tasks are made from them."""
    for workdir in ancestors(pathlib.Path(parent)) if parent else ():
        for path in sorted((workdir / "corpus" / "heldout").glob("*.jsonl")):
            with open(path, encoding="utf-8", newline="\n") as f:
                yield from (json.loads(line)["text"] for line in f if line.strip())
