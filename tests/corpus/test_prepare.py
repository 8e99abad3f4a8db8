"""The prepare stage writes reproducible stores, counts that match them, and held-out text that is never trained on."""

import dataclasses
import hashlib
import json
import pathlib
import re
import shutil

import numpy as np
import pytest

from olmix_jax import config as configs
from olmix_jax.corpus import store
from olmix_jax.corpus.prepare import prepare
from olmix_jax.corpus.tokenizer import Tokenizer
from olmix_jax.pipeline import prepare as stage
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from tests.corpus.texts import prose


def config_for(path: pathlib.Path, **corpus) -> configs.Config:
    section = configs.Corpus(path=str(path), **{"vocabulary": 320, "min_tokens": 500, **corpus})
    return configs.Config(corpus=section, proxy=configs.Proxy(length=64))


@pytest.fixture
def two_domains(tmp_path) -> pathlib.Path:
    """Domains of 40 and 10 documents, and a copy of one of the 40 in the smaller domain."""
    root = tmp_path / "text"
    for name, count in (("source:topic", 40), ("b", 10)):
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{i}.txt").write_text(prose(1000 * count + i) + " ünï", encoding="utf-8")
    copied = (root / "source:topic" / "3.txt").read_text(encoding="utf-8")
    (root / "b" / "copy.txt").write_text(copied, encoding="utf-8")
    return root


def digests(folder: pathlib.Path) -> dict[str, str]:
    """Hashes of all files below a folder."""
    paths = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def training_text(workdir: pathlib.Path) -> str:
    tokenizer = Tokenizer.read(workdir / "corpus/tokenizer.json")
    names = DomainSet.read(workdir / "domains.json").names
    stores = [store.open_store(store.store_path(workdir, name)) for name in names]
    return "".join(tokenizer.decode(tokens.read(0, len(tokens)).tolist()) for tokens in stores)


def heldout_texts(workdir: pathlib.Path, domain: str = "*") -> list[str]:
    pattern = domain if domain == "*" else store.file_name(domain)
    paths = sorted((workdir / "corpus/heldout").glob(f"{pattern}.jsonl"))
    rows = [json.loads(line) for path in paths for line in path.read_text("utf-8").split("\n") if line]
    assert all(set(row) == {"text", "source"} for row in rows)
    return [row["text"] for row in rows]


def test_heldout_text_is_never_trained_on_after_updates(two_domains, tmp_path):
    """A domain is renamed, another removed and put back: earlier held-out text stays out, training text stays in."""
    first = config_for(two_domains)
    prepare(first, tmp_path / "0")
    heldout, before = heldout_texts(tmp_path / "0"), training_text(tmp_path / "0")
    assert len(heldout) > 2 and not any(text in before for text in heldout)

    def update(number: int) -> str:
        """Prepare an update of the previous workdir and return its training text."""
        workdir, parent = tmp_path / str(number), tmp_path / str(number - 1)
        files.write_json(workdir / "update/plan.json", {"parent": str(parent)})
        prepare(dataclasses.replace(first, update=configs.Update(parent=str(parent))), workdir)
        return training_text(workdir)

    (two_domains / "b").rename(tmp_path / "away")
    (two_domains / "source:topic").rename(two_domains / "topic")
    renamed = update(1)
    assert len(renamed) < len(before) and not any(text in renamed for text in heldout)
    (tmp_path / "away").rename(two_domains / "again")
    # A copy in upper case is near-identical, so it is removed too.
    (two_domains / "again" / "more.txt").write_text(heldout[0].upper(), encoding="utf-8")
    restored = update(2)
    assert len(restored) == pytest.approx(len(before), abs=2) and not any(text in restored for text in heldout)
    assert heldout[0].upper() not in restored


def test_counts_match_the_files(two_domains, tmp_path, caplog):
    caplog.set_level("INFO", logger="olmix_jax")
    workdir = tmp_path / "run"
    domains = prepare(config_for(two_domains), workdir)
    assert DomainSet.read(workdir / "domains.json") == domains
    assert domains.names == ("b", "source:topic")
    tokenizer = Tokenizer.read(workdir / "corpus" / "tokenizer.json")
    table = np.load(workdir / "corpus" / "token_bytes.npy", allow_pickle=False)
    assert table.dtype == np.int32 and (table == tokenizer.token_bytes_V).all()
    for name, tokens, size in zip(domains.names, domains.tokens, domains.bytes):
        ids = store.open_store(store.store_path(workdir, name)).read(0, 10**9)
        assert len(ids) == tokens and table[ids].sum() == size
    assert "source:topic" in caplog.text and "1 near-identical" in caplog.text


def test_every_document_is_trained_on_or_held_out_once(two_domains, tmp_path):
    workdir = tmp_path / "run"
    domains = prepare(config_for(two_domains), workdir)
    tokenizer = Tokenizer.read(workdir / "corpus" / "tokenizer.json")
    copied = (two_domains / "b" / "copy.txt").read_text(encoding="utf-8")
    for name in domains.names:
        ids = store.open_store(store.store_path(workdir, name)).read(0, 10**9)
        trained = tokenizer.decode(np.where(ids == 0, tokenizer.encode("|")[0], ids)).split("|")[:-1]
        heldout = heldout_texts(workdir, name)
        assert heldout and not set(trained) & set(heldout)
        expected = {p.read_text(encoding="utf-8") for p in (two_domains / name).iterdir()}
        # Of the two identical documents the one in the first domain is kept.
        assert set(trained) | set(heldout) == (expected if name == "b" else expected - {copied})


