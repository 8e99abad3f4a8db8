"""apportion.py: rounding and exact conversion compared with brute force, and the even order of sequences."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix_jax.swarm import apportion
from olmix_jax.utils.errors import UserError

weights = st.lists(st.floats(0, 1), min_size=1, max_size=6).filter(lambda w: sum(w) > 1e-3)
counts = st.lists(st.integers(0, 60), min_size=1, max_size=9).filter(sum)
modest = settings(deadline=None, max_examples=60)


def compositions(total, parts):
    """Yield every way to write ``total`` as a sum of ``parts`` whole numbers."""
    if parts == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for rest in compositions(total - first, parts - 1):
            yield (first, *rest)


@modest
@given(st.lists(st.floats(0, 1), min_size=1, max_size=4).filter(lambda w: sum(w) > 1e-3), st.integers(1, 9))
def test_snap_returns_the_nearest_grid_point(w, total):
    wanted = np.array(w) / sum(w) * total
    grid = np.array(list(compositions(total, len(w))))
    error = np.abs(apportion.snap(np.array(w), total) - wanted)
    assert error.max() <= np.abs(grid - wanted).max(axis=1).min() + 1e-5
    assert error.sum() <= np.abs(grid - wanted).sum(axis=1).min() + 1e-5


@modest
@given(weights, st.integers(1, 10**6))
def test_snap_sums_exactly_and_keeps_zeros(w, total):
    got = apportion.snap(np.array(w), total)
    assert got.dtype == np.int64 and got.sum() == total and (got >= 0).all()
    assert (got[np.array(w) == 0] == 0).all()
    assert np.abs(got - np.array(w) / sum(w) * total).max() < 1


def test_snap_breaks_ties_by_index():
    np.testing.assert_array_equal(apportion.snap(np.ones(4) / 4, 6), [2, 2, 1, 1])
    np.testing.assert_array_equal(apportion.snap(np.ones(7), 3), [1, 1, 1, 0, 0, 0, 0])


@pytest.mark.parametrize("w", [[0.0, 0.0], [np.nan, 1.0], [-0.1, 1.1], [np.inf, 1.0]])
def test_snap_rejects_invalid_weights(w):
    with pytest.raises(UserError, match="finite, not negative"):
        apportion.snap(np.array(w), 10)


@modest
@given(counts, st.integers(1, 5000))
def test_realise_is_exact_for_whole_sequences(c, scale):
    wanted = np.array([c]) * scale
    total = int(wanted.sum())
    got = apportion.realise(wanted / total, total, tuple(map(str, range(len(c)))))
    np.testing.assert_array_equal(got, wanted)


@modest
@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=4), st.integers(1, 9))
def test_realise_fails_exactly_if_brute_force_finds_no_counts(w, total):
    w = np.array(w) / sum(w)
    grid = np.array(list(compositions(total, len(w))))
    errors = np.abs(grid - w * total).max(axis=1)
    possible = (errors <= 0.5) & (grid > 0).all(axis=1)
    near = np.isclose(errors, 0.5, rtol=0, atol=1e-5) | possible
    try:
        got = apportion.realise(w[None], total, tuple(map(str, range(len(w)))))[0]
    except UserError:
        assert not possible.any()
    else:
        assert near.any() and got.sum() == total and np.abs(got - w * total).max() <= 0.5 + 1e-5


def test_realise_error_names_the_domain_and_a_total_that_works():
    """PITFALL 8: a domain that would get no sequence raises an error that names it; it is not silently dropped."""
    with pytest.raises(UserError, match=r"member 1: law has weight 0.004, .*would get no sequence") as e:
        apportion.realise(np.array([[0.5, 0.5], [0.996, 0.004]]), 100, ("web", "law"))
    total = int(re.search(r"train on (\d+) sequences", str(e.value))[1])
    assert apportion.realise(np.array([[0.996, 0.004]]), total, ("web", "law")).min() == 1
    with pytest.raises(UserError, match=r"member 0: b has weight 0.3, which is 0.3 of 1 sequences, and would get no"):
        apportion.realise(np.array([[0.4, 0.3, 0.3]]), 1, ("a", "b", "c"))
    # 2.4, 2.4, 2.4 and 0.8 round to 7 of 8 sequences, so one domain has to be off by 0.6.
    with pytest.raises(UserError, match=r"member 0: a has weight 0.3, which is 2.4 of 8 sequences, and would get 3"):
        apportion.realise(np.array([[0.3, 0.3, 0.3, 0.1]]), 8, ("a", "b", "c", "d"))


@pytest.mark.parametrize(
    "row, message",
    [
        ([0.5, 0.4], "member 0: weights sum to 0.9, not to 1"),
        ([0.5, 0.5 + 2e-9], "sum to 1.000000002, not"),
        ([1.5, -0.5], "weight of b is -0.5"),
        ([np.nan, 1.0], "weight of a is nan"),
        ([0.2, 0.3, 0.5], "must be members × 2 domains"),
    ],
)
def test_realise_rejects_invalid_rows(row, message):
    with pytest.raises(UserError, match=message):
        apportion.realise(np.array([row]), 10, ("a", "b"))


def test_realise_tolerates_float_error_in_the_sum():
    row = np.array([[0.7, 0.2, 0.1]])
    assert row.sum() != 1.0
    np.testing.assert_array_equal(apportion.realise(row, 50, ("a", "b", "c")), [[35, 10, 5]])


def order_of(counts_M):
    """Return the whole order, and the number of each sequence within its domain."""
    return apportion.read_at(apportion.interleaving(np.array(counts_M)), np.arange(sum(counts_M)))


def worst_prefix(counts_M):
    """Return the largest error of a domain's count over all prefixes, in sequences."""
    order, nth = order_of(counts_M)
    total = len(order)
    np.testing.assert_array_equal(np.bincount(order, minlength=len(counts_M)), counts_M)
    before = np.cumsum(order[:, None] == np.arange(len(counts_M)), axis=0)
    np.testing.assert_array_equal(nth, before[np.arange(total), order] - 1)
    share = np.arange(1, total + 1)[:, None] * np.array(counts_M) / total
    return np.abs(before - share).max()


