"""The law in exposures against NumPy and planted truths. Also tests curves.py and gp_learning.py."""

import jax
import numpy as np
import pytest

from olmix_jax import laws
from olmix_jax.laws import cpu, curves, exposure, gp_learning, warped_gp, warped_kernel

DOMAINS = 4


def swarm(truth, runs=40, noise=0.0, seed=0):
    """Return mixtures, and the BPB of one task."""
    rng = np.random.default_rng(seed)
    ratios_KM = rng.dirichlet(np.full(DOMAINS, 0.7), size=runs)
    bpb_K = truth(ratios_KM)
    return ratios_KM, (bpb_K * (1 + noise * rng.normal(size=runs)))[:, None]


def floored(ratios_KM):
    return 0.8 + 0.5 * np.exp(-6 * ratios_KM[:, 0] - 3 * ratios_KM[:, 1])


def repeated(ratios_KM):
    """Every domain helps up to a weight of .15 and does harm beyond."""
    over_KM = np.maximum(ratios_KM - 0.15, 0)
    return 1 + (2 * over_KM - np.minimum(ratios_KM, 0.15)) @ np.linspace(0.1, 0.4, ratios_KM.shape[1])


def features_in_numpy(ratios_KM, typical_M, largest_M):
    """Integrals of hats around the knots, by summing their slopes."""
    unit_M = np.log1p(largest_M / typical_M)
    exposure_KM, middle_M = np.log1p(ratios_KM / typical_M) / unit_M, np.log(2) / unit_M
    grid, knots = np.linspace(-0.2, 2.2, 24_001), np.arange(17) / 8
    hats = np.maximum(1 - 8 * np.abs(grid[:, None] - knots), 0)
    ramps = np.concatenate([np.zeros((1, 17)), np.cumsum((hats[1:] + hats[:-1]) / 2, axis=0)]) * 1e-4 * 8**0.5

    def at(u):
        return np.stack([np.interp(u, grid, ramp) for ramp in ramps.T], axis=-1)

    return at(exposure_KM) - at(middle_M)[None]


def test_kernel_adds_a_random_walk_per_domain():
    ratios_KM, _ = swarm(floored)
    scale = curves.Scale(ratios_KM.mean(axis=0), ratios_KM.max(axis=0))
    theta_P = np.random.default_rng(1).normal(size=DOMAINS + 6)
    phi_KMQ = features_in_numpy(ratios_KM, *scale)
    expected_KK = np.exp(theta_P[0]) * np.einsum("kmq,lmq,m->kl", phi_KMQ, phi_KMQ, np.exp(theta_P[1 : DOMAINS + 1]))
    with cpu.float64():
        found_KK = warped_kernel.kernel(theta_P, ratios_KM, ratios_KM, scale)
        plain_KK = warped_kernel.kernel(theta_P[1:], ratios_KM, ratios_KM)
        variance_K = warped_kernel.variance(theta_P, ratios_KM, scale)
    np.testing.assert_allclose(found_KK - plain_KK, expected_KK, atol=1e-5)
    np.testing.assert_allclose(variance_K, np.diag(found_KK), rtol=1e-5)


def test_variance_of_a_curve_grows_with_the_distance_from_the_typical_run():
    scale = curves.Scale(np.array([0.1]), np.array([0.1]))
    with cpu.float64():
        phi_KQ = np.asarray(curves.features(scale, np.array([[0.0], [0.1], [0.3]])))[:, 0]
    # For t = T the exposure u of a weight p is log₂(1 + p/t): 0, 1 and 2. Half a hat lies beyond 0 and 2.
    np.testing.assert_allclose((phi_KQ**2).sum(axis=1), [1.0, 0.0, 1.0], atol=0.2)
    assert phi_KQ[1].tolist() == [0.0] * 17


def test_slope_of_a_curve_is_continuous():
    scale = curves.Scale(np.array([0.1]), np.array([0.3]))
    with cpu.float64():
        slope_of = jax.vmap(jax.jacfwd(lambda p: curves.features(scale, p[None, None])[0, 0]))
        line = np.linspace(0, 1, 20_001)
        slope_PQ = np.asarray(slope_of(line))
    assert np.abs(np.diff(slope_PQ, axis=0)).max() < 0.02 * np.abs(slope_PQ).max()


