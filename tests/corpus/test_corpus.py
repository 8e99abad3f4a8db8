"""Text is read whole or refused by name, thinned evenly, cleaned of near-copies, split without leaks, and prepared."""

import collections
import dataclasses
import gzip
import hashlib
import json
import pathlib

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix_jax import config as configs
from olmix_jax.corpus import builtin, clean, readers, store
from olmix_jax.corpus.prepare import prepare
from olmix_jax.corpus.readers import Document
from olmix_jax.corpus.tokenizer import Tokenizer
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError

WORDS = "data model token law weight mixture proxy loss domain train swarm solver cap epoch batch value".split()


def prose(seed: int, words: int = 200) -> str:
    """Text of its own for every seed: no two are near-copies."""
    picks = np.random.default_rng(seed).integers(0, len(WORDS), words)
    return "".join(f"{WORDS[p]}{p * seed % 97}{' ' if i % 12 else chr(10)}" for i, p in enumerate(picks, 1)).strip()


def document(text: str, name: str, group: str = "") -> Document:
    return Document(text, name, group or name)


def texts(documents: list[Document]) -> list[str]:
    return [d.text for d in documents]


# Readers.


@pytest.fixture
def corpus(tmp_path) -> pathlib.Path:
    """Three domains: a folder, plain and packed JSONL."""
    root = tmp_path / "corpus"
    (root / "web" / "deep").mkdir(parents=True)
    (root / "web" / "b.txt").write_text("zweiter Text\n", encoding="utf-8")
    (root / "web" / "a.md").write_bytes("\ufefferster Töxt\r\n".encode())
    (root / "web" / "deep" / "c.txt.gz").write_bytes(gzip.compress(b"dritter"))
    (root / "web" / "image.png").write_bytes(b"\x89PNG")
    (root / ".hidden").mkdir()
    rows = "".join(json.dumps({"text": t, "id": 3}) + "\n\n" for t in ("eins", "zwei", "drei"))
    (root / "code.v2.jsonl").write_text(rows, encoding="utf-8")
    half = len(rows) // 2
    pack = zstandard.ZstdCompressor().compress
    (root / "arxiv.jsonl.zst").write_bytes(pack(rows[:half].encode()) + pack(rows[half:].encode()))
    return root


def test_reads_every_kind_in_order(corpus):
    domains, _ = readers.read_domains(corpus)
    assert list(domains) == ["arxiv", "code.v2", "web"]
    assert texts(domains["arxiv"]) == texts(domains["code.v2"]) == ["eins", "zwei", "drei"]
    assert texts(domains["web"]) == ["erster Töxt\r\n", "zweiter Text\n", "dritter"]
    assert [d.source for d in domains["web"]] == ["web/a.md", "web/b.txt", "web/deep/c.txt.gz"]
    assert domains["code.v2"][1].source == "code.v2.jsonl:3"


def test_blocks_and_lines_do_not_depend_on_the_block_size(corpus, monkeypatch):
    whole = readers.read_domains(corpus)
    monkeypatch.setattr(readers, "_BLOCK", 3)
    assert readers.read_domains(corpus) == whole


def test_gzip_members_and_padding_are_read(corpus):
    (corpus / "web" / "d.txt.gz").write_bytes(gzip.compress(b"one ") + gzip.compress(b"two") + b"\0" * 100)
    assert "one two" in texts(readers.read_domains(corpus)[0]["web"])


