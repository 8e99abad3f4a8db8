"""Encoding word by word gives exactly the tokens of the library."""

import json
import random
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix_jax.corpus import words
from tests.corpus.test_tokenizer import BPE

PIECES = ["'s", "'ll", "'", " ", "  ", "\n", "\t", "\x1c", "\x85", "\u00a0", "\u3000", "_", "a", "Bc", "12", "²", "½"]
PIECES += [
    "一",
    "é",
    "e\u0301",
    "ſ",
    "🙂",
    "!!",
    "`",
    "~",
    "\u0378",
    "\U0001f9ff",
    "Ⅷ",
    "\u200b",
    "\u180e",
    "\x0b",
    "\x00",
]


def library_ids(text: str) -> list[int]:
    return BPE._bpe.encode(text).ids


@settings(deadline=None, max_examples=100)
@given(st.one_of(st.text(), st.text("a1 _'s\n\r\t.é", max_size=30), st.lists(st.sampled_from(PIECES)).map("".join)))
def test_ids_are_those_of_the_library(text):
    assert BPE.encode_many([text])[0].tolist() == library_ids(text)


def test_characters_of_every_category_are_classified_like_the_library():
    """A character joins a preceding letter, digit or sign in the library exactly if it does here."""
    draw, by_category = random.Random(0), {}
    for code in range(sys.maxunicode + 1):
        by_category.setdefault(unicodedata.category(chr(code)), []).append(chr(code))
    del by_category["Cs"]
    chosen = [c for group in by_category.values() for c in draw.sample(group, min(40, len(group)))]
    text = "".join(f"a{c}1{c}!{c} {c}\n" for c in chosen + [chr(code) for code in range(128)])
    assert BPE.encode_many([text])[0].tolist() == library_ids(text)
    pieces = [f"a{c}1{c}!{c} {c}\n" for c in chosen]
    assert [ids.tolist() for ids in BPE.encode_many(pieces)] == [library_ids(p) for p in pieces]


def test_table_of_words_is_emptied_and_the_ids_stay_the_same(monkeypatch):
    monkeypatch.setattr(words, "_ROWS", 20)
    encoder = words.WordEncoder(BPE._bpe)
    for i in range(10):
        texts = [f"word{chr(97 + i)}{chr(97 + j)} and others" for j in range(15)]
        assert [ids.tolist() for ids in encoder.encode(texts)] == [library_ids(text) for text in texts]
        assert len(encoder._table._start_R) <= 20


def test_texts_made_to_have_equal_keys_have_their_own_ids():
    """Without a secret in the keys, these two had the same."""
    for text in ("usoahsvsaaaeaaaa", "ksorosfwquhzpbgo"):
        assert BPE.encode_many([text])[0].tolist() == library_ids(text)


def test_pre_tokens_with_the_same_slots_are_encoded_correctly(monkeypatch):
    monkeypatch.setattr(words, "_SLOTS", 8)
    encoder = words.WordEncoder(BPE._bpe)
    texts = [" ".join(chr(97 + i) * (j + 1) for i in range(26)) for j in range(12)]
    for _ in "ab":
        assert [ids.tolist() for ids in encoder.encode(texts)] == [library_ids(text) for text in texts]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.one_of(st.text("a1 _'s\n\t.é\u3000", max_size=40), st.lists(st.sampled_from(PIECES)).map("".join))))
def test_texts_of_one_block_do_not_influence_each_other(texts):
    encoder = words.WordEncoder(BPE._bpe)
    for _ in "ab":
        assert [ids.tolist() for ids in encoder.encode(texts)] == [library_ids(text) for text in texts]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"pre_tokenizer": {"type": "ByteLevel", "use_regex": False, "add_prefix_space": False}}, False),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": []}}, False),
        ({"added_tokens": [{"content": "  "}]}, False),
    ],
)
def test_other_pre_tokenisation_is_left_to_the_library(change, expected):
    assert words.splits_like_gpt2(json.loads(BPE._bpe.to_str()) | change) == expected
