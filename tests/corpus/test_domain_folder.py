"""Every file of a folder is read, is no data, or is named in an error."""

import os
import pathlib

import pytest

from olmix_jax.corpus import domain_folder
from olmix_jax.utils.errors import UserError


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    """Two domains, a sub-folder and a file with an upper-case ending, beside files that are no data."""
    (tmp_path / "web" / "deep").mkdir(parents=True)
    for name in ("web/a.txt", "web/deep/part-0000.json.gz", "C.JSONL", "README.md", "LICENSE", "_SUCCESS", "web/a.md5"):
        (tmp_path / name).write_text("x")
    return tmp_path


def listed(folder: pathlib.Path) -> dict[str, list[str]]:
    files = domain_folder.text_files(folder)
    return {name: [path.relative_to(folder).as_posix() for path in paths] for name, paths in files.items()}


def test_every_text_is_listed_and_documentation_is_named_in_the_log(folder, caplog):
    caplog.set_level("INFO", logger="olmix_jax")
    assert listed(folder) == {"C": ["C.JSONL"], "web": ["web/a.txt", "web/deep/part-0000.json.gz"]}
    assert "left out 4 files" in caplog.text and "LICENSE, README.md" in caplog.text


@pytest.mark.parametrize("name", ["c.parquet", "web/deep/a.csv", "notes", "web/.hidden/a.txt"])
def test_file_that_may_be_data_is_an_error(folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("x")
    with pytest.raises(UserError, match=f"{name}: not read, so its content would be missing; "):
        domain_folder.text_files(folder)


@pytest.mark.parametrize("name", ["stats.json", "web/metadata.json", "authors.txt", "web/readme.md"])
def test_documentation_that_holds_text_is_an_error(folder, monkeypatch, name):
    monkeypatch.setattr(domain_folder, "_MUCH", 1000)
    (folder / name).write_text('{"version": 1, "about": {"text": {"dtype": "string"}}}')
    domain_folder.text_files(folder)
    (folder / name).write_text('{"id": 7, "text": "some text"}\n' * 40)
    with pytest.raises(UserError, match=f"{name}: has the name of documentation or bookkeeping, .* rename it"):
        domain_folder.text_files(folder)


@pytest.mark.parametrize("name", ["lost", "lost.txt", "web/part.jsonl"])
def test_broken_link_is_an_error_that_names_its_target(folder, name):
    (folder / name).symlink_to("/mnt/missing")
    with pytest.raises(UserError, match=f"{name}: a broken link to /mnt/missing; mount"):
        domain_folder.text_files(folder)


@pytest.mark.parametrize("name", ["pipe.txt", "web/pipe"])
def test_pipe_is_an_error(folder, name):
    os.mkfifo(folder / name)
    with pytest.raises(UserError, match=f"{name}: not a regular file"):
        domain_folder.text_files(folder)


def test_links_are_followed_and_cycles_skipped(folder):
    (folder / "all").symlink_to(folder / "web")
    (folder / "web" / "up").symlink_to(folder / "web")
    assert listed(folder)["all"] == ["all/a.txt", "all/deep/part-0000.json.gz"]
    assert len(listed(folder)["web"]) == 2