def test_a_single_text_is_cut_at_blank_lines_and_nothing_is_lost(tmp_path):
    paragraphs = [f"paragraph {i} " * 40 for i in range(100)]
    (tmp_path / "book.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")
    cut = readers.read_domains(tmp_path)[0]["book"]
    assert "".join(texts(cut)) == "\n\n".join(paragraphs)
    assert len(cut) > 5 and all(t.endswith("\n\n") for t in texts(cut)[:-1])
    assert len({d.group for d in cut}) == len(cut)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bad.txt", "größer".encode("latin-1"), r"bad\.txt: not UTF-8 at byte 2.*iconv"),
        ("bad.jsonl", b'{"text": "a"}\n{"txt": "b"}\n', r"bad\.jsonl, line 2: no `text` field"),
        ("bad.jsonl", b'{"text": 3}\n', r"bad\.jsonl, line 1: no `text` field"),
        ("bad.jsonl", b'["text"]\n', r"bad\.jsonl, line 1: no `text` field"),
        ("bad.jsonl", b'{"text": "a"}\n{"text": "b', r"bad\.jsonl, line 2: not JSON"),
        ("bad.jsonl", b'{"text": "a"}\n\xff\n', r"bad\.jsonl, line 2: not UTF-8"),
        ("bad.jsonl", b'{"text": "\\ud83d"}\n', r"bad\.jsonl, line 1: .*surrogate"),
        ("bad.txt.gz", gzip.compress(prose(1).encode(), mtime=0)[:-9], r"bad\.txt\.gz: torn.*again"),
        ("bad.txt.gz", b"not packed", r"bad\.txt\.gz: torn"),
        ("bad.txt.zst", zstandard.ZstdCompressor().compress(prose(1).encode())[:-9], r"bad\.txt\.zst: torn"),
        ("bad.txt.zst", b"not packed", r"bad\.txt\.zst: torn"),
    ],
)
def test_a_bad_file_is_an_error_that_names_it(corpus, name, content, message):
    (corpus / "web" / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        readers.read_domains(corpus)


def test_a_bad_layout_is_an_error_that_says_what_is_wanted(corpus, tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist.*one sub-folder"):
        readers.read_domains(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is a file"):
        readers.read_domains(corpus / "code.v2.jsonl")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "x.pdf").touch()
    with pytest.raises(UserError, match="holds no domain"):
        readers.read_domains(tmp_path / "none")
    (corpus / "other").mkdir()
    with pytest.raises(UserError, match="domain other: .* holds nothing"):
        readers.read_domains(corpus)
    (corpus / "other" / "x.pdf").touch()
    with pytest.raises(UserError, match=r"domain other: .* holds \.pdf and no \.txt"):
        readers.read_domains(corpus)


@pytest.mark.parametrize("max_bytes", [0, 10])
def test_an_empty_domain_is_an_error_that_names_it(corpus, max_bytes):
    (corpus / "empty.jsonl").touch()
    with pytest.raises(UserError, match="domain empty: no text"):
        readers.read_domains(corpus, max_bytes)


def test_a_domain_named_twice_is_an_error(corpus):
    (corpus / "web.txt").write_text("x")
    with pytest.raises(UserError, match="domain web is in .* twice"):
        readers.read_domains(corpus)


def test_thinning_keeps_proportions_and_a_subset(tmp_path):
    for name, count in (("large", 900), ("small", 100)):
        rows = (json.dumps({"text": prose(i, 20)}) for i in range(count))
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    whole, content = readers.read_domains(tmp_path)
    sizes = {n: sum(len(t) for t in texts(d)) for n, d in whole.items()}
    budget = sum(sizes.values()) // 4
    thin, same = readers.read_domains(tmp_path, budget)
    # A domain is what it was, however much of it is kept.
    assert same == content
    for name in whole:
        assert set(thin[name]) < set(whole[name])
        assert sum(len(t) for t in texts(thin[name])) == pytest.approx(sizes[name] / 4, abs=200)
    assert readers.read_domains(tmp_path, sum(sizes.values())) == (whole, content)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(1, 100)), min_size=1, unique_by=lambda r: r[0]), st.data()
)
def test_cutoff_is_nearest_to_the_budget(rows, data):
    budget = data.draw(st.integers(0, 1000))
    hashes, sizes = zip(*rows)
    kept = readers.cutoff(hashes, sizes, budget)
    prefix = np.cumsum([s for _, s in sorted(rows)])
    assert abs(sum(s for h, s in rows if h <= kept) - budget) == np.abs(prefix - budget).min()


# The built-in corpus.


