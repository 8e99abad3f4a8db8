"""Blocks of domains that keep their ratios (METHOD §3)."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from olmix_jax.propose.blocks import (
    collapse,
    collapsed_anchor,
    collapsed_bounds,
    collapsed_constraints,
    expand,
    form_blocks,
    swarm_size,
)
from olmix_jax.propose.constraints import constraints
from olmix_jax.solver.bounds import Bounds, box, holds
from olmix_jax.utils.errors import UserError

NAMES = ("a", "b", "c", "new")
KEPT = {"old": {"a": 0.25, "b": 0.25, "c": 0.5}}


def test_collapse_and_expand_of_a_worked_example():
    blocks = form_blocks(KEPT, NAMES)
    assert blocks.names == ("old", "new")
    np.testing.assert_array_equal(blocks.ratios_DM, [[0.25, 0.25, 0.5, 0], [0, 0, 0, 1]])
    np.testing.assert_allclose(expand([0.4, 0.6], blocks), [0.1, 0.1, 0.2, 0.6], rtol=1e-15)
    np.testing.assert_allclose(collapse([[0.1, 0.1, 0.2, 0.6]], blocks), [[0.4, 0.6]], rtol=1e-15)
    # The tightest member caps the block: 0.1 / 0.25.
    found = collapsed_bounds(box(np.array([0, 0.05, 0.05, 0]), np.array([0.3, 0.1, 0.5, 1])), blocks)
    np.testing.assert_allclose([found.lower_M, found.upper_M], [[0.2, 0], [0.4, 1]], rtol=1e-15)


def test_ratios_are_normalised_and_a_block_of_one_domain_is_that_domain():
    np.testing.assert_array_equal(
        form_blocks({"old": {"a": 1, "b": 1, "c": 2}}, NAMES).ratios_DM[0], [0.25, 0.25, 0.5, 0]
    )
    alone = form_blocks({"block": {"b": 7}}, NAMES)
    assert alone.names == ("block", "a", "c", "new")
    np.testing.assert_array_equal(alone.ratios_DM, np.eye(4)[[1, 0, 2, 3]])
    assert form_blocks({}, NAMES).names == NAMES


@st.composite
def cases(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = draw(st.integers(1, 8))
    names = [f"d{j}" for j in range(size)]
    home = rng.integers(0, 3, size)  # 0: outside all blocks
    kept = {f"block {b}": {names[j]: float(rng.uniform(0.01, 5)) for j in np.flatnonzero(home == b)} for b in (1, 2)}
    upper_M = rng.uniform(0.05, 1, size)
    member_GM = np.array([home == 1, home > 0])
    limits = Bounds(upper_M * rng.uniform(0, 0.1, size), upper_M, member_GM, np.array([0.05, 0]), np.array([0.6, 0.8]))
    return rng, form_blocks({name: ratios for name, ratios in kept.items() if ratios}, names), limits


@hypothesis.settings(deadline=None, max_examples=100)
@hypothesis.given(cases())
def test_collapsed_mixture_is_within_bounds_exactly_if_the_expanded_one_is(case):
    rng, blocks, limits = case
    found = collapsed_bounds(limits, blocks)
    ratios_KD = rng.dirichlet(np.full(len(blocks.names), 0.7), 30)
    expanded_KM = expand(ratios_KD, blocks)
    np.testing.assert_allclose(expanded_KM.sum(axis=1), 1, rtol=1e-13)
    np.testing.assert_allclose(collapse(expanded_KM, blocks), ratios_KD, rtol=1e-13)
    np.testing.assert_array_equal(holds(found, ratios_KD, 1e-12), holds(limits, expanded_KM, 1e-12))
    # The caps themselves are within bounds too.
    highest_M = expand(found.upper_M, blocks)
    assert (highest_M <= limits.upper_M * (1 + 4e-16)).all()
    touched_D = ((blocks.ratios_DM > 0) & (highest_M >= limits.upper_M * (1 - 1e-12))).any(axis=1)
    assert (touched_D | (found.upper_M == 1)).all()


def test_collapsed_anchor_gives_the_same_divergence():
    rng = np.random.default_rng(0)
    blocks = form_blocks({"one": {"d": 3, "a": 1}, "two": {"b": 1, "c": 2}}, "abcdef")
    for _ in range(20):
        anchor_M, r_D = rng.dirichlet(np.ones(6)), rng.dirichlet(np.ones(4))
        n_D, q_M = collapsed_anchor(anchor_M, blocks), expand(r_D, blocks)
        exact = (q_M * np.log(q_M / anchor_M)).sum()
        assert (r_D * np.log(r_D / n_D)).sum() == pytest.approx(exact, rel=1e-12, abs=1e-14)
        assert n_D.sum() <= 1 + 1e-15 and n_D[2:] == pytest.approx(anchor_M[[4, 5]])
    # An anchor with the same ratios collapses like a mixture. A block with a domain of anchor weight 0 gets 0.
    kept_M = expand([0.1, 0.2, 0.3, 0.4], blocks)
    np.testing.assert_allclose(collapsed_anchor(kept_M, blocks), [0.1, 0.2, 0.3, 0.4], rtol=1e-14)
    assert collapsed_anchor([0, 0.2, 0.2, 0.2, 0.2, 0.2], blocks)[0] == 0


@pytest.mark.parametrize(
    "kept, message",
    [
        ({"a": {"b": 1}}, "the block a has the name of a domain"),
        ({"old": {"z": 1}}, "old contains z, which is not a domain"),
        ({"one": {"a": 1}, "two": {"a": 1}}, "a is in both one and two"),
        ({"old": {"a": 0}}, "the ratio of a in old must be a positive number, not 0"),
        ({"old": {"a": True}}, "must be a positive number"),
        ({"old": {"a": float("nan")}}, "must be a positive number"),
        ({"old": {"a": "1"}}, "must be a positive number, not '1'"),
        ({"old": {}}, "old contains no domain"),
        ({"old": ["a", "b"]}, r'old must be \{"domain": ratio, …\}, not \[.a., .b.\]'),
        ({"old": 3}, "old must be .*, not 3"),
    ],
)
def test_invalid_block_is_an_error_that_names_it(kept, message):
    with pytest.raises(UserError, match=message):
        form_blocks(kept, NAMES)


def test_group_with_a_part_of_a_block_is_an_error():
    blocks, member_GM = form_blocks(KEPT, NAMES), np.array([[1, 1, 1, 0], [1, 1, 0, 1]], bool)
    limits = Bounds(np.zeros(4), np.ones(4), member_GM[:1], np.array([0.1]), np.array([0.7]))
    found = collapsed_bounds(limits, blocks, ["olds"])
    assert found.member_GM.tolist() == [[True, False]] and found.high_G == [0.7]
    with pytest.raises(UserError, match="some contains only a part of the block old"):
        collapsed_bounds(limits._replace(member_GM=member_GM[1:]), blocks, ["some"])


@pytest.mark.parametrize(
    ("weights", "runs"), [(0, 0), (1, 0), (2, 8), (3, 8), (4, 16), (7, 16), (8, 32), (15, 32), (16, 64), (24, 64)]
)
def test_swarm_size_is_the_power_of_two_nearest_3_times_weights_plus_1(weights, runs):
    assert swarm_size(weights) == runs
    if weights > 1:
        powers = 2.0 ** np.arange(12)
        # argmin takes the smaller of two equally near powers.
        assert runs == powers[np.abs(powers - 3 * (weights + 1)).argmin()]


def test_collapsed_constraints_name_members_and_use_the_scarcest_one():
    tokens_M = np.array([1e9, 2e9, 8e9, 1e9])
    sizes = {"tokens_M": tokens_M, "target_tokens": 1e10, "max_repeats": 4.0}
    whole = constraints({"a": [0, 0.3]}, NAMES, **sizes)
    found = collapsed_constraints(whole, form_blocks(KEPT, NAMES))
    assert found.names == ["old (a + b + c)", "new"]
    # Ratios are 1/4, 1/4 and 1/2: a runs out first.
    np.testing.assert_allclose(found.repetition.tokens_M, [4e9, 1e9])
    np.testing.assert_allclose(found.bounds.upper_M, [1.0, 0.4])
    np.testing.assert_allclose(found.user_upper_M, [1.0, 1.0])
