"""All files below a folder are listed, or an error names what is in the way."""

import pytest

from olmix_jax.utils import files, folders
from olmix_jax.utils.errors import UserError


def test_files_are_listed_in_order_with_links_and_without_cycles(tmp_path):
    for name in ("folder/b", "folder/a/c", "other/d"):
        files.write_text(tmp_path / name, "")
    (tmp_path / "folder/link").symlink_to(tmp_path / "other")
    (tmp_path / "folder/same").symlink_to(tmp_path / "other")
    (tmp_path / "other/cycle").symlink_to(tmp_path / "folder")
    listed = [str(entry.path.relative_to(tmp_path)) for entry in folders.walk(tmp_path / "folder")]
    assert listed == ["folder/a/c", "folder/b", "folder/link/d", "folder/same/d"]


def test_missing_folder_is_an_error(tmp_path):
    with pytest.raises(UserError, match="nowhere: cannot be read: no such file"):
        folders.walk(tmp_path / "nowhere")


def test_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    def refuse(place):
        raise PermissionError(13, "Permission denied", place)

    monkeypatch.setattr(folders.os, "listdir", refuse)
    with pytest.raises(UserError, match=f"{tmp_path}: cannot be read: no permission to read it"):
        folders.walk(tmp_path)
