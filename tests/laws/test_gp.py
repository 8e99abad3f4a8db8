"""The Gaussian process against plain NumPy: evidence, predictions, and run weights."""

import jax
import numpy as np
import pytest
import scipy.optimize

from olmix_jax import laws
from olmix_jax.laws import gp


def swarm(runs=30, domains=4, tasks=2, noise=0.02, seed=0):
    rng = np.random.default_rng(seed)
    ratios_KM = rng.dirichlet(np.ones(domains), size=runs)
    bpb_KN = 0.8 + np.exp(ratios_KM @ rng.normal(-0.3, 0.8, size=(domains, tasks)))
    return ratios_KM, bpb_KN + noise * rng.normal(size=bpb_KN.shape)


def reference(ratios_KM, bpb_K, length, ratio, at_QM=None):
    """Return (log evidence at the best amplitude, prediction) of unweighted runs, by inverse and determinant."""

    def kernel(a_QM, b_KM):
        return np.exp(-0.5 * ((a_QM[:, None] - b_KM[None]) ** 2).sum(axis=2) / length**2)

    y_K, runs = (bpb_K - bpb_K.mean()) / bpb_K.std(), len(bpb_K)
    covariance_KK = kernel(ratios_KM, ratios_KM) + ratio * np.eye(runs)
    solved_K = np.linalg.solve(covariance_KK, y_K)
    amplitude = y_K @ solved_K / runs
    evidence = -0.5 * (runs * np.log(2 * np.pi * amplitude) + np.linalg.slogdet(covariance_KK)[1] + runs)
    at_QM = ratios_KM if at_QM is None else at_QM
    return evidence, bpb_K.mean() + bpb_K.std() * kernel(at_QM, ratios_KM) @ solved_K


def one(params, r):
    return gp.Params(*(x[r] for x in params))


def test_evidence_and_prediction_match_the_textbook():
    ratios_KM, bpb_KN = swarm()
    fit, new_KM = gp.fit(ratios_KM, bpb_KN), np.random.default_rng(1).dirichlet(np.ones(4), size=9)
    predicted_KN = laws.evaluate(gp.LAW, fit.params, new_KM)
    for i in range(2):
        args = ratios_KM, bpb_KN[:, i], fit.params.length_N[i], fit.params.noise_N[i], new_KM
        evidence, predicted_K = reference(*args)
        assert evidence == pytest.approx(-fit.loss_N[i], abs=1e-6)
        np.testing.assert_allclose(predicted_KN[:, i], predicted_K, rtol=1e-6)
    assert (laws.evaluate(gp.LAW, fit.params, ratios_KM) - bpb_KN).std() < 0.03


def test_search_from_random_starts_finds_no_higher_evidence():
    ratios_KM, bpb_KN = swarm(noise=0.05, seed=3)
    fit = gp.fit(ratios_KM, bpb_KN)
    bounds = [np.log(gp.LENGTHS[[0, -1]]), np.log(gp.NOISES[[0, -1]])]
    for i in range(2):

        def loss(at):
            return -reference(ratios_KM, bpb_KN[:, i], *np.exp(at))[0]  # noqa: B023

        starts = [(a, b) for a in np.log([0.05, 0.3, 1, 10]) for b in np.log([1e-5, 1e-2, 1])]
        others = [scipy.optimize.minimize(loss, s, bounds=bounds, method="L-BFGS-B").fun for s in starts]
        assert fit.loss_N[i] <= min(others) + 1e-3


def test_weight_zero_leaves_a_run_out():
    ratios_KM, bpb_KN = swarm()
    weight_RK = np.ones((2, 30))
    weight_RK[1, :6] = 0
    both = gp.fit_weighted(ratios_KM, bpb_KN, weight_RK)
    changed_KN = np.where(np.arange(30)[:, None] < 6, 77.0, bpb_KN)
    np.testing.assert_array_equal(gp.fit_weighted(ratios_KM, changed_KN, weight_RK).dual_NK[1], both.dual_NK[1])
    assert not both.dual_NK[1, :, :6].any()
    alone = gp.fit(ratios_KM[6:], bpb_KN[6:]).params
    predicted = [laws.evaluate(gp.LAW, p, ratios_KM) for p in (one(both, 1), alone)]
    np.testing.assert_allclose(*predicted, atol=1e-4)