@pytest.mark.parametrize("seed", range(4))
def test_gradient_of_floor_and_parameters_matches_finite_differences(seed):
    rng = np.random.default_rng(seed)
    ratios_KM, bpb_KN = swarm(floored, runs=14, noise=0.01, seed=seed)
    weight_K = rng.integers(0, 3, size=14).astype(float)
    scale = curves.Scale(*(x[0] for x in curves.scale(ratios_KM, weight_K[None])))
    least = bpb_KN[weight_K > 0, 0].min()
    x_P = 0.3 * rng.normal(size=DOMAINS + 7)
    with cpu.float64():
        objective = gp_learning.objective_with_floor((ratios_KM, weight_K, scale), bpb_KN[:, 0], 1.0, least)
        _, gradient_P = objective(x_P)
        for i, step_P in enumerate(1e-5 * np.eye(len(x_P))):
            slope = (objective(x_P + step_P)[0] - objective(x_P - step_P)[0]) / 2e-5
            assert gradient_P[i] == pytest.approx(float(slope), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_floor_of_a_truth_that_has_one_is_found(seed):
    ratios_KM, bpb_KN = swarm(floored, noise=0.001, seed=seed)
    params = exposure.LAW.fit(ratios_KM, bpb_KN).params
    assert 0.7 < params.floor_N[0] < bpb_KN.min()
    best_KM = np.array([[1.0, 0, 0, 0], [0.9, 0.1, 0, 0], [0.8, 0.2, 0, 0]])
    np.testing.assert_allclose(laws.evaluate(exposure.LAW, params, best_KM)[:, 0], floored(best_KM), atol=0.006)


def two_laws():
    return warped_gp.LAW, exposure.LAW


def test_harm_of_repetition_in_many_domains_is_found():
    rng = np.random.default_rng(0)
    ratios_KM, new_KM = rng.dirichlet(np.full(10, 0.5), size=(2, 60))
    bpb_KN = (repeated(ratios_KM) * (1 + 0.003 * rng.normal(size=60)))[:, None]
    errors = {
        law.name: np.abs(laws.evaluate(law, law.fit(ratios_KM, bpb_KN).params, new_KM)[:, 0] - repeated(new_KM)).mean()
        for law in two_laws()
    }
    assert errors["exposure"] < 0.8 * errors["warped_gp"]


def test_runs_of_weight_0_are_left_out_exactly():
    ratios_KM, bpb_KN = swarm(floored, runs=24, noise=0.01)
    kept = np.arange(24) % 3 > 0
    both = exposure.LAW.fit_weighted(ratios_KM, bpb_KN, np.stack([kept, np.ones(24)]).astype(float))
    alone = exposure.LAW.fit(ratios_KM[kept], bpb_KN[kept]).params
    found_KN = laws.evaluate_each(exposure.LAW, both, np.eye(DOMAINS))[0]
    np.testing.assert_allclose(found_KN, laws.evaluate(exposure.LAW, alone, np.eye(DOMAINS)), rtol=1e-6)


def test_refits_keep_the_floor_and_agree_with_the_fit():
    ratios_KM, bpb_KN = swarm(floored, runs=24, noise=0.01)
    full = exposure.LAW.fit(ratios_KM, bpb_KN).params
    again = exposure.LAW.fit_weighted(ratios_KM, bpb_KN, np.ones((2, 24)), near=full)
    for name in ("alpha_NK", "curve_NMQ", "floor_N"):
        np.testing.assert_allclose(getattr(again, name)[1], getattr(full, name), rtol=1e-8, atol=1e-10)


def test_draws_have_the_mean_and_spread_of_the_posterior():
    ratios_KM, bpb_KN = swarm(floored, runs=20, noise=0.01)
    params = exposure.LAW.fit(ratios_KM, bpb_KN).params
    new_KM = np.random.default_rng(3).dirichlet(np.ones(DOMAINS), size=5)
    drawn_SKN = laws.evaluate_each(exposure.LAW, exposure.LAW.sample(params, 800, 1), new_KM)
    log_SK = np.log(drawn_SKN[:, :, 0] - params.floor_N[0])
    centre_K = np.log(laws.evaluate(exposure.LAW, params, new_KM)[:, 0] - params.floor_N[0])
    run_K = laws.FittedLaw(exposure.LAW, params).spread(new_KM)[:, 0] / np.exp(centre_K)
    noise = params.scale_N[0] ** 2 * np.exp(params.theta_NP[0, -2])
    np.testing.assert_allclose(log_SK.mean(axis=0), centre_K, atol=4 * log_SK.std(axis=0).max() / 800**0.5)
    np.testing.assert_allclose(log_SK.std(axis=0), np.sqrt(run_K**2 - noise), rtol=0.15)


def test_leave_one_out_is_that_of_the_law_without_the_run():
    ratios_KM, bpb_KN = swarm(floored, runs=16, noise=0.01)
    full = exposure.LAW.fit(ratios_KM, bpb_KN).params
    left_out_KN = exposure.LAW.leave_one_out(full)
    factor = np.linalg.cholesky(kernel_of(full))
    precision_KK = np.linalg.inv(factor @ factor.T)
    error_K = precision_KK @ full.target_NK[0] / np.diag(precision_KK)
    log_K = full.offset_N[0] + full.scale_N[0] * (full.target_NK[0] - error_K)
    np.testing.assert_allclose(left_out_KN[:, 0], np.exp(log_K) + full.floor_N[0], rtol=1e-8)


def kernel_of(params):
    with cpu.float64():
        kernel_KK = np.asarray(
            warped_kernel.kernel(params.theta_NP[0], params.ratios_KM, params.ratios_KM, curves.scale_of(params))
        )
    return kernel_KK + np.eye(len(kernel_KK)) * (np.exp(params.theta_NP[0, -2]) + warped_kernel.JITTER)


def test_negative_losses_equal_scores_and_unsampled_domains_are_predicted():
    rng = np.random.default_rng(0)
    ratios_KM = np.c_[rng.dirichlet(np.ones(3), size=12), np.zeros(12)]
    bpb_KN = np.stack([ratios_KM[:, 0] - 0.5, np.ones(12), 1 - 0.3 * ratios_KM[:, 1]], axis=1)
    params = exposure.LAW.fit(ratios_KM, bpb_KN).params
    assert params.floor_N[0] == 0 and params.logged_N.tolist() == [0, 1, 1]
    for law_params in (params, jax.tree.map(lambda x: x[0], exposure.LAW.sample(params, 4))):
        assert np.isfinite(laws.evaluate(exposure.LAW, law_params, np.eye(DOMAINS))).all()
    np.testing.assert_allclose(laws.evaluate(exposure.LAW, params, ratios_KM)[:, 1], 1.0, atol=1e-6)


def test_parameters_have_names():
    ratios_KM, bpb_KN = swarm(floored)
    described = exposure.LAW.describe(exposure.LAW.fit(ratios_KM, bpb_KN).params, 0, tuple("abcd"))
    assert list(described) == ["curves", "floor", "relevance", "linear", "rough", "inverse_length", "noise", "warp"]
    assert set(described["relevance"]) == set("abcd")
