"""Repetition caps, and the advice when no mixture meets them."""

import re

import numpy as np
import pytest

from olmix_jax.propose import feasibility
from olmix_jax.solver.bounds import box
from olmix_jax.utils.errors import UserError

NAMES = ("web", "code", "books")


def test_caps_are_repeats_times_tokens_over_target_and_at_most_one():
    np.testing.assert_allclose(feasibility.repetition_caps([1e9, 5e9, 1e12], 1e11, 4), [0.04, 0.2, 1.0])


def test_infeasible_caps_name_the_domains_and_the_smallest_change_that_helps():
    """PITFALL 18: the advice of the message is enough, and a little less is not."""
    tokens_M, target, repeats = np.array([1.7e9, 3.1e9, 5.9e9]), 1.234567e12, 4.0

    def check(target, repeats):
        upper_M = feasibility.repetition_caps(tokens_M, target, repeats)
        feasibility.check_feasible(
            box(np.zeros(3), upper_M), NAMES, tokens_M=tokens_M, target_tokens=target, max_repeats=repeats
        )

    with pytest.raises(UserError, match="web.*code.*books") as error:
        check(target, repeats)
    advised_repeats = float(re.search(r"max_repeats to (\S+) or", str(error.value))[1])
    advised_target = float(re.search(r"target_tokens to (\S+) or", str(error.value))[1])
    check(target, advised_repeats)
    check(advised_target, repeats)
    for worse in ((target, advised_repeats * 0.9999), (advised_target * 1.0001, repeats)):
        with pytest.raises(UserError):
            check(*worse)


def test_infeasible_bounds_without_repetition_caps_are_explained_without_advice():
    with pytest.raises(UserError, match=r"raise them by 0.1 in total$"):
        feasibility.check_feasible(box(np.zeros(3), np.array([0.2, 0.3, 0.4])), NAMES)