@pytest.fixture
def installation(tmp_path) -> builtin.Installation:
    """A small installation with at least one file per domain and one of every kind that is left out."""
    files = {
        "lib/one.py": f'"""Module docstring of the standard library, long enough."""\n# {prose(1)}\n',
        "lib/test/test_one.py": f"# {prose(2)}\n",
        "lib/data.py": f"X = '{'a' * 2000}'\n",
        "lib/latin.py": "# größer\n".encode("latin-1") * 20,
        "lib/pydoc_data/topics.py": "topics = "
        + repr(
            {
                "a": f"Title A\n*******\n\n{prose(3)}\n\n{prose(19)}\n\nSub\n===\n\n{prose(4)}\n",
                "b": f"B\n***\n\n{prose(3)}\n\n{prose(5)}",
            }
        ),
        "lib/site-packages/skipped.py": prose(6),
        "pkg/numpy/core.py": f"# {prose(7)}\n",
        "pkg/numpy/tests/test_core.py": f"# {prose(8)}\n",
        "pkg/numpy/core.pyi": f"# {prose(9)}\n",
        "pkg/numpy/core.h": f"// {prose(10)}\n",
        "pkg/other/mod.py": f'"""{prose(11)}"""\ndef f():\n    r"""{prose(12)}"""\n    return "\\d"\n',
        "pkg/other/broken.py": f"def ({prose(13)}",
        "pkg/other/_vendor/copy.py": f'"""{prose(14)}"""',
        "pkg/other/README.md": prose(15),
        "pkg/other-1.dist-info/METADATA": f"Name: other\nVersion: 1\n\n{prose(16)}",
        "pkg/other-1.dist-info/licenses/LICENSE": prose(17),
        "inc/Python.h": f"/* {prose(18)} */\n",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return builtin.Installation(tmp_path / "lib", (tmp_path / "pkg",), tmp_path / "inc")


def test_every_file_of_an_installation_is_in_its_domain(installation, caplog):
    caplog.set_level("INFO", logger="olmix_jax")
    domains = builtin.builtin_domains(0, installation)
    assert tuple(domains) == builtin.NAMES
    assert {n: sorted(d.source for d in rows) for n, rows in domains.items()} == {
        "code:library": ["one.py"],
        "code:tests": ["numpy/tests/test_core.py"],
        "code:numerics": ["numpy/core.py"],
        "code:stubs": ["numpy/core.pyi"],
        "code:headers": ["Python.h", "numpy/core.h"],
        "text:docstrings": ["other/mod.py"],
        "text:reference": [f"pydoc_data/topics.py:{t}" for t in ("a:1", "a:2", "b:1")],
        "text:packages": ["other-1.dist-info/METADATA", "other-1.dist-info/licenses/LICENSE", "other/README.md"],
    }
    assert texts(domains["text:docstrings"]) == [f"{prose(11)}\n\n{prose(12)}"]
    assert prose(16) in texts(domains["text:packages"])
    # A paragraph that two topics share is in one of them.
    assert sum(prose(3) in t for t in texts(domains["text:reference"])) == 1
    # Nothing that is left out is left out in silence.
    assert "1 data rather than code, 1 not UTF-8, 1 not parsed" in caplog.text


@pytest.fixture(scope="module")
def real() -> dict[str, list[Document]]:
    return builtin.builtin_domains(1_500_000)


def test_the_real_installation_fills_every_domain_unequally(real):
    sizes = {name: sum(len(d.text.encode()) for d in rows) for name, rows in real.items()}
    assert sum(sizes.values()) == pytest.approx(1_500_000, rel=0.4)  # a file is kept whole or not at all
    assert min(sizes.values()) > 0 and max(sizes.values()) > 5 * min(sizes.values())
    # No file is in two domains (one name may be of a module and of a package).
    whose = collections.Counter((d.source, d.text) for rows in real.values() for d in rows)
    assert max(whose.values()) == 1


def test_the_real_installation_reads_the_same_twice(real):
    assert builtin.builtin_domains(1_500_000) == real


# Near-copies.


def test_copies_go_and_the_first_stays():
    text = prose(1)
    edited = text.replace("data", "DATA", 1).replace(text.split()[100], "changed", 1)
    domains = {
        "a": [document(text, "a1"), document(prose(2), "a2"), document("  \n ", "blank")],
        "b": [document(text.upper().replace(" ", "\n  "), "b1"), document(edited, "b2"), document(prose(3), "b3")],
    }
    kept, dropped = clean.deduplicate(domains)
    assert {n: [d.source for d in rows] for n, rows in kept.items()} == {"a": ["a1", "a2"], "b": ["b3"]}
    assert dropped == {"a": 1, "b": 2}


def test_short_documents_are_compared_exactly():
    kept, _ = clean.deduplicate({"a": [document(t, t) for t in ("x = 1", "x = 2", "X  =  1", "y")]})
    assert texts(kept["a"]) == ["x = 1", "x = 2", "y"]


def test_nothing_to_clean():
    assert clean.deduplicate({"a": [], "b": []}) == ({"a": [], "b": []}, {"a": 0, "b": 0})


def shingles(text: str) -> set[bytes]:
    normalised = " ".join(text.lower().split()).encode()
    return {normalised[i : i + clean.SHINGLE] for i in range(len(normalised) - clean.SHINGLE + 1)}


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(20, 2000), st.floats(0, 0.3))
def test_similarity_estimates_jaccard(seed, length, changed):
    rng = np.random.default_rng(seed)
    one = prose(seed + 1, length).split()
    two = [f"other{i}" if rng.random() < changed else w for i, w in enumerate(one)]
    a, b = (" ".join(words) for words in (one, two))
    exact = len(shingles(a) & shingles(b)) / len(shingles(a) | shingles(b))
    signatures = np.stack([clean.signature(t.encode()) for t in (a, b)])
    estimate = clean.similarity(signatures[:1], signatures[1:])[0]
    # Five standard errors of 128 bins, or of fewer where there are fewer shingles.
    assert abs(estimate - exact) < 5 * np.sqrt(max(exact * (1 - exact), 0.01) / clean.BINS) + 0.02


