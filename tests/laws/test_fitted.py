"""Fitted laws: predictions, spread, and the view through a matrix."""

import jax
import numpy as np
import pytest

from olmix_jax.laws import FittedLaw, log_linear, search, warped_gp
from olmix_jax.laws.fitted import MappedParams
from tests.laws.synthetic import noisy_swarm

PARAMS = log_linear.Params(np.log([0.5]), np.array([[-1.0, 0.0, 1.0]]))
SAMPLES = jax.tree.map(lambda x: np.stack([x, x + 0.1]), PARAMS)
# Block "ab" keeps its ratio of 3 to 1; "c" is alone.
BLOCKS_DM = np.array([[0.75, 0.25, 0.0], [0.0, 0.0, 1.0]])


def test_through_predicts_at_the_mapped_mixtures():
    fitted = FittedLaw(log_linear.LAW, PARAMS, SAMPLES)
    blocks, q_KD = fitted.through(BLOCKS_DM), np.array([[0.4, 0.6], [1.0, 0.0]])
    np.testing.assert_allclose(blocks.predict(q_KD), fitted.predict(q_KD @ BLOCKS_DM), rtol=1e-14)
    np.testing.assert_allclose(blocks.predict_samples(q_KD), fitted.predict_samples(q_KD @ BLOCKS_DM), rtol=1e-14)
    np.testing.assert_allclose(fitted.predict(np.eye(3))[:, 0], 0.5 + np.exp([-1.0, 0.0, 1.0]))


def test_the_rise_keeps_the_digits_that_the_prediction_loses():
    fitted = FittedLaw(log_linear.LAW, PARAMS).through(BLOCKS_DM)
    steep = FittedLaw(log_linear.LAW, PARAMS._replace(coef_NM=np.full((1, 3), -40.0)))
    assert fitted.law.rise is not None and log_linear.LAW.rise is not None
    with jax.enable_x64(True):
        rise_KN = np.asarray(fitted.law.rise(fitted.params, np.eye(2)))
        tiny = float(log_linear.LAW.rise(steep.params, np.eye(3))[0, 0])
    np.testing.assert_allclose(0.5 + rise_KN, fitted.predict(np.eye(2)), rtol=1e-15)
    assert tiny == pytest.approx(np.exp(-40), rel=1e-14) and steep.predict(np.eye(3))[0, 0] == 0.5


def test_through_keeps_capabilities_and_compiles_once():
    first, second = (FittedLaw(log_linear.LAW, PARAMS).through(BLOCKS_DM) for _ in range(2))
    assert first.law is second.law and first.law.convex and first.law.differentiable
    assert first.law != log_linear.LAW and first.samples is None and isinstance(first.params, MappedParams)
    ratios_KM, bpb_KN = noisy_swarm(runs=8)
    assert not FittedLaw(search.LAW, search.fit(ratios_KM, bpb_KN).params).through(BLOCKS_DM).law.differentiable


def test_through_cannot_be_fitted():
    law = FittedLaw(log_linear.LAW, PARAMS).through(BLOCKS_DM).law
    with pytest.raises(TypeError, match="log_linear over other weights cannot be fitted"):
        law.fit(np.eye(2), np.ones((2, 1)))


def test_spread_is_that_of_the_law_or_none():
    assert FittedLaw(log_linear.LAW, PARAMS).spread(np.eye(3)) is None
    ratios_KM, bpb_KN = noisy_swarm(runs=12)
    fitted, q_KD = FittedLaw(warped_gp.LAW, warped_gp.fit(ratios_KM, bpb_KN).params), np.array([[0.4, 0.6]])
    np.testing.assert_allclose(fitted.through(BLOCKS_DM).spread(q_KD), fitted.spread(q_KD @ BLOCKS_DM), rtol=1e-9)
