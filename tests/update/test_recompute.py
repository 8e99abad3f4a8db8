"""Which domains to recompute, decided before anything is trained."""

import dataclasses

import numpy as np
import pytest

from olmix_jax.laws import evaluate, log_linear, warped_gp
from olmix_jax.solver.bounds import box
from olmix_jax.solver.problem import Problem
from olmix_jax.solver.solve import solve
from olmix_jax.update import changes, prior, recompute
from olmix_jax.utils.errors import UserError

OLD, TASKS, SAMPLES = 5, 6, 12


def old_law(rng, noise=0.02):
    """Samples of a law in which domain j is what task j wants, and domain 0 what tasks 0 and 5 want."""
    coef_NO = np.full((TASKS, OLD), -0.1)
    coef_NO[np.arange(OLD), np.arange(OLD)] = -1.2
    coef_NO[5, 0] = -1.0
    coef_SNO = coef_NO + noise * rng.normal(size=(SAMPLES, TASKS, OLD))
    return log_linear.Params(np.full((SAMPLES, TASKS), np.log(0.5)), coef_SNO)


def setting(change, natural_M, weights_M, upper=4.0, noise=0.01, **more):
    affected_M = np.array([name in change.affected for name in change.new])
    known = {
        "domains": change.new,
        "natural_M": np.asarray(natural_M),
        "bounds": box(np.zeros(len(natural_M)), np.minimum(1, upper * np.asarray(natural_M))),
        "kl_weight": 0.02,
        "task_weights_N": np.full(TASKS, 1 / TASKS),
        "affected_M": affected_M,
        "weights_M": np.where(affected_M, 0.0, weights_M),
        "noise_N": np.full(TASKS, noise),
        "shared": 0.3,
        "old_KM": np.zeros((0, len(change.new))),
        "trust_K": np.zeros(0),
    }
    return recompute.Setting(**known | more)


NAMES = tuple("abcde")
ADDED = changes.change(NAMES, [changes.add("new")])
NATURAL = np.array([0.2, 0.2, 0.15, 0.15, 0.1, 0.2])


def test_truths_say_what_is_known_and_draw_the_rest():
    rng = np.random.default_rng(0)
    old, steps = old_law(rng), [changes.add("new"), changes.partition("b", "b1", "b2"), changes.revise("c")]
    change = changes.change(NAMES, steps)
    tokens_M = np.array([5, 3, 1, 4, 4, 4, 9.0])
    revised_M = np.array([NAMES.index("c") if name == "c" else -1 for name in change.new])
    truth = prior.truths(old, change.expressed(tokens_M), revised_M)
    column = {name: truth.coef_NM[:, :, m] for m, name in enumerate(change.new)}
    np.testing.assert_array_equal(column["a"], old.coef_NM[:, :, 0])
    # Parts differ, and the whole is still what it was.
    assert np.abs(column["b1"] - column["b2"]).max() > 0.01
    np.testing.assert_allclose(0.75 * column["b1"] + 0.25 * column["b2"], old.coef_NM[:, :, 1], atol=1e-12)
    assert 0.01 < np.abs(column["c"] - old.coef_NM[:, :, 2]).mean() < 1
    # An added domain is some old domain, for all tasks of a sample at once.
    off_SO = np.abs(column["new"][:, :, None] - old.coef_NM).max(axis=1)
    np.testing.assert_array_equal(off_SO.min(axis=1), 0)
    assert len(set(off_SO.argmin(axis=1))) > 1
    alike_MO = np.tile(np.eye(OLD)[3], (len(change.new), 1))
    told = prior.truths(old, change.expressed(tokens_M), revised_M, alike_MO)
    np.testing.assert_array_equal(told.coef_NM[:, :, change.new.index("new")], old.coef_NM[:, :, 3])


def test_a_law_is_translated_to_log_linear():
    rng = np.random.default_rng(1)
    truth = log_linear.Params(np.log(rng.uniform(0.4, 0.8, 3)), rng.normal(size=(3, 4)) * 0.7)
    ratios_KM = rng.dirichlet(np.ones(4), size=30)
    bpb_KN = evaluate(log_linear.LAW, truth, ratios_KM) + 0.002 * rng.normal(size=(30, 3))
    law = warped_gp.fit(ratios_KM, bpb_KN).params
    found = prior.distil(warped_gp.LAW, warped_gp.sample(law, 4), 4, ratios_KM)
    assert found.coef_NM.shape == (4, 3, 4)
    other_KM = rng.dirichlet(np.ones(4), size=50)
    for s in range(4):
        one = log_linear.Params(found.log_c_N[s], found.coef_NM[s])
        error_KN = evaluate(log_linear.LAW, one, other_KM) - evaluate(log_linear.LAW, truth, other_KM)
        assert np.sqrt((error_KN**2).mean()) < 0.03
    assert prior.distil(log_linear.LAW, found, 4, ratios_KM) is not None


