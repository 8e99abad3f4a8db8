"""The first of near-identical documents is found, whatever is sorted and compared at once."""

import numpy as np
import pytest

from olmix_jax.corpus import duplicates
from tests.corpus.test_minhash import jaccard
from tests.corpus.texts import prose


@pytest.fixture
def firsts(tmp_path):
    """Return a function that compares texts."""

    def compare(texts: list[str], batch: int = 7) -> list[int]:
        prints = duplicates.Fingerprints(tmp_path / "prints")
        for start in range(0, len(texts), batch):
            prints.add(texts[start : start + batch])
        result = prints.firsts().tolist()
        prints.close()
        return result

    return compare


def test_first_of_near_identical_documents_is_found(firsts):
    text = prose(1)
    edited = text.replace("data", "DATA", 1).replace(text.split()[100], "changed", 1)
    texts = [text, prose(2), "  \n ", text.upper().replace(" ", "\n  "), edited, prose(3), text]
    assert firsts(texts) == [0, 1, -1, 0, 0, 5, 0]


def test_short_documents_are_compared_exactly(firsts):
    assert firsts(["x = 1", "x = 2", "X  =  1", "y"]) == [0, 1, 0, 3]
    assert firsts([]) == []


@pytest.mark.parametrize("at_once", [1 << 20, 3])
def test_detected_pairs_agree_with_brute_force(firsts, monkeypatch, at_once):
    """Among 400 documents every pair well above the threshold is detected, and none well below."""
    for name in ("_PAIRS", "_KEYS", "_FEW"):
        monkeypatch.setattr(duplicates, name, 40 * at_once)
    rng = np.random.default_rng(0)
    originals, copies = [prose(i, 150) for i in range(1, 200)], []
    for i, text in enumerate(originals):
        words = text.split()
        for position in rng.integers(0, len(words), [1, 30][i % 2]):
            words[position] = f"edit{position}"
        copies.append(" ".join(words))
    exact = [jaccard(a, b) for a, b in zip(originals, copies)]
    assert min(exact[::2]) > 0.9 and max(exact[1::2]) < 0.65
    expected = [*range(199), *(i if i % 2 == 0 else 199 + i for i in range(199))]
    assert firsts(originals + copies) == expected


def test_chain_of_near_identical_documents_repeats_the_first(firsts):
    base = prose(1, 400).split()
    chain = [" ".join([*base[: 10 * i], *(f"new{w}" for w in range(10)), *base[10 * i + 10 :]]) for i in range(30)]
    assert firsts(chain) == [0] * 30


def test_two_groups_that_a_later_document_joins_are_one(firsts):
    """The ends of a chain are not similar, but the document between them, which comes last, is similar to both."""
    base = prose(1, 400).split()
    ends = [" ".join(base[a : a + 340]) for a in (0, 60)]
    assert jaccard(*ends) < 0.75
    assert firsts([*ends, " ".join(base[30:370])]) == [0, 0, 0]
