"""Warnings at the top of the page."""

import dataclasses

import pytest

from olmix_jax.laws.fit_result import Outlier, Sampled
from olmix_jax.propose.proposal_parts import Gain
from olmix_jax.report import caveats
from tests.report import samples
from tests.report.samples import HOSTILE

GAIN = Gain(mean=0.0123, low=-0.004, high=0.02, probability=0.87, samples=100)


def with_measured(results, **changes):
    """Return the results with other scores of the proposed mixture."""
    mixtures = dict(results.validation.mixtures)
    mixtures["proposed"] = dataclasses.replace(mixtures["proposed"], **changes)
    return dataclasses.replace(results, validation=dataclasses.replace(results.validation, mixtures=mixtures))


def test_poorly_determined_law_is_a_warning(small):
    fit = {"unseen": ("_seen_<never>",), "barely_sampled": {"rare": Sampled(1, 0.005)}, "spearman_cv_mean": 0.4}
    texts = caveats.warnings(samples.with_fit(small, **fit))
    assert "Never sampled: _seen_<never>. The swarm gives no information about their effects." in texts
    assert any(w.startswith("Rarely sampled: rare (in 1 run, at most 0.5 %).") for w in texts)
    assert any("ranks held-out runs poorly (mean Spearman 0.40" in w for w in texts)


@pytest.mark.parametrize(
    ("coverage", "problem"),
    [(0.8, "too narrow"), (0.99, "wider than necessary"), (0.85, None), (0.9, None), (0.95, None)],
)
def test_coverage_far_from_its_level_is_a_warning(small, coverage, problem):
    texts = [w for w in caveats.warnings(samples.with_fit(small, coverage_cv_mean=coverage)) if "intervals" in w]
    assert len(texts) == (problem is not None)
    assert problem is None or problem in texts[0]


def test_uncertain_gain_is_a_warning(small):
    warnings = ("the gain over natural is uncertain: it is positive in 87 of 100 samples of the law",)
    texts = caveats.warnings(samples.with_proposal(small, gain=GAIN, warnings=warnings))
    assert [w for w in texts if "gain" in w] == [f"T{warnings[0][1:]}."]


def test_parts_that_were_left_out_are_named(small):
    texts = caveats.warnings(samples.with_proposal(small, left_out=("next runs are left out: too few draws",)))
    assert "Next runs are left out: too few draws." in texts


def test_proposal_without_measured_gain_is_a_warning(small):
    worse = with_measured(small, per_seed=(1.01, 1.02, 1.03))
    assert "In training, the proposal was not better than natural." in caveats.warnings(worse)
    barely = with_measured(small, per_seed=(0.98, 0.99, 1.0))
    assert any("less than three standard errors" in w for w in caveats.warnings(barely))
    assert not any("standard errors" in w for w in caveats.warnings(small) if "difference from" in w)


def test_single_seed_is_a_warning(small):
    assert any("with one seed" in w for w in caveats.warnings(samples.small_run(seeds=1)))
    assert not any("with one seed" in w for w in caveats.warnings(small))


def test_tasks_measured_worse_are_named(small):
    task = small.tasks[0]
    scores = small.validation.mixtures["proposed"].tasks
    worse = with_measured(small, tasks=scores | {task: dataclasses.replace(scores[task], mean=2.0)})
    expected = f"Measured worse than natural by more than two standard errors on 1 of 2 tasks: {task}."
    assert expected in caveats.warnings(worse)


def test_trained_mixture_over_its_cap_is_a_warning(small):
    assert not any("exceeds" in w for w in caveats.warnings(small))
    over = with_measured(small, weights=small.proposal.weights | {HOSTILE: 0.3})
    assert f"The trained mixture exceeds the cap of {HOSTILE}." in caveats.warnings(over)
    # One sequence more than the cap is rounding: 128 of 2,457,600 tokens.
    rounded = small.proposal.weights | {HOSTILE: small.proposal.weights[HOSTILE] + 128 / 2_457_600}
    assert not any("exceeds" in w for w in caveats.warnings(with_measured(small, weights=rounded)))


def test_diverged_runs_are_named(small):
    assert "These runs diverged and are left out of the fit: run-003." in caveats.warnings(small)


def test_warnings_of_the_proposal_come_first(small):
    assert caveats.warnings(small)[0] == "Small <script>warning</script>."


def test_outliers_and_what_was_left_out_are_named(small):
    outlier = Outlier("r3", "t1", 11.0, 1.12, 40.0)
    texts = caveats.warnings(samples.with_fit(small, outliers=(outlier,), warnings=("1 run is left out",)))
    assert "1 run is left out." in texts
    assert any("does not fit the others: r3 (t1: 11, expected 1.12); check their scores" in text for text in texts)
