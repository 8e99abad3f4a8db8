"""Losses of choices by fits of the real law to simulated swarms."""

import dataclasses

import jax
import numpy as np
import pytest

from olmix_jax.laws import evaluate, log_linear, warped_gp
from olmix_jax.propose.blocks import collapsed_anchor, collapsed_bounds, expand
from olmix_jax.solver.solve import solve
from olmix_jax.update import prior, recompute, trial_fits
from olmix_jax.update.simulation import Simulation
from tests.update.worlds import ADDED, NATURAL, SAMPLES, WEIGHTS, make_setting, old_law

ALONE, ALL = (5,), tuple(range(6))


def make_truth(seed):
    old = old_law(np.random.default_rng(seed), 0.02)
    return prior.sample_laws(old, ADDED.mixture_matrix(np.ones(6)), -np.ones(6, int))


def simulate(law, runs=16, **setting):
    return Simulation(make_truth(6), make_setting(ADDED, NATURAL, WEIGHTS, law=law, **setting), lambda weights: runs, 0)


def judge(simulation, *choices):
    return trial_fits.judge(simulation, simulation.judge(choices))


def real_losses(simulation, blocks, runs, seed):
    """Losses of proposals from swarms that are measured under each truth, with the solver of a proposal."""
    setting, draw = simulation.setting, np.random.default_rng(seed)
    natural_D = blocks.ratios_DM.astype(bool) @ NATURAL
    ratios_SM = []
    for s in range(SAMPLES):
        truth = jax.tree.map(lambda x, s=s: x[s], simulation.truth)
        ratios_KD = draw.dirichlet(natural_D**0.7 / (natural_D**0.7).sum() * len(natural_D), size=runs)
        bpb_KN = evaluate(log_linear.LAW, truth, expand(ratios_KD, blocks))
        shared_K1, task_KN = draw.normal(size=(runs, 1)), draw.normal(size=bpb_KN.shape)
        bpb_KN = bpb_KN + setting.noise_N * (0.3**0.5 * shared_K1 + 0.7**0.5 * task_KN)
        problem = dataclasses.replace(
            setting.problem,
            law=setting.law,
            params=setting.law.fit(ratios_KD, bpb_KN).params,
            anchor_M=collapsed_anchor(NATURAL, blocks),
            bounds=collapsed_bounds(setting.bounds, blocks),
        )
        ratios_SM.append(expand(solve(problem, starts_SM=natural_D[None]).weights_M, blocks))
    return simulation.losses(np.array(ratios_SM))


@pytest.mark.slow
def test_predicted_loss_is_that_of_real_fits_and_the_quick_one_is_less():
    simulation = simulate(warped_gp.LAW, runs=12)
    (choice,) = judge(simulation, ALONE)
    (best_SM,) = simulation.optima([simulation.truth.coef_NM], [choice.blocks])
    kept = simulation.losses(best_SM).mean()
    # What the fit adds to the loss of kept ratios.
    real = np.mean([real_losses(simulation, choice.blocks, 12, seed).mean() for seed in range(3)]) - kept
    assert choice.loss - kept == pytest.approx(real, rel=0.4)
    assert choice.quick_loss - kept < 0.5 * real
    assert (choice.loss_S >= -1e-9).all() and choice.loss_S.shape == (SAMPLES,)


def test_law_of_the_truths_form_loses_nothing_as_noise_vanishes():
    losses = [judge(simulate(log_linear.LAW, runs=48, noise=noise), ALL)[0].loss for noise in (0.05, 1e-5)]
    assert losses[1] < 1e-5 < losses[0]


def test_quick_fit_stands_for_a_law_that_cannot_be_followed():
    cannot = dataclasses.replace(log_linear.LAW, name="steps", differentiable=False)
    for law in (None, cannot):
        simulation = simulate(law)
        choices = simulation.judge([ALONE, ALL])
        assert trial_fits.judge(simulation, choices) == choices and choices[0].quick_loss is None


def test_choice_without_runs_has_no_fit():
    (choice,) = judge(simulate(log_linear.LAW, runs=0), ALL)
    assert choice.proxies == 0 and choice.quick_loss is None


@pytest.mark.slow
def test_large_swarms_are_tried_under_fewer_truths(monkeypatch):
    simulation = simulate(warped_gp.LAW, runs=12)
    for runs, truths in ((120, 10), (10, trial_fits.LEAST_TRUTHS)):
        monkeypatch.setattr(trial_fits, "RUNS", runs)
        (choice,) = judge(simulation, ALONE)
        assert len(choice.loss_S) == truths


@pytest.mark.slow
def test_old_runs_inform_a_fit_over_domains():
    old_KM = np.pad(np.random.default_rng(4).dirichlet(np.ones(5), size=64), ((0, 0), (0, 1)))
    informed = {"old_KM": old_KM, "trust_K": np.full(64, 0.9)}
    (alone,), (helped,) = (judge(simulate(warped_gp.LAW, runs=8, **old), ALL) for old in ({}, informed))
    assert helped.loss < 0.6 * alone.loss
    # Blocks keep their ratios although the law is over domains.
    simulation = simulate(warped_gp.LAW, runs=8, **informed)
    blocks = simulation.judge([ALONE])[0].blocks
    mixture_SM = trial_fits._proposals(simulation, blocks, 8, warped_gp.LAW, SAMPLES)
    share_SM = mixture_SM[:, :5] / mixture_SM[:, :5].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(share_SM, np.broadcast_to(WEIGHTS[:5] / WEIGHTS[:5].sum(), share_SM.shape), atol=1e-9)


def test_choice_is_made_among_candidates_by_trial_fits_and_judged_again(monkeypatch):
    monkeypatch.setattr(recompute, "MAX_ADDED", 1)
    truth, setting = make_truth(5), make_setting(ADDED, NATURAL, NATURAL, law=warped_gp.LAW)
    decision = recompute.choose(truth, setting)
    assert all(choice.quick_loss is not None for choice in (decision.taken, *decision.candidates))
    good = min(choice.loss for choice in decision.candidates) + recompute.TOLERANCE * decision.gain
    (candidate,) = [choice for choice in decision.candidates if choice.recomputed == decision.taken.recomputed]
    assert candidate.loss <= good
    assert not np.array_equal(candidate.loss_S, decision.taken.loss_S)
    judged = recompute.judge(truth, setting, ("new",))
    assert judged.taken.loss == pytest.approx(decision.candidates[0].loss)
