"""The choice of examples: reproducible, of allowed sizes, and spread over the documents."""

import pytest

from olmix_jax.corpus import examples
from olmix_jax.corpus.examples import Example, spread


def test_two_examples_per_document_unless_more_are_needed():
    by_source = [[Example(str(s), f"{s} {i}") for i in range(9)] for s in range(10)]
    assert len(spread(by_source, 20)) == 20
    assert len(spread(by_source, 31)) == 40
    assert len(spread(by_source, 1000)) == 90
    assert spread([], 5) == []


def test_sample_does_not_depend_on_order_or_repetition():
    rows = [Example(f"q{i}", f"a{i}") for i in range(40)]
    chosen = examples.sample(rows, 10)
    assert len(set(chosen)) == 10 and chosen == examples.sample(rows[::-1] + rows, 10)
    assert set(chosen) < set(examples.sample(rows, 20))


def test_select_drops_answers_of_other_sizes_and_cuts_prompts():
    answers = ["x" * n for n in (9, 10, 400, 401)] + [" " * 20]
    selected = examples.select([Example("p" * 1000, answer) for answer in answers], 10)
    assert sorted(len(e.answer) for e in selected) == [10, 400]
    assert {len(e.prompt) for e in selected} == {examples.PROMPT}


@pytest.mark.parametrize(
    ("text", "size", "last", "first"),
    [
        ("short", 10, "short", "short"),
        ("one two\nthree four", 14, "three four", "one two\nthree"),
        ("abcdef", 3, "def", "abc"),
        ("é" * 4, 3, "é", "é"),
    ],
)
def test_cut_text_ends_at_lines_words_and_characters(text, size, last, first):
    assert examples.last_bytes(text, size) == last
    assert examples.first_bytes(text, size) == first
