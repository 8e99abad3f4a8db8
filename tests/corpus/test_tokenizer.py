"""The tokenizer is lossless and its byte counts are exact; the token store gives back what was written, or says why."""

import json
import os
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix_jax.corpus import store, tokenizer
from olmix_jax.utils.errors import UserError

TEXTS = [f"def function_{i}(argument):\n    return argument + {i}  # añadir 変数\n" for i in range(200)]
BPE = tokenizer.train(TEXTS, 300)
# Any Unicode text: all of it but surrogates, and plenty of what pre-tokenisation treats specially.
ANY = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.lists(
        st.sampled_from(["<|endoftext|>", " ", "\n", "\r\n", "\t", "'s", "é", "e\u0301", "\ufeff", "def", "🙂", "\0"])
    ).map("".join),
)


@settings(deadline=None, max_examples=200)
@given(ANY)
def test_round_trip_and_bytes_are_exact(text):
    ids = BPE.encode(text)
    assert BPE.decode(ids) == text
    assert BPE.token_bytes_V[ids].sum() == len(text.encode())
    assert BPE.end not in ids
    assert ids.dtype == np.int32


def test_special_token_in_a_document_is_ordinary_text():
    text = "before<|endoftext|>after"
    ids = BPE.encode(text)
    assert 0 not in ids and BPE.decode(ids) == text and BPE.token_bytes_V[ids].sum() == len(text)
    assert BPE.token_bytes_V[0] == 0 and BPE.decode([0, *ids, 0]) == text


def test_training_on_the_special_token_does_not_make_it():
    bpe = tokenizer.train(["<|endoftext|>" * 50] * 50, 300)
    assert 0 not in bpe.encode("<|endoftext|>")


def test_vocabulary_and_compression():
    assert BPE.size == len(BPE.token_bytes_V) == 300
    assert (BPE.token_bytes_V[1:] > 0).all()
    assert len(BPE.encode(TEXTS[7])) < len(TEXTS[7]) / 3


def test_too_little_text_gives_a_smaller_vocabulary_that_still_works():
    bpe = tokenizer.train(["abc"], 1000)
    assert bpe.size == 257
    assert bpe.decode(bpe.encode("ж")) == "ж"


def test_a_vocabulary_that_cannot_hold_the_bytes_is_an_error():
    with pytest.raises(UserError, match="corpus.vocabulary.*257"):
        tokenizer.train(TEXTS, 256)


def test_encode_many_equals_encode(monkeypatch):
    monkeypatch.setattr(tokenizer, "_CHUNK", 300)
    assert [a.tolist() for a in BPE.encode_many([*TEXTS, ""])] == [BPE.encode(t).tolist() for t in [*TEXTS, ""]]


def test_a_cut_character_is_marked_not_an_error():
    assert "\ufffd" in BPE.decode(BPE.encode("🙂")[:1])


def test_written_and_read(tmp_path):
    BPE.write(tmp_path / "tokenizer.json")
    again = tokenizer.Tokenizer.read(tmp_path / "tokenizer.json")
    assert again.encode(TEXTS[3]).tolist() == BPE.encode(TEXTS[3]).tolist()
    assert (again.token_bytes_V == BPE.token_bytes_V).all()
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert library.decode(library.encode(TEXTS[3]).ids) == TEXTS[3]


@pytest.mark.parametrize("content", ["", '{"model": {}}', '{"version": "1.0"'])
def test_a_torn_tokenizer_is_an_error_that_names_it(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        tokenizer.Tokenizer.read(tmp_path / "tokenizer.json")


def test_the_end_of_a_document_may_be_any_id(tmp_path):
    content = json.loads(BPE._text)
    content["model"]["vocab"]["<|endoftext|>"] = 400
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    found = tokenizer.Tokenizer.read(tmp_path / "tokenizer.json")
    assert (found.end, found.size) == (400, 401) and found.token_bytes_V[0] == found.token_bytes_V[400] == 0


def _foreign(**changes) -> dict:
    """A tokenizer as other programs write them: special tokens added after the vocabulary, and all that loses bytes."""
    content = json.loads(BPE._text)
    del content["model"]["vocab"]["<|endoftext|>"]
    content["model"]["vocab"] = {token: i - 1 for token, i in content["model"]["vocab"].items()}
    flags = {"single_word": False, "lstrip": True, "rstrip": True, "normalized": True}
    special = [("<|endoftext|>", 310, True), ("<|pad|>", 311, True), ("|||IP|||", 312, False)]
    content["added_tokens"] = [{"id": i, "content": c, "special": s, **flags} for c, i, s in special]
    content["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        ],
    }
    content["normalizer"] = {"type": "NFC"}
    content["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [310], "tokens": ["<|endoftext|>"]}},
    }
    return content | changes


@settings(deadline=None, max_examples=100)
@given(ANY)
def test_a_tokenizer_of_others_is_lossless_and_exact(text):
    text += " |||IP||| <|pad|>"
    ids = FOREIGN.encode(text)
    assert FOREIGN.decode(ids) == text and FOREIGN.token_bytes_V[ids].sum() == len(text.encode())
    assert 312 in ids and not {310, 311} & set(ids.tolist())


FOREIGN = tokenizer.Tokenizer(json.dumps(_foreign()))


def test_a_tokenizer_of_others_has_its_own_end_and_special_tokens_without_bytes():
    assert (FOREIGN.end, FOREIGN.size) == (310, 313)
    assert not FOREIGN.token_bytes_V[299:312].any() and FOREIGN.token_bytes_V[312] == len("|||IP|||")
    assert tokenizer.Tokenizer(FOREIGN._text).digest == FOREIGN.digest != BPE.digest


@pytest.mark.parametrize(
    "names, end",
    [
        (["<s>", "</s>", "<|endoftext|>"], "<|endoftext|>"),
        (["<|eot_id|>", "<|end_of_text|>"], "<|end_of_text|>"),
        (["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"], "<｜end▁of▁sentence｜>"),
        (["<META>", "<EOT>"], "<EOT>"),
        (["<s>", "</s>"], "</s>"),
    ],
)
def test_the_end_of_a_document_is_known_by_its_name(names, end):
    added = [{**_foreign()["added_tokens"][0], "id": 310 + i, "content": name} for i, name in enumerate(names)]
    assert tokenizer.Tokenizer(json.dumps(_foreign(added_tokens=added))).end == 310 + names.index(end)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"pre_tokenizer": {"type": "Whitespace"}}, "BPE over bytes"),
        ({"pre_tokenizer": None}, "BPE over bytes"),
        ({"model": {**_foreign()["model"], "byte_fallback": True}}, "BPE over bytes"),
        ({"model": {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 0}}, "BPE over bytes"),
        ({"added_tokens": []}, "end of a text"),
        (
            {
                "pre_tokenizer": {
                    "type": "Sequence",
                    "pretokenizers": [{"type": "WhitespaceSplit"}, _foreign()["pre_tokenizer"]["pretokenizers"][1]],
                }
            },
            "as it was",
        ),
    ],
)
def test_a_tokenizer_that_loses_text_is_refused(tmp_path, changes, message):
    (tmp_path / "tokenizer.json").write_text(json.dumps(_foreign(**changes)))
    with pytest.raises(UserError, match=f"tokenizer.json: not a byte-level BPE.*{message}"):
        tokenizer.Tokenizer.read(tmp_path / "tokenizer.json")


