"""Tokenizers, ours and those of other programs, are lossless and count bytes exactly."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix_jax.corpus import tokenizer, tokenizer_checks
from olmix_jax.utils.errors import UserError

TEXTS = [f"def function_{i}(argument):\n    return argument + {i}  # añadir 変数\n" for i in range(200)]
BPE = tokenizer.train(TEXTS, 300)
# Any Unicode text without surrogates, and texts of pieces that pre-tokenisation treats specially.
ANY_TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.lists(
        st.sampled_from(["<|endoftext|>", " ", "\n", "\r\n", "\t", "'s", "é", "e\u0301", "\ufeff", "def", "🙂", "\0"])
    ).map("".join),
)


@settings(deadline=None, max_examples=200)
@given(ANY_TEXT)
def test_round_trip_is_lossless_and_byte_counts_are_exact(text):
    ids = BPE.encode(text)
    assert BPE.decode(ids) == text
    assert BPE.token_bytes_V[ids].sum() == len(text.encode())
    assert BPE.end not in ids
    assert ids.dtype == np.int32


def test_name_of_the_special_token_in_text_is_encoded_as_ordinary_bytes():
    text = "before<|endoftext|>after"
    ids = BPE.encode(text)
    assert 0 not in ids and BPE.decode(ids) == text and BPE.token_bytes_V[ids].sum() == len(text)
    assert BPE.token_bytes_V[0] == 0 and BPE.decode([0, *ids, 0]) == text


def test_training_on_the_name_of_the_special_token_does_not_merge_it():
    bpe = tokenizer.train(["<|endoftext|>" * 50] * 50, 300)
    assert 0 not in bpe.encode("<|endoftext|>")


def test_trained_tokenizer_has_the_requested_size_and_compresses():
    assert BPE.size == len(BPE.token_bytes_V) == 300
    assert (BPE.token_bytes_V[1:] > 0).all()
    assert len(BPE.encode(TEXTS[7])) < len(TEXTS[7]) / 3


def test_too_little_text_gives_a_smaller_lossless_vocabulary():
    bpe = tokenizer.train(["abc"], 1000)
    assert bpe.size == 257
    assert bpe.decode(bpe.encode("ж")) == "ж"


def test_vocabulary_too_small_for_the_bytes_is_an_error():
    with pytest.raises(UserError, match="corpus.vocabulary.*257"):
        tokenizer.train(TEXTS, 256)


def test_encode_many_equals_encode(monkeypatch):
    monkeypatch.setattr(tokenizer, "_CHUNK", 300)
    assert [a.tolist() for a in BPE.encode_many([*TEXTS, ""])] == [BPE.encode(t).tolist() for t in [*TEXTS, ""]]


def test_incomplete_character_decodes_to_the_replacement_character():
    assert "\ufffd" in BPE.decode(BPE.encode("🙂")[:1])


def test_written_file_is_read_by_us_and_by_the_library(tmp_path):
    BPE.write(tmp_path / "tokenizer.json")
    copy = tokenizer.Tokenizer.read(tmp_path / "tokenizer.json")
    assert copy.encode(TEXTS[3]).tolist() == BPE.encode(TEXTS[3]).tolist()
    assert (copy.token_bytes_V == BPE.token_bytes_V).all()
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert library.decode(library.encode(TEXTS[3]).ids) == TEXTS[3]


@pytest.mark.parametrize("content", ["", '{"model": {}}', '{"version": "1.0"'])
def test_damaged_file_is_named(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        tokenizer.Tokenizer.read(tmp_path / "tokenizer.json")


def test_end_token_may_have_any_id(tmp_path):
    content = json.loads(BPE.to_json())
    content["model"]["vocab"]["<|endoftext|>"] = 400
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    changed = tokenizer.Tokenizer.read(tmp_path / "tokenizer.json")
    assert (changed.end, changed.size) == (400, 401) and changed.token_bytes_V[0] == changed.token_bytes_V[400] == 0


def foreign(**changes) -> dict:
    """A tokenizer.json of another program: special tokens after the vocabulary, and settings that lose bytes."""
    content = json.loads(BPE.to_json())
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
@given(ANY_TEXT)
def test_tokenizer_of_another_program_is_lossless_and_exact(text):
    text += " |||IP||| <|pad|>"
    ids = FOREIGN.encode(text)
    assert FOREIGN.decode(ids) == text and FOREIGN.token_bytes_V[ids].sum() == len(text.encode())
    assert 312 in ids and not {310, 311} & set(ids.tolist())


FOREIGN = tokenizer.Tokenizer(json.dumps(foreign()))


def test_special_tokens_of_another_program_have_no_bytes():
    assert (FOREIGN.end, FOREIGN.size) == (310, 313)
    assert not FOREIGN.token_bytes_V[299:312].any() and FOREIGN.token_bytes_V[312] == len("|||IP|||")
    assert tokenizer.Tokenizer(FOREIGN.to_json()).digest == FOREIGN.digest != BPE.digest


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
def test_end_token_is_recognised_by_its_name(names, end):
    added = [{**foreign()["added_tokens"][0], "id": 310 + i, "content": name} for i, name in enumerate(names)]
    assert tokenizer.Tokenizer(json.dumps(foreign(added_tokens=added))).end == 310 + names.index(end)


def without_bytes(chars) -> dict:
    """Return the change of a tokenizer whose vocabulary lacks bytes, and all tokens that contain them."""
    model = foreign()["model"]
    vocabulary = {token: i for token, i in model["vocab"].items() if not set(token) & set(chars)}
    merges = [pair for pair in model["merges"] if not set("".join(pair)) & set(chars)]
    return {"model": {**model, "vocab": vocabulary, "merges": merges}}


def split(pattern: str, behaviour: str) -> dict:
    """Return a pre-tokeniser that splits at a pattern, before the one of GPT-2."""
    step = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behaviour, "invert": False}
    return {"type": "Sequence", "pretokenizers": [step, foreign()["pre_tokenizer"]["pretokenizers"][1]]}


@pytest.mark.parametrize("normalizer", ["Lowercase", "NFKC", "StripAccents"])
def test_normalisers_and_dropout_are_not_applied(normalizer):
    steps = {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": normalizer}]}
    bpe = tokenizer.Tokenizer(json.dumps(foreign(normalizer=steps, model={**foreign()["model"], "dropout": 0.5})))
    assert bpe.decode(bpe.encode("ÀB ﬁ")) == "ÀB ﬁ" and bpe.ignored == ("NFD", normalizer, "dropout")
    assert bpe.encode(TEXTS[0]).tolist() == bpe.encode(TEXTS[0]).tolist()


def test_text_of_the_corpus_that_changes_is_an_error():
    """A special token that the model's merges can reach has no bytes."""
    added = [{**foreign()["added_tokens"][0], "content": "de", "id": foreign()["model"]["vocab"]["de"]}]
    bpe = tokenizer.Tokenizer(json.dumps(foreign(added_tokens=[*added, foreign()["added_tokens"][0]])))
    with pytest.raises(UserError, match="does not return a text of the corpus exactly: .* becomes"):
        bpe.encode_many(["a", "de"])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"pre_tokenizer": {"type": "Whitespace"}}, "BPE over bytes"),
        ({"pre_tokenizer": None}, "BPE over bytes"),
        ({"model": {**foreign()["model"], "byte_fallback": True}}, "BPE over bytes"),
        ({"model": {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 0}}, "BPE over bytes"),
        (without_bytes("ÐÑ"), r"lacks 2 of the 256 bytes \(0xD0, 0xD1\), so text with them would lose them"),
        (without_bytes(tokenizer_checks.alphabet()[128:]), r"lacks 128 of the 256 bytes \(0x80, 0x81, 0x82, 0x83, …\)"),
        ({"pre_tokenizer": split("\\n", "Removed")}, r"changes text \(words\)"),
        ({"pre_tokenizer": split("\ufeff", "Removed")}, r"changes text \(white space\): .*ufeff"),
        ({"pre_tokenizer": split("[\u0400-\u04ff]", "Removed")}, r"changes text \(Latin and Cyrillic\)"),
        (
            {"model": {**foreign()["model"], "end_of_word_suffix": "</w>"}},
            r"changes text \(words\): 86 bytes become 38",
        ),
        ({"added_tokens": []}, "no special token has the name of an end of text"),
        (
            {
                "pre_tokenizer": {
                    "type": "Sequence",
                    "pretokenizers": [{"type": "WhitespaceSplit"}, foreign()["pre_tokenizer"]["pretokenizers"][1]],
                }
            },
            r"changes text \(words\): \d+ bytes become \d+; ' A  b.*' becomes .Ab",
        ),
    ],
)
def test_tokenizer_that_loses_text_is_refused(tmp_path, changes, message):
    (tmp_path / "tokenizer.json").write_text(json.dumps(foreign(**changes)))
    with pytest.raises(UserError, match=f"tokenizer.json: not a lossless byte-level BPE tokenizer: .*{message}"):
        tokenizer.Tokenizer.read(tmp_path / "tokenizer.json")


def test_training_gives_the_same_tokenizer_in_another_process(tmp_path):
    code = (
        "import sys; from olmix_jax.corpus import tokenizer; from tests.corpus import test_tokenizer as t;"
        "tokenizer.train(t.TEXTS, 300).write(sys.argv[1])"
    )
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[2]), "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "t.json")], check=True, env=environment)
    assert (tmp_path / "t.json").read_text(encoding="utf-8") == BPE.to_json()


@pytest.mark.parametrize(
    "name, content, problem",
    [
        ("config.json", '{"tokenizer_class": "GPT2Tokenizer"}', "it has no `model`"),
        ("r50k.tiktoken", "IQ== 0", "it is of another format"),
        ("sp.model", "\n\x0e", "it is of another format"),
    ],
)
def test_another_file_than_tokenizer_json_is_named(tmp_path, name, content, problem):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=f"{name}: not the tokenizer.json of a tokenizer: {problem}; give that file"):
        tokenizer.Tokenizer.read(tmp_path / name)
