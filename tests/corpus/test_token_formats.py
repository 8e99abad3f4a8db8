"""Every format of token files returns the tokens that were written, or an error that names the file."""

import gzip
import io
import pathlib
import pickle
import struct
import types
import unittest.mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix_jax.corpus import store, token_files
from olmix_jax.utils.errors import UserError
from tests.corpus.test_tokenizer import BPE, TEXTS

IDS = np.concatenate([np.append(BPE.encode(text), BPE.end) for text in TEXTS])


def megatron_index(ids: np.ndarray, code: int) -> bytes:
    """Return a Megatron index of documents of 10 tokens."""
    sizes = np.full(-(-len(ids) // 10), 10, np.int32)
    sizes[-1] = len(ids) - 10 * (len(sizes) - 1)
    head = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, len(sizes), len(sizes) + 1)
    starts = np.arange(len(sizes), dtype=np.int64) * 10 * ids.itemsize
    return head + sizes.tobytes() + starts.tobytes() + np.arange(len(sizes) + 1, dtype=np.int64).tobytes()


def with_numpy_header(ids: np.ndarray) -> bytes:
    f = io.BytesIO()
    np.save(f, ids)
    return f.getvalue()


FORMATS = {
    "olmo_core.npy": lambda ids: {"": ids.astype("<u2").tobytes()},
    "dolma.npy": lambda ids: {
        "": ids.astype("<u4").tobytes(),
        ".csv.gz": gzip.compress(b"0,2,a,b\n2,%d,b,c\n" % len(ids)),
    },
    "numpy.npy": lambda ids: {"": with_numpy_header(ids.astype("<u2"))},
    "wide.npy": lambda ids: {"": ids.astype("<u8").tobytes()},
    "datatrove.ds": lambda ids: {
        "": ids.astype("<u2").tobytes(),
        ".index": struct.pack("<QQ", 2, len(ids)),
        ".metadata": b"gpt2|2\n%d\n9 T" % len(ids),
    },
    "megatron.bin": lambda ids: {"": ids.astype("<i4").tobytes(), "idx": megatron_index(ids.astype("<i4"), 4)},
    "narrow.bin": lambda ids: {"": ids.astype("<u2").tobytes(), "idx": megatron_index(ids.astype("<u2"), 8)},
}


def put(folder: pathlib.Path, name: str, ids: np.ndarray = IDS) -> str:
    """Write tokens in the format of ``name``. Return the path of the file."""
    folder.mkdir(parents=True, exist_ok=True)
    for end, content in FORMATS[name](ids).items():
        file = folder / name.replace(".bin", ".idx") if end == "idx" else folder / (name + end)
        file.write_bytes(content)
    return str(folder / name)


def open_files(paths, bpe=BPE) -> store.TokenStore:
    """Open token files as a store."""
    return store.TokenStore("web", token_files.read(paths, bpe, "web").shards, bpe.size)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_returns_the_written_tokens_and_their_bytes(tmp_path, name):
    path = put(tmp_path, name)
    tokens = open_files([path])
    assert tokens.read(0, len(IDS) + 9).tolist() == IDS.tolist() and len(tokens) == len(IDS)
    assert tokens.read(3, 5).dtype == np.int32
    assert token_files.read([path], BPE, "web").bytes == sum(len(text.encode()) for text in TEXTS)


def test_files_of_several_formats_form_one_stream(tmp_path):
    paths = [put(tmp_path, name, IDS[n * 100 : (n + 1) * 100]) for n, name in enumerate(FORMATS)]
    tokens = pickle.loads(pickle.dumps(open_files(paths)))
    length = 37
    assert len(tokens) == len(FORMATS) * 100
    for i in range(tokens.sequences(length)):
        assert tokens.sequence(i, length).tolist() == IDS[i * length : (i + 1) * length + 1].tolist()


@settings(deadline=None, max_examples=50)
@given(cuts=st.lists(st.integers(0, 300), max_size=6), start=st.integers(0, 320), size=st.integers(0, 320))
def test_stream_does_not_depend_on_its_division_into_files(tmp_path_factory, cuts, start, size):
    folder, edges = tmp_path_factory.mktemp("cut"), [0, *sorted(cuts), 300]
    paths = []
    for n, (a, b) in enumerate(zip(edges, edges[1:])):
        paths.append(put(folder / str(n), "numpy.npy", IDS[a:b]))
    tokens = open_files(paths)
    assert tokens.read(start, start + size).tolist() == IDS[:300][start : start + size].tolist()


def test_files_on_disk_are_memory_mapped(tmp_path):
    tokens = open_files([put(tmp_path, "olmo_core.npy")])
    with unittest.mock.patch.object(np, "memmap", side_effect=np.memmap) as memmap:
        tokens.read(0, 10)
        tokens.read(10, 20)
    assert memmap.call_count == 1
    assert len(pickle.dumps(tokens)) < 1000


def damaged(tmp_path, name: str, change) -> str:
    path = put(tmp_path, name)
    pathlib.Path(path).write_bytes(change(pathlib.Path(path).read_bytes()))
    return path


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("olmo_core.npy", lambda b: b[:-1], "its .* bytes are not token ids of a vocabulary of 300 .*truncated"),
        ("olmo_core.npy", lambda b: b[:-2] + b"\xff\xff", "written with a tokenizer other than corpus.tokenizer"),
        ("numpy.npy", lambda b: b[:-1], "is not the [0-9]+ tokens of type <u2 .* truncated"),
        ("numpy.npy", lambda b: b[:-2], "is not the [0-9]+ tokens of type <u2 .* truncated"),
        ("numpy.npy", lambda b: with_numpy_header(np.ones(4)), "has an array of float64"),
        ("numpy.npy", lambda b: with_numpy_header(np.ones((4, 4), "<u2")), r"an array of uint16 \(4, 4\)"),
        ("numpy.npy", lambda b: b[:20], "its NumPy header cannot be read"),
        ("megatron.bin", lambda b: b[:-4], "is not the [0-9]+ tokens of type <i4 .* truncated"),
        ("dolma.npy", lambda b: b[:-2], "truncated"),
        ("dolma.npy", lambda b: b[2:], "truncated"),
        (
            "dolma.npy",
            lambda b: (np.frombuffer(b, "<u4") + 300).astype("<u4").tobytes(),
            "written with a tokenizer other than corpus.tokenizer",
        ),
    ],
)
def test_damaged_file_is_named(tmp_path, name, change, message):
    path = damaged(tmp_path, name, change)
    with pytest.raises(UserError, match=f"{path}: .*{message}"):
        open_files([path])