def test_the_domain_that_shares_tasks_with_the_new_one_is_recomputed():
    """As software development is in the paper when Stack-Edu comes (METHOD §3)."""
    old = old_law(np.random.default_rng(2))
    mean, natural_O = log_linear.Params(*(x.mean(axis=0) for x in old)), NATURAL[:5] / NATURAL[:5].sum()
    bounds, equal_N = box(np.zeros(5), np.minimum(1, 4 * natural_O)), np.full(TASKS, 1 / TASKS)
    weights_M = np.append(solve(Problem(log_linear.LAW, mean, equal_N, natural_O, bounds, 0.02)).weights_M, 0.0)
    like_a = np.tile(np.eye(OLD)[0], (6, 1))
    truth = prior.truths(old, ADDED.expressed(np.ones(6)), -np.ones(6, int), like_a)
    taken, tried, gain = recompute.choose(truth, setting(ADDED, NATURAL, weights_M), lambda dimensions: 32)
    assert tried[2].recomputed == ("new", "a") and tried[2].blocks.names == ("kept", "a", "new")
    assert taken.recomputed[:2] == ("new", "a")
    alone, full = tried[0], tried[1]
    assert alone.recomputed == ("new",) and len(full.recomputed) == 6
    assert taken.loss < 0.5 * alone.loss and 0 < taken.loss < gain["gain"]
    # What was fixed beforehand is judged as it is.
    fixed, found, _ = recompute.choose(truth, setting(ADDED, NATURAL, weights_M), lambda dimensions: 32, only=("new",))
    assert found == [fixed] and fixed.loss == pytest.approx(alone.loss)


def test_few_and_noisy_runs_speak_for_keeping():
    old = old_law(np.random.default_rng(3))
    weights_M = np.array([0.25, 0.2, 0.2, 0.2, 0.15, 0.0])
    truth = prior.truths(old, ADDED.expressed(np.ones(6)), -np.ones(6, int))

    def recomputed(runs, noise):
        found = setting(ADDED, NATURAL, weights_M, noise=noise)
        return recompute.choose(truth, found, lambda dimensions: runs)[1]

    few, many = recomputed(8, 0.05), recomputed(256, 0.001)
    assert few[1].loss > few[0].loss and many[1].loss < many[0].loss
    # Old runs that still tell of the kept domains make recomputing all of them cheap again.
    old_KM = np.pad(np.random.default_rng(4).dirichlet(np.ones(5), size=64), ((0, 0), (0, 1)))
    known = setting(ADDED, NATURAL, weights_M, noise=0.05, old_KM=old_KM, trust_K=np.full(64, 0.9))
    assert recompute.choose(truth, known, lambda dimensions: 8)[1][1].loss < 0.6 * few[1].loss


def test_the_cheapest_of_good_choices_is_taken():
    old = old_law(np.random.default_rng(5))
    truth = prior.truths(old, ADDED.expressed(np.ones(6)), -np.ones(6, int))
    taken, tried, gain = recompute.choose(truth, setting(ADDED, NATURAL, NATURAL))
    least = min(choice.loss for choice in tried)
    good = [choice for choice in tried if choice.loss <= least + recompute.WORTH * gain["gain"]]
    assert taken.proxies == min(choice.proxies for choice in good)
    assert [choice.proxies for choice in tried[:2]] == [8, 16]
    # Within a budget; but affected domains have to be recomputed, whatever that takes.
    for budget in (8, 3):
        assert recompute.choose(truth, setting(ADDED, NATURAL, NATURAL), budget=budget)[0].proxies == 8


