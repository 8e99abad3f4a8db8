"""aiming.py: proposals of a law in exposures are made at the target run's length and pools."""

import dataclasses
import logging

import numpy as np
import pytest

import olmix_jax
from olmix_jax import laws
from olmix_jax.laws import exposure, held_out, warped_gp
from olmix_jax.propose import aiming, exploration, formulation, kl_choice, uncertainty
from olmix_jax.propose.options import Options
from olmix_jax.propose.proposal import Proposal
from olmix_jax.propose.proposal_parts import LambdaChoice
from olmix_jax.propose.swarm_facts import SwarmFacts
from olmix_jax.swarm.table import SwarmTable
from tests.laws.exposed import DOMAINS, TASKS, UNIQUE_M, world

NATURAL_M, TARGET = UNIQUE_M / UNIQUE_M.sum(), 8e9
OPTIONS = {"target_tokens": TARGET, "max_repeats": 100.0, "kl_weight": 0.0}


def table_of(of, **changes):
    ids = tuple(f"r{k}" for k in range(len(of.ratios_KM)))
    facts = DOMAINS, TASKS, of.ratios_KM, of.bpb_KN, NATURAL_M, UNIQUE_M, ids
    return SwarmTable(ids, *facts, **{"lengths": of.lengths} | changes)


def proposed(swarm, **options):
    fitted = olmix_jax.fit_law(swarm, "exposure", samples=8)
    return olmix_jax.propose_mixture(fitted, swarm, **OPTIONS | {"explore": False} | options)


@pytest.mark.slow
def test_proposals_beat_those_of_weights_alone_in_their_true_value():
    true = {"exposures": [], "weights": []}
    for seed in range(5):
        of = world(seed)
        for name, swarm in (("exposures", table_of(of)), ("weights", table_of(of, lengths=None))):
            weights_M = np.array(list(proposed(swarm).weights.values()))
            true[name].append(of.truth(weights_M[None], TARGET, UNIQUE_M).mean())
    gained = np.subtract(true["weights"], true["exposures"])
    assert gained.mean() > 0.004 and (gained > 0).sum() >= 4, gained


@pytest.mark.slow
def test_proposal_says_what_it_was_read_at_and_predicts_there(tmp_path):
    of = world(0)
    swarm = table_of(of)
    proposal = proposed(swarm)
    assert proposal.read_at == aiming.ReadAt(TARGET, 1e9, 4e9)
    assert str(proposal.read_at).startswith("mixtures are read at 8e+09 training tokens (runs: 1e+09 to 4e+09)")
    fitted = olmix_jax.fit_law(swarm, "exposure", samples=8)
    weights_M = np.array(list(proposal.weights.values()))[None]
    expected_N = fitted.aimed(TARGET, UNIQUE_M).predict(weights_M)[0]
    np.testing.assert_allclose(list(proposal.predicted.values()), expected_N, rtol=1e-10)
    true_N = of.truth(weights_M, TARGET, UNIQUE_M)[0]
    np.testing.assert_allclose(list(proposal.predicted.values()), true_N, atol=0.02)
    proposal.write(tmp_path / "proposal.json")
    assert Proposal.read(tmp_path / "proposal.json").read_at == proposal.read_at
    # Without a target, the median run's; laws of weights and runs that are alike are not aimed.
    assert proposed(swarm, target_tokens=None).read_at.tokens == 2.5e9
    assert proposed(table_of(of, lengths=None)).read_at is None


def test_more_epochs_than_in_any_run_are_named():
    of = world(0)
    swarm = SwarmFacts.from_table(table_of(of))
    one_M = np.array([0.0, 0.0, 1.0, 0.0])
    texts = aiming.warnings(exposure.LAW, one_M, swarm, Options(target_tokens=1e12))
    assert len(texts) == 1 and "more epochs than in any run: c 5e+03 (runs: up to " in texts[0]
    assert aiming.warnings(exposure.LAW, one_M, swarm, Options(target_tokens=1e9)) == ()
    assert aiming.warnings(warped_gp.LAW, one_M, swarm, Options(target_tokens=1e12)) == ()


def test_target_longer_than_the_runs_is_named():
    (text,) = aiming.ReadAt(6.4e10, 1e9, 4e9).warnings
    assert "target of 6.4e+10 training tokens is 16 times as long as the longest run (4e+09)" in text
    assert aiming.ReadAt(4.2e9, 1e9, 4e9).warnings == () and aiming.ReadAt(5e8, 1e9, 4e9).stretch == 1


def test_gain_far_beyond_the_longest_run_contains_the_truth():
    """Benefits follow tokens, so gains fade with R more than the runs tell."""
    of = world(4)

    def truth(ratios_KM, tokens):
        return 0.7 + (1 + 30 * np.asarray(ratios_KM) * np.reshape(tokens, (-1, 1)) / 1e9) ** -0.3 @ of.help_NM.T

    noise_KN = of.bpb_KN / of.truth(of.ratios_KM, *of.lengths)
    lengths = of.lengths._replace(unique_KM=100 * of.lengths.unique_KM)
    bpb_KN = truth(of.ratios_KM, of.lengths.tokens_K) * noise_KN
    swarm = dataclasses.replace(table_of(of, lengths=lengths), bpb_KN=bpb_KN, tokens_M=1e4 * UNIQUE_M)
    fitted, target = olmix_jax.fit_law(swarm, "exposure", samples=50), 2.56e11
    proposal = olmix_jax.propose_mixture(fitted, swarm, target_tokens=target, kl_weight=0.01, explore=False)
    natural_N, proposed_N = truth([NATURAL_M, list(proposal.weights.values())], [target, target])
    assert proposal.gain.low < (natural_N - proposed_N).mean() < proposal.gain.high
    assert any("64 times as long as the longest run" in text for text in proposal.warnings)


