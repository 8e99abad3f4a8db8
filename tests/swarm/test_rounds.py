"""rounds.py: gains that a table measures beside promised ones, and tables with the runs of rounds."""

import dataclasses

import numpy as np
import pytest

import olmix_jax
from olmix_jax.laws import log_linear, quality
from olmix_jax.swarm import rounds, table
from olmix_jax.swarm.rounds import Round, Rounds, Verdict
from olmix_jax.swarm.table import SwarmTable
from olmix_jax.utils.errors import UserError
from tests.pipeline import external
from tests.propose.cases import TASKS

PROMISE = Round(
    natural={"web": 0.8, "code": 0.2},
    proposed={"web": 0.5, "code": 0.5},
    task_weights={"qa": 0.75, "math": 0.25},
    promised=0.10,
    low=0.08,
    high=0.13,
    run_error=0.01,
)


def swarm(*rows, runs=None) -> SwarmTable:
    """A table with rows (weight of web, BPB of qa, BPB of math)."""
    web_K, qa_K, math_K = np.array(rows, float).T
    ids = tuple(runs or (f"r{k}" for k in range(len(rows))))
    ratios_KM, bpb_KN = np.stack([1 - web_K, web_K], 1), np.stack([math_K, qa_K], 1)
    return SwarmTable(ids, ("code", "web"), ("math", "qa"), ratios_KM, bpb_KN, None, None, ids)


def test_gain_is_the_weighted_difference_of_the_means_of_both_mixtures():
    measured = PROMISE.measure(swarm((0.8, 1.0, 2.0), (0.5, 0.9, 2.0), (0.5, 0.8, 1.8), (0.6, 9, 9)))
    assert measured.measured == pytest.approx(0.75 * (1.0 - 0.85) + 0.25 * (2.0 - 1.9))
    assert measured.error == pytest.approx(0.01 * np.sqrt(1 / 1 + 1 / 2))


@pytest.mark.parametrize(("gain", "agrees"), [(0.1, True), (0.07, True), (0.068, False), (0.137, True), (0.14, False)])
def test_promise_is_widened_by_the_error_of_the_measurement(gain, agrees):
    """The lower half of 0.02 becomes √(0.02² + (1.645·√2·0.01)²) = 0.0307, the upper half of 0.03 becomes 0.0380."""
    measured = PROMISE.measure(swarm((0.8, 1.0, 1.0), (0.5, 1.0 - gain, 1.0 - gain)))
    assert measured.expected == (pytest.approx(0.0693, abs=1e-4), pytest.approx(0.1380, abs=1e-4))
    assert measured.agrees is agrees


@pytest.mark.parametrize(
    ("gain", "run_error", "verdict"),
    [
        (0.1, 0.01, Verdict.AGREE),
        # 1.645·√2·0.06 exceeds the promised 0.1, so the widened interval holds 0.
        (0.1, 0.06, Verdict.UNRESOLVED),
        # The interval starts above 0, but the measured 0.05 is within √2·0.04 of 0.
        (0.05, 0.04, Verdict.UNRESOLVED),
        (0.3, 0.06, Verdict.DISAGREE),
    ],
)
def test_compatible_gain_that_could_be_none_is_not_called_agreement(gain, run_error, verdict):
    promise = dataclasses.replace(PROMISE, run_error=run_error)
    measured = promise.measure(swarm((0.8, 1.0, 1.0), (0.5, 1.0 - gain, 1.0 - gain)))
    assert measured.verdict is verdict and measured.agrees is (verdict is not Verdict.DISAGREE)
    unresolved = measured.outcome.endswith(": compatible, but the error is too large to tell a gain from none")
    assert unresolved == (verdict is Verdict.UNRESOLVED)


def test_promise_without_intervals_and_error_agrees_with_itself_only():
    bare = dataclasses.replace(PROMISE, low=None, high=None, run_error=None)
    assert bare.measure(swarm((0.8, 1.0, 1.0), (0.5, 0.5, 0.5))).agrees is False
    assert bare.measure(swarm((0.8, 1.0, 1.0), (0.5, 0.5, 0.5))).error is None
    assert "measured +0.5000: they disagree" in bare.measure(swarm((0.8, 1.0, 1.0), (0.5, 0.5, 0.5))).outcome


def test_gain_is_not_measured_without_both_mixtures():
    measured = PROMISE.measure(swarm((0.8, 1.0, 2.0), (0.5000021, 0.9, 2.0)))
    assert (measured.measured, measured.error, measured.agrees) == (None, None, None)
    assert measured.outcome == "promised a gain of +0.1000 BPB (5–95 %: +0.0800 to +0.1300), not measured"


def test_table_with_other_tasks_leaves_the_measurement_as_it_was():
    other = dataclasses.replace(swarm((0.8, 1.0, 2.0)), tasks=("math", "law"))
    assert PROMISE.measure(other) is PROMISE


