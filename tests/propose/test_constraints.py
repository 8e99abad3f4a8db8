"""Bounds and mixtures in a config, and what is said of bounds that no mixture meets."""

import json
import re

import numpy as np
import pytest

from olmix_jax.propose import constraints, feasibility
from olmix_jax.solver.bounds import Bounds, box
from olmix_jax.utils.errors import UserError

NAMES = ("code:c", "code:py", "web", "math")
OPEN_M = np.ones(4)


def test_bounds_of_domains_and_groups():
    spec = {"code:*": [0.1, 0.6], "*": [None, None], "math": [0.05, None], "web": [None, 0.3], "code:p*": 0.2}
    found, names = constraints.read_bounds(json.dumps(spec), NAMES, np.array([0.9, 0.8, 0.7, 0.6]))
    np.testing.assert_array_equal(found.lower_M, [0, 0, 0, 0.05])
    np.testing.assert_array_equal(found.upper_M, [0.9, 0.8, 0.3, 0.6])
    # Inner groups first.
    assert names == ("code:p*", "code:*", "*")
    np.testing.assert_array_equal(found.member_GM, [[0, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]])
    np.testing.assert_array_equal([found.low_G, found.high_G], [[0.2, 0.1, 0], [0.2, 0.6, 1]])


def test_caps_stay_where_they_are_tighter(tmp_path):
    path = tmp_path / "bounds.json"
    path.write_text(json.dumps({"web": 0.5}))
    caps_M = np.array([1, 1, 0.2, 1])
    found, names = constraints.read_bounds(str(path), NAMES, caps_M)
    assert names == () and found.member_GM.shape == (0, 4)
    assert (found.lower_M[2], found.upper_M[2]) == (0.5, 0.2)  # which check_feasible refuses
    np.testing.assert_array_equal(caps_M, [1, 1, 0.2, 1])
    found, _ = constraints.read_bounds(" ", NAMES, caps_M)
    np.testing.assert_array_equal([found.lower_M, found.upper_M], [np.zeros(4), caps_M])


@pytest.mark.parametrize(
    "wishes, message",
    [
        ({"wb": 0.1}, "no domain is or matches wb; the nearest is web"),
        ({"*:py": [0, 1], "code:*": [0, 1], "*[ch]": [0, 1]}, "overlap; make one part of the other"),
        ({"web": [0.5, 0.2]}, "web: 0 ≤ least ≤ most ≤ 1 does not hold"),
        ({"web": [0, 30]}, "weights are shares of 1"),
        ({"web": -0.1}, "0 ≤ least"),
        ({"web": float("nan")}, "0 ≤ least"),
        ({"web": None}, "web must be [least, most]"),
        ({"web": [0.1]}, "web must be [least, most]"),
        ({"web": [0.1, 0.2, 0.3]}, "web must be [least, most]"),
        ({"web": True}, "web must be [least, most]"),
        ({"web": [0, "1"]}, "web must be [least, most]"),
    ],
)
def test_bad_bounds(wishes, message):
    with pytest.raises(UserError, match=re.escape(message)):
        constraints.read_bounds(json.dumps(wishes), NAMES, OPEN_M)


def test_mixtures(tmp_path):
    np.testing.assert_array_equal(
        constraints.read_mixture('{"web": 0.75, "math": 0.25}', "f", NAMES), [0, 0, 0.75, 0.25]
    )
    path = tmp_path / "proposal.json"
    path.write_text(json.dumps({"kl": 0.3, "weights": {"web": 0.5, "code:c": 0.505}}))
    found_M = constraints.read_mixture(str(path), "f", NAMES)
    assert found_M.sum() == pytest.approx(1, abs=1e-15) and found_M[2] == pytest.approx(0.5 / 1.005, rel=1e-15)


@pytest.mark.parametrize(
    "weights, message",
    [
        ({"wbe": 1}, "no domain wbe; the nearest is web"),
        ({"web": 1.5, "math": -0.5}, "the weight of math must be a number of 0 or more"),
        ({"web": True}, "must be a number of 0 or more, not True"),
        ({"web": "1"}, "must be a number of 0 or more, not '1'"),
        ({"web": float("inf")}, "must be a number of 0 or more"),
        ({"web": 0.5, "math": 0.4}, "the weights sum to 0.9, not to 1"),
        ({}, "the weights sum to 0, not to 1"),
    ],
)
def test_bad_mixtures(weights, message):
    with pytest.raises(UserError, match=re.escape(message)):
        constraints.read_mixture(json.dumps(weights), "propose.anchor", NAMES)


def test_text_that_is_no_object():
    with pytest.raises(UserError, match="propose.anchor"):
        constraints.read_mixture("{web: 1}", "propose.anchor", NAMES)
    with pytest.raises(UserError, match="absent.json"):
        constraints.read_bounds("absent.json", NAMES, OPEN_M)


def test_text_that_cannot_be_read_is_named_by_its_field(tmp_path):
    with pytest.raises(
        UserError, match="config field `propose.bounds`: not json: no such file; give a JSON object, or"
    ):
        constraints.read_bounds("not json", NAMES, OPEN_M)
    broken = tmp_path / "anchor.json"
    broken.write_text("{")
    with pytest.raises(UserError, match="config field `propose.anchor`: .*anchor.json: not valid JSON") as error:
        constraints.read_mixture(str(broken), "propose.anchor", NAMES)
    assert "stage" not in str(error.value), "no stage wrote it"