def test_same_config_gives_the_same_files_and_another_seed_does_not(two_domains, tmp_path):
    config = config_for(two_domains)
    runs = [tmp_path / name for name in ("one", "two", "three")]
    for workdir, seed in zip(runs, (0, 0, 1)):
        prepare(dataclasses.replace(config, seed=seed), workdir)
    assert digests(runs[0]) == digests(runs[1])
    assert digests(runs[0])["corpus/train/b.bin"] != digests(runs[2])["corpus/train/b.bin"]


def test_domain_with_too_few_tokens_is_an_error_and_leaves_no_record(two_domains, tmp_path):
    prepare(config_for(two_domains), tmp_path / "run")
    message = r"b has [\d,]+; corpus.min_tokens requires 9,000: add text.*or lower corpus.min_tokens"
    with pytest.raises(UserError, match=message) as e:
        prepare(config_for(two_domains, min_tokens=9_000, max_bytes=10**7), tmp_path / "run")
    assert "source:topic" not in str(e.value) and "raise corpus.max_bytes (now 10,000,000)" in str(e.value)
    assert not (tmp_path / "run" / "domains.json").exists()
    assert re.search(r"b has [\d,]+;", str(e.value))


def test_domain_that_is_small_because_it_repeats_another_is_an_error_that_says_so(two_domains, tmp_path):
    shutil.copytree(two_domains / "source:topic", two_domains / "zz")
    (two_domains / "zz" / "more.txt").write_text(prose(7), encoding="utf-8")
    with pytest.raises(UserError, match=r"zz has [\d,]+ \(.*9\d% of its text is in source:topic\); .* requires"):
        prepare(config_for(two_domains, min_tokens=2000), tmp_path / "run")


def test_domain_smaller_than_one_sequence_is_an_error(two_domains, tmp_path):
    config = dataclasses.replace(config_for(two_domains, min_tokens=1), proxy=configs.Proxy(length=20_000))
    with pytest.raises(UserError, match=r"b has .*; proxy.length requires 20,001: .* lower proxy.length"):
        prepare(config, tmp_path / "run")


def test_workdir_that_is_a_file_is_an_error(two_domains, tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(UserError, match="run"):
        prepare(config_for(two_domains), tmp_path / "run")


def test_domain_of_blank_text_is_an_error(two_domains, tmp_path):
    (two_domains / "blank").mkdir()
    (two_domains / "blank" / "x.txt").write_text(" \n" * 3000)
    with pytest.raises(UserError, match="domain blank: no text"):
        prepare(config_for(two_domains), tmp_path / "run")


def test_nothing_is_held_out_where_no_task_is_made_of_it(two_domains, tmp_path):
    config = config_for(two_domains)
    for number, tasks in enumerate(
        (configs.Tasks(path="mine"), configs.Tasks(olmes="data"), configs.Tasks(builtin=False))
    ):
        prepare(dataclasses.replace(config, tasks=tasks), tmp_path / str(number))
        assert heldout_texts(tmp_path / str(number)) == []
    prepare(config, tmp_path / "own")
    assert len(heldout_texts(tmp_path / "own")) > 2


def test_share_of_two_large_files_is_held_out_in_passages(tmp_path):
    (tmp_path / "text" / "web").mkdir(parents=True)
    texts = [prose(i, 20_000) for i in range(2)]
    for i, text in enumerate(texts):
        (tmp_path / "text" / "web" / f"{i}.txt").write_text(text, encoding="utf-8")
    domains = prepare(config_for(tmp_path / "text", heldout=0.1), tmp_path / "run")
    heldout, trained = heldout_texts(tmp_path / "run"), training_text(tmp_path / "run")
    size = len("".join(texts).encode())
    assert sum(len(t.encode()) for t in heldout) == pytest.approx(0.1 * size, rel=0.05)
    assert domains.bytes[0] + sum(len(t.encode()) for t in heldout) == size
    assert len(heldout) > 5 and not any(text in trained for text in heldout)
    assert all(any(text in t for t in texts) for text in heldout)


def test_finished_domains_are_not_tokenised_again_after_an_interruption(two_domains, tmp_path, monkeypatch):
    prepare(config_for(two_domains), tmp_path / "whole")
    write_store, written = store.write_store, []

    def interrupted(path, *args):
        if written:
            raise KeyboardInterrupt
        written.append(path.name)
        return write_store(path, *args)

    monkeypatch.setattr(store, "write_store", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(config_for(two_domains), tmp_path / "run")
    assert not (tmp_path / "run/corpus/.scratch").exists() and not (tmp_path / "run/domains.json").exists()
    monkeypatch.setattr(store, "write_store", lambda path, *args: written.append(path.name) or write_store(path, *args))
    prepare(config_for(two_domains), tmp_path / "run")
    assert written == ["b.bin", "source%3Atopic.bin"]
    assert digests(tmp_path / "run") == digests(tmp_path / "whole")


def test_tasks_from_no_heldout_text_are_an_error_before_text_is_read(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_bytes(b"\xff")
    config = configs.Config(corpus=configs.Corpus(path=str(tmp_path), heldout=0.0))
    with pytest.raises(UserError, match="corpus.heldout is 0, but tasks are made from held-out text; raise it"):
        stage.run(config, tmp_path / "work")
