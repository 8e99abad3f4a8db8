import re

import numpy as np
import pytest

from olmix_jax.propose.constraints import Repetition, constraints, mixture, repetition_caps
from olmix_jax.propose.feasibility import check_feasible
from olmix_jax.solver.feasibility import feasible
from olmix_jax.utils.errors import UserError

NAMES = ("code:c", "code:py", "web", "math")


def test_repetition_cap_is_k_n_over_r_and_at_most_1():
    np.testing.assert_allclose(repetition_caps([1e9, 5e9, 1e12], 1e11, 4), [0.04, 0.2, 1.0])
    limit = Repetition(np.array([1e9, 5e9]), 1e11, 4)
    np.testing.assert_array_equal(limit.caps(), repetition_caps([1e9, 5e9], 1e11, 4))
    np.testing.assert_array_equal(limit.caps(8), repetition_caps([1e9, 5e9], 1e11, 8))


def test_bounds_of_domains_and_groups_combine_with_repetition_caps():
    bounds = {"code:*": [0.1, 0.6], "*": [None, None], "math": [0.05, None], "web": [None, 0.3], "code:p*": 0.2}
    tokens_M = np.array([0.9, 0.8, 0.7, 0.6]) * 1e9
    found = constraints(bounds, NAMES, tokens_M=tokens_M, target_tokens=1e9, max_repeats=1.0)
    np.testing.assert_array_equal(found.bounds.lower_M, [0, 0, 0, 0.05])
    np.testing.assert_allclose(found.bounds.upper_M, [0.9, 0.8, 0.3, 0.6])
    np.testing.assert_array_equal(found.user_upper_M, [1, 1, 0.3, 1])
    # Inner groups first.
    assert found.groups == ("code:p*", "code:*", "*")
    np.testing.assert_array_equal(found.bounds.member_GM, [[0, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]])
    np.testing.assert_array_equal([found.bounds.low_G, found.bounds.high_G], [[0.2, 0.1, 0], [0.2, 0.6, 1]])


def test_fixed_weight_above_its_repetition_cap_keeps_the_cap():
    tokens_M = np.array([1, 1, 0.2, 1]) * 1e9
    found = constraints({"web": 0.5}, NAMES, tokens_M=tokens_M, target_tokens=1e9, max_repeats=1.0)
    assert found.groups == () and found.bounds.member_GM.shape == (0, 4)
    # Infeasible, which check_feasible reports.
    assert (found.bounds.lower_M[2], found.bounds.upper_M[2]) == (0.5, 0.2)


@pytest.mark.parametrize("missing", ["tokens_M", "target_tokens"])
def test_without_tokens_or_target_repetition_is_not_capped(missing):
    sizes = {"tokens_M": np.ones(4), "target_tokens": 100.0, "max_repeats": 1.0} | {missing: None}
    found = constraints(None, NAMES, **sizes)
    assert found.repetition is None
    np.testing.assert_array_equal([found.bounds.lower_M, found.bounds.upper_M], [np.zeros(4), np.ones(4)])


@pytest.mark.parametrize(
    "bounds, message",
    [
        ({"wb": 0.1}, "no domain is called or matches wb; the nearest name is web"),
        ({"*:py": [0, 1], "code:*": [0, 1], "*[ch]": [0, 1]}, "overlap; choose patterns that are disjoint"),
        ({"web": [0.5, 0.2]}, "web must satisfy 0 ≤ low ≤ high ≤ 1, but is [0.5, 0.2]"),
        ({"web": [0, 30]}, "web must satisfy 0 ≤ low ≤ high ≤ 1"),
        ({"web": -0.1}, "web must satisfy 0 ≤ low ≤ high ≤ 1"),
        ({"web": float("nan")}, "web must satisfy 0 ≤ low ≤ high ≤ 1"),
        ({"web": None}, "web must be [low, high]"),
        ({"web": [0.1]}, "web must be [low, high]"),
        ({"web": [0.1, 0.2, 0.3]}, "web must be [low, high]"),
        ({"web": True}, "web must be [low, high]"),
        ({"web": [0, "1"]}, "web must be [low, high]"),
    ],
)
def test_invalid_bound_is_an_error_that_names_it(bounds, message):
    with pytest.raises(UserError, match=re.escape(message)):
        constraints(bounds, NAMES)


def test_mixture_is_normalised():
    np.testing.assert_array_equal(mixture({"web": 0.75, "math": 0.25}, NAMES, "f"), [0, 0, 0.75, 0.25])
    weights_M = mixture({"web": 0.5, "code:c": 0.505}, NAMES, "f")
    assert weights_M.sum() == pytest.approx(1, abs=1e-15) and weights_M[2] == pytest.approx(0.5 / 1.005, rel=1e-15)


@pytest.mark.parametrize(
    "weights, message",
    [
        ({"wbe": 1}, "no domain is called wbe; the nearest name is web"),
        ({"web": 1.5, "math": -0.5}, "the weight of math must be a number of 0 or more"),
        ({"web": True}, "must be a number of 0 or more, not True"),
        ({"web": "1"}, "must be a number of 0 or more, not '1'"),
        ({"web": float("inf")}, "must be a number of 0 or more"),
        ({"web": 0.5, "math": 0.4}, "the weights must sum to 1, not 0.9"),
        ({}, "the weights must sum to 1, not 0"),
    ],
)
def test_invalid_mixture_is_an_error_that_names_the_field(weights, message):
    with pytest.raises(UserError, match=re.escape(f"propose.anchor: {message}" if "domain" in message else message)):
        mixture(weights, NAMES, "propose.anchor")


def test_a_target_of_exactly_k_passes_is_feasible_up_to_a_token_per_domain():
    """24 domains of 7.5e12 tokens in all; 18 tokens are missing because k·N is rounded."""
    tokens_M = np.random.default_rng(0).dirichlet(np.ones(24)) * 5e12
    names = [f"d{j}" for j in range(24)]
    for k in (1.5, 4 / 3, 2.7):
        target = k * tokens_M.sum()
        for missing, fits in ((-1, True), (0, True), (18, True), (1000, False)):
            limits = constraints(None, names, tokens_M=tokens_M, target_tokens=target + missing, max_repeats=k)
            assert feasible(limits.bounds) == fits
            if fits:
                assert (limits.bounds.upper_M * (target + missing) <= k * tokens_M + 1.01).all()
    with pytest.raises(UserError, match="the caps sum to 1 − 7.41e-11, less than 1"):
        check_feasible(limits)
