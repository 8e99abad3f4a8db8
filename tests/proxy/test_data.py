"""proxy/data.py: members read exactly the sequences that their mixture asks for (PITFALLS 8, 9, 12)."""

import collections

import numpy as np
import pytest

from olmix_jax.proxy import data
from olmix_jax.utils.errors import UserError
from tests.toy import ArrayStore


class Numbered:
    """A token store in which all tokens of sequence i are first + i."""

    def __init__(self, count, first):
        self.count, self.first = count, first

    def sequences(self, length):
        return self.count

    def sequence(self, i, length):
        return np.full(length + 1, self.first + i, np.int32)


def read(counts_KM, stores, steps, batch, width=3, seeds=None, share=1.0):
    """Return the first token of every sequence that the members read, in order: int [K, steps · batch]."""
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


def test_members_with_a_common_seed_read_the_same_order_within_a_domain():
    stores = {"a": Numbered(50, 100), "b": Numbered(50, 200)}
    one, two = read([[20, 8], [8, 20]], stores, steps=7, batch=4)
    for low in (100, 200):
        first, second = (r[(r >= low) & (r < low + 100)] for r in (one, two))
        shorter = min(len(first), len(second))
        assert shorter == 8
        np.testing.assert_array_equal(first[:shorter], second[:shorter])
    other = read([[20, 8]], stores, steps=7, batch=4, seeds=[1])[0]
    assert (np.sort(other[other < 200]) != np.sort(one[one < 200])).any() or (other != one).any()


def test_no_sequence_repeats_within_an_epoch():
    stores = {"a": Numbered(10, 100), "b": Numbered(14, 200)}
    read_S = read([[10, 14]], stores, steps=6, batch=4)[0]
    assert len(set(read_S.tolist())) == 24
    # Two epochs of a, part of one of b. The two epochs have different orders.
    read_S = read([[20, 4]], stores, steps=6, batch=4)[0]
    counts = collections.Counter(read_S[read_S < 200].tolist())
    assert set(counts.values()) == {2} and len(counts) == 10
    a = read_S[read_S < 200]
    assert (a[:10] != a[10:]).any()


def test_share_of_a_domain_repeats_as_often_as_the_whole_in_a_longer_run():
    stores = {"a": Numbered(40, 100), "b": Numbered(8, 200)}
    long = read([[80, 32]], stores, steps=28, batch=4)[0]
    short = read([[20, 8]], stores, steps=7, batch=4, share=0.25)[0]
    for low, pool in ((100, 10), (200, 2)):
        long_counts, short_counts = (
            collections.Counter(r[(r >= low) & (r < low + 100)].tolist()) for r in (long, short)
        )
        assert len(long_counts) == 4 * pool and len(short_counts) == pool
        assert set(long_counts.values()) == set(short_counts.values())


@pytest.mark.parametrize("steps_per_chunk", [1, 2, 3])
@pytest.mark.parametrize("first_step", [0, 2, 3, 6])
def test_data_resume_at_any_step_with_any_steps_per_chunk(first_step, steps_per_chunk):
    stores = {"a": Numbered(50, 100), "b": Numbered(50, 200)}
    runs = data.Runs(("x",), np.array([[20, 8]]), np.zeros(1, int), np.zeros(1, int))

    def tokens(steps, first):
        chunks = data.chunks(runs, stores, 4, 4, steps, 7, first_step=first)
        return np.concatenate([chunk.copy() for chunk in chunks], axis=1)[:, : 7 - first]

    np.testing.assert_array_equal(tokens(steps_per_chunk, first_step), tokens(2, 0)[:, first_step:])


@pytest.mark.parametrize("first_step", [0, 3, 4])
def test_chunks_end_at_stops_and_hold_the_same_data(first_step):
    stores = {"a": Numbered(50, 100), "b": Numbered(50, 200)}
    runs = data.Runs(("x",), np.array([[20, 8]]), np.zeros(1, int), np.zeros(1, int))
    whole = np.concatenate(list(data.chunks(runs, stores, 4, 4, 1, 7)), axis=1)
    ends = data.chunk_ends(first_step, 2, (4, 1, 7))
    assert ends == {0: [1, 3, 4, 6, 7], 3: [4, 6, 7], 4: [6, 7]}[first_step]
    chunks = list(data.chunks(runs, stores, 4, 4, 2, 7, first_step=first_step, stops=(4, 1)))
    assert len(chunks) == len(ends)
    for start, end, chunk in zip([first_step, *ends], ends, chunks):
        np.testing.assert_array_equal(chunk[:, : end - start], whole[:, start:end])
        assert not chunk[:, end - start :].any()


def test_domain_smaller_than_a_sequence_raises_an_error_that_names_it():
    runs = data.Runs(("x",), np.array([[8]]), np.zeros(1, int), np.zeros(1, int))
    with pytest.raises(UserError, match=r"smaller than one sequence of 4 tokens: tiny.*proxy.length"):
        data.chunks(runs, {"tiny": ArrayStore(np.arange(4))}, 4, 4, 2, 2)


def test_counts_that_do_not_sum_to_the_run_length_raise_an_error():
    runs = data.Runs(("x",), np.array([[9]]), np.zeros(1, int), np.zeros(1, int))
    with pytest.raises(UserError, match="run x has 9 sequences, but .* is 8"):
        data.chunks(runs, {"a": Numbered(5, 0)}, 4, 4, 2, 2)


def test_branches_continue_every_stream_where_the_trunk_stopped():
    stores = {"a": Numbered(7, 100), "b": Numbered(9, 200)}
    runs = data.Runs(("x", "y"), np.array([[10, 2], [3, 9]]), np.zeros(2, int), np.zeros(2, int))
    start = data.Start(2, np.array([5, 3]))
    (chunk,) = data.chunks(runs, stores, 4, 4, 5, 5, first_step=2, start=start)
    # The first streams of long runs of one domain, to compare with.
    alone = {j: read([[40, 0], [0, 40]], stores, steps=10, batch=4, width=10)[j] for j in (0, 1)}
    for k, counts_M in enumerate(runs.counts_KM):
        first_S = chunk[k, :3].reshape(-1, 5)[:, 0]
        for j, low in enumerate((100, 200)):
            read_S = first_S[(first_S >= low) & (first_S < low + 100)]
            np.testing.assert_array_equal(read_S, alone[j][start.read_M[j] :][: counts_M[j]])


def test_with_an_expansion_members_read_texts_in_the_ratios_of_their_counts():
    """Domain b has three proxy tokens per token, a one and a half: 3 sequences of b hold the text of 1.5 of a."""
    stores, expansion = {"a": Numbered(90, 100), "b": Numbered(90, 200)}, (1.5, 3.0)
    counts_KM, zeros_K = np.array([[20, 10], [30, 0]]), np.zeros(2, int)
    runs = data.Runs(("x", "y"), counts_KM, zeros_K, zeros_K)
    chunks = data.chunks(runs, stores, 4, 5, 6, 6, expansion=expansion)
    read_KS = next(iter(chunks))[..., 0].reshape(2, -1)
    assert [[int((row // 100 == j).sum()) for j in (1, 2)] for row in read_KS] == [[15, 15], [30, 0]]