def test_invalid_megatron_index_is_an_error(tmp_path):
    path = put(tmp_path, "megatron.bin")
    index = tmp_path / "megatron.idx"
    good = index.read_bytes()
    index.write_bytes(b"nonsense" + good)
    with pytest.raises(UserError, match="idx file is not a Megatron index"):
        open_files([path])
    index.write_bytes(good[:17] + b"\7" + good[18:])
    with pytest.raises(UserError, match="idx file has type 7"):
        open_files([path])
    index.write_bytes(good[: 34 + 4 * 10])
    with pytest.raises(UserError, match="idx file ends before its [0-9]+ sequences"):
        open_files([path])


def tokenizer_of_size(size: int):
    """Stand-in for a tokenizer with ``size`` entries of one byte each."""
    return types.SimpleNamespace(size=size, end=0, token_bytes_V=np.ones(size, np.int32))


def spread_ids(ids: np.ndarray) -> np.ndarray:
    """Spread the ids over a vocabulary of 100,278."""
    return ids.astype(np.int64) * 334


def test_ids_of_a_large_vocabulary_are_read_as_uint32(tmp_path):
    path = put(tmp_path, "dolma.npy", spread_ids(IDS))
    tokens = open_files([path], tokenizer_of_size(100_278))
    assert tokens.read(0, len(IDS)).tolist() == spread_ids(IDS).tolist()


