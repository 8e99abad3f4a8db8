"""Token files of other programs are used in place, in every folder layout, from disk or by URL."""

import json
import logging
import pathlib

import fsspec
import numpy as np
import pytest

from olmix_jax import config as configs
from olmix_jax.corpus import store, token_files, token_formats, tokenizer
from olmix_jax.corpus.prepare import prepare
from olmix_jax.corpus.shared_lines import SharedLines
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.utils.errors import UserError
from tests.corpus.test_token_formats import FORMATS, IDS, open_files, put
from tests.corpus.test_tokenizer import BPE, TEXTS
from tests.corpus.texts import prose

# The same documents in reverse order.
OTHER_IDS = np.concatenate([np.append(BPE.encode(text), BPE.end) for text in TEXTS[::-1]])


def test_each_sub_folder_or_file_is_a_domain(tmp_path):
    put(tmp_path / "web" / "part" / "deep", "datatrove.ds")
    put(tmp_path / "web" / "part", "olmo_core.npy")
    put(tmp_path, "megatron.bin")
    put(tmp_path / ".cache", "dolma.npy")
    web = [str(tmp_path / "web/part/deep/datatrove.ds"), str(tmp_path / "web/part/olmo_core.npy")]
    assert token_files.domain_files(str(tmp_path)) == {"megatron": [str(tmp_path / "megatron.bin")], "web": web}


@pytest.fixture
def three_folders(tmp_path) -> pathlib.Path:
    """Three folders 0, 1 and 2 with a token file each."""
    for n in range(3):
        put(tmp_path / f"{n}", "dolma.npy")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("text")
    return tmp_path


def test_domains_may_be_listed_as_patterns(three_folders):
    folder = three_folders
    patterns = {"a": f"{folder}/[01]/*", "b": [f"{folder}/2/*.npy"]}
    expected = {"a": [f"{folder}/0/dolma.npy", f"{folder}/1/dolma.npy"], "b": [f"{folder}/2/dolma.npy"]}
    (folder / "domains.json").write_text(json.dumps(patterns))
    assert token_files.domain_files(json.dumps(patterns)) == expected
    assert token_files.domain_files(str(folder / "domains.json")) == expected


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ('{"a": "FOLDER/9/*"}', r"domain a: no .npy, .ds, .bin file matches .*/9/\*"),
        ('{"a": "FOLDER/1"}', r"it is a folder: write .*/1/\*.npy, or .*/1/\*\*/\*.npy for all sub-folders"),
        ('{"a": "FOLDER/text/*"}', r"matches .*/text/\*, only text; to read text, set corpus.path to a folder"),
        ('{"a": 3}', "domain 'a' needs a name, and a file pattern"),
        ('{"a": []}', "domain 'a' needs a name, and a file pattern"),
        ('{"": "b"}', "domain '' needs a name"),
        ("{}", "has no domain"),
        ('{"a": "FOLDER/0/*", "b": "FOLDER/?/*"}', "0/dolma.npy is in two domains"),
        ('{"a": ', "not valid JSON"),
    ],
)
def test_invalid_patterns_are_named(three_folders, patterns, message):
    with pytest.raises(UserError, match=message):
        token_files.domain_files(patterns.replace("FOLDER", str(three_folders)))


