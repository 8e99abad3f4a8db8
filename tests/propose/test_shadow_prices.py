import numpy as np
import pytest

from olmix_jax.propose.shadow_prices import capping_members, domain_multipliers
from tests.propose.cases import log_linear_formulation, log_linear_proposal, weights_of

TOKENS_M = np.array([20e9, 60e9, 120e9])
PAIR = {"web": {"web:a": 1, "web:b": 3}}


def capped(tokens_M=TOKENS_M, **arguments):
    given = {"natural_M": TOKENS_M, "kl_weight": 0.01, "target_tokens": 3e11} | arguments
    return log_linear_proposal(tokens_M=tokens_M, **given)


def test_shadow_price_equals_the_fall_of_the_objective_per_billion_tokens():
    """The natural distribution stays the same while the tokens change."""
    prices = capped().shadow_prices
    assert prices["web:a"] > 0 and prices["code"] == 0
    more, fewer = (capped(TOKENS_M + np.array([step, 0, 0])).objective for step in (1e8, -1e8))
    assert prices["web:a"] == pytest.approx((fewer - more) / 0.2, rel=1e-4)


def test_repeat_price_equals_the_fall_of_the_objective_per_repeat_of_the_domain():
    price = capped().repeat_prices["web:a"]
    # One more repeat of a domain alone is the cap of a domain with more tokens.
    more, fewer = (capped(TOKENS_M * np.array([1 + step / 4, 1, 1])).objective for step in (1e-3, -1e-3))
    assert price == pytest.approx((fewer - more) / 2e-3, rel=1e-4)


def test_repeats_are_epochs_over_a_domain():
    proposal = capped()
    assert proposal.repeats["web:a"] == pytest.approx(4)
    assert proposal.repeats["code"] == pytest.approx(proposal.weights["code"] * 3e11 / 120e9)


def test_price_of_a_block_belongs_to_the_member_that_caps_it():
    given = {"keep_ratios": PAIR, "target_tokens": 1e11}
    proposal = log_linear_proposal(tokens_M=np.array([5e9, 9e9, 1e11]), **given)
    assert proposal.weights["web:b"] == pytest.approx(0.36)
    assert proposal.shadow_prices["web:b"] > 0 == proposal.shadow_prices["web:a"]
    more = log_linear_proposal(tokens_M=np.array([5e9, 9e9 + 1e6, 1e11]), **given)
    fall = (proposal.objective - more.objective) / 1e6 * 1e9
    assert proposal.shadow_prices["web:b"] == pytest.approx(fall, rel=1e-3)


def test_multiplier_of_a_block_is_divided_by_the_ratio_of_its_capping_member():
    formulation = log_linear_formulation(keep_ratios=PAIR, bounds={"web:b": [0, 0.3]})
    np.testing.assert_array_equal(capping_members(formulation), [1, 2])
    np.testing.assert_allclose(domain_multipliers(formulation, np.array([0.6, 0.1])), [0, 0.8, 0.1])
    np.testing.assert_array_equal(capping_members(log_linear_formulation()), [0, 1, 2])


def test_capped_by_distinguishes_repetition_from_bounds():
    sizes = {"tokens_M": np.array([5e9, 20e9, 1e12]), "target_tokens": 1e11}
    proposal = log_linear_proposal(bounds={"web:b": [None, 0.1]}, kl_weight=0.001, **sizes)
    assert proposal.capped_by == {"web:a": "repetition", "web:b": "bound", "code": None}
    np.testing.assert_allclose(weights_of(proposal)[:2], [0.2, 0.1])
    assert proposal.shadow_prices["web:a"] > 0 == proposal.shadow_prices["web:b"]
    # A bound above the repetition cap does not bind.
    assert log_linear_proposal(bounds={"web:a": [0, 0.9]}, **sizes).capped_by["web:a"] == "repetition"
    assert log_linear_proposal(bounds={"web:a": 0.05}).capped_by["web:a"] == "bound"


def test_group_has_its_weight_and_multiplier():
    proposal = log_linear_proposal(bounds={"web:*": [None, 0.5]})
    (group,) = proposal.groups
    assert group.name == "web:*" and group.domains == ("web:a", "web:b") and (group.low, group.high) == (0.0, 0.5)
    assert group.weight == pytest.approx(weights_of(proposal)[:2].sum()) == pytest.approx(0.5)
    looser, tighter = (log_linear_proposal(bounds={"web:*": [None, high]}).objective for high in (0.501, 0.499))
    assert group.multiplier == pytest.approx((tighter - looser) / 0.002, rel=1e-4)


def test_without_token_counts_there_are_no_prices():
    proposal = log_linear_proposal(target_tokens=3e11)
    assert set(proposal.caps.values()) == {1.0} and set(proposal.capped_by.values()) == {None}
    assert proposal.repeats is None and proposal.shadow_prices is None and proposal.repeat_prices is None
