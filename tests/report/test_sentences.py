"""The headline: lines of the summary, lead and cards."""

import dataclasses

import numpy as np

from olmix_jax.laws.fit_result import SwarmScores
from olmix_jax.propose.aiming import ReadAt
from olmix_jax.propose.proposal_parts import Gain, Guard, Tail
from olmix_jax.proxy.validation_result import TaskScore
from olmix_jax.report import formatting, sentences
from olmix_jax.swarm.lengths import Lengths
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


def test_predictions_of_branches_say_so_wherever_they_are_stated(results):
    info = dataclasses.replace(results.training, tokens_per_member=512_000, trunk_tokens=384_000)
    gain = Gain(0.1, 0.05, 0.15, 1.0, 0.0, 64)
    branched = dataclasses.replace(samples.with_proposal(results, gain=gain), training=info, validation=None)
    note = "of branches that share 75 % of their tokens, so differences are smaller than between full proxies"
    assert f"; {note}; not validated" in sentences.bpb_line(branched)
    predicted = [card for card in sentences.cards(branched) if card.title.startswith("Predicted")]
    assert len(predicted) == 2 and all(card.detail.endswith(note) for card in predicted)
    full = sentences.cards(dataclasses.replace(branched, training=results.training))
    assert all("branches" not in card.detail for card in full)


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


def test_runs_of_different_lengths_are_named(small):
    lengths = Lengths(np.linspace(1e9, 4e9, len(small.table.runs)), np.ones_like(small.table.ratios_KM))
    longer = samples.with_proposal(small, read_at=ReadAt(8e9, 1e9, 4e9))
    longer = dataclasses.replace(longer, validation=None, table=dataclasses.replace(small.table, lengths=lengths))
    assert "held-out runs of all lengths, 5 folds" in sentences.law_line(longer)
    assert sentences.bpb_line(longer).startswith("predicted for 8B training tokens: proposed ")
    cards = {card.title: card.detail for card in sentences.cards(longer)}
    assert "for models of the proxies’ size, trained on 8B tokens;" in cards["Predicted: proposed against natural"]
    assert cards["Spearman of the law on held-out runs"].endswith("than mixtures of one length")
    cards = {card.title: card.detail for card in sentences.cards(small)}
    assert cards["Spearman of the law on held-out runs"].endswith("for the task average")


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
    assert card.detail == (
        "BPB below natural (mean of 2 tasks); 5–95 %: −0.0040 to +0.0200; positive in 87 % of 100 samples of the law"
    )


def weighted(results, **changes):
    """Results whose first task has all the weight: it gets better, and the mean over tasks gets worse."""
    first, second = results.tasks
    bpb = {"predicted": {first: 1.0, second: 2.0}, "predicted_natural": {first: 1.25, second: 1.5}}
    return samples.with_proposal(results, **{"task_weights": {first: 1.0, second: 0.0}, **bpb, **changes})


def test_headline_is_what_was_minimised_and_the_plain_mean_stands_beside_it(small):
    results = weighted(dataclasses.replace(small, validation=None))
    assert sentences.bpb_line(results) == (
        f"predicted: proposed 1.0000 BPB against natural 1.2500 (20.00 % lower), task {small.tasks[0]} alone; plain "
        "mean over tasks: 1.5000 against natural 1.3750 (9.09 % higher); not validated by training"
    )
    card = sentences.cards(results)[0]
    assert card.value == "−20.00 %" and card.detail.endswith("alone; plain mean over tasks: +9.09 %")


def test_headline_names_the_tail_and_the_guard(small):
    first = small.tasks[0]
    changes = {"tail": Tail(0.1, 1.1, 1.2, 100), "guard": Guard("task", 0.015, (first,), {first: 0.4}, (), 0.015)}
    line = sentences.bpb_line(samples.with_proposal(dataclasses.replace(small, validation=None), **changes))
    assert "proposed 1.1000 BPB against natural 1.2000 (8.33 % lower), mean of 2 tasks in the worst 10 % of" in line
    assert "samples of the law, with propose.guard = 0.015 for each task; plain mean over tasks: " in line


def test_measured_headline_has_the_weights_of_the_tasks(small):
    scores, tasks = small.validation.mixtures, small.tasks
    mixtures = {}
    for name, by_task in (("natural", (1.25, 1.5)), ("proposed", (1.0, 2.0))):
        per_seed = [tuple(bpb + step for step in (-0.01, 0.0, 0.01)) for bpb in by_task]
        rows = {task: TaskScore(bpb, 0.01, seeds) for task, bpb, seeds in zip(tasks, by_task, per_seed)}
        mixtures[name] = dataclasses.replace(scores[name], per_seed=per_seed[0], tasks=rows)
    weights = {tasks[0]: 1.0, tasks[1]: 0.0}
    validation = dataclasses.replace(small.validation, mixtures=mixtures, task_weights=weights)
    results = dataclasses.replace(weighted(small), validation=validation)
    assert sentences.bpb_line(results) == (
        "proposed 1.0000 ± 0.0058 BPB against natural 1.2500 ± 0.0058 (20.00 % lower, 30.6 standard errors); "
        f"task {tasks[0]} alone, 3 seeds; plain mean over tasks: 1.5000 ± 0.0058 against natural 1.3750 ± 0.0058 "
        "(9.09 % higher, 15.3 standard errors)"
    )
    text = samples.page_without_figures(results).text
    assert "plain mean over tasks: +9.09 %" in text and "weight, %" in text and "weighted mean BPB over tasks" in text
    assert "was not better than natural" not in text


def test_percentages_are_left_out_for_losses_that_are_not_positive(small):
    first, second = small.tasks
    bpb = {"predicted": {first: -1.5, second: -0.5}, "predicted_natural": {first: -1.0, second: -0.5}}
    results = samples.with_proposal(dataclasses.replace(small, validation=None), **bpb)
    assert "proposed −1.0000 BPB against natural −0.7500 (0.2500 lower)" in sentences.bpb_line(results)
    assert sentences.cards(results)[0].value == "−0.2500 BPB"


def test_equivalent_compute_is_in_the_measured_line_and_has_a_card(small):
    before = sentences.bpb_line(small)
    after = f"{before}; equivalent compute 2.00× (5–95 % over 3 seeds: 2.00×)"
    assert sentences.bpb_line(samples.scored(small)) == after
    card = next(c for c in sentences.cards(samples.scored(small)) if c.title == "Measured: equivalent compute")
    assert card.value == "2.00×" and card.detail.endswith("5–95 % over 3 seeds: 2.00×; conservative")
    values = {card.title: card.value for card in sentences.cards(samples.scored(small, goal=0.8))}
    assert values["Measured: equivalent compute"] == "not reached"


def test_omitted_tasks_are_counted():
    assert sentences.omitted_tasks(120) == ""
    assert sentences.omitted_tasks(130) == " Of 130 tasks, only the 120 with the largest changes are shown."