def test_found_pairs_are_the_similar_ones():
    """Against brute force: every pair well above the threshold is found among many, none well below."""
    rng = np.random.default_rng(0)
    originals, copies = [prose(i, 150) for i in range(1, 200)], []
    for i, text in enumerate(originals):
        words = text.split()
        for at in rng.integers(0, len(words), [1, 30][i % 2]):
            words[at] = f"edit{at}"
        copies.append(" ".join(words))
    jaccard = [len(shingles(a) & shingles(b)) / len(shingles(a) | shingles(b)) for a, b in zip(originals, copies)]
    assert min(jaccard[::2]) > 0.9 and max(jaccard[1::2]) < 0.65
    kept, dropped = clean.deduplicate({"a": [document(t, str(i)) for i, t in enumerate(originals + copies)]})
    assert texts(kept["a"]) == originals + copies[1::2]
    assert dropped == {"a": 100}


def test_no_near_copy_crosses_the_split():
    base = prose(1, 400).split()
    chain = [" ".join([*base[: 10 * i], *(f"new{w}" for w in range(10)), *base[10 * i + 10 :]]) for i in range(30)]
    kept, _ = clean.deduplicate({"a": [document(t, str(i)) for i, t in enumerate(chain)]})
    assert len(kept["a"]) == 1


# The split.


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 8)), min_size=1, max_size=60),
    st.sampled_from([0.0, 0.05, 0.1, 0.3]),
    st.integers(0, 5),
)
def test_split_by_group(rows, share, seed):
    documents = [document("x" * size, f"{i}", f"g{group}") for i, (size, group) in enumerate(rows)]
    train, heldout = clean.split(documents, share, seed)
    assert sorted(train + heldout, key=lambda d: int(d.source)) == documents
    assert not {d.group for d in train} & {d.group for d in heldout}
    assert train
    groups = {d.group for d in documents}
    assert bool(heldout) == (share > 0 and len(groups) > 1)
    assert clean.split(documents, share, seed) == (train, heldout)


def test_split_holds_out_the_share_by_bytes_and_the_seed_chooses():
    documents = [document(prose(i, 10 + i % 90), f"{i}") for i in range(1000)]
    size = sum(len(d.text) for d in documents)
    halves = [clean.split(documents, 0.1, seed)[1] for seed in (0, 1)]
    for half in halves:
        assert sum(len(d.text) for d in half) == pytest.approx(0.1 * size, rel=0.02)
    assert len(set(halves[0]) & set(halves[1])) < 50


# The stage.


def settings_for(path: pathlib.Path, **corpus) -> configs.Config:
    chosen = configs.Corpus(path=str(path), **{"vocabulary": 320, "min_tokens": 500, **corpus})
    return configs.Config(corpus=chosen, proxy=configs.Proxy(length=64))


@pytest.fixture
def two_domains(tmp_path) -> pathlib.Path:
    root = tmp_path / "text"
    for name, count in (("source:topic", 40), ("b", 10)):
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{i}.txt").write_text(prose(1000 * count + i) + " ünï", encoding="utf-8")
    (root / "b" / "copy.txt").write_text(
        (root / "source:topic" / "3.txt").read_text(encoding="utf-8"), encoding="utf-8"
    )
    return root