def test_folder_of_text_has_no_token_files(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.txt").write_text("text")
    assert token_files.domain_files(str(tmp_path)) == {}


@pytest.mark.parametrize("name", ["code/a.txt", "code.jsonl.gz"])
def test_domain_of_text_beside_domains_of_tokens_is_an_error(tmp_path, name):
    put(tmp_path / "web", "dolma.npy")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("text")
    with pytest.raises(UserError, match="code[^:]*: no token file .*; tokenize (it|this domain) too"):
        token_files.domain_files(str(tmp_path))


def test_readme_beside_domains_of_tokens_is_ignored(tmp_path):
    put(tmp_path / "web", "dolma.npy")
    (tmp_path / "README.md").write_text("text")
    assert list(token_files.domain_files(str(tmp_path))) == ["web"]


def test_empty_folder_beside_domains_of_tokens_is_an_error(tmp_path):
    put(tmp_path / "web", "dolma.npy")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: no token file"):
        token_files.domain_files(str(tmp_path))


def test_domain_that_is_a_folder_and_a_file_is_an_error(tmp_path):
    put(tmp_path / "web", "dolma.npy")
    pathlib.Path(put(tmp_path, "dolma.npy")).rename(tmp_path / "web.npy")
    with pytest.raises(UserError, match="domain web is both a folder and a file"):
        token_files.domain_files(str(tmp_path))


def test_token_file_in_place_of_a_folder_is_an_error(tmp_path):
    with pytest.raises(UserError, match="dolma.npy: not a folder with token files"):
        token_files.domain_files(put(tmp_path, "dolma.npy"))


def test_links_are_followed_and_cycles_skipped(tmp_path):
    put(tmp_path / "elsewhere" / "deep", "dolma.npy")
    (tmp_path / "all/web").mkdir(parents=True)
    (tmp_path / "all/web/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/cycle").symlink_to(tmp_path / "elsewhere")
    assert token_files.domain_files(str(tmp_path / "all")) == {"web": [f"{tmp_path}/all/web/more/deep/dolma.npy"]}
    # Two domains may be links to the same folder.
    (tmp_path / "all/again").symlink_to(tmp_path / "elsewhere")
    assert list(token_files.domain_files(str(tmp_path / "all"))) == ["again", "web"]


def test_id_outside_the_vocabulary_is_an_error_when_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(token_files, "COUNTED", 64)
    monkeypatch.setattr(token_files, "_BLOCK", 32)
    monkeypatch.setattr(token_formats, "_EDGE", 64)
    ids = IDS[:4000].copy()
    ids[2000] = 999
    monkeypatch.setattr(token_files, "_COMPARED", 64)
    monkeypatch.setattr(token_files, "_LARGE_BLOCK", 32)
    tokens = open_files([put(tmp_path, "olmo_core.npy", ids)])
    assert tokens.sequence(0, 100).max() < BPE.size
    message = r"olmo_core.npy: token ids 0 to 999 from token 2,000 on are outside the vocabulary of 300"
    with pytest.raises(UserError, match=message):
        tokens.sequence(20, 100)
    monkeypatch.undo()
    monkeypatch.setattr(token_files, "COUNTED", 64)
    monkeypatch.setattr(token_files, "_BLOCK", 32)
    monkeypatch.setattr(token_formats, "_EDGE", 64)
    with pytest.raises(UserError, match="olmo_core.npy: token ids 0 to 999 from token 0 on are outside"):
        open_files([put(tmp_path, "olmo_core.npy", ids)])


def test_documents_without_end_tokens_give_a_warning(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("olmix_jax"), "propagate", True)
    token_files.read([put(tmp_path, "dolma.npy", IDS[IDS != BPE.end])], BPE, "web")
    assert "web: no end-of-document token (id 0)" in caplog.text


def test_estimated_bytes_of_a_large_domain_are_within_one_percent(tmp_path, monkeypatch):
    path = put(tmp_path, "dolma.npy")
    exact = token_files.read([path], BPE, "web").bytes
    monkeypatch.setattr(token_files, "COUNTED", 1024)
    monkeypatch.setattr(token_files, "_BLOCK", 64)
    estimate = token_files.read([path], BPE, "web").bytes
    assert estimate != exact and abs(estimate / exact - 1) < 0.01


def test_content_hash_adds_up_over_files_and_changes_with_them(tmp_path):
    def content(paths: list[str]) -> int:
        return int(token_files.read(paths, BPE, "web").content, 16)

    paths = [put(tmp_path / str(n), name, IDS[n:]) for n, name in enumerate(FORMATS)]
    assert content(paths) == (content(paths[:3]) + content(paths[3:])) % 2**128
    before = content(paths[:1])
    put(tmp_path / "0", next(iter(FORMATS)), IDS[::-1])
    assert content(paths[:1]) != before


@pytest.fixture
def bucket(tmp_path):
    """Two domains of two files each in a remote file system."""
    memory = fsspec.filesystem("memory")
    for domain, size in (("web", 900), ("code", 700)):
        path = pathlib.Path(put(tmp_path / domain, "olmo_core.npy", IDS[:size]))
        memory.pipe_file(f"/bucket/{domain}/a.npy", path.read_bytes())
        memory.pipe_file(f"/bucket/{domain}/b.npy", path.read_bytes())
    yield memory
    memory.rm("/bucket", recursive=True)


@pytest.mark.parametrize("chain", ["", "simplecache::"])
def test_remote_files_are_read_by_url(bucket, tmp_path, chain):
    paths = token_files.domain_files(f"{chain}memory://bucket")["web"]
    assert paths == [f"{chain}memory:///bucket/web/a.npy", f"{chain}memory:///bucket/web/b.npy"]
    domain = token_files.read(paths, BPE, "web")
    assert store.link_store(tmp_path / "web.bin", domain.shards, BPE.size) == 1800
    tokens = store.open_store(tmp_path / "web.bin")
    assert tokens.read(890, 910).tolist() == [*IDS[890:900], *IDS[:10]]
    assert domain.bytes == 2 * BPE.token_bytes_V[IDS[:900]].sum()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://elsewhere", "not a folder with token files"),
        ("nosuch://bucket", "nosuch://bucket: cannot be read: Protocol not known"),
    ],
)
def test_missing_remote_folder_is_named(bucket, url, message):
    with pytest.raises(UserError, match=message):
        token_files.domain_files(url)


