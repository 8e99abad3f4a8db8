"""Documents for the tests of the corpus."""

import dataclasses
import pathlib
import tempfile

import numpy as np

from olmix_jax.config.schema import Corpus
from olmix_jax.corpus import readers, sources
from olmix_jax.corpus.readers import Document

WORDS = "data model token law weight mixture proxy loss domain train swarm solver cap epoch batch value".split()


def prose(seed: int, words: int = 200) -> str:
    """Return a text that is different for every seed: no two are near-identical."""
    picks = np.random.default_rng(seed).integers(0, len(WORDS), words)
    return "".join(f"{WORDS[p]}{p * seed % 97}{' ' if i % 12 else chr(10)}" for i, p in enumerate(picks, 1)).strip()


@dataclasses.dataclass(frozen=True)
class Read:
    """The documents of each domain, its content hash, and what was left out."""

    documents: dict[str, list[Document]]
    content: dict[str, str]
    skipped: readers.Skipped = dataclasses.field(default_factory=readers.Skipped)


def read_domains(path: pathlib.Path, max_bytes: int = 0, skip_bad: bool = False) -> Read:
    """Read text as ``prepare`` does."""
    skipped = readers.Skipped()
    with tempfile.TemporaryDirectory() as folder:
        corpus = Corpus(path=str(path), max_bytes=max_bytes, skip_bad=skip_bad)
        spools = sources.read_user_text(corpus, pathlib.Path(folder), 0, skipped)
        rows = {spool.name: list(spool.read(spool.rows())) for spool in spools}
    documents = {name: [Document(d.text.decode(), d.name) for d in stored] for name, stored in rows.items()}
    return Read(documents, {spool.name: spool.content for spool in spools}, skipped)


def texts_of(documents: list[Document]) -> list[str]:
    return [d.text for d in documents]