@modest
@given(counts)
def test_order_is_even_at_every_prefix(c):
    assert worst_prefix(c) <= 1.68


@pytest.mark.parametrize("c", [[977] + [1] * 23, [40] * 24, list(range(1, 25)), [1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89]])
def test_order_is_even_in_hard_cases(c):
    assert worst_prefix(c) <= 1.68


def test_order_of_a_few_sequences():
    np.testing.assert_array_equal(order_of([0, 3])[0], [1, 1, 1])
    np.testing.assert_array_equal(np.sort(order_of([2, 2])[0][:2]), [0, 1])
    assert order_of([1, 2])[0].dtype == np.int32


def test_places_of_a_long_run_are_read_without_the_whole_order():
    """Read places of a billion sequences with only the tree in memory."""
    counts_M = np.array([6, 3, 1]) * 10**8
    places_n = np.array([0, 10**5, 10**9 - 1, 7 * 10**8])
    domain_n, nth_n = apportion.read_at(apportion.interleaving(counts_M), places_n)
    np.testing.assert_allclose(nth_n, places_n * counts_M[domain_n] / 1e9, atol=2)


@modest
@given(st.data(), st.integers(1, 9))
def test_snap_is_nearest_within_caps(data, total):
    caps = np.array(data.draw(st.lists(st.floats(0, 1), min_size=2, max_size=4)))
    w = np.array(data.draw(st.lists(st.floats(0.01, 1), min_size=len(caps), max_size=len(caps))))
    w = w / w.sum()
    grid = np.array(list(compositions(total, len(w))))
    grid = grid[(grid <= caps * total + 1e-6).all(axis=1)]
    try:
        got = apportion.snap(w, total, caps)
    except UserError:
        assert not len(grid) or (w * total >= np.floor(caps * total + 1e-6) + 1 - 1e-9).any()
    else:
        assert got.sum() == total and (got <= caps * total + 1e-6).all()
        least = np.abs(grid - w * total).sum(axis=1).min()
        assert np.abs(got - w * total).sum() <= least + 1e-5


def test_snap_rounds_down_weights_at_their_cap():
    """Plain largest remainders would give the first domain 3 of 8, more than its cap of 0.35."""
    np.testing.assert_array_equal(apportion.snap(np.array([0.35, 0.325, 0.325]), 8), [3, 3, 2])
    np.testing.assert_array_equal(apportion.snap(np.array([0.35, 0.325, 0.325]), 8, np.array([0.35, 1, 1])), [2, 3, 3])
    # A zero weight gets a sequence only if no other domain can take it.
    np.testing.assert_array_equal(apportion.snap(np.array([0.5, 0.5, 0.0]), 3, np.array([0.5, 0.5, 1.0])), [1, 1, 1])
    with pytest.raises(UserError, match="room for 2 of 3; raise a cap"):
        apportion.snap(np.array([0.5, 0.5]), 3, np.array([0.5, 0.5]))
    with pytest.raises(UserError, match="weight 0 asks for 9 sequences, but its cap allows 5"):
        apportion.snap(np.array([0.9, 0.1]), 10, np.array([0.5, 1.0]))