def test_refits_that_choose_lambda_read_lengths_and_the_target(monkeypatch):
    of = world(1)
    swarm, options = SwarmFacts.from_table(table_of(of)), Options(**OPTIONS | {"kl_weight": 0.05})
    full = exposure.LAW.fit(of.ratios_KM, of.bpb_KN, lengths=of.lengths).params
    fitted, _ = aiming.aimed(laws.FittedLaw(exposure.LAW, full), swarm, options)
    given = []
    choice = LambdaChoice((0.05,), (0.0,), (0.0,), 0.05, 4, False)
    monkeypatch.setattr(kl_choice, "choose_kl_weight", lambda law, *_, **__: given.append(law) or choice)
    exploration.lambda_choice(fitted, formulation.formulate(fitted, swarm, options), swarm, options, 0)
    (refitted,) = given
    params = refitted.refit(of.ratios_KM, of.bpb_KN, np.ones((1, len(of.ratios_KM))))
    expected_KN = laws.evaluate(exposure.LAW, exposure.LAW.aim(full, TARGET, UNIQUE_M), of.ratios_KM)
    np.testing.assert_allclose(laws.evaluate_each(refitted, params, of.ratios_KM)[0], expected_KN, rtol=1e-6)
    assert aiming.refitted(warped_gp.LAW, swarm, options) is warped_gp.LAW


def test_slope_of_held_out_runs_compares_runs_of_equal_length():
    """With mixtures that make no difference, a law that knows the length follows nothing within a length."""
    rng = np.random.default_rng(0)
    of = world(2)
    long_K = of.lengths.tokens_K > 2e9
    noise_KN = 0.01 * rng.normal(size=(2, *of.bpb_KN.shape))
    measured_KN, predicted_KN = 1.0 - 0.2 * long_K[:, None] + noise_KN
    runs = held_out.HeldOut(measured_KN, predicted_KN, np.arange(len(long_K)) % 2)
    swarm = SwarmFacts.from_table(table_of(of))
    fitted = laws.FittedLaw(exposure.LAW, None)
    slopes = [
        uncertainty.held_out_slope(fitted, dataclasses.replace(swarm, held_out=runs, lengths=lengths), [0.5, 0.5], 0)
        for lengths in (of.lengths, None)
    ]
    assert slopes[0].value < 0.4 < 0.9 < slopes[1].value
    judged = uncertainty.held_out_slope(fitted, swarm, [0.5, 0.5], 0)
    assert judged.value > 0.8


def test_slope_is_known_where_every_run_has_its_own_length(caplog):
    """Lengths that differ by .01 % are equal, and others are compared by the trend."""
    draw, slopes = np.random.default_rng(0), []
    for seed in range(2):
        of = world(seed)
        swarm, fitted = SwarmFacts.from_table(table_of(of)), laws.FittedLaw(exposure.LAW, None)
        runs = len(of.ratios_KM)
        judged = [uncertainty.held_out_slope(fitted, swarm, [0.5, 0.5], 0)]
        for tokens_K in (of.lengths.tokens_K * (1 + 1e-4 * draw.uniform(size=runs)), np.geomspace(1e9, 8e9, runs)):
            tokens_K = tokens_K if tokens_K.max() < 5e9 else draw.permutation(tokens_K)
            lengths = of.lengths._replace(tokens_K=tokens_K)
            bpb_KN = of.truth(of.ratios_KM, *lengths) * (of.bpb_KN / of.truth(of.ratios_KM, *of.lengths))
            other = dataclasses.replace(swarm, lengths=lengths, bpb_KN=bpb_KN)
            judged.append(uncertainty.held_out_slope(fitted, other, [0.5, 0.5], 0))
        slopes.append(judged)
    for equal, jittered, own in slopes:
        assert jittered.value == pytest.approx(equal.value, abs=0.02) and jittered.degrees == equal.degrees
        assert own.value > 0.7 and own.error < 0.2
    assert "its prior" not in caplog.text


def test_slope_that_the_runs_do_not_tell_is_logged(caplog):
    of = world(0, runs=8)
    runs = held_out.HeldOut(of.bpb_KN, of.bpb_KN, np.arange(8))
    swarm = dataclasses.replace(SwarmFacts.from_table(table_of(of)), held_out=runs)
    with caplog.at_level(logging.INFO):
        judged = uncertainty.held_out_slope(laws.FittedLaw(exposure.LAW, None), swarm, [0.5, 0.5], 0)
    assert judged[:2] == held_out.PRIOR
    assert "too few runs to tell from held-out ones how much of a predicted difference is real" in caplog.text


def test_a_law_of_weights_warns_of_runs_that_differ(caplog):
    swarm = table_of(world(0, runs=12))
    with caplog.at_level(logging.WARNING):
        olmix_jax.fit_law(swarm, "log_linear", samples=0, starts=1)
    assert "training tokens (1e+09 to 4e+09)" in caplog.text and "set fit.law=exposure" in caplog.text
    caplog.clear()
    olmix_jax.fit_law(swarm, "exposure", samples=0)
    olmix_jax.fit_law(dataclasses.replace(swarm, lengths=None), "log_linear", samples=0, starts=1)
    assert not caplog.text


@pytest.mark.slow
def test_optional_parts_of_a_proposal_are_not_left_out():
    proposal = proposed(table_of(world(3)), explore=True, kl_weight=0.05, families={"all": list(TASKS)})
    assert proposal.left_out == ()
    assert proposal.gain is not None and proposal.choice is not None and proposal.path is not None


@pytest.mark.parametrize("method", ["search", "simulation"])
def test_published_baselines_are_read_at_the_target(method):
    assert proposed(table_of(world(0)), method=method).read_at.tokens == TARGET
