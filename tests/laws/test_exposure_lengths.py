"""The law in exposures on runs that differ in length and pools, against truths of epochs. Also tests curves.py."""

import jax
import numpy as np
import pytest

import olmix_jax
from olmix_jax import laws
from olmix_jax.laws import (
    cpu,
    curves,
    exposure,
    gp_learning,
    intervals,
    law,
    params_files,
    quality,
    warped_gp,
    warped_kernel,
)
from olmix_jax.swarm import lengths
from olmix_jax.swarm.lengths import Lengths
from tests.laws.exposed import DOMAINS, UNIQUE_M, world

LAW, SEEDS = exposure.LAW, range(4)
# The runs have 1e9 and 4e9 tokens.
TARGETS = (8e9, UNIQUE_M), (2e9, UNIQUE_M), (4e9, UNIQUE_M / 2)


@pytest.fixture(scope="module")
def fitted():
    """Worlds and the Params of their fits."""
    drawn = [world(seed) for seed in SEEDS]
    return [(of, LAW.fit(of.ratios_KM, of.bpb_KN, lengths=of.lengths).params) for of in drawn]


def new_mixtures(number=100):
    return np.random.default_rng(9).dirichlet(np.full(len(DOMAINS), 0.7), size=number)


def rmse(error):
    return float(np.sqrt(np.mean(np.square(error))))


def test_law_aimed_at_a_target_beats_weights_alone(fitted):
    """In its predictions, and in their differences between mixtures."""
    new_KM = new_mixtures()
    for of, params in fitted:
        plain_KN = laws.evaluate(LAW, LAW.fit(of.ratios_KM, of.bpb_KN).params, new_KM)
        for target in TARGETS:
            true_KN = of.truth(new_KM, *target)
            aimed, plain = laws.evaluate(LAW, LAW.aim(params, *target), new_KM) - true_KN, plain_KN - true_KN
            assert rmse(aimed) < 0.5 * rmse(plain)
            assert rmse(aimed - aimed.mean(axis=0)) < 0.7 * rmse(plain - plain.mean(axis=0))


def test_another_target_needs_no_refit_and_agrees_with_the_truth_within_its_interval(fitted):
    new_KM, covered = new_mixtures(), []
    for of, params in fitted:
        aims = [LAW.aim(params, *target) for target in TARGETS]
        for aimed, target in zip(aims, TARGETS):
            reach_KN = 1.645 * law.evaluate_spread(LAW, aimed, new_KM)
            off_KN = np.abs(laws.evaluate(LAW, aimed, new_KM) - of.truth(new_KM, *target))
            covered.append(float((off_KN <= reach_KN).mean()))
        assert aims[0].theta_NP is params.theta_NP and aims[0].alpha_NK is params.alpha_NK
    assert np.mean(np.array(covered) > 0.8) >= 0.75, covered


def test_longer_training_on_as_much_more_text_has_the_true_benefit(fitted):
    """Epochs stay the same, so only the trend differs."""
    ends = (1e9, UNIQUE_M / 4), (4e9, UNIQUE_M)
    new_KM = new_mixtures()
    for of, params in fitted:
        found_KN, true_KN = (
            short - long
            for short, long in (
                [laws.evaluate(LAW, LAW.aim(params, *end), new_KM) for end in ends],
                [of.truth(new_KM, *end) for end in ends],
            )
        )
        np.testing.assert_allclose(found_KN.mean(axis=0), true_KN.mean(axis=0), rtol=0.2)
        assert all(LAW.describe(params, task, DOMAINS)["length"] < 0 for task in range(2))


