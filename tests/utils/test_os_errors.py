"""os_errors.py: errors of the operating system are told apart, each with advice that can be followed."""

import errno
import os

import pytest

from olmix_jax.config import yaml_files
from olmix_jax.utils import files, os_errors, progress
from olmix_jax.utils.errors import UserError


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "the disk is full; free disk space"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the file system is read-only; choose another --workdir"),
        (errno.EACCES, "no permission to write there; change the permissions"),
        (errno.ENAMETOOLONG, "the name is too long for the file system; shorten"),
        (errno.ENOENT, "its folder cannot be created, or another process removed it"),
        (errno.EMFILE, "too many open files"),
        (errno.EXDEV, f"{os.strerror(errno.EXDEV)}; choose another --workdir"),
    ],
)
def test_failed_write_says_why_and_what_to_do(tmp_path, monkeypatch, code, message):
    def fail(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(UserError, match=f"cannot write .*a.json: {message}"):
        files.write_json(tmp_path / "a.json", {})
    assert list(tmp_path.iterdir()) == []


def test_name_that_is_too_long_is_not_a_full_disk(tmp_path):
    with pytest.raises(UserError, match="the name is too long for the file system") as e:
        files.write_text(tmp_path / ("x" * 300), "")
    assert "disk space" not in str(e.value)


def test_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "missing")
    for path in ("file/a.json", "file/b/a.json"):
        with pytest.raises(UserError, match=r"file is a file, not a folder; remove it, or choose another --workdir"):
            files.write_text(tmp_path / path, "")
    for name, message in (("file", "is a file, not a folder"), ("link", "is a link to a place that does not exist")):
        with pytest.raises(UserError, match=f"--workdir=.*{name} is not writable: .*{name} {message}"):
            progress.start_log(tmp_path / name)
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="folder: a folder has this name"):
        files.write_text(tmp_path / "folder", "")


def test_error_of_another_file_names_that_file(tmp_path):
    def block():
        with files.atomic_write(tmp_path / "a.txt") as f:
            f.write((tmp_path / "missing.txt").read_text())

    with pytest.raises(UserError, match=r"a.txt is not written: .*missing.txt: no such file"):
        block()


def test_failed_read_says_why(tmp_path):
    for path, message in (
        (tmp_path, "it is a folder; give a file"),
        (tmp_path / ("x" * 300), "the name is too long"),
        (tmp_path / "none.yaml", "no such file"),
    ):
        with pytest.raises(UserError, match=message):
            yaml_files.read(path)
    assert os_errors.reading(OSError("no number")) == "no number"