def test_members_caps_hold_and_impossible_ones_are_said():
    """PITFALL 22: what a block may get is what its tightest member may."""
    old = old_law(np.random.default_rng(6))
    truth = prior.truths(old, ADDED.expressed(np.ones(6)), -np.ones(6, int))
    weights_M = np.array([0.9, 0.02, 0.03, 0.03, 0.02, 0.0])
    play = recompute._Play(truth, setting(ADDED, NATURAL, weights_M, upper=1.6), lambda dimensions: 16, 0)
    blocks = recompute.blocks_of(play.setting, (5, 1, 2))
    (mixture_SM,) = play._solved([truth.coef_NM], [blocks])
    assert (mixture_SM <= play.setting.bounds.upper_M + 1e-12).all()
    np.testing.assert_allclose(mixture_SM.sum(axis=1), 1, atol=1e-12)
    # Where the block has no room for what it must hold, its tightest members leave it.
    taken, tried, _ = recompute.choose(truth, setting(ADDED, NATURAL, weights_M, upper=1.1))
    assert "a" in taken.recomputed and all("a" in choice.recomputed for choice in tried)
    with pytest.raises(UserError, match="the caps sum to"):
        recompute.choose(truth, setting(ADDED, NATURAL, weights_M, upper=0.9))
    # So it is where what to recompute is fixed: a remove after which the old ratios are over a cap.
    removed = changes.change(NAMES, [changes.remove("b")])
    truth, fixed = prior.truths(old, removed.expressed(np.ones(4)), -np.ones(4, int)), NATURAL[[0, 2, 3, 4]] / 0.6
    known = setting(removed, fixed, np.array([0.85, 0.05, 0.05, 0.05]), upper=1.5)
    taken, _, _ = recompute.choose(truth, known, lambda dimensions: 0, only=())
    assert taken.recomputed == ("a",) and taken.blocks.names == ("kept", "a")


def test_groups_of_bounds_and_absent_domains_leave_the_block():
    old = old_law(np.random.default_rng(6))
    truth = prior.truths(old, ADDED.expressed(np.ones(6)), -np.ones(6, int))
    weights_M = np.array([0.3, 0.2, 0.2, 0.3, 0.0, 0.0])
    known = setting(ADDED, NATURAL, weights_M, upper=6)
    member_GM = np.array([[True, False, True, False, False, True]])
    known = dataclasses.replace(
        known, bounds=known.bounds._replace(member_GM=member_GM, low_G=np.array([0.0]), high_G=np.array([0.4]))
    )
    taken, tried, _ = recompute.choose(truth, known, lambda dimensions: 16)
    for choice in (taken, *tried):
        assert {"new", "a", "c", "e"} <= set(choice.recomputed)
    play = recompute._Play(truth, known, lambda dimensions: 16, 0)
    (mixture_SM,) = play._solved([truth.coef_NM], [taken.blocks])
    assert (mixture_SM[:, [0, 2, 5]].sum(axis=1) <= 0.4 + 1e-10).all()
    whole = play._solved([truth.coef_NM], [recompute.reuse.blocks({}, ADDED.new)])[0]
    assert (mixture_SM[:, [0, 2, 5]].sum(axis=1) > 0.39).any() and (
        whole[:, [0, 2, 5]].sum(axis=1) <= 0.4 + 1e-10
    ).all()


def test_without_runs_the_old_law_decides():
    """Its mean is as good as what may be true allows: less is lost than by any one sample, and nothing where sure."""
    for noise in (0.0, 0.3):
        old = old_law(np.random.default_rng(8), noise)
        change = changes.change(NAMES, [changes.remove("e")])
        truth = prior.truths(old, change.expressed(np.ones(4)), -np.ones(4, int))
        natural_M = NATURAL[:4] / NATURAL[:4].sum()
        known = setting(change, natural_M, natural_M)
        taken, _, gain = recompute.choose(truth, known, lambda dimensions: 0, only=change.new)
        assert taken.proxies == 0 and len(taken.recomputed) == 4
        assert taken.loss == pytest.approx(0, abs=1e-9) if not noise else 0 < taken.loss < gain["gain"]


def test_the_reported_loss_is_of_fresh_swarms():
    """What is chosen for its luck is judged again: on the average the promise is kept."""
    old = old_law(np.random.default_rng(9))
    truth = prior.truths(old, ADDED.expressed(np.ones(6)), -np.ones(6, int))
    known = setting(ADDED, NATURAL, np.array([0.25, 0.2, 0.2, 0.2, 0.15, 0.0]), noise=0.03)
    promised, kept = [], []
    for seed in range(6):
        taken, _, _ = recompute.choose(truth, known, lambda dimensions: 12, seed=seed)
        indices = tuple(ADDED.new.index(name) for name in taken.recomputed)
        judged = [recompute._Play(truth, known, lambda dimensions: 12, 100 + s).judged([indices]) for s in range(3)]
        promised.append(taken.loss)
        kept.append(np.mean([found.loss for (found,) in judged]))
    assert np.mean(promised) == pytest.approx(np.mean(kept), rel=0.15)
