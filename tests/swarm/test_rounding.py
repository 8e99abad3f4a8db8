"""rounding.py against brute force on small problems, closed forms, apportion.snap, and properties at any size."""

import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix_jax.swarm import apportion, rounding
from olmix_jax.swarm.rounding import Group
from olmix_jax.utils.errors import UserError

modest = settings(max_examples=120, deadline=None)
# For tests whose infeasible examples try thousands of totals to find advice.
few = settings(max_examples=40, deadline=None)


def low(bound, total):
    return math.ceil(bound * total - 1e-9)


def high(bound, total):
    return math.floor(bound * total + 1e-9)


def within_bounds(count_M, total, lower_M, upper_M, groups=()):
    """Return whether counts keep the bounds of every domain and group."""
    spans = [([j], lower_M[j], upper_M[j]) for j in range(len(count_M))] + [
        (g.members, g.lower, g.upper) for g in groups
    ]
    return all(low(a, total) <= sum(count_M[j] for j in span) <= high(b, total) for span, a, b in spans)


def compositions(total, parts):
    """Yield every way to write ``total`` as a sum of ``parts`` whole numbers."""
    for cut in itertools.combinations(range(total + parts - 1), parts - 1):
        yield np.diff([-1, *cut, total + parts - 1]) - 1


def all_within_bounds(total, lower_M, upper_M, groups):
    return [c for c in compositions(total, len(lower_M)) if within_bounds(c, total, lower_M, upper_M, groups)]


@st.composite
def problems(draw, most=5):
    """Draw a mixture, bounds that it keeps, and nested or disjoint groups whose bounds it keeps."""
    M = draw(st.integers(1, most))
    parts = np.array(draw(st.lists(st.integers(0, 12), min_size=M, max_size=M)))
    parts[draw(st.integers(0, M - 1))] += 1
    w_M = parts / parts.sum()
    room = st.sampled_from([0.0, 0.0, 0.01, 0.1, 0.3, 1.0])
    lower_M = [max(w - draw(room), 0.0) for w in w_M]
    upper_M = [min(w + draw(room), 1.0) for w in w_M]
    order, groups = draw(st.permutations(range(M))), []
    cuts = sorted(draw(st.sets(st.integers(0, M), max_size=3)) | {0, M})
    for a, b in [*itertools.pairwise(cuts), *([(cuts[0], cuts[-2])] if len(cuts) > 3 else [])]:
        if draw(st.booleans()):
            members = np.array(order[a:b])
            share = float(w_M[members].sum())
            groups.append(Group(members, max(share - draw(room), 0.0), min(share + draw(room), 1.0)))
    return w_M, np.array(lower_M), np.array(upper_M), groups


def test_a_lower_bound_may_exceed_the_upper_one_by_rounding():
    w_M = np.array([6, 9, 12, 3, 7]) / 37
    group = Group(np.arange(5), float(w_M.sum()), 1.0)
    assert group.lower > 1
    assert rounding.counts(w_M, 8, np.maximum(w_M - 0.2, 0), w_M + 0.2, [group]).tolist() == [1, 2, 3, 1, 1]


@modest
@given(problems(), st.integers(1, 9))
def test_counts_are_the_nearest_within_the_bounds(problem, total):
    w_M, lower_M, upper_M, groups = problem
    grid = all_within_bounds(total, lower_M, upper_M, groups)
    try:
        counts_M = rounding.counts(w_M, total, lower_M, upper_M, groups)
    except UserError:
        assert not grid
        return
    assert counts_M.dtype == np.int64 and counts_M.sum() == total
    assert within_bounds(counts_M, total, lower_M, upper_M, groups)
    # Zero weights stay zero if a solution allows it.
    grid = [c for c in grid if not c[w_M == 0].any()] or grid
    errors = [np.abs(c - w_M * total) for c in grid]
    error_M = np.abs(counts_M - w_M * total)
    assert (error_M**2).sum() <= min((a**2).sum() for a in errors) + 1e-5
    assert error_M.max() <= min(a.max() for a in errors) + 1e-5
    if min(a.max() for a in errors) < 1 - 1e-9:
        assert error_M.max() < 1
    assert any((c == counts_M).all() for c in grid)