def test_runs_are_read_at_their_own_lengths_and_mixtures_at_the_median(fitted):
    of, params = fitted[0]
    rows_KX = lengths.rows(of.ratios_KM, of.lengths)
    each_KN = np.stack(
        [
            laws.evaluate(LAW, LAW.aim(params, tokens, unique_M), ratios_M[None])[0]
            for ratios_M, tokens, unique_M in zip(of.ratios_KM, *of.lengths)
        ]
    )
    np.testing.assert_allclose(laws.evaluate(LAW, params, rows_KX), each_KN, rtol=1e-12)
    median = np.median(of.lengths.tokens_K), np.median(of.lengths.unique_KM, axis=0)
    np.testing.assert_array_equal(params.target_X, np.append(median[1], median[0]))
    prepared = LAW.prepare(LAW.aim(params, 8e9, UNIQUE_M))
    expected_KN = laws.evaluate(LAW, LAW.aim(params, 8e9, UNIQUE_M), of.ratios_KM)
    np.testing.assert_allclose(laws.evaluate(LAW, prepared, of.ratios_KM), expected_KN, rtol=1e-10)


def test_lengths_that_are_alike_give_the_kernel_of_weights():
    of = world(0)
    alike = Lengths(np.full(40, 3e9), np.tile(UNIQUE_M, (40, 1)))
    scales = [curves.scale(of.ratios_KM, np.ones((1, 40)), given) for given in (None, alike)]
    with cpu.float64():
        plain, long = (jax.tree.map(lambda x: x[0], scale) for scale in scales)
        theta_P = np.random.default_rng(1).normal(size=len(DOMAINS) + 7)
        new_KM = new_mixtures(5)
        expected_KQ = warped_kernel.kernel(np.delete(theta_P, 1), of.ratios_KM, new_KM, plain)
        found_KQ = warped_kernel.kernel(theta_P, lengths.rows(of.ratios_KM, alike), new_KM, long)
    np.testing.assert_allclose(found_KQ, expected_KQ, rtol=1e-12)


