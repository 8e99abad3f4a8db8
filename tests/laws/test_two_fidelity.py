"""The law of cheap and real runs: slopes against closed forms, its gain over real runs alone, and its fallback."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix_jax.laws import FittedLaw, cpu, evaluate, evaluate_each, floored_gp, quality, two_fidelity, warped_gp

LAW = two_fidelity.LAW
DOMAINS, TASKS, ATTENUATION = 5, 6, 2.0


def world(seed, real=6, cheap=40, *, noise=0.01, related=True):
    """Return (ratios_KM, bpb_KN) of real and of cheap runs, and of held-out runs without noise.

    Cheap runs show half of an effect, and another level. If they are not ``related``, they show other effects.
    """
    draw = np.random.default_rng(seed)
    effect_MN, other_MN = (
        0.3 * draw.normal(size=(DOMAINS, TASKS)) * (draw.random((DOMAINS, TASKS)) < 0.5) for _ in "ab"
    )

    def runs(number, effect_MN, level, noise):
        ratios_KM = draw.dirichlet(np.full(DOMAINS, 0.7), size=number)
        shared_K1, own_KN = draw.normal(size=(number, 1)), draw.normal(size=(number, TASKS))
        log_KN = np.log1p(ratios_KM / 0.05) / np.log(21) @ effect_MN
        return ratios_KM, level * np.exp(log_KN + noise * (0.5 * shared_K1 + 0.8 * own_KN))

    shown_MN = (effect_MN if related else other_MN) / ATTENUATION
    return runs(real, effect_MN, 1.5, noise), runs(cheap, shown_MN, 2.0, 0.3 * noise), runs(60, effect_MN, 1.5, 0.0)


def fitted(seed=0, **options):
    real, cheap, _ = world(seed, **options)
    return real, LAW.fit(*real, base=LAW.base(*cheap)).params


def rmse(law, params, held_out) -> float:
    return float(np.sqrt(np.mean((evaluate(law, params, held_out[0]) / held_out[1] - 1) ** 2)))


def weighted_slope(y_K, x_K, weight_K):
    """Weighted least squares with an intercept, by np.polyfit, whose weights multiply residuals."""
    return np.polyfit(x_K, y_K, 1, w=np.sqrt(weight_K))[0]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_slope_of_one_task_is_weighted_least_squares_drawn_to_the_prior_by_its_error(seed):
    draw = np.random.default_rng(seed)
    x_K, weight_K = draw.normal(size=9), draw.uniform(0.5, 2.0, size=9)
    y_K = 1.7 * x_K + 0.1 * draw.normal(size=9) + 3.0
    found = two_fidelity.slopes(y_K[:, None], x_K[:, None], weight_K, 9)
    slope = weighted_slope(y_K, x_K, weight_K)
    assert found.shared == pytest.approx(slope, rel=1e-9) and found.sure
    # Errors over runs, with the correction of White's HC1.
    at_K = x_K - np.average(x_K, weights=weight_K)
    left_K = y_K - np.average(y_K, weights=weight_K) - slope * at_K
    error = np.sqrt(np.sum((weight_K * at_K * left_K) ** 2) * 9 / 7) / np.sum(weight_K * at_K**2)
    assert found.shared_error == pytest.approx(error, rel=1e-9)
    prior, std = two_fidelity.PRIOR
    expected = (slope / error**2 + prior / std**2) / (1 / error**2 + 1 / std**2)
    np.testing.assert_allclose(found.slope_N, expected, rtol=1e-9)
    np.testing.assert_allclose(found.common_error_N, (1 / error**2 + 1 / std**2) ** -0.5, rtol=1e-9)
    np.testing.assert_array_equal(found.own_error_N, 0)


def test_slopes_without_noise_are_exact():
    draw = np.random.default_rng(1)
    x_KN, slope_N = draw.normal(size=(7, 4)), np.array([0.5, 1.0, 2.0, 4.0])
    one = two_fidelity.slopes(2.0 * x_KN[:, :1] + 1, x_KN[:, :1], np.ones(7), 7)
    np.testing.assert_allclose(one.slope_N, 2.0, rtol=1e-9)
    found = two_fidelity.slopes(slope_N * x_KN - 2, x_KN, np.ones(7), 7)
    np.testing.assert_allclose(found.slope_N, slope_N, rtol=1e-6)
    np.testing.assert_allclose(found.own_error_N, 0, atol=1e-6)


def test_slopes_that_differ_by_noise_only_are_shared_and_others_are_kept():
    draw = np.random.default_rng(2)
    x_KN, noise_KN = draw.normal(size=(30, 40)), draw.normal(size=(30, 40))
    same = two_fidelity.slopes(1.5 * x_KN + noise_KN, x_KN, np.ones(30), 30)
    each_N = np.array([weighted_slope(y_K, x_K, np.ones(30)) for y_K, x_K in zip((1.5 * x_KN + noise_KN).T, x_KN.T)])
    assert np.std(same.slope_N) < 0.3 * np.std(each_N) and abs(same.shared - 1.5) < 3 * same.shared_error
    true_N = np.linspace(0.5, 2.5, 40)
    apart = two_fidelity.slopes(true_N * x_KN + 0.1 * noise_KN, x_KN, np.ones(30), 30)
    np.testing.assert_allclose(apart.slope_N, true_N, atol=0.1)
    # Between the shared slope and each task's, and the nearer to its task the less noise it has.
    noisy_N = np.where(np.arange(40) < 20, 0.1, 3.0)
    mixed = two_fidelity.slopes(true_N * x_KN + noisy_N * noise_KN, x_KN, np.ones(30), 30)
    each_N = np.array(
        [weighted_slope(y_K, x_K, np.ones(30)) for y_K, x_K in zip((true_N * x_KN + noisy_N * noise_KN).T, x_KN.T)]
    )
    moved_N = np.abs(mixed.slope_N - each_N) / np.abs(mixed.shared - each_N)
    assert moved_N[:20].max() < 0.25 and np.median(moved_N[20:]) > 0.3


@pytest.mark.parametrize("runs", [5, 8, 20])
def test_slope_lies_within_its_error_of_the_truth_as_often_as_it_says(runs):
    draw, inside, size = np.random.default_rng(3), [], 300
    for _ in range(size):
        x_KN, true_N = 0.2 * draw.normal(size=(runs, 8)), 1.8 + 0.3 * draw.normal(size=8)
        shared_K1, own_KN = draw.normal(size=(runs, 1)), draw.normal(size=(runs, 8))
        found = two_fidelity.slopes(true_N * x_KN + 0.03 * (0.6 * shared_K1 + 0.8 * own_KN), x_KN, np.ones(runs), runs)
        error_N = np.hypot(found.common_error_N, found.own_error_N)
        inside.append(np.mean(np.abs(found.slope_N - true_N) < 1.645 * error_N))
    # Nominally 90 %.
    assert 0.8 < np.mean(inside) < 0.95


@pytest.mark.parametrize("runs", [5, 8, 20])
def test_unrelated_cheap_runs_are_confirmed_as_rarely_as_the_confidence_says(runs):
    draw, sure = np.random.default_rng(4), []
    for _ in range(400):
        x_KN, shared_K1, own_KN = draw.normal(size=(runs, 8)), draw.normal(size=(runs, 1)), draw.normal(size=(runs, 8))
        sure.append(two_fidelity.slopes(0.6 * shared_K1 + 0.8 * own_KN, x_KN, np.ones(runs), runs).sure)
    # Nominally 5 %.
    assert 0.01 < np.mean(sure) < 0.09


def test_slopes_need_three_mixtures_and_a_shape():
    x_KN = np.random.default_rng(0).normal(size=(6, 3))
    for shape_KN, mixtures in ((x_KN, 2), (np.ones((6, 3)), 6), (x_KN[:, :0], 6)):
        found = two_fidelity.slopes(shape_KN, shape_KN, np.ones(6), mixtures)
        assert not found.sure and (found.slope_N == 0).all() and found.shared == 0


@pytest.mark.parametrize("real", [5, 8])
def test_few_real_runs_are_enough_where_cheap_runs_predict_them(real):
    errors = []
    for seed in range(4):
        runs, cheap, held_out = world(seed, real)
        params = LAW.fit(*runs, base=LAW.base(*cheap)).params
        assert two_fidelity.predicts_real(params) and np.abs(params.slope_N / ATTENUATION - 1).max() < 0.5
        alone = floored_gp.LAW.fit(*runs).params
        errors.append((rmse(LAW, params, held_out), rmse(floored_gp.LAW, alone, held_out)))
    assert (np.array(errors)[:, 0] < 0.5 * np.array(errors)[:, 1]).all()


def test_unrelated_cheap_runs_leave_the_law_of_the_real_runs():
    for seed in range(2):
        (ratios_KM, bpb_KN), cheap, held_out = world(seed, 12, related=False)
        params = LAW.fit(ratios_KM, bpb_KN, base=LAW.base(*cheap)).params
        assert not two_fidelity.predicts_real(params) and params.shared < 2 * params.shared_error
        alone = floored_gp.LAW.fit(ratios_KM, bpb_KN).params
        both = FittedLaw(LAW, params, LAW.sample(params, 4, 7))
        one = FittedLaw(floored_gp.LAW, alone, floored_gp.LAW.sample(alone, 4, 7))
        new_KM = held_out[0]
        np.testing.assert_allclose(both.predict(new_KM), one.predict(new_KM), rtol=1e-12)
        np.testing.assert_allclose(both.spread(new_KM), one.spread(new_KM), rtol=1e-12)
        np.testing.assert_allclose(both.predict_samples(new_KM), one.predict_samples(new_KM), rtol=1e-12)


def test_without_cheap_runs_the_law_is_that_of_the_real_runs():
    (ratios_KM, bpb_KN), _, held_out = world(0, 12)
    weight_RK = np.ones((2, 12))
    weight_RK[1, 3] = 0
    params, alone = (law.fit(ratios_KM, bpb_KN).params for law in (LAW, floored_gp.LAW))
    assert params.cheap is None
    np.testing.assert_array_equal(evaluate(LAW, params, held_out[0]), evaluate(floored_gp.LAW, alone, held_out[0]))
    for kept in ({}, {"near": 0}):
        refits, others = (
            law.fit_weighted(ratios_KM, bpb_KN, weight_RK, **{name: of for name in kept})
            for law, of in ((LAW, params), (floored_gp.LAW, alone))
        )
        found_RKN = evaluate_each(LAW, refits, held_out[0])
        np.testing.assert_allclose(found_RKN, evaluate_each(floored_gp.LAW, others, held_out[0]), rtol=1e-9)


def test_law_does_not_depend_on_the_order_of_domains_tasks_and_runs():
    (ratios_KM, bpb_KN), cheap, held_out = world(1)
    domains, tasks, runs = (np.random.default_rng(5).permutation(n) for n in (DOMAINS, TASKS, len(ratios_KM)))
    params = LAW.fit(ratios_KM, bpb_KN, base=LAW.base(*cheap)).params
    turned = LAW.fit(
        ratios_KM[runs][:, domains],
        bpb_KN[runs][:, tasks],
        base=LAW.base(cheap[0][:, domains], cheap[1][:, tasks]),
    ).params
    expected_KN = evaluate(LAW, params, held_out[0])[:, tasks]
    np.testing.assert_allclose(evaluate(LAW, turned, held_out[0][:, domains]), expected_KN, rtol=1e-3)


@pytest.mark.slow
def test_refits_take_the_cheap_runs_from_the_fit_to_all_runs():
    (ratios_KM, bpb_KN), cheap, _ = world(2, 9)
    base = LAW.base(*cheap)
    params = LAW.fit(ratios_KM, bpb_KN, base=base).params
    held_out = quality.cross_validate(LAW, ratios_KM, bpb_KN, folds=3, begin=params)
    for fold in range(3):
        out_K = held_out.fold_K == fold
        part = LAW.fit(ratios_KM[~out_K], bpb_KN[~out_K], base=base).params
        np.testing.assert_allclose(held_out.predicted_KN[out_K], evaluate(LAW, part, ratios_KM[out_K]), rtol=1e-3)
    left_out_KN = quality.leave_one_out(LAW, params, ratios_KM, bpb_KN)
    assert np.sqrt(np.mean((left_out_KN / bpb_KN - 1) ** 2)) < 0.05


def test_left_out_real_run_is_not_told_by_a_cheap_run_on_its_mixture():
    """Early checkpoints of the real runs, say: what seed and text did to a run, they show as well."""
    (ratios_KM, bpb_KN), (ratios_JM, bpb_JN), _ = world(0)
    # Mixtures in whole sequences of a shorter run are not exactly equal.
    twins_KM = ratios_KM + 0.002 * np.resize([1.0, -1.0, 0, 0, 0], ratios_KM.shape)
    cheap = np.concatenate([ratios_JM[:34], twins_KM]), np.concatenate([bpb_JN[:34], 1.3 * np.sqrt(bpb_KN)])
    base = LAW.base(*cheap)
    fit = LAW.fit(ratios_KM, bpb_KN, base=base).params
    weight_RK = np.ones((2, len(ratios_KM)))
    weight_RK[0, 1] = 0
    refits = LAW.fit_weighted(ratios_KM, bpb_KN, weight_RK, begin=fit)
    expected_RJ = np.ones((2, len(cheap[0])))
    expected_RJ[0, 34 + 1] = 0
    np.testing.assert_array_equal(refits.cheap.weight_K, expected_RJ)
    others = floored_gp.LAW.fit_weighted(*cheap, expected_RJ, near=base)
    np.testing.assert_allclose(refits.cheap.alpha_NK, others.alpha_NK, rtol=1e-6, atol=1e-8)
    first = jax.tree.map(lambda x: x[0], refits)
    shape_KN = np.log(evaluate(floored_gp.LAW, jax.tree.map(lambda x: x[0], others), ratios_KM))
    np.testing.assert_allclose(first.centre_N, weight_RK[0] @ shape_KN / 5, rtol=1e-9)


@pytest.mark.slow
def test_gradient_matches_finite_differences():
    _, params = fitted(3)
    p_M, step = np.full(DOMAINS, 0.2), 1e-6
    for prepared in (params, LAW.prepared(params)):
        with cpu.float64():
            slope_MN = np.asarray(jax.jacobian(lambda p_M, law=prepared: LAW.predict(law, p_M[None])[0])(p_M)).T
            ends = [np.asarray(LAW.predict(prepared, p_M + sign * step * np.eye(DOMAINS))) for sign in (1, -1)]
        np.testing.assert_allclose(slope_MN, (ends[0] - ends[1]) / (2 * step), rtol=1e-5, atol=1e-7)


def test_samples_have_the_slopes_errors_and_surround_the_mean():
    _, params = fitted(4)
    drawn = LAW.sample(params, 4000, 0)
    np.testing.assert_allclose(drawn.slope_N.mean(axis=0), params.slope_N, atol=0.02)
    error_N = np.hypot(params.common_error_N, params.own_error_N)
    np.testing.assert_allclose(drawn.slope_N.std(axis=0), error_N, rtol=0.06)
    shared = np.mean(np.cov(drawn.slope_N.T)[np.triu_indices(TASKS, 1)])
    common_NN = np.outer(params.common_error_N, params.common_error_N)
    assert shared == pytest.approx(common_NN[np.triu_indices(TASKS, 1)].mean(), rel=0.15)
    few = jax.tree.map(lambda x: x[:300], drawn)
    ratios_KM = np.random.default_rng(6).dirichlet(np.ones(DOMAINS), size=8)
    median_KN = np.median(evaluate_each(LAW, few, ratios_KM), axis=0)
    np.testing.assert_allclose(median_KN, evaluate(LAW, params, ratios_KM), rtol=0.02)


def test_spread_is_that_of_held_out_runs():
    inside = []
    for seed in range(6):
        runs, cheap, _ = world(seed, 8)
        _, _, (new_KM, true_KN) = world(seed, 8)
        law = FittedLaw(LAW, LAW.fit(*runs, base=LAW.base(*cheap)).params)
        measured_KN = true_KN * np.exp(0.01 * np.random.default_rng(seed).normal(size=true_KN.shape))
        inside.append(np.mean(np.abs(law.predict(new_KM) - measured_KN) < 1.645 * law.spread(new_KM)))
    # Nominally 90 %.
    assert 0.75 < np.mean(inside) < 0.99


def test_tasks_that_are_not_bpb_are_left_to_the_real_runs():
    (ratios_KM, bpb_KN), cheap, held_out = world(5, 10)
    bpb_KN[:, 0] -= 2
    params = LAW.fit(ratios_KM, bpb_KN, base=LAW.base(*cheap)).params
    assert params.slope_N[0] == 0 and (params.slope_N[1:] > 1).all()
    alone = warped_gp.fit(ratios_KM, bpb_KN[:, :1]).params
    found_K = evaluate(LAW, params, held_out[0])[:, 0]
    np.testing.assert_allclose(found_K, evaluate(warped_gp.LAW, alone, held_out[0])[:, 0], rtol=1e-6)


def test_domain_is_unseen_if_no_run_that_is_used_samples_it():
    (ratios_KM, bpb_KN), cheap, held_out = world(0, 8)
    without_KM = ratios_KM * (np.arange(DOMAINS) > 0)
    without_KM /= without_KM.sum(axis=1, keepdims=True)
    base = LAW.base(*cheap)
    bpb_KN = np.exp(2 * np.log(evaluate(floored_gp.LAW, base, without_KM)))
    used = LAW.fit(without_KM, bpb_KN, base=base)
    assert two_fidelity.predicts_real(used.params) and used.unseen == ()
    assert LAW.fit(without_KM, bpb_KN).unseen == (0,)


def test_description_names_the_slope_and_both_laws():
    _, params = fitted(0)
    text = LAW.describe(params, 1, tuple("abcde"))
    assert set(text) == {"slope", "slope_error", "own", "cheap"} and text["slope"] == params.slope_N[1]
    assert text["slope_error"] > 0 and set(text["cheap"]["relevance"]) == set("abcde")
