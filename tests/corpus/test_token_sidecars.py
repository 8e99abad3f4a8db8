"""The number of tokens is read from the files that datatrove and the Dolma toolkit write beside token files."""

import gzip
import struct

import fsspec
import pytest

from olmix_jax.corpus.token_sidecars import read_stated
from olmix_jax.utils.errors import UserError

CSV = b"".join(b"%d,%d,id,source,%d\n" % (i, i + 1, i) for i in range(50_000))


def stated(folder, name: str, content: bytes):
    (folder / name).write_bytes(content)
    token_file = str(folder / ("a.ds" if name.startswith("a.ds") else "a.npy"))
    return [(s.tokens, s.width) for s in read_stated(fsspec.filesystem("file"), token_file, token_file)]


@pytest.mark.parametrize(
    "name, content, expected",
    [
        ("a.ds.metadata", b"gpt2|2\n12345\n12.3K", [(12345, 2)]),
        ("a.ds.metadata", b"org/name\n7\n7", [(7, None)]),
        ("a.ds.index", struct.pack("<QQ", 5, 9), [(9, None)]),
        ("a.ds.index", b"", []),
        ("a.csv.gz", gzip.compress(CSV, mtime=0), [(50_000, None)]),
        ("a.npy.csv.gz", gzip.compress(CSV[:-1], mtime=0), [(50_000, None)]),
        ("a.csv.gz", gzip.compress(b"", mtime=0), []),
    ],
)
def test_number_of_tokens_is_read(tmp_path, name, content, expected):
    assert stated(tmp_path, name, content) == expected


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.ds.metadata", b"gpt2|2\nmany\n", "second line is not a number"),
        ("a.ds.metadata", b"", "second line is not a number"),
        ("a.ds.index", b"123", "has 3 bytes, not a multiple of 8"),
        ("a.csv.gz", gzip.compress(CSV, mtime=0)[:-900], "truncated or not a gz file"),
        ("a.csv.gz", CSV, "truncated or not a gz file"),
        ("a.csv.gz", gzip.compress(b"name,text\nx,y\n", mtime=0), "describes no token file"),
    ],
)
def test_damaged_sidecar_is_named(tmp_path, name, content, message):
    with pytest.raises(UserError, match=f"{name}: .*{message}"):
        stated(tmp_path, name, content)
