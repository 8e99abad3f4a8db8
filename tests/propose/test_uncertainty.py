import dataclasses

import numpy as np
import pytest

from olmix_jax.laws import FittedLaw, search, warped_gp
from olmix_jax.laws.held_out import HeldOut
from olmix_jax.propose import uncertainty
from olmix_jax.propose.make_proposal import propose
from olmix_jax.propose.options import Options
from olmix_jax.propose.swarm_facts import SwarmFacts
from tests.propose.cases import (
    DOMAINS,
    NATURAL_M,
    PARAMS,
    RUNS_KM,
    SEARCH,
    TASKS,
    log_linear_formulation,
    log_linear_proposal,
    proposal_of,
    sampled_params,
)


def test_intervals_contain_the_prediction_and_spread_over_samples():
    proposal = log_linear_proposal(samples=sampled_params(0.1))
    gain, predicted = proposal.gain, proposal.predicted
    assert 0 < gain.low < gain.mean < gain.high and gain.probability == 1 and gain.samples == 24
    mean_gain = np.mean(list(proposal.predicted_natural.values())) - np.mean(list(predicted.values()))
    assert gain.low < mean_gain < gain.high
    assert all(proposal.predicted_low[t] < predicted[t] < proposal.predicted_high[t] for t in TASKS)
    assert all(0 < std < 0.2 for std in proposal.weights_std.values())
    assert all(proposal.weights_low[d] <= proposal.weights_high[d] for d in proposal.weights)
    assert "gain" not in " ".join(proposal.warnings)


def test_improbable_gain_is_a_warning():
    proposal = log_linear_proposal(samples=sampled_params(3.0))
    assert proposal.gain.probability < 0.9
    assert any("the gain over natural is uncertain" in warning for warning in proposal.warnings)


def test_sure_loss_is_called_a_loss():
    """Bounds exclude natural, and every sample of the law agrees that the proposal is worse."""
    samples = sampled_params(0.01)
    proposal = log_linear_proposal(samples=samples, bounds={"code": 0.99}, task_weights={"math": 1})
    assert proposal.gain.probability == 0 and proposal.gain.loss_probability == 1 and proposal.gain.mean < 0
    (warning,) = [text for text in proposal.warnings if "worse than natural in" in text and "tasks" not in text]
    assert warning.startswith("the proposal is predicted to be worse than natural in 24 of 24 samples of the law")


def test_natural_as_the_proposal_is_neither_a_gain_nor_a_loss():
    bounds = dict(zip(DOMAINS, NATURAL_M.tolist()))
    proposal = log_linear_proposal(samples=sampled_params(0.1), bounds=bounds)
    assert proposal.gain.probability == proposal.gain.loss_probability == 0
    assert not any("gain" in text or "worse" in text for text in proposal.warnings)


def test_equal_samples_give_intervals_of_width_zero_and_overflowing_ones_are_ignored():
    samples = sampled_params(0.0)._replace(log_c_N=np.tile(PARAMS.log_c_N, (24, 1)))
    samples.log_c_N[3] = 1e4
    proposal = log_linear_proposal(samples=samples)
    assert proposal.gain.samples == 23 and proposal.gain.low == pytest.approx(proposal.gain.high, abs=1e-12)
    assert max(proposal.weights_std.values()) < 1e-6


def test_samples_without_a_finite_prediction_give_a_warning_instead_of_intervals():
    samples = sampled_params(0.0)._replace(log_c_N=np.full((24, 2), 1e4))
    bars = uncertainty.prediction_intervals(log_linear_formulation(), samples, np.full(3, 1 / 3), TASKS)
    assert bars.gain is None and bars.warnings == ("no error bars: no sample of the law predicts a finite BPB",)


def test_gain_at_a_target_longer_than_the_runs_is_smaller_and_less_sure():
    formulation, samples = log_linear_formulation(), sampled_params(0.0)
    runs, longer = (
        uncertainty.prediction_intervals(formulation, samples, np.array([0.6, 0.3, 0.1]), TASKS, longest=longest).gain
        for longest in (None, uncertainty.Longest(samples, 64.0))
    )
    assert runs.low == pytest.approx(runs.high)
    # A gain may persist, or fade like the BPB: 64^-.3 = .29.
    assert abs(longer.low) < 0.29 * abs(runs.mean) < 0.7 * abs(runs.mean) < abs(longer.high) < 1.3 * abs(runs.mean)


