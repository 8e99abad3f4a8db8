"""Documents for the tests of the corpus."""

import numpy as np

from olmix_jax.corpus.readers import Document

WORDS = "data model token law weight mixture proxy loss domain train swarm solver cap epoch batch value".split()


def prose(seed: int, words: int = 200) -> str:
    """Return a text that is different for every seed: no two are near-identical."""
    picks = np.random.default_rng(seed).integers(0, len(WORDS), words)
    return "".join(f"{WORDS[p]}{p * seed % 97}{' ' if i % 12 else chr(10)}" for i, p in enumerate(picks, 1)).strip()


def document(text: str, name: str, group: str = "") -> Document:
    return Document(text, name, group or name)


def texts_of(documents: list[Document]) -> list[str]:
    return [d.text for d in documents]
