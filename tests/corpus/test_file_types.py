"""Every file is text, tokens, no data, or refused with advice."""

import pytest

from olmix_jax.corpus.file_types import Kind, described_by, is_text, kind_of, refuse_unread, split_name
from olmix_jax.utils.errors import UserError

KINDS = {
    Kind.TEXT: "web/a.txt C.JSONL web/part-0000.json.gz a.Json.ZST web/a.ndjson code.md web/deep/README.md "
    "readme.jsonl web/readme-001.txt web/notice-7.txt web/LICENSE-MIT.txt license/a.txt web/authors.jsonl.gz",
    Kind.NO_DATA: "README README.md readme.zh.txt LICENSE-MIT web/README.md.gz web/LICENSE.txt web/LICENSE-MIT "
    "_SUCCESS web/_SUCCESS .gitattributes "
    "web.jsonl.md5 .DS_Store web/._a.txt .git/a.txt __MACOSX/web/._a.txt web/a.png get.sh sha256sums.txt "
    "dataset_infos.json web/.cache/a.lock web/deep/LICENSE",
    Kind.UNREAD: "c.parquet web/a.csv web/a.py web web/.part.jsonl web/.a.jsonl.Xy12 .web/a.txt web/a.txt.bz2 "
    "web/a.jsonl.part a.gz web/a.tar.gz web/a.html",
    Kind.TOKENS: "web/a.npy web.ds WEB.BIN",
    Kind.SIDECAR: "web/a.csv.gz web/a.npy.csv.gz web.idx web.ds.metadata",
}


@pytest.mark.parametrize("path, kind", [(path, kind) for kind, paths in KINDS.items() for path in paths.split()])
def test_kind_of_a_file(path, kind):
    assert kind_of(path.split("/")) is kind


@pytest.mark.parametrize(
    "path, advice",
    [
        ("c.parquet", r"read_parquet\('c.parquet'\).to_json\('c.jsonl'.*move it out of text"),
        ("web/a.arrow", r"from_file\('a.arrow'\)"),
        ("web/a.tsv", "read_csv"),
        ("web/a.xz", "decompress it"),
        ("web/a.tar.gz", "unpack it"),
        ("web/a.warc.gz", "extract its text"),
        ("web/a.txt.part", "finish its download"),
        ("web/a", "the ending .txt"),
        ("web/a.py", "append .txt"),
        ("web/.a.jsonl", "hidden files are not read: delete it, or rename"),
    ],
)
def test_unread_file_is_an_error_with_advice(path, advice):
    with pytest.raises(UserError, match=rf"text/{path}: not read.*\(and 1 more such files\).*{advice}"):
        refuse_unread([f"text/{path}", "other"], "text")
    refuse_unread([], "text")


def test_names_are_split_and_endings_are_in_lower_case():
    assert split_name("a.v2.JSONL.GZ") == ("a.v2", ".jsonl", ".gz")
    assert split_name("a.TXT") == ("a", ".txt", "")
    assert [is_text(name) for name in ("x/a.txt", "a.md.gz", "a.jsonl.zst", "a.pdf", "a.gz", "txt")] == [True] * 3 + [
        False
    ] * 3


def test_sidecars_name_their_token_files():
    assert described_by("a.npy.csv.gz") == ["a.npy", "a.npy.npy"]
    assert described_by("b/a.ds.index") == ["b/a.ds"] and described_by("a.idx") == ["a.bin"]
