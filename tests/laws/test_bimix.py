"""BiMix: recovers known laws, reaches losses as low as SciPy, and is finite where a weight is 0."""

import jax
import numpy as np
import pytest
import scipy.optimize

from olmix_jax import laws
from olmix_jax.laws import bimix


def swarm(runs=40, noise=0.0, seed=0, zeros=False):
    rng = np.random.default_rng(seed)
    ratios_KM = rng.dirichlet(np.ones(3), size=runs)
    if zeros:
        ratios_KM[ratios_KM < 0.15] = 0
        ratios_KM /= ratios_KM.sum(axis=1, keepdims=True)
    true = bimix.Params(rng.uniform(0.2, 0.8, size=(2, 3)), rng.uniform(0.02, 0.5, size=(2, 3)))
    bpb_KN = laws.evaluate(bimix.LAW, true, ratios_KM)
    return ratios_KM, true, bpb_KN + noise * rng.normal(size=bpb_KN.shape)


def test_recovers_a_known_law():
    for zeros in (False, True):
        ratios_KM, true, bpb_KN = swarm(zeros=zeros)
        fit = bimix.fit(ratios_KM, bpb_KN)
        assert fit.unseen == () and fit.params.scale_NM.dtype == np.float64
        np.testing.assert_allclose(fit.loss_N, 0, atol=1e-12)
        np.testing.assert_allclose(fit.params.scale_NM, true.scale_NM, atol=1e-4)
        np.testing.assert_allclose(fit.params.power_NM, true.power_NM, atol=1e-4)


def test_predict_is_the_formula_with_finite_slopes_at_weight_zero():
    params = bimix.Params(np.array([[0.5, 0.25]]), np.array([[0.5, 0.0]]))
    expected_KN = [[0.5 * 0.25**-0.5 + 0.25], [0.5 + 0.25]]
    predicted_KN = laws.evaluate(bimix.LAW, params, np.array([[0.25, 0.75], [1.0, 0.0]]))
    np.testing.assert_allclose(predicted_KN, expected_KN, rtol=1e-10)
    with jax.enable_x64(True):
        found = jax.value_and_grad(lambda p_M: bimix.predict(params, p_M[None])[0, 0])(np.array([0.0, 1.0]))
    value, slope_M = map(np.asarray, found)
    assert value == pytest.approx(0.5 * 1e6 + 0.25)
    np.testing.assert_allclose(slope_M, [-0.25e18, 0.0], rtol=1e-9)


def test_minimum_is_as_low_as_that_of_scipy():
    ratios_KM, _, bpb_KN = swarm(noise=0.05, seed=1)
    fit, rng = bimix.fit(ratios_KM, bpb_KN), np.random.default_rng(2)
    log_KM = np.log(ratios_KM + 1e-12)
    for i in range(2):

        def residual(theta_P):
            return np.exp(-theta_P[3:] * log_KM) @ theta_P[:3] - bpb_KN[:, i]  # noqa: B023

        at_P = np.concatenate([fit.params.scale_NM[i], fit.params.power_NM[i]])
        assert 0.5 * (residual(at_P) ** 2).sum() == pytest.approx(fit.loss_N[i], rel=1e-9)
        bounds, starts = (np.zeros(6), np.full(6, 50.0)), rng.uniform(0.05, 1, size=(6, 6))
        others = [scipy.optimize.least_squares(residual, start_P, bounds=bounds).cost for start_P in starts]
        assert fit.loss_N[i] <= min(others) * (1 + 1e-6)


def test_weight_zero_leaves_a_run_out_and_counts_repeat_it():
    ratios_KM, _, bpb_KN = swarm(noise=0.02)
    weight_RK = np.stack([np.arange(40) >= 8, np.arange(40) % 3]).astype(float)
    both = bimix.fit_weighted(ratios_KM, bpb_KN, weight_RK)
    changed_KN = np.where(np.arange(40)[:, None] < 8, 77.0, bpb_KN)
    np.testing.assert_array_equal(bimix.fit_weighted(ratios_KM, changed_KN, weight_RK).scale_NM[0], both.scale_NM[0])
    for r in range(2):
        rows = np.repeat(np.arange(40), weight_RK[r].astype(int))
        alone = bimix.fit(ratios_KM[rows], bpb_KN[rows]).params
        one = bimix.Params(*(x[r] for x in both))
        predicted = [laws.evaluate(bimix.LAW, p, ratios_KM) for p in (one, alone)]
        np.testing.assert_allclose(*predicted, atol=1e-4)


def test_refits_from_the_full_fit_are_nearly_as_low_as_all_starts():
    ratios_KM, _, bpb_KN = swarm(noise=0.01)
    weight_RK = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), size=3).astype(float)
    near = bimix.fit(ratios_KM, bpb_KN).params
    loss_RN = []
    for params in (bimix.fit_weighted(ratios_KM, bpb_KN, weight_RK, near=n) for n in (None, near)):
        with jax.enable_x64(True):
            predicted_RKN = np.asarray(jax.vmap(bimix.predict, in_axes=(0, None))(params, ratios_KM))
        loss_RN.append((weight_RK[:, :, None] * (predicted_RKN - bpb_KN) ** 2).sum(axis=1))
    np.testing.assert_allclose(*loss_RN, rtol=1e-3)


def test_the_order_of_domains_does_not_matter():
    ratios_KM, _, bpb_KN = swarm(noise=0.02, zeros=True)
    order = [2, 0, 1]
    fits = bimix.fit(ratios_KM, bpb_KN), bimix.fit(ratios_KM[:, order], bpb_KN)
    np.testing.assert_allclose(fits[0].params.scale_NM[:, order], fits[1].params.scale_NM, atol=1e-4)
    np.testing.assert_allclose(fits[0].loss_N, fits[1].loss_N, rtol=1e-6)


def test_unsampled_domain_gets_no_term():
    ratios_KM, _, bpb_KN = swarm(noise=0.02)
    wide_KM = np.insert(ratios_KM, 1, 0.0, axis=1)
    fit, narrow = bimix.fit(wide_KM, bpb_KN), bimix.fit(ratios_KM, bpb_KN)
    assert fit.unseen == (1,)
    assert not fit.params.scale_NM[:, 1].any() and not fit.params.power_NM[:, 1].any()
    np.testing.assert_allclose(np.delete(fit.params.scale_NM, 1, axis=1), narrow.params.scale_NM, atol=1e-6)


@pytest.mark.parametrize(
    "ratios_KM, bpb_KN",
    [
        (np.ones((6, 1)), np.linspace(1, 2, 6)[:, None]),  # one domain
        (np.eye(3)[[0, 1, 2, 0, 1, 2]], np.ones((6, 1))),  # a constant task, runs of one domain each
        (np.full((6, 3), 1 / 3), np.array([[1.0, 2, 3, 4, 5, 1e6]]).T),  # runs that are all the same mixture
    ],
)
def test_degenerate_swarms_give_finite_laws(ratios_KM, bpb_KN):
    fit = bimix.fit(ratios_KM, bpb_KN, starts=4)
    assert all(np.isfinite(x).all() for x in (*fit.params, fit.loss_N))
    assert np.isfinite(laws.evaluate(bimix.LAW, fit.params, np.eye(ratios_KM.shape[1]))).all()


def test_describe_names_the_parameters():
    params = bimix.Params(np.array([[0.5, 1.0]]), np.array([[0.1, 0.2]]))
    expected = {"scales": {"web": 0.5, "code": 1.0}, "powers": {"web": 0.1, "code": 0.2}}
    assert bimix.describe(params, 0, ("web", "code")) == expected
    assert bimix.parameters(24) == 48
