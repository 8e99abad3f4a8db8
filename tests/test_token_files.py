"""Token files of other engines are read as they are, in every layout, from disk or by URL, or refused by name."""

import io
import json
import logging
import pathlib
import pickle
import struct

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix_jax import config as configs
from olmix_jax.corpus import likeness, store, token_files, tokenizer
from olmix_jax.corpus.prepare import prepare
from olmix_jax.domains import DomainSet
from olmix_jax.errors import UserError
from tests.test_tokenizer import BPE, TEXTS

IDS = np.concatenate([np.append(BPE.encode(text), BPE.end) for text in TEXTS])


def megatron(ids: np.ndarray, code: int) -> bytes:
    """The index that Megatron writes: documents of 10 tokens."""
    sizes = np.full(len(ids) // 10, 10, np.int32)
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


# Which files are of which domain.


def test_domains_are_sub_folders_or_files(tmp_path):
    put(tmp_path / "web" / "part" / "deep", "datatrove.ds")
    put(tmp_path / "web" / "part", "olmo_core.npy")
    put(tmp_path, "megatron.bin")
    put(tmp_path / ".cache", "dolma.npy")
    found = token_files.domain_files(str(tmp_path))
    web = [str(tmp_path / "web/part/deep/datatrove.ds"), str(tmp_path / "web/part/olmo_core.npy")]
    assert found == {"megatron": [str(tmp_path / "megatron.bin")], "web": web}


def test_domains_may_be_given_by_patterns(tmp_path):
    for n in range(3):
        put(tmp_path / f"{n}", "dolma.npy")
    given = {"a": f"{tmp_path}/[01]/*", "b": [f"{tmp_path}/2/*.npy"]}
    wanted = {"a": [f"{tmp_path}/0/dolma.npy", f"{tmp_path}/1/dolma.npy"], "b": [f"{tmp_path}/2/dolma.npy"]}
    (tmp_path / "domains.json").write_text(json.dumps(given))
    assert token_files.domain_files(json.dumps(given)) == wanted
    assert token_files.domain_files(str(tmp_path / "domains.json")) == wanted
    for content, message in (
        ({"a": f"{tmp_path}/9/*"}, r"domain a: no .npy, .ds, .bin file is .*/9/\*"),
        ({"a": 3}, "domain a must have a pattern"),
        ({"a": f"{tmp_path}/0/*", "b": f"{tmp_path}/?/*"}, "0/dolma.npy is in two domains"),
        ('{"a": ', "not valid JSON"),
    ):
        with pytest.raises(UserError, match=message):
            token_files.domain_files(content if isinstance(content, str) else json.dumps(content))


def test_a_folder_of_text_has_none_and_a_domain_without_any_is_an_error(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.txt").write_text("text")
    assert token_files.domain_files(str(tmp_path)) == {}
    put(tmp_path / "web", "dolma.npy")
    with pytest.raises(UserError, match="no token file .* in code; others have"):
        token_files.domain_files(str(tmp_path))


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
        ("numpy.npy", lambda b: b[:-1], "no whole number of tokens of 2 bytes; it is truncated"),
        ("numpy.npy", lambda b: with_header(np.ones(4)), "an array of float64"),
        ("numpy.npy", lambda b: with_header(np.ones((4, 4), "<u2")), r"an array of uint16 \(4, 4\)"),
        ("numpy.npy", lambda b: b[:20], "header that cannot be read"),
        ("megatron.bin", lambda b: b[:-2], "truncated"),
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


def test_an_id_outside_the_vocabulary_is_found_when_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(token_files, "COUNTED", 64)
    monkeypatch.setattr(token_files, "_BLOCK", 32)
    monkeypatch.setattr(token_files, "_EDGE", 64)
    ids = IDS[:4000].copy()
    ids[2000] = 999
    found, _, _ = read([put(tmp_path, "olmo_core.npy", ids)])
    assert found.sequence(0, 100).max() < BPE.size
    with pytest.raises(UserError, match=r"olmo_core.npy: token ids 0 to 999 at token 2,000, outside .* of 300"):
        found.sequence(20, 100)


def test_documents_without_an_end_between_them_are_told(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("olmix_jax"), "propagate", True)
    read([put(tmp_path, "dolma.npy", IDS[IDS != BPE.end])])
    assert "web: no end of a document (id 0)" in caplog.text


def test_bytes_of_a_large_domain_are_estimated_to_a_hundredth(tmp_path, monkeypatch):
    exact = read([put(tmp_path, "dolma.npy")])[1]
    monkeypatch.setattr(token_files, "COUNTED", 1024)
    monkeypatch.setattr(token_files, "_BLOCK", 64)
    found = read([put(tmp_path, "dolma.npy")])[1]
    assert found != exact and abs(found / exact - 1) < 0.01


def test_content_is_known_again_under_any_name_and_adds_up(tmp_path):
    whole = [put(tmp_path / str(n), name, IDS[n:]) for n, name in enumerate(FORMATS)]
    first, rest = (int(read(paths)[2], 16) for paths in (whole[:3], whole[3:]))
    assert int(read(whole)[2], 16) == (first + rest) % 2**128
    changed = pathlib.Path(whole[0])
    changed.write_bytes(changed.read_bytes()[::-1])
    shards = token_files._shard(whole[0], 2**16)[1]
    assert shards != token_files._shard(whole[1], 2**16)[1]


# By URL.


@pytest.fixture
def bucket(tmp_path):
    """Two domains in a remote file system."""
    memory = fsspec.filesystem("memory")
    for domain, size in (("web", 900), ("code", 700)):
        path = pathlib.Path(put(tmp_path / domain, "olmo_core.npy", IDS[:size]))
        memory.pipe_file(f"/bucket/{domain}/a.npy", path.read_bytes())
        memory.pipe_file(f"/bucket/{domain}/b.npy", path.read_bytes())
    yield memory
    memory.rm("/bucket", recursive=True)


@pytest.mark.parametrize("chain", ["", "simplecache::"])
def test_remote_files_are_read_by_url(bucket, tmp_path, chain):
    found = token_files.domain_files(f"{chain}memory://bucket")
    assert found["web"] == [f"{chain}memory:///bucket/web/a.npy", f"{chain}memory:///bucket/web/b.npy"]
    shards, size, _ = token_files.read(found["web"], BPE, "web")
    assert store.link_store(tmp_path / "web.bin", shards, BPE.size) == 1800
    remote = store.open_store(tmp_path / "web.bin")
    assert remote.read(890, 910).tolist() == [*IDS[890:900], *IDS[:10]]
    assert size == 2 * BPE.token_bytes_V[IDS[:900]].sum()


def test_a_remote_place_that_is_not_there_is_an_error(bucket, tmp_path):
    for where, message in (
        ("memory://elsewhere", "no token files"),
        ("nosuch://bucket", "nosuch://bucket: cannot be opened: Protocol not known"),
    ):
        with pytest.raises(UserError, match=message):
            token_files.domain_files(where)
    shards, _, _ = token_files.read(["memory://bucket/web/a.npy"], BPE, "web")
    bucket.pipe_file("/bucket/web/a.npy", b"\1\0" * 100)
    with pytest.raises(UserError, match="web/a.npy: ends before byte 1800"):
        store.TokenStore("web", shards, BPE.size).sequence(0, 899)
    bucket.rm("/bucket/web/a.npy")
    with pytest.raises(UserError, match="web/a.npy: cannot be read"):
        store.TokenStore("web", shards, BPE.size).sequence(0, 10)


# The stage.


@pytest.fixture
def settings_of(tmp_path):
    """Two domains of token files, a tokenizer, and a task of the user's own."""
    put(tmp_path / "tokens" / "web", "dolma.npy")
    put(tmp_path / "tokens" / "code", "datatrove.ds", IDS[::-1])
    BPE.write(tmp_path / "tokenizer.json")

    def make(**changes):
        config = configs.default()
        config.corpus.path, config.corpus.tokenizer = str(tmp_path / "tokens"), str(tmp_path / "tokenizer.json")
        config.tasks.path, config.corpus.min_tokens, config.proxy.length = "somewhere", 100, 16
        for name, value in changes.items():
            section, field = name.split("__")
            config[section][field] = value
        return configs.from_dict(config)

    return make


def test_prepare_links_token_files(tmp_path, settings_of):
    domains = prepare(settings_of(), tmp_path / "work")
    assert domains.names == ("code", "web") and domains.tokens == (len(IDS), len(IDS))
    assert domains == DomainSet.read(tmp_path / "work/domains.json")
    assert not list((tmp_path / "work/corpus/train").glob("*.bin"))
    found = store.open_store(store.store_path(tmp_path / "work", "code"))
    assert found.read(0, 50).tolist() == IDS[::-1][:50].tolist()
    assert tokenizer.Tokenizer.read(store.tokenizer_path(tmp_path / "work")).digest == BPE.digest
    alike_MO = likeness.resembles(tmp_path / "work", tmp_path / "work", domains, domains)
    np.testing.assert_allclose(alike_MO, 0.5)
    with open(tmp_path / "tokens/code/datatrove.ds", "ab") as f:
        f.write(b"\0\0")
    with pytest.raises(UserError, match="datatrove.ds: .* bytes where .* truncated or replaced"):
        store.open_store(store.store_path(tmp_path / "work", "code"))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"corpus__tokenizer": ""}, "token files: give corpus.tokenizer"),
        ({"corpus__max_bytes": 5}, "corpus.max_bytes"),
        ({"tasks__path": ""}, "tasks.path or tasks.olmes"),
        ({"corpus__min_tokens": 10**6}, "too few training tokens"),
    ],
)
def test_what_token_files_cannot_be_used_with_is_an_error(tmp_path, settings_of, changes, message):
    with pytest.raises(UserError, match=message):
        prepare(settings_of(**changes), tmp_path / "work")
    assert not (tmp_path / "work/domains.json").exists()


def test_an_update_needs_its_parents_tokenizer_and_no_text_held_out_before(tmp_path, settings_of):
    prepare(settings_of(), tmp_path / "parent")
    (tmp_path / "parent/config.json").write_text("{}")
    again = settings_of(update__parent=str(tmp_path / "parent"))
    assert prepare(again, tmp_path / "work").tokens == (len(IDS), len(IDS))
    tokenizer.train(TEXTS, 290).write(tmp_path / "tokenizer.json")
    with pytest.raises(UserError, match="not the tokenizer of update.parent"):
        prepare(again, tmp_path / "work")
    BPE.write(tmp_path / "tokenizer.json")
    (tmp_path / "parent/corpus/heldout").mkdir()
    (tmp_path / "parent/corpus/heldout/web.jsonl").write_text(json.dumps({"text": "held", "source": "a"}) + "\n")
    with pytest.raises(UserError, match="held out text"):
        prepare(again, tmp_path / "work")