def contents(folder: pathlib.Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def trained_on(workdir: pathlib.Path) -> str:
    words = Tokenizer.read(workdir / "corpus/tokenizer.json")
    names = DomainSet.read(workdir / "domains.json").names
    stores = [store.open_store(store.store_path(workdir, name)) for name in names]
    return "".join(words.decode(found.sequence(0, len(found) - 1).tolist()) for found in stores)


def test_what_a_chain_held_out_stays_held_out(two_domains, tmp_path):
    """Renamed, taken out and put back: no task's text is ever trained on, and old training text stays that."""
    first = settings_for(two_domains)
    prepare(first, tmp_path / "0")
    paths = (tmp_path / "0/corpus/heldout").glob("*.jsonl")
    rows = [json.loads(line) for path in paths for line in path.read_text("utf-8").split("\n") if line]
    tasks, before = [row["text"] for row in rows], trained_on(tmp_path / "0")
    assert len(tasks) > 2 and not any(text in before for text in tasks)

    def then(number: int) -> str:
        workdir, parent = tmp_path / str(number), tmp_path / str(number - 1)
        files.write_json(workdir / "update/plan.json", {"parent": str(parent)})
        config = dataclasses.replace(first, update=configs.Update(parent=str(parent)))
        prepare(config, workdir)
        return trained_on(workdir)

    (two_domains / "b").rename(tmp_path / "away")
    (two_domains / "source:topic").rename(two_domains / "topic")
    renamed = then(1)
    assert len(renamed) < len(before) and not any(text in renamed for text in tasks)
    (tmp_path / "away").rename(two_domains / "again")
    # Upper case is near-identical.
    (two_domains / "again" / "more.txt").write_text(tasks[0].upper(), encoding="utf-8")
    again = then(2)
    assert len(again) == pytest.approx(len(before), abs=2) and not any(text in again for text in tasks)
    assert tasks[0].upper() not in again


def test_prepare_writes_what_it_counts(two_domains, tmp_path, caplog):
    caplog.set_level("INFO", logger="olmix_jax")
    workdir = tmp_path / "run"
    domains = prepare(settings_for(two_domains), workdir)
    assert DomainSet.read(workdir / "domains.json") == domains
    assert domains.names == ("b", "source:topic")
    tokenizer = Tokenizer.read(workdir / "corpus" / "tokenizer.json")
    table = np.load(workdir / "corpus" / "token_bytes.npy", allow_pickle=False)
    assert table.dtype == np.int32 and (table == tokenizer.token_bytes_V).all()
    for name, tokens, size in zip(domains.names, domains.tokens, domains.bytes):
        ids = store.open_store(store.store_path(workdir, name)).read(0, 10**9)
        assert len(ids) == tokens and table[ids].sum() == size
        heldout = [
            json.loads(row) for row in store.heldout_path(workdir, name).read_text(encoding="utf-8").splitlines()
        ]
        assert heldout and all(set(row) == {"text", "source"} for row in heldout)
        documents = tokenizer.decode(np.where(ids == 0, tokenizer.encode("|")[0], ids)).split("|")[:-1]
        originals = {p.read_text(encoding="utf-8") for p in (two_domains / name).iterdir() if p.name != "copy.txt"}
        if name == "b":
            assert set(documents) | {r["text"] for r in heldout} == originals | {prose(40_003) + " ünï"}
        else:
            assert set(documents) | {r["text"] for r in heldout} == originals - {prose(40_003) + " ünï"}
        assert not set(documents) & {r["text"] for r in heldout}
    assert "source:topic" in caplog.text and "1 near-identical" in caplog.text


def test_prepare_writes_the_same_files_twice_and_others_for_another_seed(two_domains, tmp_path):
    config = settings_for(two_domains)
    runs = [tmp_path / name for name in ("one", "two", "three")]
    for workdir, seed in zip(runs, (0, 0, 1)):
        prepare(dataclasses.replace(config, seed=seed), workdir)
    assert contents(runs[0]) == contents(runs[1])
    assert contents(runs[0])["corpus/train/b.bin"] != contents(runs[2])["corpus/train/b.bin"]


def test_a_small_domain_is_an_error_with_ways_out_and_leaves_no_record(two_domains, tmp_path):
    prepare(settings_for(two_domains), tmp_path / "run")
    with pytest.raises(
        UserError, match=r"b has [\d,]+; the least is 9,000 by corpus.min_tokens: add text.*or lower"
    ) as e:
        prepare(settings_for(two_domains, min_tokens=9_000, max_bytes=10**7), tmp_path / "run")
    assert "source:topic" not in str(e.value) and "raise corpus.max_bytes (now 10,000,000)" in str(e.value)
    assert not (tmp_path / "run" / "domains.json").exists()


def test_a_domain_smaller_than_one_sequence_is_an_error(two_domains, tmp_path):
    config = dataclasses.replace(settings_for(two_domains, min_tokens=1), proxy=configs.Proxy(length=20_000))
    with pytest.raises(UserError, match=r"b has .* the least is 20,001 by proxy.length: .* lower proxy.length"):
        prepare(config, tmp_path / "run")


def test_a_workdir_that_cannot_be_written_is_an_error(two_domains, tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(UserError, match="run"):
        prepare(settings_for(two_domains), tmp_path / "run")


def test_a_domain_of_blank_text_is_an_error(two_domains, tmp_path):
    (two_domains / "blank").mkdir()
    (two_domains / "blank" / "x.txt").write_text(" \n" * 3000)
    with pytest.raises(UserError, match="blank has 0;"):
        prepare(settings_for(two_domains), tmp_path / "run")
