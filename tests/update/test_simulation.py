"""Simulated updates: optima over blocks, and losses of choices."""

import dataclasses

import numpy as np
import pytest

from olmix_jax.laws import evaluate, log_linear
from olmix_jax.propose import guards
from olmix_jax.propose.blocks import form_blocks
from olmix_jax.solver.solve import solve
from olmix_jax.update import prior
from olmix_jax.update.simulation import Simulation, blocks_of
from tests.update.worlds import ADDED, NATURAL, SAMPLES, WEIGHTS, make_setting, old_law, posed


def make_truth(seed, noise=0.02):
    old = old_law(np.random.default_rng(seed), noise)
    return prior.sample_laws(old, ADDED.mixture_matrix(np.ones(6)), -np.ones(6, int))


def simulate(truth, setting, runs=16, seed=0):
    return Simulation(truth, setting, lambda weights: runs, seed)


def test_optima_over_single_domains_are_those_of_the_solver():
    truth, setting = make_truth(6), make_setting(ADDED, NATURAL, WEIGHTS)
    (mixture_SM,) = simulate(truth, setting).optima([truth.coef_NM], [form_blocks({}, ADDED.new)])
    for s in range(3):
        params = log_linear.Params(truth.log_c_N[s], truth.coef_NM[s])
        expected = solve(dataclasses.replace(setting.problem, params=params)).weights_M
        np.testing.assert_allclose(mixture_SM[s], expected, atol=1e-5)


def test_members_of_a_block_stay_within_their_caps():
    """PITFALL 22: the cap of a block is that of its tightest member."""
    truth = make_truth(6)
    setting = make_setting(ADDED, NATURAL, np.array([0.9, 0.02, 0.03, 0.03, 0.02, 0.0]), upper=1.6)
    (mixture_SM,) = simulate(truth, setting).optima([truth.coef_NM], [blocks_of(setting, (5, 1, 2))])
    assert (mixture_SM <= setting.bounds.upper_M + 1e-12).all()
    np.testing.assert_allclose(mixture_SM.sum(axis=1), 1, atol=1e-12)
    # Without the cap the first domain would get more.
    loose = posed(setting, upper_M=np.ones(6))
    (loose_SM,) = simulate(truth, loose).optima([truth.coef_NM], [blocks_of(loose, (5, 1, 2))])
    assert (loose_SM[:, 0] > setting.bounds.upper_M[0]).any()


def test_groups_of_bounds_hold():
    truth = make_truth(6)
    setting = make_setting(ADDED, NATURAL, np.array([0.3, 0.2, 0.2, 0.3, 0.0, 0.0]), upper=6)
    group_M = np.array([True, False, True, False, False, True])
    setting = posed(setting, member_GM=group_M[None], low_G=np.array([0.0]), high_G=np.array([0.4]))
    for recomputed in ((5, 0, 2, 4), range(6)):
        (mixture_SM,) = simulate(truth, setting).optima([truth.coef_NM], [blocks_of(setting, recomputed)])
        assert (mixture_SM[:, group_M].sum(axis=1) <= 0.4 + 1e-10).all()
    assert (mixture_SM[:, group_M].sum(axis=1) > 0.39).any()


def test_number_of_problems_does_not_change_the_optima():
    truth, setting = make_truth(6), make_setting(ADDED, NATURAL, WEIGHTS)
    blocks = [blocks_of(setting, choice) for choice in ((5,), (5, 0), (5, 1), range(6))]
    simulation = simulate(truth, setting)
    together = simulation.optima([truth.coef_NM] * 4, blocks)
    for mixture_SM, b in zip(together, blocks):
        (alone_SM,) = simulation.optima([truth.coef_NM], [b])
        np.testing.assert_allclose(mixture_SM, alone_SM, atol=1e-9)


def test_choices_lose_at_least_nothing_and_natural_loses_the_gain():
    truth, setting = make_truth(6), make_setting(ADDED, NATURAL, WEIGHTS)
    simulation = simulate(truth, setting)
    assert simulation.gain_S.shape == (SAMPLES,) and (simulation.gain_S > 0).all()
    for choice in simulation.judge([(5,), tuple(range(6))]):
        assert (choice.loss_S >= -1e-9).all() and choice.proxies == 16
        assert choice.loss == choice.loss_S.mean() > 0


