"""Choice of the domains to recompute, before anything is trained."""

import dataclasses

import jax
import numpy as np
import pytest

from olmix_jax.laws import log_linear
from olmix_jax.solver.bounds import box
from olmix_jax.solver.problem import Problem
from olmix_jax.solver.solve import solve
from olmix_jax.update import changes, prior, recompute
from olmix_jax.update.simulation import Simulation
from olmix_jax.utils.errors import UserError
from tests.update.worlds import ADDED, NAMES, NATURAL, TASKS, WEIGHTS, make_setting, old_law, posed


def sample_laws(old, change=ADDED, likeness_MO=None):
    width = len(change.new)
    return prior.sample_laws(old, change.mixture_matrix(np.ones(width)), -np.ones(width, int), likeness_MO)


def always(runs):
    """The same number of runs for every number of weights."""
    return lambda weights: runs


def test_domain_that_shares_tasks_with_the_new_one_is_recomputed():
    """As with software development in the paper when Stack-Edu is added (METHOD §3)."""
    old = old_law(np.random.default_rng(2))
    mean, natural_O = jax.tree.map(lambda x: x.mean(axis=0), old), NATURAL[:5] / NATURAL[:5].sum()
    bounds, equal_N = box(np.zeros(5), np.minimum(1, 4 * natural_O)), np.full(TASKS, 1 / TASKS)
    weights_M = np.append(solve(Problem(log_linear.LAW, mean, equal_N, natural_O, bounds, 0.02)).weights_M, 0.0)
    like_a_MO = np.tile(np.eye(len(NAMES))[0], (6, 1))
    laws, setting = sample_laws(old, likeness_MO=like_a_MO), make_setting(ADDED, NATURAL, weights_M)
    decision = recompute.choose(laws, setting, always(32))
    alone, full, grown = decision.candidates[:3]
    assert grown.recomputed == ("new", "a") and grown.blocks.names == ("kept", "a", "new")
    assert decision.taken.recomputed[:2] == ("new", "a")
    assert alone.recomputed == ("new",) and len(full.recomputed) == 6
    assert decision.taken.loss < 0.5 * alone.loss and 0 < decision.taken.loss < decision.gain
    judged = recompute.judge(laws, setting, ("new",), always(32))
    assert judged.candidates == (judged.taken,) and judged.taken.loss == pytest.approx(alone.loss)


def test_full_recomputation_pays_with_many_precise_runs_only():
    laws = sample_laws(old_law(np.random.default_rng(3)))

    def losses(runs, noise, **old_runs):
        setting = make_setting(ADDED, NATURAL, WEIGHTS, noise=noise, **old_runs)
        alone, full = recompute.choose(laws, setting, always(runs)).candidates[:2]
        return alone.loss, full.loss

    alone, full = losses(8, 0.05)
    assert full > alone
    alone_precise, full_precise = losses(256, 0.001)
    assert full_precise < alone_precise
    # Old runs on the kept domains make it cheaper to recompute these.
    old_KM = np.pad(np.random.default_rng(4).dirichlet(np.ones(5), size=64), ((0, 0), (0, 1)))
    _, full_with_old = losses(8, 0.05, old_KM=old_KM, trust_K=np.full(64, 0.9))
    assert full_with_old < 0.6 * full


def test_cheapest_of_good_choices_is_taken():
    laws, setting = sample_laws(old_law(np.random.default_rng(5))), make_setting(ADDED, NATURAL, NATURAL)
    decision = recompute.choose(laws, setting)
    assert [choice.proxies for choice in decision.candidates[:2]] == [8, 16]
    least = min(choice.loss for choice in decision.candidates)
    good = [c for c in decision.candidates if c.loss <= least + recompute.TOLERANCE * decision.gain]
    assert decision.taken.proxies == min(choice.proxies for choice in good)


@pytest.mark.parametrize("budget", [8, 3])
def test_affected_domains_are_recomputed_within_any_budget(budget):
    laws, setting = sample_laws(old_law(np.random.default_rng(5))), make_setting(ADDED, NATURAL, NATURAL)
    assert recompute.choose(laws, setting, budget=budget).taken.proxies == 8


