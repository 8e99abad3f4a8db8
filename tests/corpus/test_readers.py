"""Text is read completely or refused with the file's name."""

import gzip
import json
import os
import pathlib

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix_jax.corpus import readers, text_streams
from olmix_jax.utils.errors import UserError
from tests.corpus.texts import prose, read_domains, texts_of


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
    one, two = (
        "".join(json.dumps({"text": t, "id": 3}) + "\n\n" for t in texts)
        for texts in (("eins", "zwei"), ("drei", "vier"))
    )
    (root / "code.v2.jsonl").write_text(one, encoding="utf-8")
    half = len(two) // 2
    compress = zstandard.ZstdCompressor().compress
    (root / "arxiv.jsonl.zst").write_bytes(compress(two[:half].encode()) + compress(two[half:].encode()))
    return root


def test_every_file_type_is_read_in_sorted_order(corpus):
    domains = read_domains(corpus).documents
    assert list(domains) == ["arxiv", "code.v2", "web"]
    assert texts_of(domains["arxiv"]) == ["drei", "vier"] and texts_of(domains["code.v2"]) == ["eins", "zwei"]
    assert texts_of(domains["web"]) == ["erster Töxt\r\n", "zweiter Text\n", "dritter"]
    assert [d.source for d in domains["web"]] == ["web/a.md", "web/b.txt", "web/deep/c.txt.gz"]
    assert domains["code.v2"][1].source == "code.v2.jsonl:3"


def test_block_size_does_not_change_the_documents(corpus, monkeypatch):
    expected = read_domains(corpus)
    monkeypatch.setattr(text_streams, "BLOCK", 3)
    monkeypatch.setattr(text_streams, "COMPRESSED_BLOCK", 5)
    assert read_domains(corpus) == expected


