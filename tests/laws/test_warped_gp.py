"""The default law against NumPy and closed forms. Also tests warped_kernel.py, gp_posterior.py and per_task.py."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix_jax import laws
from olmix_jax.laws import cpu, gp_learning, gp_posterior, per_task, scores, warped_gp, warped_kernel


def swarm(runs=40, domains=4, tasks=3, noise=0.01, seed=0):
    """Mixtures and tasks with diminishing returns, each mostly of one domain."""
    rng = np.random.default_rng(seed)
    ratios_KM = rng.dirichlet(np.full(domains, 0.5), size=runs)
    effect_MN = -0.1 * rng.random((domains, tasks)) - 0.4 * np.eye(domains, tasks)
    bpb_KN = 1.5 * np.exp(np.log1p(ratios_KM / 0.05) / 3 @ effect_MN)
    return ratios_KM, bpb_KN * np.exp(noise * rng.normal(size=bpb_KN.shape))


def kernel_in_numpy(theta_P, one_KM, other_QM):
    e = np.exp(theta_P)
    w, (a, b, ell, _, tau) = e[:-5], e[-5:]
    z, v = (np.log1p(x / tau) / np.log1p(1 / tau) for x in (one_KM, other_QM))
    square = (w * (z[:, None, :] - v[None, :, :]) ** 2).sum(axis=2)
    d = np.sqrt(3 * ell * square)
    return a * np.einsum("j,kj,qj->kq", w, z, v) + b * (1 + d) * np.exp(-d)


def negative_log_posterior_in_numpy(theta_P, ratios_KM, y_K, weight_K):
    """Return −log posterior of θ, computed without the runs of weight 0."""
    kept = weight_K > 0
    c = kernel_in_numpy(theta_P, ratios_KM[kept], ratios_KM[kept])
    c = c + np.diag(np.exp(theta_P[-2]) / weight_K[kept] + warped_kernel.JITTER)
    mean_P, std_P = (np.asarray(x) for x in warped_kernel.prior(ratios_KM.shape[1]))
    y = y_K[kept]
    prior = 0.5 * (((theta_P - mean_P) / std_P) ** 2).sum()
    return 0.5 * y @ np.linalg.solve(c, y) + 0.5 * np.linalg.slogdet(c)[1] + prior


def random_problem(seed):
    rng = np.random.default_rng(seed)
    ratios_KM = rng.dirichlet(np.full(4, 0.4), size=12)
    ratios_KM[:3] = np.eye(4)[:3]
    weight_K = rng.integers(0, 3, size=12).astype(float)
    return 0.5 * rng.normal(size=9), ratios_KM, rng.normal(size=12) * (weight_K > 0), weight_K


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_likelihood_and_gradient_match_numpy(seed):
    theta_P, *data = random_problem(seed)
    with cpu.float64():
        value, gradient_P = map(np.asarray, warped_kernel.negative_log_posterior(theta_P, *data))
    np.testing.assert_allclose(value, negative_log_posterior_in_numpy(theta_P, *data), rtol=1e-6)
    step = 1e-5 * np.eye(len(theta_P))
    by_differences = [
        (negative_log_posterior_in_numpy(theta_P + d, *data) - negative_log_posterior_in_numpy(theta_P - d, *data))
        / 2e-5
        for d in step
    ]
    np.testing.assert_allclose(gradient_P, by_differences, rtol=1e-4, atol=1e-4)


def test_predictions_and_spread_match_the_textbook_posterior():
    ratios_KM, bpb_KN = swarm()
    new_KM = np.random.default_rng(5).dirichlet(np.ones(4), size=6)
    params = warped_gp.fit(ratios_KM, bpb_KN).params
    fitted = laws.FittedLaw(warped_gp.LAW, params)
    found_KN, std_KN = fitted.predict(new_KM), fitted.spread(new_KM)
    for i in range(3):
        theta_P, log_K = params.theta_NP[i], np.log(bpb_KN[:, i])
        y_K = (log_K - log_K.mean()) / log_K.std()
        c = kernel_in_numpy(theta_P, ratios_KM, ratios_KM) + np.eye(40) * (np.exp(theta_P[-2]) + 1e-8)
        cross = kernel_in_numpy(theta_P, new_KM, ratios_KM)
        mean = np.exp(log_K.mean() + log_K.std() * cross @ np.linalg.solve(c, y_K))
        own = np.diag(kernel_in_numpy(theta_P, new_KM, new_KM)) + np.exp(theta_P[-2])
        variance = own - (cross * np.linalg.solve(c, cross.T).T).sum(axis=1)
        np.testing.assert_allclose(found_KN[:, i], mean, rtol=1e-5)
        np.testing.assert_allclose(std_KN[:, i], mean * log_K.std() * np.sqrt(variance), rtol=1e-4)


def test_saturating_effects_are_predicted_better_than_by_log_linear():
    """Diminishing returns: less than half the error of the log-linear law on held-out mixtures."""
    ratios_KM, bpb_KN = swarm(runs=60)
    new_KM, new_bpb_KN = swarm(runs=200, noise=0.0, seed=7)
    new_bpb_KN = swarm_truth(new_KM)
    errors = {}
    for name in ("warped_gp", "log_linear"):
        law = laws.LAWS[name]
        predicted_KN = laws.evaluate(law, law.fit(ratios_KM, swarm_truth(ratios_KM)).params, new_KM)
        errors[name] = np.sqrt(((predicted_KN - new_bpb_KN) ** 2).mean())
    assert errors["warped_gp"] < 0.5 * errors["log_linear"]


def swarm_truth(ratios_KM):
    effect_MN = -0.1 * np.ones((4, 3)) - 0.4 * np.eye(4, 3)
    return 1.5 * np.exp(np.log1p(ratios_KM / 0.05) / 3 @ effect_MN)


def test_weight_zero_leaves_runs_out_and_order_does_not_matter():
    ratios_KM, bpb_KN = swarm(runs=25)
    weight_RK = np.ones((2, 25))
    weight_RK[0, 3:9] = 0
    both = warped_gp.fit_weighted(ratios_KM, bpb_KN, weight_RK)
    kept = weight_RK[0] > 0
    alone = warped_gp.fit(ratios_KM[kept], bpb_KN[kept]).params
    new_KM = np.random.default_rng(1).dirichlet(np.ones(4), size=9)
    found_RKN = laws.evaluate_each(warped_gp.LAW, both, new_KM)
    np.testing.assert_allclose(found_RKN[0], laws.evaluate(warped_gp.LAW, alone, new_KM), rtol=1e-6)
    runs, columns = np.random.default_rng(2).permutation(25), [2, 0, 3, 1]
    other = warped_gp.fit(ratios_KM[runs][:, columns], bpb_KN[runs]).params
    np.testing.assert_allclose(found_RKN[1], laws.evaluate(warped_gp.LAW, other, new_KM[:, columns]), rtol=1e-6)


def test_weight_two_equals_two_measurements():
    ratios_KM, bpb_KN = swarm(runs=15)
    full = warped_gp.fit(ratios_KM, bpb_KN).params
    weight_RK = np.ones((1, 15))
    weight_RK[0, 4] = 2
    heavy = warped_gp.fit_weighted(ratios_KM, bpb_KN, weight_RK, near=full)
    twice = np.concatenate([np.arange(15), [4]])
    copied = warped_gp.fit_weighted(ratios_KM[twice], bpb_KN[twice], np.ones((1, 16)), near=full)
    found = [laws.evaluate_each(warped_gp.LAW, p, np.eye(4)) for p in (heavy, copied)]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)


def test_slopes_are_finite_at_the_corners_and_at_the_runs():
    import jax

    ratios_KM, bpb_KN = swarm(runs=20)
    params = warped_gp.fit(ratios_KM, bpb_KN).params
    with cpu.float64():
        slope_of = jax.jit(jax.jacfwd(lambda p_M: warped_gp.predict(params, p_M[None, :])[0]))
        curve_of = jax.jit(jax.hessian(lambda p_M: warped_gp.predict(params, p_M[None, :])[0].mean()))
        for at_M in (np.eye(4)[0], ratios_KM[3]):
            slope, curve = slope_of(at_M), curve_of(at_M)
            assert np.isfinite(np.asarray(slope)).all() and np.isfinite(np.asarray(curve)).all()


def test_unsampled_domain_keeps_the_prior_relevance():
    ratios_KM, bpb_KN = swarm(runs=20, domains=3)
    wide_KM = np.insert(ratios_KM, 1, 0.0, axis=1)
    fit = warped_gp.fit(wide_KM, bpb_KN)
    assert fit.unseen == (1,)
    described = warped_gp.describe(fit.params, 0, ("a", "new", "b", "c"))
    assert described["relevance"]["new"] == pytest.approx(np.exp(warped_kernel.RELEVANCE[0]), rel=1e-9)
    std_KN = laws.FittedLaw(warped_gp.LAW, fit.params).spread(np.eye(4))
    assert (std_KN[1] > std_KN[[0, 2, 3]]).all()  # no run has weight there


def test_samples_match_the_posterior_mean_and_spread():
    ratios_KM, bpb_KN = swarm(runs=12, noise=0.1)
    params = warped_gp.fit(ratios_KM, bpb_KN).params
    drawn = warped_gp.sample(params, 600, seed=1)
    again = warped_gp.sample(params, 600, seed=1)
    new_KM = np.concatenate([np.eye(4), np.full((1, 4), 0.25)])
    log_RKN = np.log(laws.evaluate_each(warped_gp.LAW, drawn, new_KM))
    np.testing.assert_array_equal(drawn.alpha_NK, again.alpha_NK)
    centre_KN = np.log(laws.evaluate(warped_gp.LAW, params, new_KM))
    noise_N = np.exp(params.theta_NP[:, -2]) * params.scale_N**2
    new_run_KN = laws.FittedLaw(warped_gp.LAW, params).spread(new_KM) / np.exp(centre_KN)
    latent_KN = np.sqrt(new_run_KN**2 - noise_N[None, :])
    np.testing.assert_allclose(log_RKN.std(axis=0), latent_KN, rtol=0.2)
    assert (np.abs(log_RKN.mean(axis=0) - centre_KN) < 5 * latent_KN / np.sqrt(600)).all()


def test_noise_shared_by_tasks_widens_the_spread_of_their_average():
    """Two tasks with the same noise: their samples are correlated, so the average is no more certain."""
    ratios_KM, bpb_KN = swarm(runs=16, tasks=1, noise=0.1)
    params = warped_gp.fit(ratios_KM, np.repeat(bpb_KN, 2, axis=1)).params
    log_RKN = np.log(laws.evaluate_each(warped_gp.LAW, warped_gp.sample(params, 300), np.full((1, 4), 0.25)))
    assert np.corrcoef(log_RKN[:, 0, 0], log_RKN[:, 0, 1])[0, 1] > 0.85


def test_constant_and_negative_tasks_are_fitted_without_nan():
    ratios_KM, bpb_KN = swarm(runs=15)
    bpb_KN = np.stack([np.full(15, 0.7), bpb_KN[:, 0] - 2, bpb_KN[:, 1]], axis=1)
    params = warped_gp.fit(ratios_KM, bpb_KN).params
    found_KN = laws.evaluate(warped_gp.LAW, params, ratios_KM)
    np.testing.assert_allclose(found_KN[:, 0], 0.7, rtol=1e-9)
    assert (found_KN[:, 1] < 0).all() and np.corrcoef(found_KN[:, 1], bpb_KN[:, 1])[0, 1] > 0.9
    assert np.isfinite(laws.FittedLaw(warped_gp.LAW, params).spread(np.eye(4))).all()


def test_large_swarms_learn_from_a_subset_and_condition_on_all_runs(monkeypatch):
    monkeypatch.setattr(warped_gp, "LEARNT_ON", 20)
    ratios_KM, bpb_KN = swarm(runs=50)
    params = warped_gp.fit(ratios_KM, bpb_KN).params
    assert params.alpha_NK.shape == (3, 50) and (params.alpha_NK != 0).all()
    weight_RK = np.ones((1, 50))
    weight_RK[0, ::2] = 0
    chosen_H = warped_gp._chosen(weight_RK, 0)[0]
    assert len(set(chosen_H)) == 20 and (weight_RK[0, chosen_H] > 0).all()


def test_published_swarm_is_predicted_better_than_with_log_linear(published):
    from olmix_jax.swarm.table import SwarmTable

    folder = published / "regmix_1m"
    train, test = (
        SwarmTable.read(folder / f"{part}_mixture_1m.csv", folder / f"{part}_pile_loss_1m.csv")
        for part in ("train", "test")
    )
    params = warped_gp.fit(train.ratios_KM[:54], train.bpb_KN[:54]).params
    predicted_KN = laws.evaluate(warped_gp.LAW, params, test.ratios_KM)
    assert scores.spearman(predicted_KN, test.bpb_KN).mean() > 0.96


def test_prepared_parameters_predict_the_same_without_runs_of_weight_0(monkeypatch):
    monkeypatch.setattr(gp_posterior, "SHAPES", 8)
    ratios_KM, bpb_KN = swarm(runs=30)
    weight_RK = np.ones((1, 30))
    weight_RK[0, 5:20] = 0
    params = warped_gp.Params(*(x[0] for x in warped_gp.fit_weighted(ratios_KM, bpb_KN, weight_RK)))
    new_KM = np.random.default_rng(1).dirichlet(np.ones(4), size=9)
    drawn = warped_gp.Params(*(x[1] for x in warped_gp.sample(params, 2)))
    through = laws.FittedLaw(warped_gp.LAW, params).through(np.eye(4)[:3])
    prepared = warped_gp.prepare(params)
    assert prepared.params.ratios_KM.shape == (16, 4) and prepared.runs.z_KM.shape == (3, 16, 4)
    for law, form, at_KM in (
        (warped_gp.LAW, params, new_KM),
        (warped_gp.LAW, drawn, new_KM),
        (through.law, through.params, new_KM[:, :3]),
    ):
        expected_KN = laws.evaluate(law, form, at_KM)
        np.testing.assert_allclose(laws.evaluate(law, law.prepared(form), at_KM), expected_KN, rtol=1e-12)


def test_predictions_task_by_task_equal_those_of_all_tasks_at_once(monkeypatch):
    ratios_KM, bpb_KN = swarm(runs=20)
    params = warped_gp.fit(ratios_KM, bpb_KN).params
    with cpu.float64():
        at_once_KN = np.asarray(warped_gp.predict(params, ratios_KM))
        monkeypatch.setattr(gp_posterior, "TABLE", 0)
        np.testing.assert_allclose(np.asarray(warped_gp.predict(params, ratios_KM)), at_once_KN, rtol=1e-12)


@pytest.mark.parametrize("block", [1, 2])
def test_blocks_of_tasks_do_not_change_a_fit(monkeypatch, block):
    ratios_KM, bpb_KN = swarm(runs=20)
    weight_RK = np.ones((2, 20))
    weight_RK[1, :5] = 0
    expected = warped_gp.fit_weighted(ratios_KM, bpb_KN, weight_RK)
    monkeypatch.setattr(per_task, "BLOCK", block)
    found = warped_gp.fit_weighted(ratios_KM, bpb_KN, weight_RK)
    np.testing.assert_allclose(found.theta_NP, expected.theta_NP, rtol=1e-9)
    np.testing.assert_allclose(found.alpha_NK, expected.alpha_NK, rtol=1e-6)


def test_refits_that_begin_at_the_full_fit_end_at_the_same_minimum_and_only_in_large_swarms(monkeypatch):
    ratios_KM, bpb_KN = swarm(runs=60, noise=0.03)
    full = warped_gp.fit(ratios_KM, bpb_KN).params
    weight_RK = np.ones((3, 60))
    for r in range(3):
        weight_RK[r, r::3] = 0
    monkeypatch.setattr(gp_learning, "TOLERANCE", 1e-5)
    cold = warped_gp.LAW.refit(ratios_KM, bpb_KN, weight_RK)
    small = warped_gp.LAW.refit(ratios_KM, bpb_KN, weight_RK, begin=full)
    np.testing.assert_array_equal(small.theta_NP, cold.theta_NP)
    monkeypatch.setattr(warped_gp, "LEARNT_ON", 60)
    monkeypatch.setattr(gp_learning, "NEAR_TOLERANCE", 1e-5)
    large = warped_gp.LAW.refit(ratios_KM, bpb_KN, weight_RK, begin=full)
    assert (large.theta_NP != cold.theta_NP).any()
    cold_RKN, large_RKN = (laws.evaluate_each(warped_gp.LAW, params, ratios_KM) for params in (cold, large))
    np.testing.assert_allclose(large_RKN, cold_RKN, rtol=5e-3)
