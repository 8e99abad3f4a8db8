"""Sizes of domains in two vocabularies, and the sequences to read for a mixture."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmix_jax.swarm.expansion import Expansion, sequences
from olmix_jax.utils.errors import UserError

SIZES = Expansion(1024, {"a": 100, "b": 300}, {"a": 150, "b": 330})


def test_tokens_per_token_by_domain_and_of_the_corpus():
    assert SIZES.by_domain(("b", "a")) == (1.1, 1.5) and SIZES.mean == 1.2


def test_read_as_written(tmp_path):
    SIZES.write(tmp_path / "tokens.json")
    assert Expansion.read(tmp_path / "tokens.json") == SIZES
    Expansion(1024, {"a": 100}, {"b": 150}).write(tmp_path / "tokens.json")
    with pytest.raises(UserError, match="tokens.json: needs tokens and proxy_tokens of the same domains"):
        Expansion.read(tmp_path / "tokens.json")


@given(st.lists(st.tuples(st.integers(0, 500), st.floats(1.0, 3.0)), min_size=1, max_size=9))
def test_sequences_hold_texts_in_the_ratios_of_the_counts(rows):
    counts_M, factors = np.array([n for n, _ in rows]), tuple(f for _, f in rows)
    read_M = sequences(counts_M, factors)
    assert read_M.sum() == counts_M.sum() and ((read_M > 0) == (counts_M > 0)).all()
    wanted_M = counts_M * np.array(factors)
    wanted_M = wanted_M * counts_M.sum() / max(1, wanted_M.sum())
    rare = ((wanted_M < 1) & (counts_M > 0)).sum()
    assert np.abs(read_M - wanted_M).max() <= 1 + rare


def test_a_rare_domain_keeps_a_sequence():
    assert sequences(np.array([1, 9]), (1.0, 30.0)).tolist() == [1, 9]


def test_without_factors_nothing_changes():
    counts_M = np.array([3, 0, 4])
    assert sequences(counts_M, ()) is counts_M
    assert sequences(counts_M, (1.3, 1.3, 1.3)).tolist() == [3, 0, 4]