def test_full_recomputation_loses_nothing_as_noise_vanishes():
    truth = make_truth(6)
    losses = [
        simulate(truth, make_setting(ADDED, NATURAL, WEIGHTS, noise=noise), 64).judge([range(6)])[0].loss
        for noise in (0.05, 1e-4)
    ]
    assert losses[1] < 1e-5 < losses[0]


def test_without_runs_every_truth_gets_the_optimum_of_the_mean_law():
    truth, setting = make_truth(6), make_setting(ADDED, NATURAL, WEIGHTS)
    simulation = simulate(truth, setting, runs=0)
    (choice,) = simulation.judge([range(6)])
    mean_SNM = np.broadcast_to(truth.coef_NM.mean(axis=0), truth.coef_NM.shape)
    (mixture_SM,) = simulation.optima([mean_SNM], [form_blocks({}, ADDED.new)])
    np.testing.assert_allclose(mixture_SM, np.broadcast_to(mixture_SM[0], mixture_SM.shape), atol=1e-6)
    assert choice.proxies == 0 and choice.loss > 0


def test_anchor_and_task_weights_of_the_problem_decide_the_optimum():
    truth, setting = make_truth(6), make_setting(ADDED, NATURAL, WEIGHTS)
    anchor_M = NATURAL[::-1] / NATURAL.sum()
    far = posed(setting, anchor_M=anchor_M, kl_weight=20.0, upper_M=np.ones(6))
    (mixture_SM,) = simulate(truth, far).optima([truth.coef_NM], [blocks_of(far, range(6))])
    np.testing.assert_allclose(mixture_SM, np.broadcast_to(anchor_M, mixture_SM.shape), atol=0.01)
    second = posed(setting, weights=np.eye(6)[1], kl_weight=0.001)
    for problem, median in ((setting, 0.12), (second, 0.8)):
        (mixture_SM,) = simulate(truth, problem).optima([truth.coef_NM], [blocks_of(setting, range(6))])
        assert np.median(mixture_SM[:, 1]) == pytest.approx(median, abs=0.02)


def test_anchor_that_excludes_a_domain_leaves_gain_and_losses_finite():
    truth, setting = make_truth(6), make_setting(ADDED, NATURAL, WEIGHTS)
    anchor_M = np.array([0.3, 0.0, 0.2, 0.2, 0.1, 0.2])
    setting = posed(setting, anchor_M=anchor_M, upper_M=np.where(anchor_M > 0, 1.0, 0.0))
    simulation = simulate(truth, setting)
    (choice,) = simulation.judge([range(6)])
    assert np.isfinite(simulation.gain_S).all() and (simulation.gain_S > 0).all() and (choice.loss_S >= -1e-9).all()


def test_guards_hold_at_the_optimum_of_each_truth_and_losses_are_not_negative():
    truth, plain = make_truth(6), make_setting(ADDED, NATURAL, WEIGHTS)
    # Only the first task counts, so without guards the others get worse.
    plain = posed(plain, weights=np.eye(6)[0])
    rules = guards.group_guards("abcdef", np.zeros(6), {task: (task,) for task in "abcdef"}, 0.001)
    guarded = dataclasses.replace(plain, guards=rules)
    free = blocks_of(plain, range(6))
    for setting, holds in ((plain, False), (guarded, True)):
        simulation = simulate(truth, setting)
        (mixture_SM,) = simulation.optima([truth.coef_NM], [free])
        for s in range(3):
            params = log_linear.Params(truth.log_c_N[s], truth.coef_NM[s])
            new_N, natural_N = evaluate(log_linear.LAW, params, np.stack([mixture_SM[s], NATURAL]))
            assert (new_N <= natural_N + 0.001 + 1e-4).all() == holds
        (choice,) = simulation.judge([(5,)])
        assert (choice.loss_S >= -1e-9).all()
    problem = dataclasses.replace(plain.problem, params=params)
    limits = dataclasses.replace(rules, limit_F=natural_N + 0.001)
    best = guards.solve(problem, limits, starts_SM=NATURAL[None]).solution.weights_M
    np.testing.assert_allclose(mixture_SM[2], best, atol=2e-3)
