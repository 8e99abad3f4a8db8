"""Documents are read back in any order, and passages join to the document."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix_jax.corpus.readers import Document
from olmix_jax.corpus.spool import Spool, content_of
from tests.corpus.texts import prose


def spool_of(path, texts: list[str], seed: int = 0) -> Spool:
    spool = Spool("web", path, seed)
    spool.write(Document(text, f"tëxt/{i}") for i, text in enumerate(texts))
    return spool


def test_documents_are_read_back_in_any_order(tmp_path):
    texts = ["eins", "zwei ünï", "🙂" * 3, "x"]
    spool = spool_of(tmp_path / "a", texts)
    order = [2, 0, 3, 1]
    stored = list(spool.read(spool.rows()[order]))
    assert [d.text.decode() for d in stored] == [texts[i] for i in order]
    assert [d.name for d in stored] == [f"tëxt/{i}" for i in order]
    assert spool.rows()["characters"].tolist() == [4, 8, 3, 1]


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.text(st.sampled_from("aé🙂 \n"), min_size=1, max_size=200), min_size=1, max_size=4), st.integers(8, 50)
)
def test_passages_join_to_the_document(tmp_path_factory, texts, longest):
    spool = spool_of(tmp_path_factory.mktemp("spool") / "a", texts)
    rows = spool.cut(spool.rows(), longest)
    assert (rows["size"] <= longest).all()
    stored = list(spool.read(rows))
    assert b"".join(d.text for d in stored).decode() == "".join(texts)
    assert len({d.name for d in stored}) == len(stored)
    assert rows["characters"].sum() == sum(map(len, texts))


def test_content_hash_ignores_names_and_order_and_adds_up(tmp_path):
    assert spool_of(tmp_path / "a", ["a", "b"]).content == content_of([b"b", b"a"])
    total = int(content_of([b"a", b"b"]), 16) + int(content_of([b"c"]), 16)
    assert int(content_of([b"a", b"b", b"c"]), 16) == total % 2**128
    assert content_of([b"a", b"b"]) != content_of([b"a", b"B"])


def test_digest_depends_on_names_texts_and_order(tmp_path):
    texts = [prose(1), prose(2)]
    spool = spool_of(tmp_path / "a", texts)
    rows = spool.rows()
    digests = [spool.digest(rows), spool.digest(rows[::-1]), spool.digest(rows[:1])]
    other = spool_of(tmp_path / "b", [prose(1), prose(3)])
    digests.append(other.digest(other.rows()))
    assert len(set(digests)) == 4
    assert spool_of(tmp_path / "c", texts).digest(np.array(rows)) == digests[0]
