"""Token files of other engines are used where they lie, in every layout, from disk or by URL."""

import json
import logging
import pathlib

import fsspec
import numpy as np
import pytest

from olmix_jax import config as configs
from olmix_jax.corpus import similarity, store, token_files, token_formats, tokenizer
from olmix_jax.corpus.prepare import prepare
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.utils.errors import UserError
from tests.corpus.test_token_formats import FORMATS, IDS, put, read
from tests.corpus.test_tokenizer import BPE, TEXTS

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
        ({"a": f"{tmp_path}/1"}, f"it is a folder: {tmp_path}/1/"),
        ({"a": 3}, "domain 'a' must have a name, and a pattern"),
        ({"a": []}, "domain 'a' must have a name, and a pattern"),
        ({"": "b"}, "domain '' must have a name"),
        ({}, "no domain in it"),
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
    with pytest.raises(UserError, match="code/a.txt: no token file .* other domains have"):
        token_files.domain_files(str(tmp_path))
    (tmp_path / "code/a.txt").rename(tmp_path / "code.jsonl.gz")
    (tmp_path / "code").rmdir()
    with pytest.raises(UserError, match="code.jsonl.gz: no token file"):
        token_files.domain_files(str(tmp_path))
    (tmp_path / "code.jsonl.gz").rename(tmp_path / "README.md")
    assert list(token_files.domain_files(str(tmp_path))) == ["web"]
    put(tmp_path, "dolma.npy")
    (tmp_path / "dolma.npy").rename(tmp_path / "web.npy")
    with pytest.raises(UserError, match="domain web is there twice"):
        token_files.domain_files(str(tmp_path))
    with pytest.raises(UserError, match="web.npy: no folder with token files"):
        token_files.domain_files(str(tmp_path / "web.npy"))


def test_what_lies_behind_links_is_found(tmp_path):
    put(tmp_path / "elsewhere" / "deep", "dolma.npy")
    (tmp_path / "all/web").mkdir(parents=True)
    (tmp_path / "all/web/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/round").symlink_to(tmp_path / "elsewhere")
    assert token_files.domain_files(str(tmp_path / "all")) == {"web": [f"{tmp_path}/all/web/more/deep/dolma.npy"]}
    # Two domains may be one folder, and then both are there.
    (tmp_path / "all/again").symlink_to(tmp_path / "elsewhere")
    assert list(token_files.domain_files(str(tmp_path / "all"))) == ["again", "web"]
    (tmp_path / "all/empty").mkdir()
    with pytest.raises(UserError, match="all/empty: no token file"):
        token_files.domain_files(str(tmp_path / "all"))


# What is read.


def test_an_id_outside_the_vocabulary_is_found_when_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(token_files, "COUNTED", 64)
    monkeypatch.setattr(token_files, "_BLOCK", 32)
    monkeypatch.setattr(token_formats, "_EDGE", 64)
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
    before = read(whole[:1])[2]
    put(tmp_path / "0", next(iter(FORMATS)), IDS[::-1])
    assert read(whole[:1])[2] != before


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
        ("memory://elsewhere", "no folder with token files"),
        ("nosuch://bucket", "nosuch://bucket: cannot be read: Protocol not known"),
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


def test_a_librarys_own_kind_of_error_names_the_file(bucket, monkeypatch):
    class Refused(Exception):
        pass

    def refuse(*arguments, **more):
        raise Refused("403: no permission")

    for name, call in (
        ("find", lambda: token_files.domain_files("memory://bucket")),
        ("cat_file", lambda: token_files.read(["memory://bucket/web/a.npy"], BPE, "web")),
    ):
        monkeypatch.setattr(type(bucket), name, refuse)
        with pytest.raises(UserError, match="memory://bucket.*: cannot be read: 403: no permission"):
            call()


def test_files_that_change_are_seen_to(bucket, tmp_path):
    put(tmp_path / "own", "dolma.npy")
    given = json.dumps({"web": "memory://bucket/web/*.npy", "own": f"{tmp_path}/own/*.npy"})
    before = [token_files.stamp(where) for where in ("memory://bucket", given)]
    assert before == [token_files.stamp(where) for where in ("memory://bucket", given)]
    put(tmp_path / "own", "dolma.npy", IDS[:50])
    assert token_files.stamp(given) != before[1]
    bucket.pipe_file("/bucket/web/c.npy", b"\1\0" * 100)
    assert token_files.stamp("memory://bucket") != before[0]


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
    alike_MO = similarity.match_probabilities(tmp_path / "work", tmp_path / "work", domains, domains)
    np.testing.assert_allclose(alike_MO, 0.5)
    with open(tmp_path / "tokens/code/datatrove.ds", "ab") as f:
        f.write(b"\0\0")
    with pytest.raises(UserError, match="datatrove.ds: .* bytes where .* truncated or replaced; put it back"):
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
