"""AutoScale: recovers known laws, reaches losses as low as SciPy, and is finite where a weight is 0."""

import jax
import numpy as np
import pytest
import scipy.optimize

from olmix_jax import laws
from olmix_jax.laws import autoscale


def swarm(runs=40, noise=0.0, seed=0, zeros=False):
    rng = np.random.default_rng(seed)
    ratios_KM = rng.dirichlet(np.ones(3), size=runs)
    if zeros:
        ratios_KM[ratios_KM < 0.15] = 0
        ratios_KM /= ratios_KM.sum(axis=1, keepdims=True)
    true = autoscale.Params(rng.uniform(0.2, 0.8, size=2), rng.uniform(0.02, 0.2, size=(2, 3)), np.full((2, 3), 0.05))
    true.power_NM[1] = 0.03, 0.04, 0.06
    bpb_KN = laws.evaluate(autoscale.LAW, true, ratios_KM)
    return ratios_KM, true, bpb_KN + noise * rng.normal(size=bpb_KN.shape)


def test_recovers_a_known_law():
    """Compares predictions, because 40 runs barely determine c, A and α, even without noise."""
    ratios_KM, true, bpb_KN = swarm()
    fit = autoscale.fit(ratios_KM, bpb_KN)
    assert fit.unseen == () and fit.params.power_NM.dtype == np.float64
    new_KM = np.random.default_rng(5).dirichlet(np.ones(3), size=30)
    predicted = [laws.evaluate(autoscale.LAW, p, new_KM) for p in (fit.params, true)]
    np.testing.assert_allclose(*predicted, atol=1e-3)


def test_predict_is_the_formula_with_finite_slopes_at_weight_zero():
    params = autoscale.Params(np.array([0.5]), np.array([[0.5, 1e-12]]), np.array([[0.1, 0.2]]))
    ratios_KM = np.array([[0.25, 0.75], [1.0, 0.0]])
    expected_KN = [[0.5 + 0.75e12**-0.1 + 0.75e12**-0.2], [0.5 + 1.5e12**-0.1 + 1]]
    np.testing.assert_allclose(laws.evaluate(autoscale.LAW, params, ratios_KM), expected_KN, rtol=1e-9)
    with jax.enable_x64(True):
        slope_M = np.asarray(jax.grad(lambda p_M: autoscale.predict(params, p_M[None])[0, 0])(np.array([1.0, 0.0])))
    assert np.isfinite(slope_M).all() and (slope_M < 0).all()


def test_minimum_is_as_low_as_that_of_scipy():
    ratios_KM, _, bpb_KN = swarm(noise=0.02, seed=1)
    fit, rng = autoscale.fit(ratios_KM, bpb_KN), np.random.default_rng(2)
    for i in range(2):

        def residual(theta_P):
            base_KM = autoscale.TOKENS * (np.exp(theta_P[1:4]) + ratios_KM)
            return theta_P[0] + (base_KM ** -theta_P[4:]).sum(axis=1) - bpb_KN[:, i]  # noqa: B023

        at_P = np.concatenate([[fit.params.constant_N[i]], np.log(fit.params.offset_NM[i]), fit.params.power_NM[i]])
        assert 0.5 * (residual(at_P) ** 2).sum() == pytest.approx(fit.loss_N[i], rel=1e-9)
        bounds = [0, *[np.log(1e-12)] * 3, 0, 0, 0], [bpb_KN[:, i].min(), *[np.log(1e3)] * 3, 10, 10, 10]
        starts = np.concatenate(
            [rng.uniform(0.1, 0.5, (6, 1)), rng.uniform(-6, 0, (6, 3)), np.full((6, 3), 0.05)], axis=1
        )
        others = [scipy.optimize.least_squares(residual, start_P, bounds=bounds).cost for start_P in starts]
        assert fit.loss_N[i] <= min(others) * (1 + 1e-4)


