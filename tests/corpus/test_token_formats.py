"""Every format of token files is read as it was written, or refused by name."""

import io
import pathlib
import pickle
import struct
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix_jax.corpus import store, token_files
from olmix_jax.utils.errors import UserError
from tests.corpus.test_tokenizer import BPE, TEXTS

IDS = np.concatenate([np.append(BPE.encode(text), BPE.end) for text in TEXTS])


def megatron(ids: np.ndarray, code: int) -> bytes:
    """The index that Megatron writes: documents of 10 tokens."""
    sizes = np.full(-(-len(ids) // 10), 10, np.int32)
    sizes[-1] = len(ids) - 10 * (len(sizes) - 1)
    head = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, len(sizes), len(sizes) + 1)
    starts = np.arange(len(sizes), dtype=np.int64) * 10 * ids.itemsize
    return head + sizes.tobytes() + starts.tobytes() + np.arange(len(sizes) + 1, dtype=np.int64).tobytes()


def with_header(ids: np.ndarray) -> bytes:
    f = io.BytesIO()
    np.save(f, ids)
    return f.getvalue()


FORMATS = {
    "olmo_core.npy": lambda ids: {"": ids.astype("<u2").tobytes()},
    "dolma.npy": lambda ids: {"": ids.astype("<u4").tobytes(), ".csv.gz": b"0,9,a,b"},
    "numpy.npy": lambda ids: {"": with_header(ids.astype("<u2"))},
    "wide.npy": lambda ids: {"": ids.astype("<u8").tobytes()},
    "datatrove.ds": lambda ids: {"": ids.astype("<u2").tobytes(), ".index": b"\1" * 8, ".metadata": b"gpt2|2\n9\n"},
    "megatron.bin": lambda ids: {"": ids.astype("<i4").tobytes(), "idx": megatron(ids.astype("<i4"), 4)},
    "narrow.bin": lambda ids: {"": ids.astype("<u2").tobytes(), "idx": megatron(ids.astype("<u2"), 8)},
}


def put(folder: pathlib.Path, name: str, ids: np.ndarray = IDS) -> str:
    """Writes tokens in the format of ``name``; returns the file's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for end, content in FORMATS[name](ids).items():
        file = folder / name.replace(".bin", ".idx") if end == "idx" else folder / (name + end)
        file.write_bytes(content)
    return str(folder / name)


def read(paths, words=BPE) -> tuple[store.TokenStore, int, str]:
    shards, size, content = token_files.read(paths, words, "web")
    return store.TokenStore("web", shards, words.size), size, content


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_tokens_that_were_written(tmp_path, name):
    found, size, _ = read([put(tmp_path, name)])
    assert found.read(0, len(IDS) + 9).tolist() == IDS.tolist() and len(found) == len(IDS)
    assert size == sum(len(text.encode()) for text in TEXTS)
    assert found.read(3, 5).dtype == np.int32


def test_files_of_several_formats_are_one_stream(tmp_path):
    paths = [put(tmp_path, name, IDS[n * 100 : (n + 1) * 100]) for n, name in enumerate(FORMATS)]
    found, _, _ = read(paths)
    found = pickle.loads(pickle.dumps(found))
    n, length = len(FORMATS) * 100, 37
    assert len(found) == n
    for i in range(found.sequences(length)):
        assert found.sequence(i, length).tolist() == IDS[i * length : (i + 1) * length + 1].tolist()


@settings(deadline=None, max_examples=50)
@given(cuts=st.lists(st.integers(0, 300), max_size=6), start=st.integers(0, 320), size=st.integers(0, 320))
def test_a_stream_is_the_same_however_it_is_cut_into_files(tmp_path_factory, cuts, start, size):
    folder, edges = tmp_path_factory.mktemp("cut"), [0, *sorted(cuts), 300]
    paths = []
    for n, (a, b) in enumerate(zip(edges, edges[1:])):
        paths.append(put(folder / str(n), "numpy.npy", IDS[a:b]))
    found, _, _ = read(paths)
    assert found.read(start, start + size).tolist() == IDS[:300][start : start + size].tolist()


def test_files_are_mapped_not_read(tmp_path):
    found, _, _ = read([put(tmp_path, "olmo_core.npy")])
    assert isinstance(found._map(found.shards[0]), np.memmap)
    assert len(pickle.dumps(found)) < 1000


# What is refused.


def damaged(tmp_path, name: str, change) -> str:
    path = put(tmp_path, name)
    pathlib.Path(path).write_bytes(change(pathlib.Path(path).read_bytes()))
    return path


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("olmo_core.npy", lambda b: b[:-1], "by no type of integer are its .*truncated"),
        ("olmo_core.npy", lambda b: b[:-2] + b"\xff\xff", "corpus.tokenizer is not the one"),
        ("numpy.npy", lambda b: b[:-1], "are not the [0-9]+ tokens of type <u2 .* truncated"),
        ("numpy.npy", lambda b: b[:-2], "are not the [0-9]+ tokens of type <u2 .* truncated"),
        ("numpy.npy", lambda b: with_header(np.ones(4)), "an array of float64"),
        ("numpy.npy", lambda b: with_header(np.ones((4, 4), "<u2")), r"an array of uint16 \(4, 4\)"),
        ("numpy.npy", lambda b: b[:20], "header that cannot be read"),
        ("megatron.bin", lambda b: b[:-4], "are not the [0-9]+ tokens of type <i4 .* truncated"),
        ("dolma.npy", lambda b: b[:-2], "truncated"),
        ("dolma.npy", lambda b: b[2:], "truncated"),
        (
            "dolma.npy",
            lambda b: (np.frombuffer(b, "<u4") + 300).astype("<u4").tobytes(),
            "corpus.tokenizer is not the one",
        ),
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(tmp_path, name, change, message):
    path = damaged(tmp_path, name, change)
    with pytest.raises(UserError, match=f"{path}: .*{message}"):
        read([path])


def test_an_index_that_is_not_megatrons_is_an_error(tmp_path):
    path = put(tmp_path, "megatron.bin")
    index = tmp_path / "megatron.idx"
    good = index.read_bytes()
    index.write_bytes(b"nonsense" + good)
    with pytest.raises(UserError, match="idx beside it is not Megatron's"):
        read([path])
    index.write_bytes(good[:17] + b"\7" + good[18:])
    with pytest.raises(UserError, match="type 7"):
        read([path])
    index.write_bytes(good[: 34 + 4 * 10])
    with pytest.raises(UserError, match="idx ends before its [0-9]+ sequences"):
        read([path])


# Types that files do not tell.


def of_size(size: int):
    """What is read of a tokenizer with so many entries."""
    return types.SimpleNamespace(size=size, end=0, token_bytes_V=np.ones(size, np.int32))


def as_large(ids: np.ndarray) -> np.ndarray:
    """The same text in a vocabulary of 100,278: ids spread over all of it."""
    return ids.astype(np.int64) * 334


@pytest.mark.parametrize("change", [lambda b: b, lambda b: b[:-2], lambda b: b[2:], lambda b: b[:-2] + b"\xff\xff"])
def test_of_a_large_vocabulary_nothing_passes_for_halves(tmp_path, change):
    path = put(tmp_path, "dolma.npy", as_large(IDS))
    content = pathlib.Path(path).read_bytes()
    pathlib.Path(path).write_bytes(change(content))
    if change(content) == content:
        assert read([path], of_size(100_278))[0].read(0, len(IDS)).tolist() == as_large(IDS).tolist()
        return
    with pytest.raises(UserError, match="ids of a vocabulary of 100,278: it is truncated"):
        read([path], of_size(100_278))


def test_ids_of_a_larger_vocabulary_than_the_tokenizers_are_not_read_as_halves(tmp_path):
    path = put(tmp_path, "dolma.npy", as_large(IDS))
    for size in (65_536, 65_000):
        with pytest.raises(UserError, match="not the one that it was made with"):
            read([path], of_size(size))


def test_a_small_file_is_of_the_type_of_the_largest(tmp_path):
    """[5, 0] in uint16 is 5 in uint32; and one that is of another type all the same is read as it is."""
    paths = [put(tmp_path / "a", "olmo_core.npy", np.array([5, 0])), put(tmp_path / "b", "olmo_core.npy")]
    assert read(paths)[0].read(0, 3).tolist() == [5, 0, IDS[0]]
    paths[0] = put(tmp_path / "a", "dolma.npy", IDS[:100])
    assert read(paths)[0].read(0, 101).tolist() == [*IDS[:100], IDS[0]]
