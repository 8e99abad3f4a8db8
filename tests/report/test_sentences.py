"""The headline: lines of the summary, lead and cards."""

import dataclasses

from olmix_jax.laws.fit_result import SwarmScores
from olmix_jax.propose.proposal_parts import Gain
from olmix_jax.report import formatting, sentences
from tests.report import samples
from tests.report.samples import HOSTILE


def test_bpb_line_of_a_validated_proposal(results):
    # Seeds are at mean − 0.01, mean and mean + 0.01: s = 0.01, so the standard error is 0.01/√3 = 0.0058 for a mixture
    # and 0.00816 for a difference.
    assert sentences.bpb_line(results) == (
        "proposed 0.9000 ± 0.0058 BPB against natural 1.0000 ± 0.0058 (10.00 % lower, 12.2 standard errors) and "
        "uniform 1.1000 ± 0.0058 (18.18 % lower, 24.5 standard errors); mean of 12 tasks, 3 seeds"
    )
    assert sentences.lead(results).startswith("Proposed 0.9000 ± 0.0058 BPB against natural")


def test_bpb_line_of_one_seed_has_no_errors():
    line = sentences.bpb_line(samples.small_run(seeds=1))
    assert line.startswith("proposed 0.9000 BPB against natural 1.0000 (10.00 % lower) and uniform")
    assert line.endswith("mean of 2 tasks, 1 seed")


def test_bpb_line_without_validation_is_a_prediction(small):
    line = sentences.bpb_line(dataclasses.replace(small, validation=None))
    assert line.startswith("predicted: proposed ") and line.endswith("; not validated by training")


def test_worse_proposal_is_called_higher(small):
    mixtures = dict(small.validation.mixtures)
    mixtures["proposed"] = dataclasses.replace(mixtures["proposed"], per_seed=(1.01, 1.02, 1.03))
    worse = dataclasses.replace(small, validation=dataclasses.replace(small.validation, mixtures=mixtures))
    assert "natural 1.0000 ± 0.0058 (2.00 % higher" in sentences.bpb_line(worse)
    assert sentences.cards(worse)[0].value == "+2.00 %"


def test_caps_line_separates_repetition_from_bounds(small):
    _, bounded, _ = small.proposal.weights
    changes = {"caps": small.proposal.caps | {bounded: small.proposal.weights[bounded]}}
    changes["capped_by"] = small.proposal.capped_by | {bounded: "bound"}
    both = samples.with_proposal(small, **changes)
    epochs = small.proposal.repeats[bounded]
    assert sentences.caps_line(small) == f"repetition caps that bind: {HOSTILE} (4 epochs)"
    assert sentences.caps_line(both) == (
        f"repetition caps that bind: {HOSTILE} (4 epochs); upper bounds that bind: {bounded} ({epochs:.3g} epochs)"
    )
    card = next(card for card in sentences.cards(both) if card.title == "Repetition caps that bind")
    assert card.value == "1 of 3" and card.detail.endswith(f"; at an upper bound: {bounded}")


def test_caps_line_without_binding_caps(small):
    free = samples.with_proposal(small, caps=dict.fromkeys(small.proposal.weights))
    assert sentences.caps_line(free) == "no repetition cap binds"


def test_law_line_states_held_out_quality(results):
    fit = results.fit
    line = (
        f"law log_linear, held-out runs, 5 folds: Spearman {fit.spearman_cv_mean:.3f} mean over tasks, "
        f"{fit.spearman_of_mean_cv:.3f} of the task average; "
        f"90 % intervals contain {formatting.percent(fit.coverage_cv_mean)} of measurements"
    )
    assert sentences.law_line(results) == line
    tested = samples.with_fit(results, test=SwarmScores(7, 0, 0.8, 0.9, 0.88, {}))
    assert sentences.law_line(tested) == f"{line}; test swarm: 0.800 and 0.900"


def test_missing_stages_are_named(small):
    swarm_only = dataclasses.replace(small, fit=None, proposal=None, validation=None)
    assert sentences.bpb_line(swarm_only) == "no proposal yet; run --stages=fit,propose,report"
    assert sentences.caps_line(swarm_only) == "repetition caps: no proposal yet; run --stages=fit,propose,report"
    assert sentences.law_line(swarm_only) == "no law yet; run --stages=fit,propose,report"
    with_fit = dataclasses.replace(swarm_only, fit=small.fit)
    assert sentences.bpb_line(with_fit) == "no proposal yet; run --stages=propose,report"
    nothing = dataclasses.replace(swarm_only, table=None)
    assert sentences.no_law(nothing) == "no law yet; run --stages=prepare,sample,train,fit,propose,report"


def test_gain_card_states_the_interval(small):
    gain = Gain(mean=0.0123, low=-0.004, high=0.02, probability=0.87, samples=100)
    cards = {card.title: card for card in sentences.cards(samples.with_proposal(small, gain=gain))}
    card = cards["Predicted gain, with the law’s uncertainty"]
    assert card.value == "+0.0123"
    assert card.detail == "BPB below natural; 5–95 %: −0.0040 to +0.0200; positive with probability 87 %"


def test_omitted_tasks_are_counted():
    assert sentences.omitted_tasks(120) == ""
    assert sentences.omitted_tasks(130) == " Of 130 tasks, only the 120 with the largest changes are shown."
