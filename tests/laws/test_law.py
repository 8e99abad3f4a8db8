"""The contract of :class:`olmix_jax.laws.Law`, for every family. Also tests cpu.py and inputs.py."""

import dataclasses
import subprocess
import sys

import jax
import numpy as np
import pytest

from olmix_jax import laws
from olmix_jax.laws import cpu, inputs, log_linear
from olmix_jax.laws import law as law_module
from olmix_jax.utils.errors import UserError
from tests.laws.synthetic import noisy_swarm

DOMAINS = ("a", "b", "c")


@pytest.fixture(params=sorted(laws.LAWS))
def law(request):
    if request.param == "lightgbm":
        pytest.importorskip("lightgbm")
    return laws.LAWS[request.param]


def test_fit_has_the_shapes_of_the_contract(law):
    ratios_KM, bpb_KN = noisy_swarm(runs=20)
    fit = law.fit(ratios_KM, bpb_KN, starts=2, seed=0, tasks=("x", "y"), weight_K=np.ones(20))
    assert isinstance(fit.params, law.Params) and fit.loss_N.shape == (2,) and fit.unseen == ()
    predicted_KN = laws.evaluate(law, fit.params, ratios_KM)
    assert predicted_KN.shape == (20, 2) and predicted_KN.dtype == np.float64 and np.isfinite(predicted_KN).all()
    assert 0 < law.parameters(3) < 20
    assert law.describe(fit.params, 1, DOMAINS) and law.name in laws.LAWS
    refits = law.fit_weighted(ratios_KM, bpb_KN, np.ones((2, 20)), starts=2, seed=0, tasks=("x", "y"), near=fit.params)
    assert isinstance(refits, law.Params)
    assert laws.evaluate_each(law, refits, ratios_KM).shape == (2, 20, 2)


def test_capabilities_hold(law):
    ratios_KM, bpb_KN = noisy_swarm(runs=20)
    params = law.fit(ratios_KM, bpb_KN, starts=2).params
    std_KN = law_module.evaluate_spread(law, params, ratios_KM)
    assert std_KN is None if law.spread is None else (std_KN > 0).all()
    if law.sample is not None:
        assert laws.evaluate_each(law, law.sample(params, 3, 0), ratios_KM).shape == (3, 20, 2)
    if law.leave_one_out is not None:
        assert law.leave_one_out(params).shape == (20, 2)
    if law.differentiable:
        with cpu.float64():
            slope_M = jax.grad(lambda p_M: law.predict(params, p_M[None])[0, 0])(np.array([0.5, 0.3, 0.2]))
        assert np.isfinite(slope_M).all() and np.abs(slope_M).max() > 0
    if law.convex:
        ends, middle = laws.evaluate(law, params, np.eye(3)[:2]), laws.evaluate(law, params, [[0.5, 0.5, 0.0]])
        assert (middle[0] <= ends.mean(axis=0) + 1e-12).all()


def test_laws_are_cache_keys():
    """Equal laws are one key, and a law with another function is another."""
    copy = dataclasses.replace(log_linear.LAW)
    assert copy == log_linear.LAW and hash(copy) == hash(log_linear.LAW)
    assert dataclasses.replace(copy, predict=lambda params, ratios_KM: ratios_KM) != copy
    assert len(set(laws.LAWS.values())) == len(laws.LAWS)


def test_evaluate_each_takes_mixtures_of_each_resample():
    params = log_linear.Params(np.zeros((2, 1)), np.array([[[1.0, 0.0]], [[0.0, 2.0]]]))
    ratios_RKM = np.array([[[1.0, 0.0]], [[0.25, 0.75]]])
    bpb_RKN = laws.evaluate_each(log_linear.LAW, params, ratios_RKM)
    np.testing.assert_allclose(bpb_RKN[:, 0, 0], [1 + np.e, 1 + np.exp(1.5)])


def test_float64_is_a_context():
    with cpu.float64():
        assert jax.numpy.ones(1).dtype == np.float64 and jax.numpy.ones(1).device.platform == "cpu"
    assert jax.numpy.ones(1).dtype == np.float32


def test_refused_tasks_are_named():
    with pytest.raises(UserError, match="bad: x, z$"):
        inputs.refuse(np.array([True, False, True]), ("x", "y", "z"), "bad:")
    inputs.refuse(np.zeros(3, bool), None, "bad:")
    assert inputs.unseen(np.array([[0.5, 0.0, 0.5]])) == (1,) and inputs.one_row(None) is None


def test_a_fit_of_arrays_imports_no_training_library():
    code = (
        "import sys, numpy as np; from olmix_jax import laws; "
        "laws.warped_gp.fit(np.eye(6)[:, :3] + 0.1, np.ones((6, 1))); "
        "print([m for m in ('flax', 'orbax', 'grain', 'ml_collections', 'yaml') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
