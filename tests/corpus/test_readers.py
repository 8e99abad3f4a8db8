"""Text is read completely or refused with the file's name, and thinned to the same share in every domain."""

import gzip
import json
import pathlib

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix_jax.corpus import readers
from olmix_jax.utils.errors import UserError
from tests.corpus.texts import document, prose, texts_of


@pytest.fixture
def corpus(tmp_path) -> pathlib.Path:
    """Three domains: a folder, a JSONL file, and a compressed JSONL file of two frames."""
    root = tmp_path / "corpus"
    (root / "web" / "deep").mkdir(parents=True)
    (root / "web" / "b.txt").write_text("zweiter Text\n", encoding="utf-8")
    (root / "web" / "a.md").write_bytes("\ufefferster Töxt\r\n".encode())
    (root / "web" / "deep" / "c.txt.gz").write_bytes(gzip.compress(b"dritter"))
    (root / "web" / "image.png").write_bytes(b"\x89PNG")
    (root / ".hidden").mkdir()
    rows = "".join(json.dumps({"text": t, "id": 3}) + "\n\n" for t in ("eins", "zwei", "drei"))
    (root / "code.v2.jsonl").write_text(rows, encoding="utf-8")
    half = len(rows) // 2
    compress = zstandard.ZstdCompressor().compress
    (root / "arxiv.jsonl.zst").write_bytes(compress(rows[:half].encode()) + compress(rows[half:].encode()))
    return root


def test_every_file_type_is_read_in_sorted_order(corpus):
    domains = readers.read_domains(corpus).documents
    assert list(domains) == ["arxiv", "code.v2", "web"]
    assert texts_of(domains["arxiv"]) == texts_of(domains["code.v2"]) == ["eins", "zwei", "drei"]
    assert texts_of(domains["web"]) == ["erster Töxt\r\n", "zweiter Text\n", "dritter"]
    assert [d.source for d in domains["web"]] == ["web/a.md", "web/b.txt", "web/deep/c.txt.gz"]
    assert domains["code.v2"][1].source == "code.v2.jsonl:3"


def test_block_size_does_not_change_the_documents(corpus, monkeypatch):
    expected = readers.read_domains(corpus)
    monkeypatch.setattr(readers, "_BLOCK", 3)
    assert readers.read_domains(corpus) == expected


def test_gzip_members_and_padding_are_read(corpus):
    (corpus / "web" / "d.txt.gz").write_bytes(gzip.compress(b"one ") + gzip.compress(b"two") + b"\0" * 100)
    assert "one two" in texts_of(readers.read_domains(corpus).documents["web"])


