"""Token stores return what was written, or an error that names the file."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix_jax.corpus import store
from olmix_jax.utils.errors import UserError

DOCUMENTS = [np.array([5, 6, 7], np.int32), np.array([], np.int32), np.array([8, 299], np.int32)]


def test_store_has_the_documents_each_with_an_end_token(tmp_path):
    path = tmp_path / "a" / "x.bin"
    assert store.write_store(path, iter(DOCUMENTS), 300) == 8
    assert path.read_bytes() == np.array([5, 6, 7, 0, 0, 8, 299, 0], "<u2").tobytes()
    tokens = store.open_store(path)
    assert len(tokens) == 8
    assert tokens.sequences(3) == 2 and tokens.sequences(7) == 1 and tokens.sequences(8) == 0
    assert tokens.sequence(0, 3).tolist() == [5, 6, 7, 0]
    assert tokens.sequence(1, 3).tolist() == [0, 0, 8, 299]
    assert tokens.sequence(1, 3).dtype == np.int32


@settings(deadline=None, max_examples=50)
@given(n=st.integers(0, 60), length=st.integers(1, 20))
def test_sequences_have_every_target_once(tmp_path_factory, n, length):
    path = tmp_path_factory.mktemp("store") / "x.bin"
    store.write_store(path, [np.arange(n)] if n else [], 100)
    tokens = store.open_store(path)
    targets = [t for i in range(tokens.sequences(length)) for t in tokens.sequence(i, length)[1:].tolist()]
    assert targets == tokens.read(1, 1 + len(targets)).tolist()
    assert len(tokens) - 1 - len(targets) < length or not len(tokens)
    for index in (-1, tokens.sequences(length)):
        with pytest.raises(IndexError):
            tokens.sequence(index, length)


def test_vocabulary_above_65536_takes_four_bytes_per_token(tmp_path):
    store.write_store(tmp_path / "x.bin", [np.array([100_000])], 100_352)
    assert store.open_store(tmp_path / "x.bin").sequence(0, 1).tolist() == [100_000, 0]
    assert (tmp_path / "x.bin").stat().st_size == 8
    store.write_store(tmp_path / "y.bin", [np.array([65_535])], 65_536)
    assert store.open_store(tmp_path / "y.bin").sequence(0, 1).tolist() == [65_535, 0]


@pytest.mark.parametrize("token", [-1, 300])
def test_id_outside_the_vocabulary_is_an_error_when_written(tmp_path, token):
    with pytest.raises(ValueError, match="vocabulary"):
        store.write_store(tmp_path / "x.bin", [np.array([1, token])], 300)
    assert not list(tmp_path.iterdir())


def test_pickled_store_contains_only_paths(tmp_path):
    store.write_store(tmp_path / "x.bin", [np.ones(100_000, int)], 300)
    pickled = pickle.dumps(store.open_store(tmp_path / "x.bin"))
    assert len(pickled) < 1000
    assert pickle.loads(pickled).sequence(0, 2).tolist() == [1, 1, 1]


def test_damaged_store_is_named(tmp_path):
    path = tmp_path / "x.bin"
    with pytest.raises(UserError, match=r"x\.bin"):
        store.open_store(path)
    store.write_store(path, DOCUMENTS, 300)
    record = tmp_path / "x.bin.json"
    good = record.read_text()
    for content in ("{}", "[]", '{"dtype": "O", "tokens": 8}', '{"dtype'):
        record.write_text(content)
        with pytest.raises(UserError, match=r"x\.bin\.json"):
            store.open_store(path)
    record.write_text(good)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"x\.bin: has 15 bytes, but 16 were recorded.*rerun --stages=prepare"):
        store.open_store(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"x\.bin: has 0 bytes"):
        store.open_store(path)
    path.unlink()
    with pytest.raises(UserError, match=r"x\.bin: cannot be read"):
        store.open_store(path)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=2, max_size=2, unique=True))
def test_different_domains_have_different_file_names(tmp_path_factory, names):
    one, two = (store.file_name(n) for n in names)
    assert one != two and not set("/\\:\0") & set(one + two)


def test_store_is_current_only_if_complete_and_of_the_same_source(tmp_path):
    path = tmp_path / "x.bin"
    assert store.tokens_if_current(path, "a") is None and not store.exists(path)
    store.write_store(path, DOCUMENTS, 300, source="a")
    assert store.tokens_if_current(path, "a") == 8 and store.exists(path)
    assert store.tokens_if_current(path, "b") is None
    path.write_bytes(b"")
    assert store.tokens_if_current(path, "a") is None


def test_interrupted_write_leaves_no_record(tmp_path):
    path = tmp_path / "x.bin"
    store.write_store(path, DOCUMENTS, 300, source="a")

    def interrupted():
        yield DOCUMENTS[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.write_store(path, interrupted(), 300, source="a")
    assert not store.exists(path)


def test_own_store_can_be_moved(tmp_path):
    store.write_store(tmp_path / "a" / "x.bin", DOCUMENTS, 300)
    (tmp_path / "a").rename(tmp_path / "b")
    assert store.open_store(tmp_path / "b" / "x.bin").read(0, 3).tolist() == [5, 6, 7]
