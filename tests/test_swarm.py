"""Mixtures are realised exactly, spread evenly, and sampled in the order they are named in."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix_jax import swarm
from olmix_jax.errors import UserError

UNEQUAL = np.array([0.55, 0.2, 0.1, 0.08, 0.04, 0.015, 0.01, 0.005])
NAMES = ("web", "code", "math", "wiki", "books", "arxiv", "stubs", "law")

weights = st.lists(st.floats(0, 1), min_size=1, max_size=6).filter(lambda w: sum(w) > 1e-3)
counts = st.lists(st.integers(0, 60), min_size=1, max_size=9).filter(sum)
modest = settings(deadline=None, max_examples=60)


def compositions(total, parts):
    """Every way to write ``total`` as ``parts`` whole numbers."""
    if parts == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for rest in compositions(total - first, parts - 1):
            yield (first, *rest)


@modest
@given(st.lists(st.floats(0, 1), min_size=1, max_size=4).filter(lambda w: sum(w) > 1e-3), st.integers(1, 9))
def test_snap_is_the_nearest_grid_point(w, total):
    wanted = np.array(w) / sum(w) * total
    grid = np.array(list(compositions(total, len(w))))
    error = np.abs(swarm.snap(np.array(w), total) - wanted)
    assert error.max() <= np.abs(grid - wanted).max(axis=1).min() + 1e-5
    assert error.sum() <= np.abs(grid - wanted).sum(axis=1).min() + 1e-5


@modest
@given(weights, st.integers(1, 10**6))
def test_snap_sums_exactly_and_keeps_zeros(w, total):
    got = swarm.snap(np.array(w), total)
    assert got.dtype == np.int64 and got.sum() == total and (got >= 0).all()
    assert (got[np.array(w) == 0] == 0).all()
    assert np.abs(got - np.array(w) / sum(w) * total).max() < 1


def test_snap_breaks_ties_by_index():
    np.testing.assert_array_equal(swarm.snap(np.ones(4) / 4, 6), [2, 2, 1, 1])
    np.testing.assert_array_equal(swarm.snap(np.ones(7), 3), [1, 1, 1, 0, 0, 0, 0])


@pytest.mark.parametrize("w", [[0.0, 0.0], [np.nan, 1.0], [-0.1, 1.1], [np.inf, 1.0]])
def test_snap_refuses_what_is_no_mixture(w):
    with pytest.raises(UserError, match="finite, not negative"):
        swarm.snap(np.array(w), 10)


@modest
@given(counts, st.integers(1, 5000))
def test_realise_is_exact_on_the_grid(c, scale):
    wanted = np.array([c]) * scale
    total = int(wanted.sum())
    got = swarm.realise(wanted / total, total, tuple(map(str, range(len(c)))))
    np.testing.assert_array_equal(got, wanted)


@modest
@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=4), st.integers(1, 9))
def test_realise_succeeds_exactly_where_brute_force_does(w, total):
    w = np.array(w) / sum(w)
    grid = np.array(list(compositions(total, len(w))))
    errors = np.abs(grid - w * total).max(axis=1)
    possible = (errors <= 0.5) & (grid > 0).all(axis=1)
    near = np.isclose(errors, 0.5, rtol=0, atol=1e-5) | possible
    try:
        got = swarm.realise(w[None], total, tuple(map(str, range(len(w)))))[0]
    except UserError:
        assert not possible.any()
    else:
        assert near.any() and got.sum() == total and np.abs(got - w * total).max() <= 0.5 + 1e-5


def test_realise_says_what_cannot_be_and_what_can():
    """PITFALL 8: a domain that would get no sequence is an error that names it, not a silent zero."""
    with pytest.raises(UserError, match=r"member 1: law is asked for at 0.004.*would get no sequence") as e:
        swarm.realise(np.array([[0.5, 0.5], [0.996, 0.004]]), 100, ("web", "law"))
    total = int(re.search(r"train on (\d+) sequences", str(e.value))[1])
    assert swarm.realise(np.array([[0.996, 0.004]]), total, ("web", "law")).min() == 1
    with pytest.raises(UserError, match=r"member 0: b is asked for at 0.3, 0.3 of 1 sequences, and would get no"):
        swarm.realise(np.array([[0.4, 0.3, 0.3]]), 1, ("a", "b", "c"))
    # To the nearest, 2.4, 2.4, 2.4 and 0.8 make 7 of 8 sequences: one domain has to be off by 0.6.
    with pytest.raises(UserError, match=r"member 0: a is asked for at 0.3, 2.4 of 8 sequences, and would get 3 seq"):
        swarm.realise(np.array([[0.3, 0.3, 0.3, 0.1]]), 8, ("a", "b", "c", "d"))


@pytest.mark.parametrize(
    "row, message",
    [
        ([0.5, 0.4], "member 0: weights sum to 0.9, not to 1"),
        ([0.5, 0.5 + 2e-9], "sum to 1.000000002, not"),
        ([1.5, -0.5], "weight of b is -0.5"),
        ([np.nan, 1.0], "weight of a is nan"),
        ([0.2, 0.3, 0.5], "for 2 domains"),
    ],
)
def test_realise_refuses_what_is_no_mixture(row, message):
    with pytest.raises(UserError, match=message):
        swarm.realise(np.array([row]), 10, ("a", "b"))


def test_realise_does_not_ask_for_a_sum_of_exactly_one():
    row = np.array([[0.7, 0.2, 0.1]])
    assert row.sum() != 1.0
    np.testing.assert_array_equal(swarm.realise(row, 50, ("a", "b", "c")), [[35, 10, 5]])


def worst_prefix(counts_M):
    order = swarm.interleave(np.array(counts_M))
    total = len(order)
    np.testing.assert_array_equal(np.bincount(order, minlength=len(counts_M)), counts_M)
    share = np.arange(1, total + 1)[:, None] * np.array(counts_M) / total
    return np.abs(np.cumsum(order[:, None] == np.arange(len(counts_M)), axis=0) - share).max()


@modest
@given(counts)
def test_interleave_is_even_at_every_prefix(c):
    assert worst_prefix(c) <= 1.68


@pytest.mark.parametrize("c", [[977] + [1] * 23, [40] * 24, list(range(1, 25)), [1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89]])
def test_interleave_is_even_in_hard_cases(c):
    assert worst_prefix(c) <= 1.68


def test_interleave_of_few():
    np.testing.assert_array_equal(swarm.interleave(np.array([0, 3])), [1, 1, 1])
    np.testing.assert_array_equal(np.sort(swarm.interleave(np.array([2, 2]))[:2]), [0, 1])
    assert swarm.interleave(np.array([1, 2])).dtype == np.int32


def draw(**changes):
    request = dict(natural_M=UNEQUAL, size=27, total=16000, names=NAMES, seed=3)
    request.update(changes)
    return swarm.sample(request.pop("natural_M"), request.pop("size"), request.pop("total"), **request)


@pytest.mark.parametrize("sparsity", ["sparse", "dense"])
@pytest.mark.parametrize("seed", range(5))
def test_sample_keeps_its_promises(sparsity, seed):
    c = draw(sparsity=sparsity, seed=seed)
    assert c.dtype == np.int64 and c.shape == (27, 8) and (c.sum(axis=1) == 16000).all()
    np.testing.assert_array_equal(c[0], swarm.snap(UNEQUAL, 16000))
    distance = np.abs(c[:, None] - c[None]).sum(axis=2) / 32000
    assert distance[~np.eye(27, dtype=bool)].min() >= 0.02
    least = 0.02 if sparsity == "sparse" else 1e-4
    assert (c[1:][c[1:] > 0] >= least * 16000).all()
    assert (c[1:] == 0).any() == (sparsity == "sparse")
    assert ((c >= np.maximum(least, UNEQUAL / 2) * 16000).sum(axis=0) >= 4).all()
    np.testing.assert_array_equal(swarm.realise(c / 16000, 16000, NAMES), c)


def test_sample_is_deterministic():
    np.testing.assert_array_equal(draw(), draw())
    assert (draw() != draw(seed=4)).any()


@pytest.mark.parametrize("sparsity", ["sparse", "dense"])
def test_columns_follow_names(sparsity):
    """PITFALL 5: priors in one order and columns in another gave the domain with prior 0.9 a mean of 0.047."""
    c = draw(
        natural_M=[0.03, 0.9, 0.07],
        names=("zoo", "web", "art"),
        size=200,
        sparsity=sparsity,
        min_distance=0,
        min_runs=0,
    )
    prior = np.array([0.03, 0.9, 0.07]) ** 0.7
    np.testing.assert_allclose(c.mean(axis=0) / 16000, prior / prior.sum(), atol=0.05)
    flipped = draw(
        natural_M=[0.07, 0.9, 0.03],
        names=("art", "web", "zoo"),
        size=200,
        sparsity=sparsity,
        min_distance=0,
        min_runs=0,
    )
    assert flipped.mean(axis=0).argmax() == 1 and flipped[:, 0].mean() > flipped[:, 2].mean()


def test_every_weight_under_the_minimum_is_drawn_again():
    """PITFALL 6: 8 domains near 1/8 with a minimum of 0.12 are often all under it; that was a NaN."""
    c = draw(natural_M=np.ones(8) / 8, min_weight=0.12, strength=(5.0, 50.0), min_runs=1)
    assert (c[1:][c[1:] > 0] >= 0.12 * 16000).all()


def test_tiny_concentrations_are_drawn():
    """PITFALL 6: concentrations that underflow."""
    natural = np.array([1.0, 1e-9, 1e-12])
    c = draw(natural_M=natural, names=("a", "b", "c"), size=12, strength=(1e-6, 1e-3), min_distance=0)
    assert (c.sum(axis=1) == 16000).all() and ((c >= 320).sum(axis=0) >= 4).all()


def test_dense_minimum_is_held_while_others_are_scaled_down():
    c = draw(sparsity="dense", min_weight=0.11, strength=(0.1, 1.0), min_distance=0.001, min_runs=2)
    assert c[1:].min() >= 0.11 * 16000


def test_default_minimum_is_a_sequence_at_least():
    assert draw(sparsity="dense", total=400, min_distance=0.01)[1:].min() >= 1


@pytest.mark.parametrize("total", [80, 16000])
def test_design_identifies_every_domain(total):
    """Three times M + 1 runs tell all coefficients apart, domains of half a per cent included."""
    for seed in range(5):
        x = draw(seed=seed, total=total) / total
        centred = x - x.mean(axis=0)
        values = np.linalg.svd(centred, compute_uv=False)[:7]
        assert values[0] / values[-1] < 25


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(size=9), "`swarm.size` is 9: the law over 8 domains needs at least 10 runs, better 27"),
        (dict(natural_M=[1.0], names=("web",), size=6), "one domain, web, has only one mixture"),
        (dict(min_weight=1e-5), "`swarm.min_weight` is 1e-05.*less than one"),
        (dict(min_weight=0.2, sparsity="dense"), "`swarm.min_weight` is 0.2: it must stay under 0.125"),
        (dict(min_weight=1.0), "`swarm.min_weight` is 1.0: it must stay under 1"),
        (dict(min_weight=0.99, strength=(900.0, 900.0), min_runs=0), "no mixture for member 1 of 27 in 2000 draws"),
        (dict(min_runs=28), "`swarm.min_runs` is 28, more than the 27 runs"),
        (dict(min_distance=0.9), "lower `swarm.min_distance`"),
        (dict(min_runs=27, min_weight=0.2), r"`swarm.min_runs` \(27\)"),
        (dict(strength=(0.0, 1.0)), "`swarm.strength`"),
        (dict(natural_M=[0.5, 0.5, 0, 0, 0, 0, 0, 0]), "every domain a positive weight"),
    ],
)
def test_impossible_requests_name_the_field(changes, message):
    with pytest.raises(UserError, match=message):
        draw(**changes)


def test_report():
    got = swarm.sampled_report(np.array([[3, 1], [4, 0]]), ("a", "b"))
    assert got == {
        "a": {"runs": 2, "min": 0.75, "mean": 0.875, "max": 1.0},
        "b": {"runs": 1, "min": 0.0, "mean": 0.125, "max": 0.25},
    }
