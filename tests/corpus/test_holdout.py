"""The share asked is held out, by bytes, and nothing that is held out stays in training."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix_jax.corpus import holdout
from olmix_jax.corpus.readers import Document
from olmix_jax.corpus.spool import Spool
from tests.corpus.texts import prose

SIZES = st.lists(st.integers(1, 50), min_size=1, max_size=60)


@settings(deadline=None, max_examples=100)
@given(SIZES, st.sampled_from([0.0, 0.05, 0.1, 0.3]), st.integers(0, 5))
def test_choice_keeps_text_on_both_sides(sizes, share, seed):
    hashes = np.random.default_rng(seed).permutation(len(sizes)).astype(np.uint64)
    for choice in (holdout.choose, holdout.closest):
        chosen = choice(np.array(sizes), hashes, share)
        assert chosen.dtype == bool and not chosen.all()
        assert chosen.any() == (share > 0 and len(sizes) > 1)


def test_choice_holds_out_the_share_and_depends_on_the_hashes():
    rng = np.random.default_rng(0)
    sizes, draws = rng.integers(10, 100, 1000), [rng.permutation(1000).astype(np.uint64) for _ in range(2)]
    for choice in (holdout.choose, holdout.closest):
        chosen = [choice(sizes, hashes, 0.1) for hashes in draws]
        assert all(sizes[c].sum() == pytest.approx(0.1 * sizes.sum(), rel=0.02) for c in chosen)
        assert (chosen[0] & chosen[1]).sum() < 50


@pytest.mark.parametrize(
    ("documents", "share"),
    [
        ([prose(1, 40_000), prose(2, 40_000)], 0.1),
        ([prose(1, 40_000)], 0.3),
        ([prose(1, 60_000), *(prose(i, 20) for i in range(2, 40))], 0.1),
        ([f"{prose(i, 3000)} " * 3 for i in range(12)], 0.1),
        (["word" * 50_000, prose(1, 3000)], 0.2),
    ],
    ids=["two large", "one", "one large, many small", "twelve", "no borders"],
)
def test_share_is_held_out_of_few_or_uneven_documents(tmp_path, documents, share):
    spool = Spool("web", tmp_path / "web", 0)
    spool.write(Document(text, str(i)) for i, text in enumerate(documents))
    rows = holdout.passages(spool, share)
    size = sum(len(text.encode()) for text in documents)
    assert rows["size"].sum() == size
    assert b"".join(stored.text for stored in spool.read(rows)).decode() == "".join(documents)
    held = rows["size"][holdout.split(rows, share)].sum()
    assert held == pytest.approx(share * size, rel=0.05)


def test_ordinary_documents_stay_whole(tmp_path):
    spool = Spool("web", tmp_path / "web", 0)
    spool.write(Document(prose(i, 50 + i % 400), str(i)) for i in range(300))
    assert (holdout.passages(spool, 0.1)["passage"] == -1).all()
    assert (holdout.passages(spool, 0.0)["passage"] == -1).all()