def test_remote_file_that_shrinks_or_disappears_is_named(bucket):
    shards = token_files.read(["memory://bucket/web/a.npy"], BPE, "web").shards
    bucket.pipe_file("/bucket/web/a.npy", b"\1\0" * 100)
    with pytest.raises(UserError, match="web/a.npy: ends before byte 1800"):
        store.TokenStore("web", shards, BPE.size).sequence(0, 899)
    bucket.rm("/bucket/web/a.npy")
    with pytest.raises(UserError, match="web/a.npy: cannot be read"):
        store.TokenStore("web", shards, BPE.size).sequence(0, 10)


def test_exception_of_a_file_system_becomes_an_error_that_names_the_file(bucket, monkeypatch):
    class Refused(Exception):
        pass

    def refuse(*arguments, **more):
        raise Refused("403: no permission")

    for method, call in (
        ("find", lambda: token_files.domain_files("memory://bucket")),
        ("cat_file", lambda: token_files.read(["memory://bucket/web/a.npy"], BPE, "web")),
    ):
        monkeypatch.setattr(type(bucket), method, refuse)
        with pytest.raises(UserError, match="memory://bucket.*: cannot be read: 403: no permission"):
            call()


def test_stamp_changes_with_the_files(bucket, tmp_path):
    put(tmp_path / "local", "dolma.npy")
    patterns = json.dumps({"web": "memory://bucket/web/*.npy", "local": f"{tmp_path}/local/*.npy"})
    before = [token_files.stamp(where) for where in ("memory://bucket", patterns)]
    assert before == [token_files.stamp(where) for where in ("memory://bucket", patterns)]
    put(tmp_path / "local", "dolma.npy", IDS[:50])
    assert token_files.stamp(patterns) != before[1]
    bucket.pipe_file("/bucket/web/c.npy", b"\1\0" * 100)
    assert token_files.stamp("memory://bucket") != before[0]
    assert token_files.stamp(str(tmp_path / "local")) is None