def test_gzip_members_and_padding_are_read(corpus):
    (corpus / "web" / "d.txt.gz").write_bytes(gzip.compress(b"one ") + gzip.compress(b"two") + b"\0" * 100)
    assert "one two" in texts_of(read_domains(corpus).documents["web"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bad.txt", "größer".encode("latin-1"), r"bad\.txt: not UTF-8 at byte 2.*iconv"),
        ("bad.jsonl", b'{"text": "a"}\n{"txt": "b"}\n', r"bad\.jsonl, line 2: no `text` field"),
        ("bad.jsonl", b'{"text": 3}\n', r"bad\.jsonl, line 1: no `text` field"),
        ("bad.jsonl", b'3\n["text"]\n', r"bad\.jsonl, line 1: no `text` field"),
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
        read_domains(corpus)


def test_wrong_folder_layout_is_an_error_that_describes_the_right_one(corpus, tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist.*one sub-folder"):
        read_domains(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is a file"):
        read_domains(corpus / "code.v2.jsonl")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "x.pdf").touch()
    with pytest.raises(UserError, match=r"x\.pdf: not read, .*; extract its text"):
        read_domains(tmp_path / "none")
    (tmp_path / "none" / "x.pdf").unlink()
    with pytest.raises(UserError, match="has no domain.*one sub-folder"):
        read_domains(tmp_path / "none")
    (corpus / "other").mkdir()
    with pytest.raises(UserError, match="domain other: .* is empty; add .txt"):
        read_domains(corpus)
    (corpus / "other" / "README").touch()
    with pytest.raises(UserError, match="domain other: .* has only files that are not read as text, such as README"):
        read_domains(corpus)


def test_two_domains_of_the_same_name_are_an_error(corpus):
    (corpus / "web.txt").write_text("x")
    with pytest.raises(UserError, match="domain web is in .* twice"):
        read_domains(corpus)


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


BAD_LINES = {
    "cut": b'{"text": "b',
    "no text": b'{"txt": "b"}',
    "null": b'{"text": null}',
    "number": b'{"text": 3}',
    "surrogate": b'{"text": "\\ud83d"}',
    "latin": b'{"text": "gr\xf6\xdfer"}',
    "NUL": b"\0" * 50,
    "nested": b'{"text": "a", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "long": b'{"text": "' + b"a" * 3000 + b'"}',
}


@pytest.mark.parametrize("kind", BAD_LINES)
def test_bad_line_is_an_error_or_left_out_and_counted(tmp_path, monkeypatch, caplog, kind):
    monkeypatch.setattr(text_streams, "LONGEST_LINE", 1 << 20 if kind == "nested" else 2000)
    (tmp_path / "web").mkdir()
    path = tmp_path / "web" / "a.jsonl"
    path.write_bytes(b'{"text": "one"}\n' + BAD_LINES[kind] + b'\n{"text": "two"}\n' + BAD_LINES[kind] + b"\n")
    with pytest.raises(UserError, match=r"a\.jsonl, line 2: .*; corpus\.skip_bad=True leaves out such lines"):
        read_domains(tmp_path)
    read = read_domains(tmp_path, skip_bad=True)
    assert texts_of(read.documents["web"]) == ["one", "two"]
    assert read.skipped.count("web") == 2
    read.skipped.log()
    assert "left out 2 documents" in caplog.text and "a.jsonl, line 2: " in caplog.text
    path.write_bytes(BAD_LINES[kind] + b"\n" + BAD_LINES[kind])
    with pytest.raises(UserError, match=r"a\.jsonl, line 1: .*none of its 2 documents is valid"):
        read_domains(tmp_path, skip_bad=True)


@pytest.mark.parametrize("bad, name", [(b"caf\xe9", "bad.txt"), (b"a\0b", "bad.md"), (b'{"content": "a"}', "bad.json")])
def test_file_of_one_bad_document_is_left_out_and_counted(tmp_path, bad, name):
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / name).write_bytes(bad)
    with pytest.raises(UserError, match=rf"domain web: no text in its files \(corpus.skip_bad left out 1; .*{name}"):
        read_domains(tmp_path, skip_bad=True)
    (tmp_path / "web" / "good.txt").write_text("one")
    read = read_domains(tmp_path, skip_bad=True)
    assert texts_of(read.documents["web"]) == ["one"] and read.skipped.count("web") == 1


def test_valid_json_that_python_limits_is_read(tmp_path):
    line = '{"text": "a", "n": ' + "9" * 5000 + ', "f": 1e999, "none": null}'
    (tmp_path / "web.json").write_text(line + '\n\n{"text": " "}\n{"text": "b\\u0000c"}', encoding="utf-8")
    assert texts_of(read_domains(tmp_path).documents["web"]) == ["a", "b\0c"]


@pytest.mark.parametrize(
    "content, message",
    [
        (
            b'[{"text": "a"}, {"text": "b"}]',
            r"has an array .* jq -c '\.\[\]' web\.json > new && mv new web\.json",
        ),
        (b'{\n "text": "a"\n}\n', r"has an object over several lines .* jq -c \. web\.json"),
        (b"\x1f\x8b\x08", "compressed with gzip; append .gz"),
        (b"PAR1\0\0", "a Parquet file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a pointer of Git LFS.*git lfs pull"),
    ],
)
def test_file_of_another_format_is_an_error_that_says_what_it_is(tmp_path, content, message):
    (tmp_path / "web.json").write_bytes(content)
    with pytest.raises(UserError, match=rf"web\.json: {message}"):
        read_domains(tmp_path, skip_bad=True)


@pytest.mark.parametrize("text", ["größer".encode("utf-16"), "gross".encode("utf-16-le"), b"tail\0\0"])
def test_utf16_and_binary_text_is_named(corpus, text):
    (corpus / "web" / "x.txt").write_bytes(text)
    with pytest.raises(UserError, match=r"x\.txt: .*UTF-16; convert it.* -f UTF-16"):
        read_domains(corpus)


def test_large_texts_are_cut_at_blank_lines_without_loss(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "LONGEST_PIECE", 1000)
    monkeypatch.setattr(text_streams, "BLOCK", 300)
    text = "\ufeff" + "\n\n".join(f"äbsatz {i} " * 9 for i in range(50))
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": text[1:]}), encoding="utf-8")
    for name in ("a.txt", "b.jsonl"):
        documents = list(readers.read_documents(tmp_path / name, name))
        assert "".join(texts_of(documents)) == text[1:] and len({d.source for d in documents}) == len(documents) > 5
        assert all(len(d.text.encode()) <= 1000 for d in documents)


def test_names_of_files_that_are_not_utf8_are_escaped(tmp_path):
    (tmp_path / "web").mkdir()
    with open(os.fsencode(tmp_path / "web") + b"/gr\xf6\xdfe.txt", "w") as f:
        f.write("text")
    assert [d.source for d in read_domains(tmp_path).documents["web"]] == [r"web/gr\xf6\xdfe.txt"]
