"""Digests of files: equal for equal content, and computed again only for changed files."""

import os

import pytest

from olmix_jax.utils import digests
from olmix_jax.utils.digests import Digests


@pytest.fixture
def folder(tmp_path):
    for name, text in {"a.txt": "one", "sub/b.txt": "two"}.items():
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text(text)
    return tmp_path / "data"


def test_modification_times_do_not_count(folder, tmp_path):
    before = Digests(tmp_path / "d.json").of(folder)
    os.utime(folder / "a.txt", (1, 1))
    assert Digests(tmp_path / "d.json").of(folder) == before
    assert Digests(tmp_path / "other.json").of(folder) == before


def test_same_folder_by_another_path(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert Digests(tmp_path / "d.json").of(tmp_path / "link") == Digests(tmp_path / "e.json").of(folder)


@pytest.mark.parametrize("change", ["edit", "rename", "add", "remove"])
def test_changed_content_changes_the_digest(folder, tmp_path, change):
    before = Digests(tmp_path / "d.json").of(folder)
    if change == "edit":
        (folder / "a.txt").write_text("oNe")
    elif change == "rename":
        (folder / "a.txt").rename(folder / "c.txt")
    elif change == "add":
        (folder / "c.txt").write_text("")
    else:
        (folder / "a.txt").unlink()
    assert Digests(tmp_path / "d.json").of(folder) != before


def test_unchanged_files_are_not_read_again(folder, tmp_path, monkeypatch):
    before = Digests(tmp_path / "d.json").of(folder)
    monkeypatch.setattr(digests, "_content", None)
    assert Digests(tmp_path / "d.json").of(folder) == before


def test_large_files_are_sampled_over_their_whole_length(tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "BLOCKS", 4)
    monkeypatch.setattr(digests, "BLOCK_BYTES", 8)
    content = bytearray(range(100))
    (tmp_path / "x").write_bytes(content)
    before = Digests(tmp_path / "d.json").of(tmp_path / "x")
    for at in (0, 99):
        (tmp_path / "x").write_bytes(content[:at] + b"!" + content[at + 1 :])
        assert Digests(tmp_path / "e.json").of(tmp_path / "x") != before
    (tmp_path / "x").write_bytes(content + b"!")
    assert Digests(tmp_path / "f.json").of(tmp_path / "x") != before


def test_missing_file(tmp_path):
    assert Digests(tmp_path / "d.json").of(tmp_path / "x") == "missing"
