"""proxy/data.py: what a mixture asks for is what is read (PITFALLS 8, 9, 12)."""

import collections

import numpy as np
import pytest

from olmix_jax.proxy import data
from olmix_jax.utils.errors import UserError
from tests.toy import ArrayStore


class Numbered:
    """A store whose sequence i is the number first + i, over and over."""

    def __init__(self, count, first):
        self.count, self.first = count, first

    def sequences(self, length):
        return self.count

    def sequence(self, i, length):
        return np.full(length + 1, self.first + i, np.int32)


def read(counts_KM, stores, steps, batch, width=3, seeds=None, share=1.0):
    """Everything that the members read, in order: int [K, steps · batch]."""
    K = len(counts_KM)
    seed_K = np.zeros(K, int) if seeds is None else np.asarray(seeds)
    runs = data.Runs(tuple(map(str, range(K))), np.asarray(counts_KM), seed_K, seed_K)
    chunks = list(data.chunks(runs, stores, 4, batch, width, steps, share))
    assert len(chunks) == -(-steps // width)
    return np.concatenate([c.reshape(K, -1, 5) for c in chunks], axis=1)[:, : steps * batch, 0]


def test_members_read_exactly_their_counts():
    stores = {"a": Numbered(50, 100), "b": Numbered(50, 200), "c": Numbered(50, 300)}
    counts_KM = [[28, 0, 0], [1, 0, 27], [7, 13, 8]]
    read_KS = read(counts_KM, stores, steps=7, batch=4)
    for counts_M, read_S in zip(counts_KM, read_KS):
        domain_S = read_S // 100 - 1
        assert [int((domain_S == j).sum()) for j in range(3)] == counts_M


def test_mixtures_differ_and_nothing_else_does():
    stores = {"a": Numbered(50, 100), "b": Numbered(50, 200)}
    one, two = read([[20, 8], [8, 20]], stores, steps=7, batch=4)
    for low in (100, 200):
        first, second = (r[(r >= low) & (r < low + 100)] for r in (one, two))
        shorter = min(len(first), len(second))
        assert shorter == 8
        np.testing.assert_array_equal(first[:shorter], second[:shorter])
    other = read([[20, 8]], stores, steps=7, batch=4, seeds=[1])[0]
    assert (np.sort(other[other < 200]) != np.sort(one[one < 200])).any() or (other != one).any()


def test_no_sequence_is_seen_twice_before_all_were_seen_once():
    stores = {"a": Numbered(10, 100), "b": Numbered(14, 200)}
    read_S = read([[10, 14]], stores, steps=6, batch=4)[0]
    assert len(set(read_S.tolist())) == 24
    # Twice through a, half way through b; epochs come in different orders.
    read_S = read([[20, 4]], stores, steps=6, batch=4)[0]
    seen = collections.Counter(read_S[read_S < 200].tolist())
    assert set(seen.values()) == {2} and len(seen) == 10
    a = read_S[read_S < 200]
    assert (a[:10] != a[10:]).any()


def test_a_share_of_a_domain_is_repeated_as_the_whole_would_be_in_a_longer_run():
    stores = {"a": Numbered(40, 100), "b": Numbered(8, 200)}
    long = read([[80, 32]], stores, steps=28, batch=4)[0]
    short = read([[20, 8]], stores, steps=7, batch=4, share=0.25)[0]
    for low, pool in ((100, 10), (200, 2)):
        often = [collections.Counter(r[(r >= low) & (r < low + 100)].tolist()) for r in (long, short)]
        assert len(often[0]) == 4 * pool and len(often[1]) == pool
        assert set(often[0].values()) == set(often[1].values())


def test_the_position_is_restored():
    stores = {"a": Numbered(50, 100), "b": Numbered(50, 200)}
    runs = data.Runs(("x",), np.array([[20, 8]]), np.zeros(1, int), np.zeros(1, int))
    make = lambda: data.chunks(runs, stores, 4, 4, 2, 7)  # noqa: E731
    whole = [c.copy() for c in make()]
    begun = make()
    next(begun)
    state = begun.get_state()
    resumed = make()
    resumed.set_state(state)
    np.testing.assert_array_equal(np.stack(list(resumed)), np.stack(whole[1:]))


def test_a_domain_smaller_than_a_sequence_is_named():
    runs = data.Runs(("x",), np.array([[8]]), np.zeros(1, int), np.zeros(1, int))
    with pytest.raises(UserError, match=r"smaller than one sequence of 4 tokens: tiny.*proxy.length"):
        data.chunks(runs, {"tiny": ArrayStore(np.arange(4))}, 4, 4, 2, 2)


def test_counts_of_another_length_are_refused():
    runs = data.Runs(("x",), np.array([[9]]), np.zeros(1, int), np.zeros(1, int))
    with pytest.raises(UserError, match="run x is made of 9 sequences.* is 8"):
        data.chunks(runs, {"a": Numbered(5, 0)}, 4, 4, 2, 2)