def test_rounds_are_written_and_read(tmp_path):
    assert Rounds.read(tmp_path) == Rounds()
    one = Rounds().with_round(1, PROMISE)
    two = one.with_round(2, dataclasses.replace(PROMISE, runs=3, tokens=5, measured=0.1, error=0.01, agrees=True))
    two.write(tmp_path)
    assert Rounds.read(tmp_path) == two and len(two.rounds) == 2
    assert two.with_round(1, two.rounds[1]).rounds == (two.rounds[1],) * 2
    (tmp_path / rounds.RECORD).write_text('{"rounds": [{"natural": {}}]}')
    with pytest.raises(UserError, match=r"rounds.json: rounds\[0\].proposed is missing.*--stages=rounds"):
        Rounds.read(tmp_path)


def test_rounds_with_scores_are_found_in_order(tmp_path):
    Rounds((PROMISE,) * 10).write(tmp_path)
    for number in (10, 2, 1, 11):
        table.write_ratios(tmp_path / rounds.folder(number) / "ratios.csv", ["r"], ["r"], ["a"], np.ones((1, 1)))
        if number != 1:
            (tmp_path / rounds.folder(number) / "metrics.csv").write_text("run,t\n")
    assert rounds.trained(tmp_path) == ["rounds/2", "rounds/10"]
    assert rounds.tables(tmp_path)[2:] == ("rounds/10/ratios.csv", "rounds/10/metrics.csv")


def test_digests_of_runs_cover_id_and_mixture_in_any_order_of_the_domains():
    one = swarm((0.8, 1.0, 2.0), (0.5, 1.0, 2.0))
    assert rounds.run_digests(one.ordered(("web", "code"))) == rounds.run_digests(one)
    other = swarm((0.8, 1.5, 2.5), (0.4, 1.0, 2.0), (0.5, 1, 2), runs=("r0", "r1", "r2"))
    assert set(rounds.run_digests(one)) & set(rounds.run_digests(other)) == {rounds.run_digests(one)[0]}


def test_joined_table_has_the_new_runs_in_the_order_of_the_first_table():
    one = swarm((0.8, 1.0, 2.0))
    other = swarm((0.1, 1.1, 2.1), (0.2, 1.2, 2.2), runs=("r0", "r9")).ordered(("web", "code"))
    other = dataclasses.replace(other, tasks=("qa", "math"), bpb_KN=other.bpb_KN[:, ::-1], warnings=("odd",))
    got = rounds.joined(one, other)
    assert got.runs == got.names == ("r0", "r9") and got.warnings == ("odd",)
    np.testing.assert_array_equal(got.ratios_KM, [[1 - 0.8, 0.8], [1 - 0.2, 0.2]])
    np.testing.assert_array_equal(got.bpb_KN, [[2.0, 1.0], [2.2, 1.2]])


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.02, 0.005])
def test_right_promises_agree_with_their_measurements(noise):
    """Nine in ten should agree. Without the widening, about half do, because a run's noise is not in the promise."""
    agrees, inside, ids = [], [], tuple("abcdefghijklmnop")
    for seed in range(40):
        random = np.random.default_rng(seed)
        ratios_KM, natural_M = random.dirichlet(np.ones(3), size=16), np.array([0.1, 0.3, 0.6])
        ratios_KM[0] = natural_M
        bpb_KN = external.bpb(ratios_KM) + random.normal(0, noise, (16, 2))
        swarm = SwarmTable(ids, external.DOMAINS, TASKS, ratios_KM, bpb_KN, natural_M, None, ids)
        law = olmix_jax.fit_law(swarm, law="log_linear", samples=60)
        proposal = olmix_jax.propose_mixture(law, swarm, explore=False)
        predicted_KN = quality.cross_validate(log_linear.LAW, ratios_KM, bpb_KN, folds=5, seed=0).predicted_KN
        run_error = float(np.sqrt(np.mean((bpb_KN - predicted_KN).mean(axis=1) ** 2)))
        gain, equal = proposal.gain, dict.fromkeys(TASKS, 0.5)
        promised = Round(proposal.natural, proposal.weights, equal, gain.mean, gain.low, gain.high, run_error)
        proposed_M = np.array(list(proposal.weights.values()))
        score_1N = external.bpb(proposed_M[None]) + random.normal(0, noise, (1, 2))
        new = SwarmTable(("z",), external.DOMAINS, TASKS, proposed_M[None], score_1N, natural_M, None, ("z",))
        measured = promised.measure(rounds.joined(swarm, new))
        agrees.append(measured.agrees)
        inside.append(gain.low <= measured.measured <= gain.high)
    assert 0.85 <= np.mean(agrees) <= 1 and np.mean(inside) < 0.75