def test_domains_with_the_tightest_caps_leave_an_infeasible_block():
    """PITFALL 22."""
    laws = sample_laws(old_law(np.random.default_rng(6)))
    weights_M = np.array([0.9, 0.02, 0.03, 0.03, 0.02, 0.0])
    decision = recompute.choose(laws, make_setting(ADDED, NATURAL, weights_M, upper=1.1))
    for choice in (decision.taken, *decision.candidates):
        assert "a" in choice.recomputed


def test_fixed_choice_is_completed_by_domains_over_their_cap():
    """After a domain is removed, an old ratio can exceed a cap."""
    removed = changes.change(NAMES, [changes.remove("b")])
    laws = sample_laws(old_law(np.random.default_rng(6)), removed)
    natural_M = NATURAL[[0, 2, 3, 4]] / 0.6
    setting = make_setting(removed, natural_M, np.array([0.85, 0.05, 0.05, 0.05]), upper=1.5)
    taken = recompute.judge(laws, setting, (), always(0)).taken
    assert taken.recomputed == ("a",) and taken.blocks.names == ("kept", "a")


def test_infeasible_caps_are_an_error():
    laws = sample_laws(old_law(np.random.default_rng(6)))
    with pytest.raises(UserError, match="caps"):
        recompute.choose(laws, make_setting(ADDED, NATURAL, WEIGHTS, upper=0.9))


def test_domains_of_a_partly_kept_group_and_absent_domains_are_recomputed():
    laws = sample_laws(old_law(np.random.default_rng(6)))
    setting = make_setting(ADDED, NATURAL, np.array([0.3, 0.2, 0.2, 0.3, 0.0, 0.0]), upper=6)
    member_GM = np.array([[True, False, True, False, False, True]])
    setting = posed(setting, member_GM=member_GM, low_G=np.array([0.0]), high_G=np.array([0.4]))
    decision = recompute.choose(laws, setting, always(16))
    for choice in (decision.taken, *decision.candidates):
        assert {"new", "a", "c", "e"} <= set(choice.recomputed)


def test_units_stay_whole_and_leave_the_kept_block_if_their_ratio_changed():
    laws, setting = sample_laws(old_law(np.random.default_rng(6))), make_setting(ADDED, NATURAL, WEIGHTS)
    same, other = {"pair": {"b": 1, "c": 1}}, {"pair": {"b": 1, "c": 3}}
    alone, full = recompute.choose(laws, dataclasses.replace(setting, units=same), always(16)).candidates[:2]
    assert alone.recomputed == ("new",) and alone.blocks.names == ("kept", "new")
    assert full.blocks.names == ("pair", "a", "d", "e", "new")
    judged = recompute.judge(laws, dataclasses.replace(setting, units=other), ("new",), always(16)).taken
    assert judged.recomputed == ("new", "b", "c") and judged.blocks.names == ("kept", "pair", "new")
    np.testing.assert_allclose(judged.blocks.ratios_DM[1], [0, 0.25, 0.75, 0, 0, 0])
    assert (judged.loss_S >= -1e-9).all()


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_without_runs_the_loss_is_the_uncertainty_of_the_old_law(noise):
    change = changes.change(NAMES, [changes.remove("e")])
    laws = sample_laws(old_law(np.random.default_rng(8), noise), change)
    natural_M = NATURAL[:4] / NATURAL[:4].sum()
    decision = recompute.judge(laws, make_setting(change, natural_M, natural_M), change.new, always(0))
    assert decision.taken.proxies == 0 and len(decision.taken.recomputed) == 4
    if noise:
        assert 0 < decision.taken.loss < decision.gain
    else:
        assert decision.taken.loss == pytest.approx(0, abs=1e-9)


def test_predicted_loss_is_unbiased_on_fresh_swarms():
    """The choice is judged again, so that its loss is not the minimum of noisy predictions."""
    laws = sample_laws(old_law(np.random.default_rng(9)))
    setting = make_setting(ADDED, NATURAL, WEIGHTS, noise=0.03)
    predicted, realised = [], []
    for seed in range(6):
        taken = recompute.choose(laws, setting, always(12), seed=seed).taken
        indices = tuple(ADDED.new.index(name) for name in taken.recomputed)
        fresh = [Simulation(laws, setting, always(12), 100 + s).judge([indices]) for s in range(3)]
        predicted.append(taken.loss)
        realised.append(np.mean([choice.loss for (choice,) in fresh]))
    assert np.mean(predicted) == pytest.approx(np.mean(realised), rel=0.15)