def test_a_name_given_twice_is_no_accident_to_pass_over(tmp_path):
    twice = '{"web": [0, 0.1], "math": 0.2, "web": [0, 0.9]}'
    (tmp_path / "bounds.json").write_text(twice)
    for spec in (twice, str(tmp_path / "bounds.json")):
        with pytest.raises(UserError, match="web is there twice"):
            constraints.read_bounds(spec, NAMES, OPEN_M)


def grouped(low_G, high_G, lower_M=(0, 0, 0, 0), upper_M=(1, 1, 1, 1), groups=((0, 1),)):
    member_GM = np.array([[j in group for j in range(4)] for group in groups])
    return Bounds(np.array(lower_M, float), np.array(upper_M, float), member_GM, np.array(low_G), np.array(high_G))


@pytest.mark.parametrize(
    "bounds, message",
    [
        (
            grouped([0.5], [1], upper_M=(0.2, 0.1, 1, 1)),
            "the caps of the domains of code sum to 0.3, less than its lower bound 0.5",
        ),
        (
            grouped([0], [0.3], lower_M=(0.2, 0.2, 0, 0)),
            "the lower bounds of the domains of code sum to 0.4, more than its upper bound 0.3; lower them",
        ),
        (grouped([0.4], [0.3]), "the lower bound of code, 0.4, exceeds its upper bound, 0.3"),
        (
            grouped([0.6], [1], lower_M=(0, 0, 0.3, 0.2)),
            "the lower bounds sum to 1.1, more than 1: web 0.3, math 0.2, code 0.6",
        ),
        (grouped([0], [0.3], upper_M=(1, 1, 0.2, 0.3)), "the caps sum to 0.8, less than 1"),
        (
            grouped([0, 0.5], [0.1, 1], groups=((0, 1), (0, 1, 2)), upper_M=(1, 1, 0.2, 1)),
            "the caps of the domains of most sum to 0.3, less than its lower bound 0.5",
        ),
    ],
)
def test_bounds_that_no_mixture_meets(bounds, message):
    with pytest.raises(UserError, match=re.escape(message)):
        feasibility.check_feasible(bounds, NAMES, ("code", "most"))


def test_bounds_that_a_mixture_only_just_meets():
    feasibility.check_feasible(grouped([0.3], [0.3], upper_M=(0.1, 0.2, 0.3, 0.4)), NAMES, ("code",))
    feasibility.check_feasible(grouped([0.3, 0.7], [0.3, 1], groups=((0, 1), (2, 3))), NAMES, ("code", "rest"))


def test_advice_works():
    """Repeats or tokens as the message says make the group's least weight possible; a little less does not."""
    tokens_M, wished_M = np.array([3.0, 4.0, 200.0, 100.0]) * 1e6, np.array([0.5, 0.5, 1, 1])
    goal = dict(wished_M=wished_M, tokens_M=tokens_M)

    def check(repeats, target):
        upper_M = np.minimum(wished_M, feasibility.repetition_caps(tokens_M, target, repeats))
        feasibility.check_feasible(
            grouped([0.6], [1], upper_M=upper_M), NAMES, ("code",), **goal, target_tokens=target, max_repeats=repeats
        )

    with pytest.raises(UserError, match="code sum to .*, less than its lower bound 0.6") as error:
        check(4.0, 1e8)
    text = str(error.value)
    repeats = float(re.search(r"max_repeats to ([\d.e+]+)", text)[1])
    target = float(re.search(r"target_tokens to ([\d.e+]+)", text)[1])
    check(repeats, 1e8)
    check(4.0, target)
    for less in ((repeats * 0.9999, 1e8), (4.0, target * 1.0001)):
        with pytest.raises(UserError):
            check(*less)


def test_no_repeats_help():
    wished_M = np.array([0.1, 0.1, 1, 1])
    bounds = grouped([0.6], [1], upper_M=wished_M)
    goal = dict(wished_M=wished_M, tokens_M=np.full(4, 1e9), target_tokens=1e8, max_repeats=2.0)
    with pytest.raises(UserError, match="code sum to 0.2, less than its lower bound 0.6; no number of repeats helps"):
        feasibility.check_feasible(bounds, NAMES, ("code",), **goal)


def test_a_wish_above_what_repeats_allow():
    """A fixed weight above its cap of repetition: the message names the domain, and its advice is enough."""
    tokens_M = np.array([1e6, 1e9, 1e9, 1e9])
    wished_M = np.array([0.5, 1, 1, 1])
    upper_M = np.minimum(wished_M, feasibility.repetition_caps(tokens_M, 1e8, 4.0))
    bounds = box(np.array([0.5, 0, 0, 0]), upper_M)
    with pytest.raises(UserError, match=re.escape("code:c [0.5, 0.04]")) as error:
        feasibility.check_feasible(
            bounds, NAMES, wished_M=wished_M, tokens_M=tokens_M, target_tokens=1e8, max_repeats=4.0
        )
    assert float(re.search(r"max_repeats to ([\d.e+]+)", str(error.value))[1]) == pytest.approx(50, rel=1e-5)