@few
@given(problems(), st.integers(1, 9))
def test_infeasible_error_names_the_smallest_total_that_works(problem, total):
    w_M, lower_M, upper_M, groups = problem
    if all_within_bounds(total, lower_M, upper_M, groups):
        return
    with pytest.raises(UserError) as e:
        rounding.counts(w_M, total, lower_M, upper_M, groups, names="pqrst"[: len(w_M)])
    assert re.search(r"\b[p-t]\b", str(e.value))
    if match := re.search(r"use a total of (\d+) units", str(e.value)):
        assert rounding.counts(w_M, int(match[1]), lower_M, upper_M, groups).sum() == int(match[1])
        for smaller in range(total + 1, min(int(match[1]), 13)):
            assert not all_within_bounds(smaller, lower_M, upper_M, groups)
    wider = [Group(g.members, max(g.lower - 1 / total, 0), g.upper + 1 / total) for g in groups]
    rounding.counts(w_M, total, np.maximum(lower_M - 1 / total, 0), upper_M + 1 / total, wider)


@few
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(1, 10**13), st.data())
def test_caps_hold_at_any_size(raw, total, data):
    raw = np.array(raw) + 1e-9
    w_M = raw / raw.sum()
    M = len(w_M)
    tight = np.array(data.draw(st.lists(st.booleans(), min_size=M, max_size=M)))
    tight[data.draw(st.integers(0, M - 1))] = False
    upper_M, lower_M = np.where(tight, w_M, 1.0), np.zeros(M)
    half = Group(np.arange(M // 2), 0.0, float(w_M[: M // 2].sum()))
    try:
        counts_M = rounding.counts(w_M, total, lower_M, upper_M, [half])
    except UserError:
        # Rounding costs each cap less than a unit. The problem is infeasible only if no other domain can take them.
        assert half.members.size and not (~tight[M // 2 :]).any()
        return
    assert counts_M.sum() == total and (counts_M >= 0).all()
    # Counts are exact and the cap is a float, so it holds up to the rounding of the cap. If half of the domains cannot
    # take what rounding down leaves over, caps of LARGE units are exceeded by less than a unit.
    slack = 1e-9 + 2**-51 * total
    if half.members.size and not (~tight[M // 2 :]).any():
        slack += 1
    assert (counts_M <= np.floor(upper_M * total + slack)).all()
    assert counts_M[: M // 2].sum() <= math.floor(half.upper * total + slack)


@modest
@given(st.lists(st.integers(0, 10**12), min_size=2, max_size=20).filter(any))
def test_whole_numbers_stay_unchanged(parts):
    total = sum(parts)
    w_M = np.array([p / total for p in parts])
    np.testing.assert_array_equal(rounding.counts(w_M, total, np.zeros(len(parts)), np.ones(len(parts))), parts)


@modest
@given(st.lists(st.integers(0, 50), min_size=1, max_size=6).filter(any), st.integers(1, 500))
def test_counts_without_bounds_equal_snap(parts, total):
    w_M = np.array(parts) / sum(parts)
    counts_M = rounding.counts(w_M, total, np.zeros(len(parts)), np.ones(len(parts)))
    np.testing.assert_array_equal(counts_M, apportion.snap(w_M, total))


def test_counts_with_caps_equal_snap():
    """The fast float64 form and the exact form agree, also about which requests are infeasible."""
    random = np.random.default_rng(0)
    for _ in range(200):
        M, total = int(random.integers(2, 8)), int(random.integers(1, 400))
        w_M = random.dirichlet(np.ones(M)) if random.uniform() < 0.5 else random.integers(1, 6, M) / 1.0
        w_M = w_M / w_M.sum()
        upper_M = np.minimum(w_M + random.choice([0, 0, 0.05, 0.3, 1], M), 1)
        try:
            want = apportion.snap(w_M, total, upper_M)
        except UserError:
            with pytest.raises(UserError):
                rounding.counts(w_M, total, np.zeros(M), upper_M)
        else:
            np.testing.assert_array_equal(rounding.counts(w_M, total, np.zeros(M), upper_M), want)


def test_caps_from_unique_tokens_hold_exactly():
    """Binding caps k·N/R of ten trillion tokens give exactly k·N tokens, although the float k·N/R is rounded."""
    rng = np.random.default_rng(0)
    total = 10**13
    for _ in range(200):
        unique_M = rng.integers(1, total // 40, 8)
        upper_M = 4 * unique_M / total
        w_M = np.append(upper_M, 1 - upper_M.sum())
        counts_M = rounding.counts(w_M, total, np.zeros(9), np.append(upper_M, 1.0))
        np.testing.assert_array_equal(counts_M[:8], 4 * unique_M)
        assert counts_M.sum() == total


@pytest.mark.parametrize("k", [1.1, 4 / 3, 1.7, 2.5, 3.999])
def test_a_target_of_exactly_k_passes_over_all_tokens_is_met(k):
    """Rounding every k·N down leaves some tokens over. They go to domains whose k·N is not whole."""
    unique_M = np.random.default_rng(0).integers(10**9, 10**12, 36)
    total = math.floor(k * int(unique_M.sum()))
    upper_M = np.minimum(1, k * unique_M / total)
    counts_M = rounding.counts(upper_M / upper_M.sum(), total, np.zeros(36), upper_M)
    assert counts_M.sum() == total and (abs(counts_M - k * unique_M) < 1.01).all()
    small_M = unique_M // 10**9
    total = math.floor(k * int(small_M.sum()))
    upper_M = np.minimum(1, k * small_M / total)
    counts_M = apportion.snap(upper_M / upper_M.sum(), total, upper_M)
    assert counts_M.sum() == total and (abs(counts_M - k * small_M) < 1.01).all()
    assert (counts_M <= k * small_M)[k * small_M < apportion.LARGE].all()


def test_a_fixed_weight_that_is_no_whole_number_is_met_up_to_rounding():
    fixed = np.array([1 / 3, 0]), np.array([1 / 3, 1])
    assert rounding.counts([1 / 3, 2 / 3], 10**6, *fixed).tolist() == [333_333, 666_667]


def test_caps_round_down_and_lower_bounds_round_up():
    w_M, ones = np.array([0.35, 0.325, 0.325]), np.ones(3)
    np.testing.assert_array_equal(rounding.counts(w_M, 8, 0 * ones, ones), [3, 3, 2])
    np.testing.assert_array_equal(rounding.counts(w_M, 8, 0 * ones, np.array([0.35, 1, 1])), [2, 3, 3])
    np.testing.assert_array_equal(rounding.counts(w_M, 8, np.array([0, 0, 0.3]), ones), [3, 2, 3])
    # If the bounds leave no other choice, a zero weight gets a unit, or a count is off by more than one unit.
    np.testing.assert_array_equal(rounding.counts([0.5, 0.5, 0.0], 3, 0 * ones, np.array([0.5, 0.5, 1])), [1, 1, 1])
    w_M, upper_M = np.array([0.3, 0.3, 0.3, 0.1]), np.array([0.3, 0.3, 0.3, 1])
    np.testing.assert_array_equal(rounding.counts(w_M, 5, np.zeros(4), upper_M), [1, 1, 1, 2])


def test_caps_of_groups_round_down():
    w_M, zeros, ones = np.full(4, 0.25), np.zeros(4), np.ones(4)
    np.testing.assert_array_equal(rounding.counts(w_M, 6, zeros, ones), [2, 2, 1, 1])
    pair = Group(np.array([0, 1]), 0.0, 0.5)
    np.testing.assert_array_equal(rounding.counts(w_M, 6, zeros, ones, [pair]), [2, 1, 2, 1])
    mask = Group(np.array([True, True, False, False]), 0.0, 0.5)
    np.testing.assert_array_equal(rounding.counts(w_M, 6, zeros, ones, [mask]), [2, 1, 2, 1])
    inner, outer = Group(np.array([2]), 0.0, 0.3), Group(np.array([2, 0, 3]), 0.6, 0.8)
    np.testing.assert_array_equal(rounding.counts(w_M, 6, zeros, ones, [outer, inner]), [2, 2, 1, 1])


@pytest.mark.parametrize(
    "w, total, lower, upper, groups, message",
    [
        (
            [0.5, 0.5],
            3,
            [0, 0],
            [0.5, 0.5],
            [],
            r"at most 1 of web, 1 of law: room for 2 of the 3 units .*: use a total of 4 units",
        ),
        (
            [0.9, 0.1],
            5,
            [0, 0.05],
            [1, 0.12],
            [],
            r"no whole number of units is within the bounds of law .* total of 9 units",
        ),
        (
            [0.6, 0.4],
            1,
            [0.1, 0.1],
            [1, 1],
            [],
            r"at least 1 of web, 1 of law: 2 units, but the total allows 1.* total of 2 units",
        ),
        ([0.5, 0.5], 3, [0, 0], [1, 1], [([0, 1], 0, 1)], None),
        ([0.5, 0.5], 3, [0, 0], [1, 0.5], [([0], 0, 0.5)], r"room for 2 of the 3"),
        ([1 / 3, 2 / 3], 10, [1 / 3, 0], [1 / 3, 1], [], r"bounds of web .*: use a total of 12 units, the smallest"),
        ([0.5, 0.5], 3, [0, 0], [0.4, 1], [], r"weight 0.5 of web is outside its bounds, 0 to 0.4"),
        ([0.5, 0.5], 3, [0, 0.6], [1, 0.5], [], r"no weight meets the bounds of law: from 0.6 to 0.5"),
        ([0.5, 0.5], 0, [0, 0], [1, 1], [], r"at least one and fewer than 2\*\*63, not 0"),
        ([0.5, 0.5], 2**63, [0, 0], [1, 1], [], r"fewer than 2\*\*63"),
        ([0.5, 0.5], 2.5, [0, 0], [1, 1], [], r"a whole number of units.*not 2.5"),
        ([0.5, 0.5], 3, [0, 0], [1, 1], [([], 0.1, 1)], r"a group without domains has the lower bound 0.1"),
        ([0.0, 0.0], 3, [0, 0], [1, 1], [], r"not all zero"),
        ([np.nan, 1.0], 3, [0, 0], [1, 1], [], r"must be finite"),
        ([0.5, 0.5], 3, [0], [1, 1], [], r"one value per domain, 2; the shapes are \(1,\) and \(2,\)"),
        ([0.5, 0.5], 3, [0, 0], [1, 1], [([0, 2], 0, 1)], r"a group contains column 2, but there are only 2 domains"),
    ],
)
def test_invalid_problems_raise_an_error(w, total, lower, upper, groups, message):
    groups = [Group(np.array(m), a, b) for m, a, b in groups]
    if message is None:
        assert rounding.counts(w, total, lower, upper, groups).sum() == total
        return
    with pytest.raises(UserError, match=message):
        rounding.counts(w, total, lower, upper, groups, names=("web", "law"))


def test_groups_that_overlap_are_an_error():
    groups = [Group(np.array([0, 1]), 0, 1), Group(np.array([1, 2]), 0, 1)]
    with pytest.raises(UserError, match="the groups a, b and b, c overlap"):
        rounding.counts(np.ones(3) / 3, 9, np.zeros(3), np.ones(3), groups, names="abc")


def test_empty_and_repeated_groups_are_allowed():
    groups = [Group(np.array([], int), 0, 0), Group(np.array([0, 1]), 0, 0.5), Group(np.array([1, 0]), 0, 0.4)]
    counts_M = rounding.counts([0.2, 0.2, 0.6], 7, np.zeros(3), np.ones(3), groups)
    assert counts_M.sum() == 7 and counts_M[:2].sum() == 2


@pytest.mark.parametrize("total", [np.int64(10**13), np.int32(10**9), 1e13])
def test_total_may_have_any_number_type(total):
    w_M = np.array([0.1, 0.2, 0.7])
    counts_M = rounding.counts(w_M, total, np.zeros(3), np.ones(3))
    np.testing.assert_array_equal(counts_M, rounding.counts(w_M, int(total), np.zeros(3), np.ones(3)))


def test_two_thousand_domains_and_ten_trillion_tokens():
    rng = np.random.default_rng(1)
    w_M = rng.dirichlet(np.full(2000, 0.3))
    groups = [Group(np.arange(a, a + 100), 0, float(w_M[a : a + 100].sum())) for a in range(0, 2000, 100)][:-1]
    counts_M = rounding.counts(w_M, 10**13, np.zeros(2000), np.where(np.arange(2000) % 3, 1.0, w_M), groups)
    assert counts_M.sum() == 10**13 and np.abs(counts_M - w_M * 1e13).max() < 1.01