def test_single_text_is_cut_at_blank_lines_without_loss(tmp_path):
    paragraphs = [f"paragraph {i} " * 40 for i in range(100)]
    (tmp_path / "book.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")
    pieces = readers.read_domains(tmp_path).documents["book"]
    assert "".join(texts_of(pieces)) == "\n\n".join(paragraphs)
    assert len(pieces) > 5 and all(t.endswith("\n\n") for t in texts_of(pieces)[:-1])
    assert len({d.group for d in pieces}) == len(pieces)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bad.txt", "größer".encode("latin-1"), r"bad\.txt: not UTF-8 at byte 2.*iconv"),
        ("bad.jsonl", b'{"text": "a"}\n{"txt": "b"}\n', r"bad\.jsonl, line 2: no `text` field"),
        ("bad.jsonl", b'{"text": 3}\n', r"bad\.jsonl, line 1: no `text` field"),
        ("bad.jsonl", b'["text"]\n', r"bad\.jsonl, line 1: no `text` field"),
        ("bad.jsonl", b'{"text": "a"}\n{"text": "b', r"bad\.jsonl, line 2: not valid JSON"),
        ("bad.jsonl", b'{"text": "a"}\n\xff\n', r"bad\.jsonl, line 2: not UTF-8"),
        ("bad.jsonl", b'{"text": "\\ud83d"}\n', r"bad\.jsonl, line 1: .*surrogate"),
        ("bad.txt.gz", gzip.compress(prose(1).encode(), mtime=0)[:-9], r"bad\.txt\.gz: truncated.*again"),
        ("bad.txt.gz", b"not compressed", r"bad\.txt\.gz: truncated or not a gz file"),
        ("bad.txt.zst", zstandard.ZstdCompressor().compress(prose(1).encode())[:-9], r"bad\.txt\.zst: truncated"),
        ("bad.txt.zst", b"not compressed", r"bad\.txt\.zst: truncated or not a zst file"),
    ],
)
def test_damaged_file_is_named(corpus, name, content, message):
    (corpus / "web" / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        readers.read_domains(corpus)


def test_wrong_folder_layout_is_an_error_that_describes_the_right_one(corpus, tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist.*one sub-folder"):
        readers.read_domains(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is a file"):
        readers.read_domains(corpus / "code.v2.jsonl")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "x.pdf").touch()
    with pytest.raises(UserError, match="has no domain.*one sub-folder"):
        readers.read_domains(tmp_path / "none")
    (corpus / "other").mkdir()
    with pytest.raises(UserError, match="domain other: .* is empty; add .txt"):
        readers.read_domains(corpus)
    (corpus / "other" / "x.pdf").touch()
    with pytest.raises(UserError, match=r"domain other: .* has only \.pdf files; add \.txt"):
        readers.read_domains(corpus)


@pytest.mark.parametrize("max_bytes", [0, 10])
def test_domain_without_text_is_named(corpus, max_bytes):
    (corpus / "empty.jsonl").touch()
    with pytest.raises(UserError, match="domain empty: no text"):
        readers.read_domains(corpus, max_bytes)


def test_two_domains_of_the_same_name_are_an_error(corpus):
    (corpus / "web.txt").write_text("x")
    with pytest.raises(UserError, match="domain web is in .* twice"):
        readers.read_domains(corpus)


def test_files_of_other_types_are_logged(corpus, caplog):
    caplog.set_level("INFO", logger="olmix_jax")
    readers.read_domains(corpus)
    assert "ignored 1 files of other types, such as" in caplog.text and "image.png" in caplog.text


def test_thinning_keeps_a_subset_and_the_proportions_of_domains(tmp_path):
    for name, count in (("large", 900), ("small", 100)):
        rows = (json.dumps({"text": prose(i, 20)}) for i in range(count))
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    whole = readers.read_domains(tmp_path)
    sizes = {name: sum(map(len, texts_of(documents))) for name, documents in whole.documents.items()}
    thin = readers.read_domains(tmp_path, sum(sizes.values()) // 4)
    # The content hash describes the domain before thinning.
    assert thin.content == whole.content
    for name, documents in whole.documents.items():
        assert set(thin.documents[name]) < set(documents)
        assert sum(map(len, texts_of(thin.documents[name]))) == pytest.approx(sizes[name] / 4, abs=200)
    assert readers.read_domains(tmp_path, sum(sizes.values())) == whole


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(1, 100)), min_size=1, unique_by=lambda r: r[0]), st.data()
)
def test_cutoff_gives_the_size_closest_to_the_budget(rows, data):
    budget = data.draw(st.integers(0, 1000))
    hashes, sizes = zip(*rows)
    limit = readers.cutoff(hashes, sizes, budget)
    totals = np.cumsum([size for _, size in sorted(rows)])
    assert abs(sum(size for h, size in rows if h <= limit) - budget) == np.abs(totals - budget).min()


def test_content_hash_ignores_names_and_order_and_adds_up():
    one, two = [document("a", "x"), document("b", "y")], [document("c", "z")]
    assert readers.content_of(one) == readers.content_of([document("b", "p"), document("a", "q")])
    total = int(readers.content_of(one), 16) + int(readers.content_of(two), 16)
    assert int(readers.content_of(one + two), 16) == total % 2**128
    assert readers.content_of(one) != readers.content_of([document("a", "x"), document("B", "y")])


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.txt", True), ("a.md.gz", True), ("a.jsonl.zst", True), ("a.pdf", False), ("a.gz", False), ("txt", False)],
)
def test_text_files_are_recognised_by_suffix(name, expected):
    assert readers.is_text(name) == expected
