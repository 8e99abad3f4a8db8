"""Atomic writes, JSON with clear errors, folder listings, digests."""

import dataclasses
import errno
import json
import os

import numpy as np
import pytest

from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError


def test_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"old": 1})
    with pytest.raises(ZeroDivisionError), files.atomic_write(path) as f:
        f.write("{half")
        raise ZeroDivisionError
    assert files.read_json(path) == {"old": 1} and os.listdir(tmp_path) == ["a.json"]


def test_full_disk_is_an_error_and_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="cannot write .*a.txt: the disk is full; free disk space"):
        files.write_text(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_write_below_a_file_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        files.write_text(tmp_path / "file" / "a", "x")


def test_written_file_has_the_permissions_of_new_files(tmp_path):
    files.write_text(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_json_with_nan_is_an_error_and_nothing_is_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", {"x": np.float64("nan")})
    assert not os.listdir(tmp_path)


def test_arrays_dataclasses_and_numpy_numbers_become_json():
    @dataclasses.dataclass
    class Pair:
        name: str
        values: tuple

    value = Pair("a", (np.float64(0.5), np.arange(2), {1: None}))
    assert json.loads(files.to_json(value)) == {"name": "a", "values": [0.5, [0, 1], {"1": None}]}


@pytest.mark.parametrize("content", ["{", "", "\x00"])
def test_broken_json_is_an_error_that_names_the_file(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UserError, match="a.json: not valid JSON"):
        files.read_json(tmp_path / "a.json")


def test_json_that_is_no_object_is_an_error(tmp_path):
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(UserError, match="a.json: must be a JSON object, not list"):
        files.read_json(tmp_path / "a.json")


def test_object_is_read_from_mapping_text_or_path(tmp_path):
    files.write_json(tmp_path / "a.json", {"a": 1})
    assert files.read_object({"a": 1}, "f") == ("config field `f`", {"a": 1})
    assert files.read_object({"a": 1, "source": "x.yaml"}, "f")[0] == "x.yaml"
    assert files.read_object(' {"a": 1}', "f") == ("config field `f`", {"a": 1})
    assert files.read_object(tmp_path / "a.json", "f") == (str(tmp_path / "a.json"), {"a": 1})
    with pytest.raises(UserError, match="config field `f`: not valid JSON"):
        files.read_object('{"a"', "f")


def test_equal_content_has_equal_digest():
    assert files.digest({"b": np.arange(3), "a": (1, 2)}) == files.digest({"a": [1, 2], "b": [0, 1, 2]})
    assert files.digest({"a": 1}) != files.digest({"a": 2})
