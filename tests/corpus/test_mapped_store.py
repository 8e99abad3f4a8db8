"""Stores in the proxies' vocabulary: every mapped token can be read by its place."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix_jax import config as configs
from olmix_jax.config import workdir as workdirs
from olmix_jax.corpus import mapped_store, store
from olmix_jax.corpus.mapped_store import BLOCK, MappedStore
from olmix_jax.corpus.store import Shard
from olmix_jax.corpus.vocabulary import Mapping
from olmix_jax.utils.errors import UserError
from tests.corpus.test_vocabulary import FULL, LIBRARY, SMALL, TO_SMALL

IDS = np.concatenate([np.append(FULL.encode(text), FULL.end) for text in LIBRARY])
MAPPED = np.concatenate([np.append(SMALL.encode(text), SMALL.end) for text in LIBRARY])


def write_files(folder, *parts) -> store.TokenStore:
    """Write token files and open them as one store."""
    shards = []
    for n, part in enumerate(parts):
        (folder / f"{n}.npy").write_bytes(part.astype("<u2").tobytes())
        shards.append(Shard(str(folder / f"{n}.npy"), "<u2", 0, len(part)))
    store.link_store(folder / "x.bin", shards, FULL.size)
    return store.open_store(folder / "x.bin")


@pytest.fixture(scope="module")
def mapped(tmp_path_factory) -> MappedStore:
    """A store of two token files and several blocks, in the smaller vocabulary."""
    folder = tmp_path_factory.mktemp("mapped")
    tokens = write_files(folder, IDS[:5001], IDS[5001:])
    assert mapped_store.write_index(folder / "x.npy", tokens, TO_SMALL) == len(MAPPED)
    return MappedStore(tokens, TO_SMALL, folder / "x.npy")


def test_store_is_that_of_the_smaller_tokenizer(mapped):
    assert len(IDS) > 3 * BLOCK and len(mapped) == len(MAPPED) > len(IDS)
    assert mapped.read(0, 10**9).tolist() == MAPPED.tolist()
    assert mapped.read(len(MAPPED), 10**9).tolist() == [] == mapped.read(5, 5).tolist()


@settings(deadline=None, max_examples=100)
@given(start=st.integers(0, len(MAPPED)), length=st.integers(0, 3 * BLOCK))
def test_any_part_can_be_read(mapped, start, length):
    part = mapped.read(start, start + length)
    assert part.dtype == np.int32 and part.tolist() == MAPPED[start : start + length].tolist()


def test_sequences_have_exactly_the_length_in_mapped_tokens(mapped):
    assert mapped.sequences(100) == (len(MAPPED) - 1) // 100
    for index in (0, 17, mapped.sequences(100) - 1):
        assert mapped.sequence(index, 100).tolist() == MAPPED[100 * index : 100 * index + 101].tolist()
    with pytest.raises(IndexError):
        mapped.sequence(mapped.sequences(100), 100)


def test_pickled_store_has_no_tokens_and_no_index(mapped):
    content = pickle.dumps(mapped)
    assert len(content) < 1000 + 8 * (len(TO_SMALL.count_V) + len(TO_SMALL.ids))
    assert pickle.loads(content).read(7000, 7050).tolist() == MAPPED[7000:7050].tolist()


def test_files_that_changed_are_named(tmp_path):
    tokens = write_files(tmp_path, IDS)
    mapped_store.write_index(tmp_path / "x.npy", tokens, TO_SMALL)
    (tmp_path / "0.npy").write_bytes(IDS[::-1].astype("<u2").tobytes())
    changed = MappedStore(store.open_store(tmp_path / "x.bin"), TO_SMALL, tmp_path / "x.npy")
    with pytest.raises(UserError, match="x.bin: tokens 0 to 1,024 are .* its files changed after prepare"):
        changed.read(0, 10)
    with pytest.raises(UserError, match="x.npy: not the index of .*x.bin, which has 100 tokens"):
        MappedStore(write_files(tmp_path, IDS[:100]), TO_SMALL, tmp_path / "x.npy")
    with pytest.raises(UserError, match="y.npy: cannot be read"):
        MappedStore(tokens, TO_SMALL, tmp_path / "y.npy")


def test_id_without_a_token_is_named(tmp_path):
    mapping = Mapping(np.where(np.arange(FULL.size) == 9, 0, TO_SMALL.count_V), TO_SMALL.ids)
    tokens = write_files(tmp_path, np.array([5, 6, 9]))
    with pytest.raises(UserError, match="x.bin: token 2 has the id 9, which is no token of the tokenizer"):
        mapped_store.write_index(tmp_path / "x.npy", tokens, mapping)


def test_corpus_is_written_with_its_sizes_in_both_vocabularies(tmp_path):
    FULL.write(store.tokenizer_path(tmp_path))
    for name, ids in (("a/b", IDS[:9000]), ("c", IDS[9000:])):
        store.write_store(store.store_path(tmp_path, name), [ids], FULL.size, FULL.end)
    sizes = mapped_store.write(tmp_path, ("a/b", "c"), SMALL.size)
    config = configs.from_dict({"proxy": {"vocabulary": SMALL.size}})
    assert workdirs.read_expansion(config, tmp_path) == sizes and sizes.tokens == {"a/b": 9001, "c": len(IDS) - 8999}
    assert workdirs.tokens_per_token(config, tmp_path) == (len(MAPPED) + 2) / (len(IDS) + 2)
    assert mapped_store.read_tokenizer(config, tmp_path).digest == SMALL.digest
    parts = [mapped_store.open_store(tmp_path, name, mapped_store.read_mapping(tmp_path)) for name in ("a/b", "c")]
    assert [len(part) for part in parts] == list(sizes.proxy_tokens.values())
    assert np.concatenate([part.read(0, len(part) - 1) for part in parts]).tolist() == MAPPED.tolist()
    other = configs.from_dict({"proxy": {"vocabulary": 300}})
    with pytest.raises(UserError, match="tokens.json: made with proxy.vocabulary = 700, now it is 300"):
        workdirs.read_expansion(other, tmp_path)
    whole = configs.from_dict({})
    assert workdirs.read_expansion(whole, tmp_path) is None and workdirs.tokens_per_token(whole, tmp_path) == 1
    assert mapped_store.read_tokenizer(whole, tmp_path).digest == FULL.digest
