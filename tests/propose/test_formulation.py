import numpy as np
import pytest

from olmix_jax.utils.errors import UserError
from tests.propose.cases import NATURAL_M, PARAMS, TASKS, log_linear_formulation, sampled_params

PAIR = {"web": {"web:a": 1, "web:b": 3}}


def test_without_blocks_both_problems_are_the_same():
    formulation = log_linear_formulation()
    assert formulation.reduced is formulation.problem and formulation.blocks is None and formulation.sign == 1
    np.testing.assert_array_equal(formulation.problem.anchor_M, NATURAL_M)
    np.testing.assert_array_equal(formulation.problem.weights, [0.5, 0.5])


def test_worst_mixture_has_negative_weights():
    assert log_linear_formulation(worst=True).problem.weights.sum() == -1
    assert log_linear_formulation(worst=True).sign == -1


def test_values_over_blocks_equal_those_over_domains():
    formulation = log_linear_formulation(keep_ratios=PAIR, samples=sampled_params(0.1))
    ratios_KD = np.random.default_rng(0).dirichlet(np.ones(2), 5)
    values_K = formulation.problem.values(formulation.expand(ratios_KD))
    np.testing.assert_allclose(formulation.reduced.values(ratios_KD), values_K, rtol=1e-12)
    np.testing.assert_allclose(formulation.collapse(formulation.expand(ratios_KD)), ratios_KD, rtol=1e-12)
    predicted_SKN = formulation.reduced_law.predict_samples(ratios_KD)
    assert predicted_SKN.shape == (24, 5, len(TASKS))


def test_anchor_without_a_domain_caps_it_at_zero_only_with_kl():
    anchor = {"web:b": 0.5, "code": 0.5}
    assert log_linear_formulation(anchor=anchor).problem.bounds.upper_M[0] == 0
    assert log_linear_formulation(anchor=anchor, kl_weight=0.0).problem.bounds.upper_M[0] == 1
    assert "propose.anchor gives web:a no weight" in log_linear_formulation(anchor=anchor).excluded[0]
    assert not log_linear_formulation(anchor=anchor, kl_weight=0.0).excluded and not log_linear_formulation().excluded


def test_lower_bound_of_a_domain_without_anchor_weight_is_an_error():
    message = r"web:a \[0.1, 0\].*without weight in the anchor \(propose.anchor\) are excluded: web:a; give"
    with pytest.raises(UserError, match=message):
        log_linear_formulation(anchor={"web:b": 0.5, "code": 0.5}, bounds={"web:a": [0.1, None]})
    with pytest.raises(UserError, match=r"without weight in the anchor \(natural\) are excluded: web:a"):
        log_linear_formulation(natural_M=np.array([0, 0.5, 0.5]), bounds={"web:a": [0.1, None]})


def test_task_sizes_are_the_default_weights():
    np.testing.assert_allclose(log_linear_formulation(sizes_N=[3, 1]).problem.weights, [0.75, 0.25])


def test_law_is_not_changed():
    assert log_linear_formulation().problem.params is PARAMS