@pytest.fixture
def make_config(tmp_path):
    """A function that makes a config for two domains of token files. It takes changes as ``section__field=value``."""
    put(tmp_path / "tokens" / "web", "dolma.npy")
    put(tmp_path / "tokens" / "code", "datatrove.ds", OTHER_IDS)
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


def test_prepare_links_token_files_without_copying(tmp_path, make_config):
    domains = prepare(make_config(), tmp_path / "work")
    assert domains.names == ("code", "web") and domains.tokens == (len(IDS), len(IDS))
    assert domains == DomainSet.read(tmp_path / "work/domains.json")
    assert not list((tmp_path / "work/corpus/train").glob("*.bin"))
    tokens = store.open_store(store.store_path(tmp_path / "work", "code"))
    assert tokens.read(0, 50).tolist() == OTHER_IDS[:50].tolist()
    assert tokenizer.Tokenizer.read(store.tokenizer_path(tmp_path / "work")).digest == BPE.digest


def test_linked_file_that_changes_size_is_an_error_that_asks_to_restore_it(tmp_path, make_config):
    prepare(make_config(), tmp_path / "work")
    with open(tmp_path / "tokens/code/datatrove.ds", "ab") as f:
        f.write(b"\0\0")
    with pytest.raises(UserError, match="datatrove.ds: has .* bytes, but .* truncated or replaced; restore the file"):
        store.open_store(store.store_path(tmp_path / "work", "code"))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"corpus__tokenizer": ""}, "is a token file: set corpus.tokenizer"),
        ({"corpus__max_bytes": 5}, "corpus.max_bytes"),
        ({"corpus__skip_bad": True}, "corpus.skip_bad` has no effect on token files"),
        ({"tasks__path": ""}, "tasks.path, or tasks.olmes"),
        ({"corpus__min_tokens": 10**6}, "too few training tokens"),
    ],
)
def test_config_that_does_not_suit_token_files_is_an_error(tmp_path, make_config, changes, message):
    with pytest.raises(UserError, match=message):
        prepare(make_config(**changes), tmp_path / "work")
    assert not (tmp_path / "work/domains.json").exists()


def test_update_needs_the_tokenizer_of_its_parent(tmp_path, make_config):
    prepare(make_config(), tmp_path / "parent")
    config = make_config(update__parent=str(tmp_path / "parent"))
    assert prepare(config, tmp_path / "work").tokens == (len(IDS), len(IDS))
    tokenizer.train(TEXTS, 290).write(tmp_path / "tokenizer.json")
    with pytest.raises(UserError, match="differs from the tokenizer of update.parent"):
        prepare(config, tmp_path / "work")


def test_update_of_a_parent_with_heldout_text_cannot_use_token_files(tmp_path, make_config):
    prepare(make_config(), tmp_path / "parent")
    (tmp_path / "parent/corpus/heldout").mkdir()
    (tmp_path / "parent/corpus/heldout/web.jsonl").write_text(json.dumps({"text": "held", "source": "a"}) + "\n")
    with pytest.raises(UserError, match="made its tasks from held-out text"):
        prepare(make_config(update__parent=str(tmp_path / "parent")), tmp_path / "work")


def test_documents_that_are_written_into_other_files_count_twice(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("olmix_jax"), "propagate", True)
    parts = [np.concatenate([np.append(BPE.encode(prose(i)), BPE.end) for i in range(n, n + 70)]) for n in (0, 70)]
    paths = [put(tmp_path / str(n), "olmo_core.npy", ids) for n, ids in enumerate((*parts, np.concatenate(parts)))]
    documents = SharedLines("documents", "files")
    token_files.read(paths, BPE, "web", documents)
    documents.check({}, {})
    assert "99 % of its documents are in several of its files; its text may count twice" in caplog.text
    documents = SharedLines("documents", "files")
    token_files.read(paths[:2], BPE, "a", documents)
    token_files.read(paths[2:], BPE, "b", documents)
    with pytest.raises(UserError, match="domain a repeats domain b: 100% of its documents are also in b, in other"):
        documents.check({}, {})
