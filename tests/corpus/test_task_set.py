"""Tasks are packed without loss, and scored by the exact number of bytes, pooled or by document."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix_jax.corpus import task_set
from olmix_jax.corpus.examples import Example
from olmix_jax.utils.errors import UserError
from tests.corpus.test_tokenizer import BPE

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(TEXT, TEXT.filter(bool)), min_size=1, max_size=4), st.integers(2, 40))
def test_packed_sequence_is_end_of_prompt_then_answer(pairs, length):
    packed = task_set.pack({"a": [Example(*p) for p in pairs]}, BPE, length)
    assert packed.tokens_EL.shape == (len(pairs), length + 1) and packed.tokens_EL.dtype == np.int32
    assert packed.answer_EL.shape == (len(pairs), length) and packed.answer_EL.dtype == bool
    assert packed.bytes_E.dtype == np.int64 and packed.task_E.dtype == np.int32
    for (prompt, answer), tokens, scored, size in zip(pairs, packed.tokens_EL, packed.answer_EL, packed.bytes_E):
        prompt_ids, answer_ids = list(BPE.encode(prompt)), list(BPE.encode(answer))
        kept = list(tokens[1:][scored])
        first = int(np.argmax(scored))
        assert tokens[0] == BPE.end and scored[first : first + len(kept)].all()
        assert kept == answer_ids[: len(kept)] and size == BPE.token_bytes_V[kept].sum()
        assert list(tokens[1 : 1 + first]) == prompt_ids[len(prompt_ids) - first :]
        assert (tokens[1 + first + len(kept) :] == BPE.end).all()
        if len(prompt_ids) + len(answer_ids) <= length:
            assert kept == answer_ids and first == len(prompt_ids) and size == len(answer.encode())
        else:
            # The window is full. The prompt is cut first, until the answer has half of the window.
            assert first + len(kept) == length
            assert first == len(prompt_ids) or len(kept) == len(answer_ids) or len(kept) == length // 2


def test_long_example_loses_start_of_prompt_then_end_of_answer(caplog, monkeypatch):
    monkeypatch.setattr(task_set.log, "propagate", True)
    ids = BPE.encode("0123456789")
    assert len(ids) == 10
    with caplog.at_level("INFO", "olmix_jax"):
        packed = task_set.pack(
            {"a": [Example("9876543210", "012"), Example("56", "0123456789"), Example("9876543210", "0123456789")]},
            BPE,
            8,
        )
    assert [BPE.decode(row) for row in packed.tokens_EL] == ["43210012", "56012345", "32100123"]
    assert packed.bytes_E.tolist() == [3, 6, 4]
    assert "tasks.length=8 cuts the start of 2 of 3 prompts and the end of 2 answers" in caplog.text


def test_window_of_one_token_is_an_error():
    with pytest.raises(UserError, match="tasks.length"):
        task_set.pack({"a": [Example("a", "b")]}, BPE, 1)


def test_bits_per_byte_matches_a_hand_computed_example():
    """PITFALLS 21: a ratio of sums over UTF-8 bytes, not characters or tokens. "é" has 2 bytes, "変" 3, "🙂" 4."""
    rows = {"one": [Example("q", "é"), Example("q", "ab変")], "two": [Example("", "🙂")]}
    packed = task_set.pack(rows, BPE, 16)
    assert packed.bytes_E.tolist() == [2, 5, 4] and packed.task_E.tolist() == [0, 0, 1]
    bpb_N = task_set.bits_per_byte_N(np.array([3.0, 4.0, 8.0]) * math.log(2), packed)
    assert bpb_N.dtype == np.float64
    np.testing.assert_allclose(bpb_N, [(3 + 4) / 7, 8 / 4], rtol=1e-15)


def test_bits_per_byte_by_document_is_the_mean_over_examples():
    """As in the evaluator of the paper's tasks: a short answer counts as much as a long one."""
    rows = {"pooled": [Example("q", "é"), Example("q", "ab変")], "document": [Example("q", "é"), Example("q", "ab変")]}
    packed = task_set.pack(rows, BPE, 16, by_document={"document"})
    assert packed.document_N.tolist() == [False, True]
    bpb_N = task_set.bits_per_byte_N(np.array([3.0, 4.0, 3.0, 4.0]) * math.log(2), packed)
    np.testing.assert_allclose(bpb_N, [(3 + 4) / 7, (3 / 2 + 4 / 5) / 2], rtol=1e-15)


def test_bits_per_byte_of_answer_cut_inside_a_character():
    packed = task_set.pack({"a": [Example("", "🙂🙂")]}, BPE, 3)
    assert len(BPE.encode("🙂")) == 4
    np.testing.assert_allclose(task_set.bits_per_byte_N(np.array([6 * math.log(2)]), packed), [2.0])


def test_bits_per_byte_of_invalid_nats_is_an_error():
    packed = task_set.pack({"a": [Example("", "ab")]}, BPE, 4)
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="not finite"):
            task_set.bits_per_byte_N(np.array([bad]), packed)
    with pytest.raises(ValueError, match=r"nats_E has shape \(2,\), but the task set has \(1,\) examples"):
        task_set.bits_per_byte_N(np.ones(2), packed)