def test_training_is_the_same_in_another_process(tmp_path):
    code = (
        "import sys; from olmix_jax.corpus import tokenizer; from tests.corpus import test_tokenizer as t;"
        "tokenizer.train(t.TEXTS, 300).write(sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "t.json")], check=True, env=_environment())
    assert (tmp_path / "t.json").read_text(encoding="utf-8") == BPE._text


def _environment():
    return {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2]), "PYTHONHASHSEED": "7"}


DOCUMENTS = [np.array([5, 6, 7], np.int32), np.array([], np.int32), np.array([8, 299], np.int32)]


def test_store_holds_documents_and_their_ends(tmp_path):
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
def test_sequences_cover_every_target_once(tmp_path_factory, n, length):
    path = tmp_path_factory.mktemp("store") / "x.bin"
    store.write_store(path, [np.arange(n)] if n else [], 100)
    tokens = store.open_store(path)
    targets = [t for i in range(tokens.sequences(length)) for t in tokens.sequence(i, length)[1:].tolist()]
    assert targets == tokens.read(1, 1 + len(targets)).tolist()
    assert len(tokens) - 1 - len(targets) < length or not len(tokens)
    for beyond in (-1, tokens.sequences(length)):
        with pytest.raises(IndexError):
            tokens.sequence(beyond, length)


def test_a_large_vocabulary_takes_four_bytes(tmp_path):
    store.write_store(tmp_path / "x.bin", [np.array([100_000])], 100_352)
    assert store.open_store(tmp_path / "x.bin").sequence(0, 1).tolist() == [100_000, 0]
    assert (tmp_path / "x.bin").stat().st_size == 8
    store.write_store(tmp_path / "y.bin", [np.array([65_535])], 65_536)
    assert store.open_store(tmp_path / "y.bin").sequence(0, 1).tolist() == [65_535, 0]


@pytest.mark.parametrize("bad", [-1, 300])
def test_an_id_outside_the_vocabulary_is_not_wrapped(tmp_path, bad):
    with pytest.raises(ValueError, match="vocabulary"):
        store.write_store(tmp_path / "x.bin", [np.array([1, bad])], 300)
    assert not list(tmp_path.iterdir())


def test_a_store_is_pickled_by_name(tmp_path):
    store.write_store(tmp_path / "x.bin", [np.ones(100_000, int)], 300)
    pickled = pickle.dumps(store.open_store(tmp_path / "x.bin"))
    assert len(pickled) < 1000
    assert pickle.loads(pickled).sequence(0, 2).tolist() == [1, 1, 1]


def test_a_damaged_store_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "x.bin"
    with pytest.raises(UserError, match=r"x\.bin"):
        store.open_store(path)
    store.write_store(path, DOCUMENTS, 300)
    sidecar = tmp_path / "x.bin.json"
    good = sidecar.read_text()
    for content in ("{}", "[]", '{"dtype": "O", "tokens": 8}', '{"dtype'):
        sidecar.write_text(content)
        with pytest.raises(UserError, match=r"x\.bin\.json"):
            store.open_store(path)
    sidecar.write_text(good)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"x\.bin: 15 bytes where 16.*--stages=prepare"):
        store.open_store(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"x\.bin: 0 bytes"):
        store.open_store(path)
    path.unlink()
    with pytest.raises(UserError, match=r"x\.bin: cannot be read"):
        store.open_store(path)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=2, max_size=2, unique=True))
def test_two_domains_never_share_a_file(tmp_path_factory, names):
    one, two = (store.file_name(n) for n in names)
    assert one != two and not set("/\\:\0") & set(one + two)
