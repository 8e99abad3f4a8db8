"""benchmarks/laws.py, laws_page.py and laws_speed.py: splits, resuming, targets and the quick run."""

import tempfile
import types

import numpy as np
import pytest

from benchmarks import laws, laws_page, laws_speed
from olmix_jax.utils.errors import UserError


def swarm(runs, seed=0):
    draw = np.random.default_rng(seed)
    return types.SimpleNamespace(
        runs=tuple(range(runs)), ratios_KM=draw.dirichlet(np.ones(3), runs), bpb_KN=draw.random((runs, 2))
    )


def test_training_and_held_out_runs_are_disjoint():
    problem = laws.Problem("toy", "BPB", (8,), swarm(20))
    (train_KM, train_KN), (test_KM, test_KN) = problem.split(8, 0)
    assert train_KM.shape == (8, 3) and test_KM.shape == (12, 3)
    both = np.concatenate([np.c_[train_KM, train_KN], np.c_[test_KM, test_KN]])
    all_runs = np.c_[problem.swarm.ratios_KM, problem.swarm.bpb_KN]
    np.testing.assert_array_equal(both[np.lexsort(both.T)], all_runs[np.lexsort(all_runs.T)])
    np.testing.assert_array_equal(problem.split(8, 0)[0][0], train_KM)
    assert (problem.split(8, 1)[0][0] != train_KM).any()


def test_separate_test_swarm_is_held_out_as_a_whole():
    problem = laws.Problem("toy", "nats", (8, 20), swarm(20), swarm(6, seed=1))
    (train_KM, _), (test_KM, _) = problem.split(8, 3)
    assert len(train_KM) == 8 and test_KM is problem.test.ratios_KM
    assert problem.splits(8, "gp", 10) == 10 and problem.splits(8, "lightgbm", 10) == 5
    assert problem.splits(20, "gp", 10) == 1  # there is only one way to draw all runs


def test_interrupted_run_resumes_with_its_measurements(tmp_path):
    problem, calls = laws.Problem("toy", "BPB", (8,), swarm(20)), []

    def measure(x):
        calls.append(x)
        return {"x": x}

    assert laws.SavedMeasurements(tmp_path, [problem], False).get("a", measure, 1) == {"x": 1}
    again = laws.SavedMeasurements(tmp_path, [problem], False)
    assert again.get("a", measure, 2) == {"x": 1} and calls == [1] and again.resumed == 1
    # Measurements of other data are not reused.
    other = laws.Problem("toy", "BPB", (8,), swarm(20, seed=1))
    assert laws.SavedMeasurements(tmp_path, [other], False).get("a", measure, 3) == {"x": 3}


def test_missed_targets_are_marked_as_missed():
    row = {"problem": "DCLM", "family": "warped_gp", "K": 30, "spearman": [0.75, 0.76], "of_mean": [0.9, 0.92]}
    row |= {"coverage": [0.99, 0.97]}
    speed = {"log_linear": {"loss": 6.1, "bootstrap": 61.0, "large": 1.0}}
    content = types.SimpleNamespace(rows=[row], speed=speed, resamples=laws_page.RESAMPLES, large=laws_page.LARGE)
    lines = laws_page.targets(content)
    assert lines[0][2:] == (".755 ± .005", "**missed**") and lines[1][2:] == (".910 ± .010", "reached")
    assert lines[2][2:] == ("98.0 ± 1.0 %", "**missed**")
    assert [line[3] for line in lines[3:]] == ["**missed**", "reached", "**missed**"]


@pytest.mark.parametrize("family", ["log_linear", "search"])
def test_split_gives_scores_seconds_and_coverage(family):
    problem = laws.Problem("toy", "BPB", (12,), swarm(20))
    result = laws.Bench().measure(problem, family, 12, 0)
    assert (
        -1 <= result["spearman"] <= 1 and -1 <= result["of_mean"] <= 1 and result["rmse"] > 0 and result["seconds"] > 0
    )
    assert result["coverage"] is None if family == "search" else 0 <= result["coverage"] <= 1


def test_slope_is_the_exponent_of_the_largest_sizes():
    sizes = (8, 16, 32, 64)
    assert laws_speed.slope(sizes, [5.0, *(3e-3 * s**1.5 for s in sizes[1:])]) == pytest.approx(1.5)


def test_unknown_family_is_an_error():
    with pytest.raises(UserError, match="unknown nothing; choose from warped_gp"):
        laws.available(["warped_gp", "nothing"])


@pytest.mark.slow
def test_quick_run_writes_the_page_and_its_plot(published, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    out = tmp_path / "page.md"
    laws.main(["--quick", "--families=warped_gp,search", f"--data={published}", f"--out={out}"])
    text = out.read_text()
    for line in ("### DCLM: 127 runs", "### RegMix: 512 runs, tested on 256", "| 30 | **`warped_gp`** | 2 |", "R^"):
        assert line in text, line
    assert (tmp_path / "page_speed.png").stat().st_size < 150_000
    assert "sum of Huber minima, DCLM | ≤ 6.0171 |" in capsys.readouterr().out
    assert not list(tmp_path.glob("olmix-bench-laws-*"))
