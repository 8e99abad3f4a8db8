"""A token file that repeats another one is an error that names both, whatever their formats."""

import numpy as np
import pytest

from olmix_jax.corpus.store import Shard
from olmix_jax.corpus.token_repeats import TokenContents
from olmix_jax.utils.errors import UserError


def shard(path, ids, dtype="<u2", header=0) -> Shard:
    path.write_bytes(b"\0" * header + np.asarray(ids, dtype).tobytes())
    return Shard(str(path), dtype, header, len(ids))


def test_same_tokens_in_two_files_are_an_error_that_names_both(tmp_path):
    ids = np.random.default_rng(0).integers(0, 500, 20_000)
    contents = TokenContents(500)
    contents.add([shard(tmp_path / "a.npy", ids), shard(tmp_path / "b.npy", ids[:10_000])])
    for name, dtype, header in (("c.npy", "<u2", 0), ("d.npy", "<u4", 128), ("e.bin", "<i4", 0)):
        with pytest.raises(UserError, match=rf"{name} repeats .*a\.npy: both have the same 20,000 tokens"):
            contents.add([shard(tmp_path / name, ids, dtype, header)])


def test_files_that_differ_in_the_middle_or_in_length_are_no_repeats(tmp_path):
    ids = np.random.default_rng(0).integers(0, 500, 200_000)
    contents = TokenContents(500)
    contents.add([shard(tmp_path / "a.npy", ids), shard(tmp_path / "b.npy", ids[:-1])])
    other = ids.copy()
    other[50_000:150_000] = ids[:100_000]
    contents.add([shard(tmp_path / "c.npy", other)])
    contents.add([shard(tmp_path / "d.npy", [1, 2, 0]), shard(tmp_path / "e.npy", [3, 0])])