def test_search_has_no_intervals_of_weights():
    wide = search.Params(*(np.stack([x, x]) for x in SEARCH.params))
    fitted = FittedLaw(search.LAW, SEARCH.params, wide)
    proposal = proposal_of(fitted, np.array([0.2, 0.3, 0.5]))
    assert proposal.gain.probability == 1 and proposal.weights_std is None
    for method in ("search", "simulation"):
        proposal = log_linear_proposal(ratios_KM=RUNS_KM, method=method, samples=sampled_params(0.1))
        assert proposal.gain is not None and proposal.weights_low is None and proposal.weights_std is None
        assert proposal.no_weight_intervals == uncertainty.SEARCH_HAS_NO_OPTIMA


def test_guards_have_no_intervals_of_weights():
    assert log_linear_proposal(samples=sampled_params(0.1)).no_weight_intervals is None
    guarded = log_linear_proposal(samples=sampled_params(0.1), guard=0.01)
    assert guarded.no_weight_intervals == uncertainty.GUARDS_NOT_RESOLVED


def test_worst_mixture_has_no_warning_about_its_gain():
    proposal = log_linear_proposal(worst=True, samples=sampled_params(0.1))
    assert len(proposal.warnings) == 2 and "not capped" in proposal.warnings[1]


def swarm_of(bpb_KN, seed=0, spread=0.6):
    ratios_KM = np.random.default_rng(seed).dirichlet(np.full(6, spread), size=len(bpb_KN))
    names = tuple("abcdef"), tuple(f"t{i}" for i in range(bpb_KN.shape[1]))
    return SwarmFacts(names[1], names[0], np.full(6, 1 / 6), ratios_KM=ratios_KM, bpb_KN=bpb_KN)


def gain_of(swarm, **options):
    params = warped_gp.fit(swarm.ratios_KM, swarm.bpb_KN).params
    fitted = FittedLaw(warped_gp.LAW, params, warped_gp.sample(params, 100, 0))
    return propose(fitted, swarm, Options(explore=False, **options)).gain


@pytest.mark.parametrize("spread", [0.6, 200.0], ids=["wide", "near natural"])
def test_without_a_signal_a_gain_is_rarely_promised(spread):
    noise = np.random.default_rng(1).normal(size=(8, 30, 4))
    swarms = [swarm_of(1 + 0.02 * noise_KN, seed, spread) for seed, noise_KN in enumerate(noise)]
    gains = [gain_of(swarm, kl_weight=0.01) for swarm in swarms]
    assert sum(gain.low <= 0 <= gain.high for gain in gains) >= 7
    assert sum(gain.probability >= 0.95 for gain in gains) <= 1
    assert 0 <= sum(gain.mean for gain in gains) / 8 < 0.004


def signal():
    swarm = swarm_of(np.zeros((30, 4)))
    return dataclasses.replace(swarm, bpb_KN=0.8 + np.exp(-2 * swarm.ratios_KM[:, :4]) * 0.4)


def test_with_a_signal_held_out_runs_confirm_the_gain():
    gain = gain_of(signal())
    assert gain.slope > 0.95 and 0 < gain.slope_error < 0.05 and gain.probability == 1
    assert 0.9 * gain.mean < gain.high and gain.low > 0.5 * gain.mean


def test_gain_is_multiplied_by_the_slope_of_held_out_runs():
    bpb_KN = signal().bpb_KN
    # In the second case, held-out predictions differ between runs twice as much as measurements do.
    whole, halved = (
        gain_of(dataclasses.replace(signal(), held_out=HeldOut(bpb_KN, 1 + scale * (bpb_KN - 1), np.arange(30) % 5)))
        for scale in (1, 2)
    )
    assert (halved.slope, whole.slope) == (pytest.approx(0.5), pytest.approx(1.0))
    assert halved.mean == pytest.approx(whole.mean / 2, rel=1e-6)
