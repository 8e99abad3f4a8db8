"""Near-identical documents are removed, and the split keeps groups together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix_jax.corpus import clean
from tests.corpus.texts import document, prose, texts_of


def test_first_of_near_identical_documents_is_kept():
    text = prose(1)
    edited = text.replace("data", "DATA", 1).replace(text.split()[100], "changed", 1)
    domains = {
        "a": [document(text, "a1"), document(prose(2), "a2"), document("  \n ", "blank")],
        "b": [document(text.upper().replace(" ", "\n  "), "b1"), document(edited, "b2"), document(prose(3), "b3")],
    }
    result = clean.deduplicate(domains)
    assert {n: [d.source for d in documents] for n, documents in result.kept.items()} == {
        "a": ["a1", "a2"],
        "b": ["b3"],
    }
    assert result.dropped == {"a": 1, "b": 2}


def test_short_documents_are_compared_exactly():
    documents = [document(t, t) for t in ("x = 1", "x = 2", "X  =  1", "y")]
    assert texts_of(clean.deduplicate({"a": documents}).kept["a"]) == ["x = 1", "x = 2", "y"]


def test_domains_without_documents_stay_empty():
    assert clean.deduplicate({"a": [], "b": []}) == clean.Deduplicated({"a": [], "b": []}, {"a": 0, "b": 0})


def shingles(text: str) -> set[bytes]:
    normalised = " ".join(text.lower().split()).encode()
    return {normalised[i : i + clean.SHINGLE] for i in range(len(normalised) - clean.SHINGLE + 1)}


def jaccard(a: str, b: str) -> float:
    return len(shingles(a) & shingles(b)) / len(shingles(a) | shingles(b))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(20, 2000), st.floats(0, 0.3))
def test_similarity_estimates_the_jaccard_similarity(seed, length, changed):
    rng = np.random.default_rng(seed)
    original = prose(seed + 1, length).split()
    copy = [f"other{i}" if rng.random() < changed else w for i, w in enumerate(original)]
    a, b = " ".join(original), " ".join(copy)
    exact = jaccard(a, b)
    signatures = np.stack([clean.signature(t.encode()) for t in (a, b)])
    estimate = clean.similarity(signatures[:1], signatures[1:])[0]
    # Five standard errors of 128 bins, and 0.02 for texts with so few shingles that bins are empty.
    assert abs(estimate - exact) < 5 * np.sqrt(max(exact * (1 - exact), 0.01) / clean.BINS) + 0.02


def test_detected_pairs_agree_with_brute_force():
    """Among 400 documents every pair well above the threshold is detected, and none well below."""
    rng = np.random.default_rng(0)
    originals, copies = [prose(i, 150) for i in range(1, 200)], []
    for i, text in enumerate(originals):
        words = text.split()
        for position in rng.integers(0, len(words), [1, 30][i % 2]):
            words[position] = f"edit{position}"
        copies.append(" ".join(words))
    exact = [jaccard(a, b) for a, b in zip(originals, copies)]
    assert min(exact[::2]) > 0.9 and max(exact[1::2]) < 0.65
    result = clean.deduplicate({"a": [document(t, str(i)) for i, t in enumerate(originals + copies)]})
    assert texts_of(result.kept["a"]) == originals + copies[1::2]
    assert result.dropped == {"a": 100}


def test_chain_of_near_identical_documents_keeps_one():
    base = prose(1, 400).split()
    chain = [" ".join([*base[: 10 * i], *(f"new{w}" for w in range(10)), *base[10 * i + 10 :]]) for i in range(30)]
    result = clean.deduplicate({"a": [document(t, str(i)) for i, t in enumerate(chain)]})
    assert len(result.kept["a"]) == 1


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 8)), min_size=1, max_size=60),
    st.sampled_from([0.0, 0.05, 0.1, 0.3]),
    st.integers(0, 5),
)
def test_split_keeps_groups_together_and_documents_in_order(rows, share, seed):
    documents = [document("x" * size, f"{i}", f"g{group}") for i, (size, group) in enumerate(rows)]
    sides = clean.split(documents, share, seed)
    assert sorted(sides.train + sides.heldout, key=lambda d: int(d.source)) == documents
    assert not {d.group for d in sides.train} & {d.group for d in sides.heldout}
    assert sides.train
    groups = {d.group for d in documents}
    assert bool(sides.heldout) == (share > 0 and len(groups) > 1)
    assert clean.split(documents, share, seed) == sides


def test_split_holds_out_the_share_of_bytes_and_depends_on_the_seed():
    documents = [document(prose(i, 10 + i % 90), f"{i}") for i in range(1000)]
    size = sum(len(d.text) for d in documents)
    heldout = [clean.split(documents, 0.1, seed).heldout for seed in (0, 1)]
    for side in heldout:
        assert sum(len(d.text) for d in side) == pytest.approx(0.1 * size, rel=0.02)
    assert len(set(heldout[0]) & set(heldout[1])) < 50