def test_refits_keep_the_hyperparameters_and_weights_divide_the_noise():
    """A run of weight 2 is that run twice: the posterior given ℓ and ν is the same."""
    ratios_KM, bpb_KN = swarm()
    near, weight_K = gp.fit(ratios_KM, bpb_KN).params, np.arange(30) % 3
    params = one(gp.fit_weighted(ratios_KM, bpb_KN, weight_K[None], near=near), 0)
    np.testing.assert_array_equal([params.length_N, params.noise_N], [near.length_N, near.noise_N])
    rows = np.repeat(np.arange(30), weight_K)
    predicted_KN = laws.evaluate(gp.LAW, params, ratios_KM)
    for i in range(2):
        args = near.length_N[i], near.noise_N[i], ratios_KM
        _, repeated_K = reference(ratios_KM[rows], bpb_KN[rows, i], *args)
        np.testing.assert_allclose(predicted_KN[:, i], repeated_K, rtol=1e-6)
    again = one(gp.fit_weighted(ratios_KM, bpb_KN, np.ones((1, 30)), near=near), 0)
    np.testing.assert_allclose(again.dual_NK, near.dual_NK, rtol=1e-6, atol=1e-9)


def test_slopes_are_finite_and_right_at_weight_zero():
    ratios_KM, bpb_KN = swarm()
    params, p_M = gp.fit(ratios_KM, bpb_KN).params, np.array([0.0, 1.0, 0.0, 0.0])

    def total(p_M):
        return gp.predict(params, p_M[None]).sum()

    with jax.enable_x64(True):
        slope_M = np.asarray(jax.grad(total)(p_M))
        nudged = [float(total(p_M + 1e-5 * e_M) - total(p_M - 1e-5 * e_M)) / 2e-5 for e_M in np.eye(4)]
    np.testing.assert_allclose(slope_M, nudged, rtol=1e-5, atol=1e-5)


def test_order_of_domains_and_unsampled_domains_do_not_matter():
    ratios_KM, bpb_KN = swarm()
    fit, turned = gp.fit(ratios_KM, bpb_KN), gp.fit(ratios_KM[:, [2, 0, 3, 1]], bpb_KN)
    np.testing.assert_allclose(fit.loss_N, turned.loss_N, atol=1e-6)
    wide = gp.fit(np.insert(ratios_KM, 1, 0.0, axis=1), bpb_KN)
    assert wide.unseen == (1,)
    np.testing.assert_allclose(wide.loss_N, fit.loss_N, atol=1e-6)
    far_N = laws.evaluate(gp.LAW, wide.params._replace(length_N=np.full(2, 0.05)), np.eye(5)[[1]])[0]
    np.testing.assert_allclose(far_N, bpb_KN.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize(
    "ratios_KM, bpb_KN",
    [
        (np.ones((6, 1)), np.linspace(1, 2, 6)[:, None]),  # one domain
        (np.eye(3)[[0, 1, 2, 0, 1, 2]], np.ones((6, 1))),  # a constant task
        (np.full((6, 3), 1 / 3), np.array([[1.0, 2, 3, 4, 5, 1e6]]).T),  # runs that are all the same mixture
    ],
)
def test_degenerate_swarms_give_finite_laws(ratios_KM, bpb_KN):
    fit = gp.fit(ratios_KM, bpb_KN)
    assert all(np.isfinite(x).all() for x in (*fit.params, fit.loss_N))
    found_KN = laws.evaluate(gp.LAW, fit.params, np.eye(ratios_KM.shape[1]))
    assert (abs(found_KN - bpb_KN.mean()) <= np.ptp(bpb_KN) + 1e-9).all()


def test_describe_names_the_hyperparameters():
    fit = gp.fit(*swarm())
    described = gp.describe(fit.params, 1, ("a", "b", "c", "d"))
    assert set(described) == {"length", "mean", "amplitude", "noise"} and gp.parameters(24) == 3
    assert 0.01 < described["noise"] < 0.04