def test_weight_zero_leaves_a_run_out_and_counts_repeat_it():
    ratios_KM, _, bpb_KN = swarm(noise=0.02)
    weight_RK = np.stack([np.arange(40) >= 8, np.arange(40) % 3]).astype(float)
    both = autoscale.fit_weighted(ratios_KM, bpb_KN, weight_RK)
    changed_KN = np.where(np.arange(40)[:, None] < 8, 77.0, bpb_KN)
    np.testing.assert_array_equal(
        autoscale.fit_weighted(ratios_KM, changed_KN, weight_RK).offset_NM[0], both.offset_NM[0]
    )
    for r in range(2):
        rows = np.repeat(np.arange(40), weight_RK[r].astype(int))
        alone = autoscale.fit(ratios_KM[rows], bpb_KN[rows]).params
        one = autoscale.Params(*(x[r] for x in both))
        predicted = [laws.evaluate(autoscale.LAW, p, ratios_KM) for p in (one, alone)]
        np.testing.assert_allclose(*predicted, atol=1e-4)


def test_refits_from_the_full_fit_are_nearly_as_low_as_all_starts():
    ratios_KM, _, bpb_KN = swarm(noise=0.01)
    weight_RK = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), size=3).astype(float)
    near = autoscale.fit(ratios_KM, bpb_KN).params
    loss_RN = []
    for params in (autoscale.fit_weighted(ratios_KM, bpb_KN, weight_RK, near=n) for n in (None, near)):
        with jax.enable_x64(True):
            predicted_RKN = np.asarray(jax.vmap(autoscale.predict, in_axes=(0, None))(params, ratios_KM))
        loss_RN.append((weight_RK[:, :, None] * (predicted_RKN - bpb_KN) ** 2).sum(axis=1))
    np.testing.assert_allclose(*loss_RN, rtol=0.05)


def test_the_order_of_domains_does_not_matter():
    ratios_KM, _, bpb_KN = swarm(noise=0.02, zeros=True)
    order = [2, 0, 1]
    fits = autoscale.fit(ratios_KM, bpb_KN), autoscale.fit(ratios_KM[:, order], bpb_KN)
    np.testing.assert_allclose(fits[0].loss_N, fits[1].loss_N, rtol=1e-4)
    predicted = [laws.evaluate(autoscale.LAW, f.params, x) for f, x in zip(fits, (ratios_KM, ratios_KM[:, order]))]
    np.testing.assert_allclose(*predicted, atol=1e-3)


def test_unsampled_domain_gets_no_term():
    ratios_KM, _, bpb_KN = swarm(noise=0.02)
    wide_KM = np.insert(ratios_KM, 1, 0.0, axis=1)
    fit, narrow = autoscale.fit(wide_KM, bpb_KN), autoscale.fit(ratios_KM, bpb_KN)
    assert fit.unseen == (1,)
    np.testing.assert_array_equal([fit.params.offset_NM[:, 1], fit.params.power_NM[:, 1]], [[1, 1], [10, 10]])
    predicted = [laws.evaluate(autoscale.LAW, f.params, x) for f, x in ((fit, wide_KM), (narrow, ratios_KM))]
    np.testing.assert_allclose(*predicted, atol=1e-6)


@pytest.mark.parametrize(
    "ratios_KM, bpb_KN",
    [
        (np.ones((6, 1)), np.linspace(1, 2, 6)[:, None]),  # one domain
        (np.eye(3)[[0, 1, 2, 0, 1, 2]], np.ones((6, 1))),  # a constant task, runs of one domain each
        (np.full((6, 3), 1 / 3), np.array([[1.0, 2, 3, 4, 5, 1e6]]).T),  # runs that are all the same mixture
    ],
)
def test_degenerate_swarms_give_finite_laws(ratios_KM, bpb_KN):
    fit = autoscale.fit(ratios_KM, bpb_KN, starts=4)
    assert all(np.isfinite(x).all() for x in (*fit.params, fit.loss_N))
    assert np.isfinite(laws.evaluate(autoscale.LAW, fit.params, np.eye(ratios_KM.shape[1]))).all()


def test_describe_names_the_parameters():
    params = autoscale.Params(np.array([0.25]), np.array([[0.5, 1.0]]), np.array([[0.1, 0.2]]))
    expected = {"constant": 0.25, "offsets": {"web": 0.5, "code": 1.0}, "powers": {"web": 0.1, "code": 0.2}}
    assert autoscale.describe(params, 0, ("web", "code")) == expected
    assert autoscale.parameters(24) == 49
