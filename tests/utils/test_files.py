"""files.py, rng.py and domains.py: whole files, equal digests, named draws, domains that cannot be wrong."""

import errno
import os

import numpy as np
import pytest

from olmix_jax.swarm.domains import DomainSet
from olmix_jax.utils import files, rng
from olmix_jax.utils.errors import UserError


def test_a_failure_half_way_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"old": 1})
    with pytest.raises(ZeroDivisionError), files.write_whole(path) as f:
        f.write("{half")
        raise ZeroDivisionError
    assert files.read_json(path) == {"old": 1} and os.listdir(tmp_path) == ["a.json"]


def test_a_full_disk_is_a_clear_error_and_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="cannot write .*a.txt: No space left on device; free space"):
        files.write_text(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_a_place_that_is_no_folder_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        files.write_text(tmp_path / "file" / "a", "x")


def test_json_holds_no_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", {"x": np.float64("nan")})
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("content", ["{", "", "\x00"])
def test_broken_json_is_named(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UserError, match="a.json: not valid JSON"):
        files.read_json(tmp_path / "a.json")


def test_equal_content_has_equal_digest():
    assert files.digest({"b": np.arange(3), "a": (1, 2)}) == files.digest({"a": [1, 2], "b": [0, 1, 2]})
    assert files.digest({"a": 1}) != files.digest({"a": 2})


def test_draws_differ_by_name_and_repeat_by_seed():
    assert rng.derive(0, "swarm") == rng.derive(0, "swarm") != rng.derive(0, "train")
    assert rng.derive(1, "swarm") != rng.derive(0, "swarm")
    assert rng.generator(0, "a").random() == rng.generator(0, "a").random()


def test_domains_round_trip_in_order(tmp_path):
    domains = DomainSet(("web", "a:b:c"), (30, 10), (90, 40))
    domains.write(tmp_path / "domains.json")
    assert DomainSet.read(tmp_path / "domains.json") == domains
    np.testing.assert_allclose(domains.natural_M, [0.75, 0.25])


@pytest.mark.parametrize(
    ("names", "tokens", "message"),
    [
        ((), (), "no domains"),
        (("a", "a"), (1, 2), "more than once: a"),
        (("a", "b"), (1, 0), "without tokens: b"),
        (("a", "b"), (1,), "2 domains but 1 token counts"),
    ],
)
def test_domains_that_cannot_be(names, tokens, message):
    with pytest.raises(UserError, match=message):
        DomainSet(names, tokens)


def test_a_missing_token_count_is_no_zero(tmp_path):
    files.write_json(tmp_path / "domains.json", {"domains": [{"name": "a", "bytes": 3}]})
    with pytest.raises(UserError, match="needs name, tokens and bytes"):
        DomainSet.read(tmp_path / "domains.json")
