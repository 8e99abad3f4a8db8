"""Mapped tokens are exactly the encoding by the smaller tokenizer. The `tokenizers` library is the referee."""

import inspect
import json
import random
from collections.abc import Sequence

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix_jax.corpus import tokenizer, vocabulary
from olmix_jax.corpus.tokenizer_checks import PROBES, alphabet
from olmix_jax.corpus.vocabulary import Mapping, truncate
from olmix_jax.utils.errors import UserError
from tests.corpus.test_tokenizer import ANY_TEXT, BPE, TEXTS, foreign

LIBRARY = [inspect.getsource(module) for module in (inspect, json, random)]
FULL = tokenizer.train([*LIBRARY, *PROBES.values()] * 2, 2500)


def by_library(bpe: tokenizer.Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Encode texts by the library alone."""
    library = tokenizers.Tokenizer.from_str(bpe.to_json())
    return [library.encode(text).ids for text in texts]


def check(full: tokenizer.Tokenizer, size: int, texts: Sequence[str]) -> None:
    """Compare the mapped tokens of texts with their encoding by the smaller tokenizer."""
    small = truncate(full, size)
    mapping = Mapping.between(full, small)
    assert small.size <= size
    for text, whole, expected in zip(texts, by_library(full, texts), by_library(small, texts), strict=True):
        assert mapping.map(np.array(whole, int)).tolist() == expected == small.encode(text).tolist()


def changed(bpe: tokenizer.Tokenizer, **model) -> tokenizer.Tokenizer:
    """Return a tokenizer with another model."""
    content = json.loads(bpe.to_json())
    content["model"] |= model
    return tokenizer.Tokenizer(json.dumps(content))


def all_splits() -> dict:
    """The merges of a tokenizer that was converted from tiktoken: every split of every token, in the order of ids."""
    vocab = json.loads(FULL.to_json())["model"]["vocab"]
    tokens = [t for t in sorted(vocab, key=vocab.__getitem__) if t != tokenizer.END_TEXT]
    splits = [(t[:i], t[i:]) for t in tokens for i in range(1, len(t)) if t[:i] in vocab and t[i:] in vocab]
    return {"merges": [list(pair) for pair in splits], "ignore_merges": True}


@pytest.mark.parametrize("size", [257, 1000, 2499])
def test_mapped_tokens_of_real_text_are_those_of_the_smaller_tokenizer(size):
    check(FULL, size, [*LIBRARY, *PROBES.values()])
    assert truncate(FULL, size).size == size


@pytest.mark.parametrize("model", [{"ignore_merges": True}, all_splits()], ids=["whole words", "all splits"])
def test_tokenizers_that_look_words_up_are_mapped_exactly(model):
    check(changed(FULL, **model), 700, [*LIBRARY, *PROBES.values()])


SMALL = truncate(FULL, 700)
TO_SMALL = Mapping.between(FULL, SMALL)


@settings(deadline=None, max_examples=200)
@given(ANY_TEXT)
def test_mapped_tokens_of_any_text_are_those_of_the_smaller_tokenizer(text):
    assert TO_SMALL.map(FULL.encode(text)).tolist() == SMALL.encode(text).tolist()


@settings(deadline=None, max_examples=20)
@given(st.randoms(use_true_random=False), st.lists(st.text("ab", min_size=1, max_size=9), min_size=1, max_size=5))
def test_merges_may_be_in_any_order(draw, texts):
    """Random merges in random order, several to one token, some with operands that are made later or never."""
    names = sorted({"".join(draw.choices("ab", k=draw.randint(1, 4))) for _ in range(12)})
    pairs = [(a, b) for a in names for b in names if len(a + b) <= 6]
    merges = draw.sample(pairs, min(len(pairs), draw.randint(1, 20)))
    made = sorted({a + b for a, b in merges} | {x for pair in merges for x in pair} - set(alphabet()))
    draw.shuffle(made)
    vocab = {name: n for n, name in enumerate([tokenizer.END_TEXT, *alphabet(), *made])}
    whole = draw.random() < 0.5
    full = changed(BPE, vocab=vocab, merges=[list(pair) for pair in merges], ignore_merges=whole)
    check(full, draw.randint(257, len(vocab)), texts)


def test_an_entry_that_only_a_later_merge_makes_is_mapped_to_its_parts():
    """In `abcd`, `bc` is made first, so `abc` is made by the last merge, not by the third, which is kept."""
    vocab = {name: n for n, name in enumerate([tokenizer.END_TEXT, *alphabet(), "bc", "ab", "abc", "xy"])}
    merges = [["b", "c"], ["a", "b"], ["ab", "c"], ["x", "y"], ["a", "bc"]]
    full = changed(BPE, vocab=vocab, merges=merges, ignore_merges=True)
    assert full.encode("abcd").tolist() == [vocab["abc"], vocab["d"]]
    small = truncate(full, 260)
    # Looked up as a whole word, `abc` would have two meanings.
    assert small.encode("abc").tolist() == Mapping.between(full, small).map(full.encode("abc")).tolist()
    assert small.encode("abcd").tolist() == [vocab["a"], vocab["bc"], vocab["d"]]
    check(full, 260, ["abcd", "abc", "ab", "xyabcd"])


def test_tokenizer_of_another_program_keeps_special_and_added_tokens_with_new_ids():
    full = tokenizer.Tokenizer(json.dumps(foreign()))
    small = truncate(full, 270)
    content = json.loads(small.to_json())
    assert {t["content"]: t["id"] for t in content["added_tokens"]} == {
        "<|endoftext|>": 267,
        "<|pad|>": 268,
        "|||IP|||": 269,
    }
    assert (small.size, small.end) == (270, 267) and small.token_bytes_V[269] == 8
    assert content["post_processor"] is None and len(content["model"]["merges"]) == 11
    mapping = Mapping.between(full, small)
    for text in (*TEXTS[:9], "a |||IP||| 12<|pad|>", *PROBES.values()):
        assert mapping.map(full.encode(text)).tolist() == small.encode(text).tolist()
    # Token files have special tokens, and end tokens between documents.
    assert mapping.map(np.array([310, 311, 312, 310])).tolist() == [267, 268, 269, 267]
    # Ids from 299 to 309 have no token.
    with pytest.raises(ValueError, match="id 305 is not a token"):
        mapping.map(np.array([5, 305]))


def test_merges_as_text_are_read():
    content = json.loads(FULL.to_json())
    full = changed(FULL, merges=[" ".join(pair) for pair in content["model"]["merges"]])
    assert truncate(full, 700).encode(LIBRARY[1]).tolist() == SMALL.encode(LIBRARY[1]).tolist()


def test_all_entries_may_be_kept():
    mapping = Mapping.between(FULL, truncate(FULL, FULL.size))
    assert mapping.ids.tolist() == list(range(FULL.size))


@pytest.mark.parametrize(
    "content, size, message",
    [
        (foreign(), 258, "is 258; must be 259 or more for this tokenizer: 256 bytes and 3 special and added tokens"),
        (foreign(), 314, "is 314, but the tokenizer has 313 entries; lower it, or leave it None"),
        (
            foreign(
                added_tokens=[*foreign()["added_tokens"], {**foreign()["added_tokens"][1], "content": "de", "id": 5}]
            ),
            280,
            "cannot be mapped exactly: its merges make de, which is a special or added token; leave it None",
        ),
        (
            foreign(
                model={**foreign()["model"], "merges": foreign()["model"]["merges"] + foreign()["model"]["merges"][:1]}
            ),
            280,
            "it has the merge of .* twice",
        ),
    ],
)
def test_what_cannot_be_truncated_is_an_error(content, size, message):
    with pytest.raises(UserError, match=f"config field `proxy.vocabulary`.* {message}"):
        truncate(tokenizer.Tokenizer(json.dumps(content)), size)


def test_size_before_the_tokenizer_is_trained():
    assert vocabulary.size(None, None, 2048) == 2048 and vocabulary.size(None, BPE, 2048) == 300
    assert vocabulary.size(1024, None, 2048) == 1024 and vocabulary.size(280, BPE, 2048) == 280
    for size, message in ((256, "must be 257 or more"), (2049, "the tokenizer has 2,048 entries")):
        with pytest.raises(UserError, match=message):
            vocabulary.size(size, None, 2048)


def test_mapping_is_read_as_written(tmp_path):
    TO_SMALL.write(tmp_path / "mapping.npz")
    copy = Mapping.read(tmp_path / "mapping.npz")
    assert (copy.count_V == TO_SMALL.count_V).all() and (copy.ids == TO_SMALL.ids).all()
    (tmp_path / "mapping.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match="mapping.npz: cannot be read"):
        Mapping.read(tmp_path / "mapping.npz")