def test_swarm_of_runs_that_are_alike_is_fitted_as_without_lengths(tmp_path):
    of = world(0, runs=14)
    for name, columns, rows in (("ratios", DOMAINS, of.ratios_KM), ("metrics", ("x", "y"), of.bpb_KN)):
        lines = [",".join(["run", *columns]), *(f"r{k}," + ",".join(map(str, row)) for k, row in enumerate(rows))]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "tokens.csv").write_text("run,tokens\n" + "".join(f"r{k},1e9\n" for k in range(14)))
    meta = {"token_counts": dict(zip(DOMAINS, UNIQUE_M.tolist()))}
    files = tmp_path / "ratios.csv", tmp_path / "metrics.csv", meta
    tables = [olmix_jax.read_swarm(*files, tokens) for tokens in ("", tmp_path / "tokens.csv")]
    plain, given = (olmix_jax.fit_law(table, "exposure", samples=2) for table in tables)
    for one, other in zip(plain.params, given.params, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(plain.predict_samples(new_mixtures(3)), given.predict_samples(new_mixtures(3)))
    assert LAW.aim(plain.params, 1e12, UNIQUE_M) is plain.params


@pytest.mark.parametrize("function", [LAW.predict, LAW.spread])
def test_slopes_in_the_mixture_are_those_of_finite_differences(fitted, function):
    params = LAW.aim(fitted[0][1], 8e9, UNIQUE_M)
    with cpu.float64():
        point_M = np.array([0.1, 0.2, 0.3, 0.4])
        of_mixture = jax.jit(lambda p_M: function(params, p_M[None])[0])
        slope_NM = jax.jacobian(of_mixture)(point_M)
        for j, step_M in enumerate(1e-6 * np.eye(len(point_M))):
            expected_N = (of_mixture(point_M + step_M) - of_mixture(point_M - step_M)) / 2e-6
            np.testing.assert_allclose(slope_NM[:, j], expected_N, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_gradient_of_the_objective_matches_finite_differences():
    of = world(3, runs=14)
    weight_K = np.random.default_rng(3).integers(0, 3, size=14).astype(float)
    scale = jax.tree.map(lambda x: x[0], curves.scale(of.ratios_KM, weight_K[None], of.lengths))
    least = of.bpb_KN[weight_K > 0, 0].min()
    x_P = 0.3 * np.random.default_rng(4).normal(size=len(DOMAINS) + 8)
    with cpu.float64():
        shared = lengths.rows(of.ratios_KM, of.lengths), weight_K, scale
        objective = gp_learning.objective_with_floor(shared, of.bpb_KN[:, 0], 1.0, least)
        _, gradient_P = objective(x_P)
        for i, step_P in enumerate(1e-5 * np.eye(len(x_P))):
            slope = (objective(x_P + step_P)[0] - objective(x_P - step_P)[0]) / 2e-5
            assert gradient_P[i] == pytest.approx(float(slope), rel=1e-4, abs=1e-4)


def test_trend_of_a_single_domain_has_its_own_variance():
    of = Lengths(np.array([1e9, 2e9, 4e9, 8e9]), np.full((4, 1), 1e9))
    ratios_KM, theta_P = np.ones((4, 1)), np.array([-2.0, 0.5, 0, 0, 0, 0, -2, -3])
    scale = jax.tree.map(lambda x: x[0], curves.scale(ratios_KM, np.ones((1, 4)), of))
    rows_KX, changed = lengths.rows(ratios_KM, of), np.array([-30.0, *theta_P[1:]])
    with cpu.float64():
        weights_KM = warped_kernel.weights(changed, rows_KX, scale)
        without_KK = warped_kernel.kernel(changed, rows_KX, rows_KX, scale)
        plain_KK = warped_kernel.kernel(warped_kernel.plain(changed, scale), weights_KM, weights_KM)
        trend_K = (np.log(of.tokens_K) - scale.level_2[0]) / scale.level_2[1]
        np.testing.assert_allclose(without_KK - plain_KK, np.outer(trend_K, trend_K), atol=1e-8)
        data = rows_KX, np.array([0.3, 0.1, -0.2, -0.5]), np.ones(4), scale
        _, gradient_P = warped_kernel.negative_log_posterior(theta_P, *data)
        for i, step_P in enumerate(1e-5 * np.eye(len(theta_P))):
            up, down = (
                warped_kernel.negative_log_posterior(x_P, *data)[0] for x_P in (theta_P + step_P, theta_P - step_P)
            )
            assert gradient_P[i] == pytest.approx(float(up - down) / 2e-5, rel=1e-4, abs=1e-4)


def test_permuted_domains_permute_the_law(fitted):
    of, params = fitted[0]
    order = np.array([2, 0, 3, 1])
    permuted = Lengths(of.lengths.tokens_K, of.lengths.unique_KM[:, order])
    other = LAW.fit(of.ratios_KM[:, order], of.bpb_KN, lengths=permuted).params
    new_KM, target = new_mixtures(20), TARGETS[2]
    expected_KN = laws.evaluate(LAW, LAW.aim(params, *target), new_KM)
    found_KN = laws.evaluate(LAW, LAW.aim(other, target[0], target[1][order]), new_KM[:, order])
    np.testing.assert_allclose(found_KN, expected_KN, rtol=1e-4)


def test_cross_validation_predicts_each_run_at_its_own_length():
    of = world(1)
    judged = quality.cross_validate(LAW, of.ratios_KM, of.bpb_KN, lengths=of.lengths)
    plain = quality.cross_validate(LAW, of.ratios_KM, of.bpb_KN)
    assert (judged.rmse_N < 0.5 * plain.rmse_N).all() and intervals.LEVEL - 0.1 < judged.coverage_N.mean()
    params = LAW.fit(of.ratios_KM, of.bpb_KN, lengths=of.lengths).params
    closed_KN = quality.leave_one_out(LAW, params, of.ratios_KM, of.bpb_KN, lengths=of.lengths)
    assert rmse(closed_KN - of.bpb_KN) < 0.5 * plain.rmse_N.mean()


def test_leave_one_out_of_replicates_leaves_out_all_lengths_of_a_mixture():
    of = world(2, runs=16)
    ratios_KM = np.repeat(of.ratios_KM[:8], 2, axis=0)
    params = LAW.fit(ratios_KM, of.bpb_KN, lengths=of.lengths).params
    found_KN = quality.leave_one_out(LAW, params, ratios_KM, of.bpb_KN, lengths=of.lengths)
    weight_1K = np.array([[0.0, 0.0, *[1.0] * 14]])
    refit = LAW.fit_weighted(ratios_KM, of.bpb_KN, weight_1K, near=params, lengths=of.lengths)
    expected_KN = laws.evaluate_each(LAW, refit, lengths.rows(ratios_KM, of.lengths))[0]
    np.testing.assert_allclose(found_KN[:2], expected_KN[:2], rtol=1e-8)


def test_draws_can_be_aimed_and_have_the_mean_of_the_law(fitted):
    _, params = fitted[0]
    both = laws.FittedLaw(LAW, params, LAW.sample(params, 400, 1)).aimed(8e9, UNIQUE_M)
    new_KM = new_mixtures(4)
    log_SKN = np.log(both.predict_samples(new_KM) - params.floor_N)
    log_KN = np.log(both.predict(new_KM) - params.floor_N)
    np.testing.assert_allclose(log_SKN.mean(axis=0), log_KN, atol=4 * log_SKN.std(axis=0).max() / 20)
    run_KN = both.spread(new_KM) / np.exp(log_KN)
    noise_N = params.scale_N**2 * np.exp(params.theta_NP[:, -2])
    np.testing.assert_allclose(log_SKN.std(axis=0), np.sqrt(run_KN**2 - noise_N), rtol=0.2)


def test_saved_params_keep_the_lengths(fitted, tmp_path):
    of, params = fitted[0]
    params_files.save(tmp_path / "params.npz", params)
    loaded = params_files.load(tmp_path / "params.npz", LAW)
    np.testing.assert_array_equal(
        laws.evaluate(LAW, LAW.aim(loaded, 8e9, UNIQUE_M), of.ratios_KM),
        laws.evaluate(LAW, LAW.aim(params, 8e9, UNIQUE_M), of.ratios_KM),
    )


@pytest.mark.parametrize("by_tokens", [False, True])
def test_without_repetition_law_is_no_worse_than_warped_gp_on_the_runs_of_the_targets_length(by_tokens):
    """Benefits follow weights in one truth, and tokens of the domain in the other; ρ tells them apart."""

    def truth(of, ratios_KM, tokens_K):
        longer_K = tokens_K / 1e9
        if by_tokens:
            return 0.7 + (1 + 30 * ratios_KM * longer_K[:, None]) ** -0.3 @ of.help_NM.T
        return 0.7 + 0.6 * np.exp(-0.15 * np.log(longer_K)[:, None] - (1 - np.exp(-ratios_KM / 0.15)) @ of.help_NM.T)

    new_KM, errors, rho = new_mixtures(), [], []
    for seed in SEEDS:
        of = world(seed)
        plenty, noise_KN = (
            of.lengths._replace(unique_KM=100 * of.lengths.unique_KM),
            of.bpb_KN / of.truth(of.ratios_KM, *of.lengths),
        )
        bpb_KN, long_K = truth(of, of.ratios_KM, of.lengths.tokens_K) * noise_KN, of.lengths.tokens_K > 2e9
        params = LAW.fit(of.ratios_KM, bpb_KN, lengths=plenty).params
        plain = warped_gp.LAW.fit(of.ratios_KM[long_K], bpb_KN[long_K]).params
        aimed = LAW.aim(params, 4e9, 100 * UNIQUE_M)
        true_KN = truth(of, new_KM, np.full(len(new_KM), 4e9))
        predicted = laws.evaluate(LAW, aimed, new_KM), laws.evaluate(warped_gp.LAW, plain, new_KM)
        errors.append([rmse(found_KN - true_KN) for found_KN in predicted])
        rho.append([LAW.describe(params, task, DOMAINS)["tokens"] for task in range(2)])
    ours, of_weights = np.mean(errors, axis=0)
    assert ours < 1.1 * of_weights, errors
    assert np.mean(rho) > 0.6 if by_tokens else np.mean(rho) < 0.3, rho
