"""Signatures estimate the similarity of texts."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix_jax.corpus import minhash
from tests.corpus.texts import prose


def shingles(text: str) -> set[bytes]:
    normalised = minhash.normalised(text)
    return {normalised[i : i + minhash.SHINGLE] for i in range(len(normalised) - minhash.SHINGLE + 1)}


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
    signatures = minhash.signatures([t.encode() for t in (a, b)])
    estimate = minhash.similarity(signatures[:1], signatures[1:])[0]
    # Five standard errors of 128 bins, and 0.02 for texts with so few shingles that bins are empty.
    assert abs(estimate - exact) < 5 * np.sqrt(max(exact * (1 - exact), 0.01) / minhash.BINS) + 0.02


@settings(deadline=None, max_examples=50)
@given(st.lists(st.binary(max_size=60), max_size=8), st.sampled_from([1, 7, 1 << 18]))
def test_signatures_do_not_depend_on_the_other_texts_and_windows(texts, window):
    alone = [minhash.signatures([text])[0] for text in texts]
    before, minhash._WINDOW = minhash._WINDOW, window
    try:
        together = minhash.signatures(texts)
    finally:
        minhash._WINDOW = before
    assert together.shape == (len(texts), minhash.BINS)
    assert all((row == single).all() for row, single in zip(together, alone))


def test_band_of_empty_bins_has_key_zero():
    signatures_DB = minhash.signatures([b"short", b"x" * 16, prose(1).encode()])
    keys = minhash.bands(signatures_DB)
    assert keys.shape == (32, 3) and not keys[:, 0].any() and (keys[:, 1] != 0).sum() == 1 and keys[:, 2].all()
