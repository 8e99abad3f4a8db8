"""Text that is there twice is an error that names both places, or is counted."""

import gzip
import json
import os
import pathlib

import pytest

from olmix_jax import config as configs
from olmix_jax.corpus.collect import collect
from olmix_jax.utils.errors import UserError
from tests.corpus.texts import prose


def jsonl(numbers) -> bytes:
    return b"".join(json.dumps({"text": prose(i)}).encode() + b"\n" for i in numbers)


def write(root: pathlib.Path, contents: dict[str, bytes]) -> pathlib.Path:
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def collected(root: pathlib.Path, tmp_path: pathlib.Path) -> dict[str, int]:
    """Return the number of documents kept of each domain."""
    config = configs.Config(corpus=configs.Corpus(path=str(root)))
    return {d.name: d.repeats.kept for d in collect(config, tmp_path / "scratch", 0, 0.0)}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"web.jsonl": jsonl(range(9)), "web2.jsonl": jsonl(range(9))}, r"web2\.jsonl repeats .*web\.jsonl: .* 9 doc"),
        (
            {"a/x.jsonl": jsonl(range(9)), "b/y.jsonl.gz": gzip.compress(jsonl(range(9)), mtime=0)},
            r"b/y\.jsonl\.gz repeats .*x",
        ),
        ({"a/x.jsonl": jsonl(range(9)), "a/y.json": jsonl([8, *range(8)])}, r"a/y\.json repeats .*a/x\.jsonl"),
        ({f"{d}/{i}.txt": prose(i).encode() for d in "ab" for i in range(5)}, "domain b repeats domain a: 5 of its 5"),
        (
            {"a/x.jsonl": jsonl(range(9)), "b/y.jsonl": jsonl(range(4))},
            "domain b repeats domain a: 4 of its 4 doc",
        ),
        ({"a.txt": prose(1).encode(), "b.txt": prose(1).upper().encode()}, "domain b repeats domain a: 1 of its 1 doc"),
    ],
    ids=["files", "compressed", "within a domain", "folders of text", "part", "letter case"],
)
def test_file_or_domain_that_repeats_another_is_an_error_that_names_both(tmp_path, files, message):
    with pytest.raises(UserError, match=f"{message}.*remove"):
        collected(write(tmp_path / "text", {"other.jsonl": jsonl(range(50, 60)), **files}), tmp_path)


def test_link_to_a_file_that_is_read_is_an_error(tmp_path):
    root = write(tmp_path / "text", {"web.jsonl": jsonl(range(9))})
    os.symlink(root / "web.jsonl", root / "linked.jsonl")
    with pytest.raises(UserError, match=r"web\.jsonl repeats .*linked\.jsonl"):
        collected(root, tmp_path)


def test_shared_documents_are_dropped_from_the_second_domain_and_reported(tmp_path, caplog):
    caplog.set_level("INFO", logger="olmix_jax")
    root = write(tmp_path / "text", {"a.jsonl": jsonl(range(10)), "b.jsonl": jsonl(range(6, 16))})
    assert collected(root, tmp_path) == {"a": 10, "b": 6}
    assert "4 of 10 documents repeated, such as b.jsonl:1, which is near-identical to a.jsonl:7" in caplog.text
    assert "b: 4 of 10 documents (" in caplog.text and "% of its bytes) are also in a, where they count" in caplog.text


def test_repeated_single_documents_are_dropped_and_are_no_error(tmp_path, caplog):
    caplog.set_level("INFO", logger="olmix_jax")
    files = {f"code/{i}/__init__.py.txt": b"# The licence of this package is MIT." for i in range(5)}
    files |= {f"code/{i}/a.jsonl": jsonl([i]) for i in (1, 2)} | {"web.jsonl": jsonl([3, 4, 3])}
    assert collected(write(tmp_path / "text", files), tmp_path) == {"code": 3, "web": 2}
    assert "also in" not in caplog.text and "web: 1 of 3 documents repeated, such as web.jsonl:3" in caplog.text
