import re

import numpy as np
import pytest

from olmix_jax.propose.constraints import Constraints, Repetition
from olmix_jax.propose.feasibility import check_feasible, rounded
from olmix_jax.solver.bounds import Bounds, box
from olmix_jax.utils.errors import UserError

NAMES = ("code:c", "code:py", "web", "math")


def grouped(low, upper_M):
    """Bounds with one group of the first two domains."""
    member_GM = np.array([[True, True, False, False]])
    return Bounds(np.zeros(4), np.asarray(upper_M, float), member_GM, np.array([low]), np.array([1.0]))


def test_feasible_constraints_pass():
    check_feasible(Constraints(NAMES, grouped(0.3, (0.1, 0.2, 0.3, 0.4)), ("code",)))
    check_feasible(Constraints("abcd", box(np.zeros(4), np.array([0.1, 0.2, 0.3, 0.4]))))
    check_feasible(Constraints("abcd", box(np.array([0.1, 0.2, 0.3, 0.4]), np.ones(4))))


@pytest.mark.parametrize(
    "lower_M, upper_M, message",
    [
        ([0, 0, 0], [0.2, 0.3, 0.4], "raise them by 0.1"),
        ([0.6, 0.5, 0], [1, 1, 1], "lower bounds sum to 1.1, more than 1: web 0.6, code 0.5"),
        ([0, 0.5, 0], [1, 0.4, 1], r"code \[0.5, 0.4\]"),
        ([0, float("nan"), 0], [1, 1, 1], "code"),
    ],
)
def test_infeasible_bounds_name_the_domains(lower_M, upper_M, message):
    with pytest.raises(UserError, match=message):
        check_feasible(Constraints(("web", "code", "books"), box(np.array(lower_M, float), np.array(upper_M, float))))


def test_infeasible_group_is_named():
    with pytest.raises(UserError, match="the caps of the domains of code sum to 0.3, less than its lower bound 0.5"):
        check_feasible(Constraints(NAMES, grouped(0.5, (0.2, 0.1, 1, 1)), ("code",)))


@pytest.mark.parametrize("with_group", [False, True])
def test_advice_for_repetition_caps_is_exact(with_group):
    """PITFALL 18: the advised repeats or tokens are feasible, and slightly fewer repeats or more tokens are not."""
    if with_group:
        names, groups, user_upper_M = NAMES, ("code",), np.array([0.5, 0.5, 1, 1])
        tokens_M, target = np.array([3.0, 4.0, 200.0, 100.0]) * 1e6, 1e8
    else:
        names, groups, user_upper_M = ("web", "code", "books"), (), np.ones(3)
        tokens_M, target = np.array([1.7e9, 3.1e9, 5.9e9]), 1.234567e12

    def check(target_tokens, max_repeats):
        limit = Repetition(tokens_M, target_tokens, max_repeats)
        upper_M = np.minimum(user_upper_M, limit.caps())
        bounds = grouped(0.6, upper_M) if with_group else box(np.zeros(3), upper_M)
        check_feasible(Constraints(names, bounds, groups, user_upper_M, limit))

    with pytest.raises(UserError, match="domains of code sum to" if with_group else "web.*code.*books") as error:
        check(target, 4.0)
    repeats = float(re.search(r"max_repeats to (\S+) or", str(error.value))[1])
    tokens = float(re.search(r"target_tokens to (\S+) or", str(error.value))[1])
    check(target, repeats)
    check(tokens, 4.0)
    for worse in ((target, repeats * 0.9999), (tokens * 1.0001, 4.0)):
        with pytest.raises(UserError):
            check(*worse)


def test_fixed_weight_above_its_repetition_cap_names_the_domain_and_enough_repeats():
    limit, user_upper_M = Repetition(np.array([1e6, 1e9, 1e9, 1e9]), 1e8, 4.0), np.array([0.5, 1, 1, 1])
    bounds = box(np.array([0.5, 0, 0, 0]), np.minimum(user_upper_M, limit.caps()))
    with pytest.raises(UserError, match=re.escape("code:c [0.5, 0.04]")) as error:
        check_feasible(Constraints(NAMES, bounds, user_upper_M=user_upper_M, repetition=limit))
    assert float(re.search(r"max_repeats to ([\d.e+]+)", str(error.value))[1]) == pytest.approx(50, rel=1e-5)


def test_error_says_if_no_number_of_repeats_is_feasible():
    user_upper_M = np.array([0.1, 0.1, 1, 1])
    limit = Repetition(np.full(4, 1e9), 1e8, 2.0)
    with pytest.raises(UserError, match="domains of code sum to 0.2, less than.*; no number of repeats helps"):
        check_feasible(Constraints(NAMES, grouped(0.6, user_upper_M), ("code",), user_upper_M, limit))


@pytest.mark.parametrize(
    "value, direction, digits, text",
    [(4.9 + 1e-13, np.ceil, 6, "4.9"), (4.90001, np.ceil, 3, "4.91"), (8.1199e11, np.floor, 3, "811000000000")],
)
def test_advice_is_rounded_to_the_safe_side(value, direction, digits, text):
    assert rounded(value, direction, digits) == text