@pytest.mark.parametrize("name", ["dolma.npy", "datatrove.ds"])
@pytest.mark.parametrize("share", [0.5, 0.9, 1.1])
def test_size_other_than_the_one_listed_beside_the_file_is_an_error(tmp_path, name, share):
    ids = np.resize(IDS, int(1000 * share))
    width = {"dolma.npy": "<u4", "datatrove.ds": "<u2"}[name]
    path = put(tmp_path, name, IDS[:1000])
    pathlib.Path(path).write_bytes(ids.astype(width).tobytes())
    with pytest.raises(UserError, match=rf"{path}: (has .* lists 1,000 tokens, which need .*|its .*) truncated"):
        open_files([path])


def test_listed_number_of_tokens_gives_the_type_of_a_small_file(tmp_path):
    """[5, 0] in uint16 is 5 in uint32."""
    path = put(tmp_path, "datatrove.ds", np.array([5, 0]))
    assert open_files([path]).read(0, 3).tolist() == [5, 0]
    pathlib.Path(path + ".metadata").unlink()
    assert open_files([path]).read(0, 3).tolist() == [5, 0]


def test_file_that_was_allocated_but_not_filled_is_an_error(tmp_path):
    path = put(tmp_path, "olmo_core.npy", np.append(IDS, np.zeros(5_000, int)))
    with pytest.raises(UserError, match="last .* bytes or more repeat one token, so it was not written completely"):
        open_files([path])
    path = put(tmp_path, "olmo_core.npy", np.concatenate([IDS, np.zeros(5_000, int), IDS]))
    with pytest.raises(UserError, match=r"olmo_core.npy: has 2,048 zeros or more in a row from token [\d,]+ on"):
        open_files([path])
    open_files([put(tmp_path, "olmo_core.npy", np.concatenate([IDS, np.zeros(2_000, int), IDS]))])


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda b: b.astype(">u2"), "the file is truncated or big-endian"),
        (lambda b: with_numpy_header(b.astype(">u2")), ">u2"),
    ],
)
def test_big_endian_file_is_an_error(tmp_path, change, message):
    path = put(tmp_path, "olmo_core.npy")
    changed = change(IDS)
    pathlib.Path(path).write_bytes(changed if isinstance(changed, bytes) else changed.tobytes())
    with pytest.raises(UserError, match=message):
        open_files([path])


@pytest.mark.parametrize("change", [lambda b: b[:-2], lambda b: b[2:], lambda b: b[:-2] + b"\xff\xff"])
def test_damaged_file_of_a_large_vocabulary_is_not_read_as_uint16(tmp_path, change):
    path = put(tmp_path, "dolma.npy", spread_ids(IDS))
    pathlib.Path(path + ".csv.gz").unlink()
    content = pathlib.Path(path).read_bytes()
    pathlib.Path(path).write_bytes(change(content))
    with pytest.raises(UserError, match="ids of a vocabulary of 100,278 .* the file is truncated"):
        open_files([path], tokenizer_of_size(100_278))


def test_ids_outside_the_vocabulary_are_not_read_as_uint16(tmp_path):
    path = put(tmp_path, "dolma.npy", spread_ids(IDS))
    for size in (65_536, 65_000):
        with pytest.raises(UserError, match="written with a tokenizer other than corpus.tokenizer"):
            open_files([path], tokenizer_of_size(size))


def test_small_file_gets_the_type_of_the_largest(tmp_path):
    """[5, 0] in uint16 is 5 in uint32, so the small file alone is ambiguous."""
    paths = [put(tmp_path / "a", "olmo_core.npy", np.array([5, 0])), put(tmp_path / "b", "olmo_core.npy")]
    assert open_files(paths).read(0, 3).tolist() == [5, 0, IDS[0]]
    # A file whose size or ids do not fit that type is read with another type.
    paths[0] = put(tmp_path / "a", "dolma.npy", IDS[:100])
    assert open_files(paths).read(0, 101).tolist() == [*IDS[:100], IDS[0]]
