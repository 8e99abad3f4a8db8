"""experiments/laws_at_their_optimum: the truths, their swarms, and a smoke run."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from experiments.laws_at_their_optimum import __main__ as program
from experiments.laws_at_their_optimum import (
    cheap_runs,
    halves,
    lengths,
    next_of_both,
    regions,
    subsets,
    trained,
    worlds,
)
from olmix_jax.laws import FittedLaw, evaluate
from olmix_jax.proxy.validation_result import MixtureScore, Validation
from olmix_jax.solver import bounds
from olmix_jax.swarm.table import SwarmTable


@pytest.fixture(scope="module", params=worlds.KINDS)
def world(request):
    return worlds.drawn(request.param, 6, 14, noise=0.0, seed=3)


def test_swarm_measures_the_truth_and_begins_with_natural(world):
    np.testing.assert_allclose(world.ratios_KM[0], world.natural_M, atol=1 / worlds.SEQUENCES)
    bpb_KN = evaluate(worlds.LAWS[world.kind], world.params, world.ratios_KM)
    np.testing.assert_allclose(world.bpb_KN, bpb_KN, rtol=1e-12)
    assert (bpb_KN > 0.4).all() and (bpb_KN < 4).all()


def test_best_gain_is_no_less_than_that_of_any_allowed_run(world):
    allowed_QM = world.ratios_KM[bounds.holds(world.bounds, world.ratios_KM)]
    best, gain_Q = world.best_gain(allowed_QM), world.gain(allowed_QM)
    assert best >= gain_Q.max() - 1e-12 and best >= 0
    if world.kind == "nothing":
        assert np.ptp(world.bpb_KN, axis=0).max() == 0 and best == 0
    else:
        assert best > 0.002


def test_noise_has_the_size_and_the_common_part_that_are_asked_for():
    noisy, exact = (worlds.drawn("power", 8, 400, tasks=20, noise=noise, seed=0) for noise in (0.01, 0.0))
    error_KN = noisy.bpb_KN / exact.bpb_KN - 1
    assert error_KN.std() == pytest.approx(0.01, rel=0.05)
    assert np.corrcoef(error_KN.T)[np.triu_indices(20, 1)].mean() == pytest.approx(0.3, abs=0.05)


def test_repetition_saturates_and_then_harms():
    world = worlds.drawn("repetition", 4, 9, noise=0.0, seed=0)
    params = world.params._replace(
        natural_M=np.full(4, 0.25),
        epochs=1.0,
        base_N=np.ones(1),
        strength_NM=np.array([[0.3, 0, 0, 0]]),
        place_NM=np.full((1, 4), 2.0),
        shape_NM=np.full((1, 4), 0.3),
    )
    line_KM = np.stack([[p, *np.full(3, (1 - p) / 3)] for p in (0.05, 0.25, 0.45, 1.0)])
    bpb_K = evaluate(worlds.LAWS["repetition"], params, line_KM)[:, 0]
    # .2, 1, 1.8 and 4 epochs, of which those beyond 2 do harm.
    assert bpb_K[0] > bpb_K[1] > bpb_K[2] and bpb_K[3] > bpb_K[2]
    assert bpb_K[0] - bpb_K[1] > 2 * (bpb_K[1] - bpb_K[2])


@pytest.mark.slow
def test_smoke_run_writes_a_row_per_world_and_law(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["laws_at_their_optimum", f"--workdir={tmp_path}"])
    program.main()
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert len(rows) == 2 * len(program.FAMILIES)
    for row in rows:
        assert row["true"] <= row["best"] + 1e-9 and (row["low"] is None or row["low"] <= row["high"])
    assert "| all but nothing | exposure | 1 |" in capsys.readouterr().out


def test_unimax_fills_small_domains_up_to_their_caps():
    np.testing.assert_allclose(trained.unimax(np.array([1.0, 0.1, 0.3, 0.9])), [0.3, 0.1, 0.3, 0.3])
    np.testing.assert_allclose(trained.unimax(np.ones(4)), np.full(4, 0.25))


def test_gain_of_trained_models_is_paired_by_seed():
    def score(per_seed) -> MixtureScore:
        return MixtureScore({"a": 1.0}, float(np.mean(per_seed)), float(np.std(per_seed, ddof=1)), tuple(per_seed), {})

    natural_S = np.array([1.0, 1.2, 1.1])
    scores = {"natural": natural_S, "uniform": natural_S - [0.1, 0.1, 0.1], "gp proposal": natural_S - [0.1, 0.2, 0.3]}
    validation = Validation({name: score(of) for name, of in scores.items()}, {}, 3, 10, 100, 10, "tiny")
    found = [
        trained.Point("", "uniform", np.ones(1)),
        trained.Point("gp", "proposal", np.ones(1), promised=0.3, low=0.1, high=0.4),
    ]
    uniform, proposal = trained.rows(found, validation)
    assert (uniform["gain"], uniform["regret"]) == (pytest.approx(0.1), pytest.approx(0.1))
    assert uniform["error"] == pytest.approx(0, abs=1e-12)
    assert (proposal["gain"], proposal["regret"]) == (pytest.approx(0.2), 0)
    assert proposal["error"] == pytest.approx(0.1 / 3**0.5)
    text = trained.summary({"rows": [uniform, proposal]})
    assert "+0.1000 to +0.4000" in text and "+0.2000 ± 0.0577" in text


@pytest.mark.slow
def test_judge_of_halves_is_fitted_to_the_runs_that_the_proposal_did_not_see():
    world = worlds.drawn("log_linear", 3, 30, tasks=2, noise=0.0, seed=4)
    chosen_K = np.arange(30) < 14
    facts = world.ratios_KM, world.natural_M, chosen_K, 4, 0.1, world.gain
    row = halves.judged("log_linear", facts[0], world.bpb_KN, *facts[1:])
    assert row.runs == 14 and row.low <= row.promised <= row.high
    # Without noise, promise, judge and truth agree.
    np.testing.assert_allclose([row.promised, row.judged], row.true, rtol=0.1)
    # Runs of the judge that say that nothing matters change its word, and the promise stays.
    flat_KN = np.where(chosen_K[:, None], world.bpb_KN, world.bpb_KN.mean(axis=0))
    other = halves.judged("log_linear", facts[0], flat_KN, *facts[1:])
    assert other.promised == pytest.approx(row.promised, rel=1e-6) and abs(other.judged) < 0.1 * row.promised


@pytest.mark.slow
def test_smoke_run_of_halves_has_a_row_per_truth(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("OLMIX_DATA", raising=False)
    monkeypatch.setattr(sys, "argv", ["halves", f"--workdir={tmp_path}"])
    halves.main()
    assert len(json.loads((tmp_path / "results.json").read_text())["rows"]) == len(worlds.KINDS) - 1
    assert "| all truths but repetition | 12 | 4 |" in capsys.readouterr().out


def test_subsets_of_domains_differ():
    found = subsets.subsets(20, 5, seed=0)
    assert len(set(found)) == 20 and all(len(set(names)) == 5 for names in found)


def test_distance_counts_both_errors():
    row = subsets.Row(("a",), 1, True, 0.03, 0.03 - 1.645 * 0.003, 0.03 + 1.645 * 0.003, 0.02, 0.004)
    assert row.distance == pytest.approx(-0.01 / 0.005)


@pytest.mark.slow
def test_smoke_run_of_subsets_has_both_lengths(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["subsets", f"--workdir={tmp_path}"])
    subsets.main()
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["of_proxies"] for row in rows] == [True, False] and rows[0]["tokens"] < rows[1]["tokens"]
    assert "+0.0" in capsys.readouterr().out


def test_cheap_runs_show_half_of_an_effect_or_that_of_another_truth():
    world = worlds.drawn("power", cheap_runs.DOMAINS, 60, noise=0.0, seed=1)
    shown_KN = cheap_runs.effects(world, world.params)
    cheap_KN, other_KN = (np.log(cheap_runs.cheap_scores(world, related, 1)) for related in (True, False))
    slopes, others = (
        np.array([np.polyfit(x_K, y_K, 1)[0] for x_K, y_K in zip(shown_KN.T, of_KN.T)])
        for of_KN in (cheap_KN, other_KN)
    )
    assert abs(np.median(slopes) - 0.5) < 0.15 and np.abs(others).mean() < np.abs(slopes).mean()


@pytest.mark.slow
def test_smoke_run_of_cheap_runs_has_a_row_per_design(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["cheap_runs", f"--workdir={tmp_path}"])
    cheap_runs.main()
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["design"] for row in rows] == list(cheap_runs.DESIGNS)
    assert all(row["low"] <= row["high"] and row["true"] <= row["best"] + 1e-9 for row in rows)
    assert "| 5 | with cheap | 1 | 100 % |" in capsys.readouterr().out


def test_further_cheap_runs_show_what_the_first_ones_show(monkeypatch):
    monkeypatch.setattr(cheap_runs, "REAL_NOISE", 0.0)
    monkeypatch.setattr(cheap_runs, "CHEAP_NOISE", 0.0)
    world = worlds.drawn("power", cheap_runs.DOMAINS, 20, noise=0.0, seed=1)
    is_cheap_K = np.arange(20) >= 8
    together = next_of_both.measured(world, world.ratios_KM, is_cheap_K, 1, "first")
    apart = next_of_both.measured(world, world.ratios_KM[10:], is_cheap_K[10:], 1, "more")
    np.testing.assert_allclose(together[10:], apart, rtol=1e-12)
    np.testing.assert_allclose(together[:8], world.bpb_KN[:8], rtol=1e-9)
    # The level there is that of the first run, natural in whole sequences.
    ratio_KN = together[8:] / cheap_runs.cheap_scores(world, True, 1)[8:]
    np.testing.assert_allclose(ratio_KN, np.broadcast_to(ratio_KN[:1], ratio_KN.shape), rtol=1e-9)
    np.testing.assert_allclose(ratio_KN, 1.0, rtol=1e-3)


@pytest.mark.slow
def test_smoke_run_of_next_runs_of_both_kinds_spends_the_budget(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["next_of_both", f"--workdir={tmp_path}"])
    next_of_both.main()
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["policy"] for row in rows] == list(next_of_both.POLICIES)
    spent = [row["real"] + row["cost"] * row["cheap"] for row in rows]
    assert spent[0] == 0 and all(next_of_both.BUDGET - 0.5 <= one <= next_of_both.BUDGET for one in spent[1:])
    assert "| 0.5 | chosen of both | 1 |" in capsys.readouterr().out


@pytest.mark.slow
def test_region_is_the_runs_with_little_of_a_domain():
    draw = np.random.default_rng(0)
    ratios_KM = draw.dirichlet(np.full(3, 2.0), size=40)
    bpb_KN = 1 + np.exp(-ratios_KM @ np.array([[2.0, 0.1, 1.0], [0.2, 1.0, 0.3]]).T)
    names = tuple(f"run{k}" for k in range(40))
    swarm = SwarmTable(names, ("a", "b", "c"), ("t", "u"), ratios_KM, bpb_KN, np.array([0.3, 0.4, 0.3]), None, names)
    judge = FittedLaw(regions.LAW, regions.LAW.fit(ratios_KM, bpb_KN).params)
    row, below = (regions.judged(swarm, regions.Region(("a",), limit), judge, 0) for limit in (0.25, None))
    assert row.runs == (ratios_KM[:, 0] <= 0.25).sum() and below.runs == (ratios_KM[:, 0] < 0.3).sum()
    # All runs agree that the domain that the region has little of helps.
    assert row.proposed > 0.3 and row.extrapolated > 0 and row.named and row.judged > 0
    assert row.low < row.expected < row.high and 0 <= row.tasks_held <= 1


def test_truths_of_lengths_are_the_same_where_no_run_repeats_and_help_saturates_with_tokens():
    world = lengths.drawn("the same, repeated tokens worth less", 8, 0)
    fresh = dataclasses.replace(world, truth="c + Σ a_j (1 + x_j)^−.3")
    plenty_M = 1e3 * lengths.UNIQUE_M
    facts = world.ratios_KM, 4e9
    np.testing.assert_allclose(world.true(*facts, plenty_M), fresh.true(*facts, plenty_M), rtol=1e-12)
    assert (world.true(*facts, lengths.UNIQUE_M / 4) > fresh.true(*facts, lengths.UNIQUE_M / 4)).any()
    harmful = dataclasses.replace(world, truth="the same and harm")
    plain = dataclasses.replace(world, truth="log (f − c): benefit and −.15 log R")
    assert (harmful.true(*facts, lengths.UNIQUE_M) > plain.true(*facts, lengths.UNIQUE_M)).all()


@pytest.mark.slow
def test_smoke_run_of_lengths_has_rows_of_predictions_and_gains(tmp_path, monkeypatch, capsys):
    # One truth at one target takes seconds; all of them half a minute.
    monkeypatch.setattr(lengths, "TRUTHS", {name: lengths.TRUTHS[name] for name in ("the same and harm",)})
    monkeypatch.setattr(lengths, "FAR", (4e9, 6.4e10))
    monkeypatch.setattr(sys, "argv", ["lengths", f"--workdir={tmp_path}"])
    lengths.main()
    results = json.loads((tmp_path / "results.json").read_text())
    assert [row["target"] for row in results["rows"]] == list(lengths.TARGETS)
    for row in results["rows"]:
        assert all(0 < row["spread"][law] <= rmse for law, rmse in row["rmse"].items()) and 0 <= row["covers"] <= 1
    near, far = results["gains"]
    assert near["low"] < near["expected"] < near["high"] and far["target"] == 6.4e10
    assert "the same and harm | 8e+09 |" in (text := capsys.readouterr().out) and "| 16 |" in text
