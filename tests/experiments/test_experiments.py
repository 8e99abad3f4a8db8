"""experiments/: the paper's replay, the summary of the five updates, and smoke runs."""

import json
import subprocess
import sys

import numpy as np
import pytest

from experiments.cheaper_swarms import __main__ as cheaper
from experiments.cheaper_swarms import learning_rate
from experiments.five_updates import __main__ as five
from experiments.five_updates import paper
from olmix_jax.laws import evaluate, log_linear
from olmix_jax.swarm import table
from olmix_jax.utils.errors import UserError

DCLM = tuple(f"dclm:{i}" for i in range(5))
STEPS = {
    "update1_add_stack_edu": ("stack-edu:C", "stack-edu:Go"),
    "update2_add_more_sources": ("arxiv", "s2pdfv2", "algebraicstack"),
    "update3_revise_pdfs": ("s2pdfv1",),
    "update5_partition_pdfs": ("s2pdfv1:law", "s2pdfv1:art"),
}


def swarm(folder, domains, tokens, runs, seed):
    draw = np.random.default_rng(seed)
    ratios_KM = draw.dirichlet(np.ones(len(domains)), size=runs)
    params = log_linear.Params(np.log([0.5, 0.7]), draw.normal(size=(2, len(domains))))
    names = tuple(f"r{k}" for k in range(runs))
    tokens_M = np.array([tokens[d] for d in domains])
    data = ratios_KM, evaluate(log_linear.LAW, params, ratios_KM), tokens_M / tokens_M.sum(), tokens_M
    table.write_swarm(folder, names, names, domains, ("t", "u"), *data, {})


def published_layout(folder):
    tokens = dict.fromkeys(DCLM, 1e12) | {"existing": 5e12} | {d: 2e11 for new in STEPS.values() for d in new}
    swarm(folder / "dclm_swarm", DCLM, tokens, 20, 0)
    for number, (name, new) in enumerate(STEPS.items(), 1):
        at = folder / f"mixture_reuse/real_world/full_reuse/{name}_seed0"
        swarm(at, ("existing", *new), tokens, 16, number)


def test_paper_replay_keeps_ratios_and_caps(tmp_path):
    published_layout(tmp_path)
    results = paper.replay(tmp_path)
    rows = results["rows"]
    assert [row["proxies"] for row in rows] == [20, 16, 16, 16, 0, 16] and results["proxies"] == 84
    assert set(rows[-1]["weights"]) == {
        *DCLM,
        *STEPS["update1_add_stack_edu"],
        "arxiv",
        *STEPS["update5_partition_pdfs"],
    }
    for before, after in zip(rows, rows[1:]):
        assert sum(after["weights"].values()) == pytest.approx(1)
        both = [d for d in before["weights"] if d in after["weights"]]
        old, new = (np.array([row["weights"][d] for d in both]) for row in (before, after))
        np.testing.assert_allclose(new / new.sum(), old / old.sum(), rtol=1e-9)
        assert after.get("over_cap", 0) <= 1 + 1e-12
    (tmp_path / "mixture_reuse/real_world/full_reuse/update2_add_more_sources_seed0/meta.json").write_text("{}")
    with pytest.raises(UserError, match="needs `relative_sizes` and `token_counts`"):
        paper.replay(tmp_path)


def test_verdict_gives_the_share_of_the_gain_and_its_error():
    natural_S = np.array([3.0, 3.1, 2.9])
    each = {"natural": natural_S, "full": 0.9 * natural_S, "full_reuse": 0.91 * natural_S, "auto": 0.904 * natural_S}
    # Families have equal weights, whatever their number of tasks.
    tasks = {"c:a": 1.0, "docs:a": 0.5, "docs:b": 1.0, "docs:c": 1.5, "python:a": 0.7, "types:a": 1.3}
    trained = {
        "mixtures": {
            name: {"tasks": {task: {"per_seed": scale * bpb_S} for task, scale in tasks.items()}}
            for name, bpb_S in each.items()
        }
    }
    np.testing.assert_allclose(five.by_family(trained["mixtures"]["natural"]), natural_S)
    runs = {"full": [64, 36], "full_reuse": [8, 0], "auto": [8, 12]}
    rows = five.summary({name: {"proxies": p} for name, p in runs.items()}, trained, 0)
    assert rows["full"]["gain_percent"] == pytest.approx(10) and rows["auto"]["share_of_gain"] == pytest.approx(0.96)
    reuse, auto = five.verdict(rows)
    noisy = {name: row | {"gain_error": 4.0} for name, row in rows.items()}
    assert five.verdict(noisy)[2].startswith(
        "inconclusive: full recomputation gains only 10.00 ± 4.00 % over natural, 2.5"
    )
    assert reuse.startswith("full_reuse does not keep 95 %") and "90 ± 0 % of it for 8 % of the proxies (8 of" in reuse
    assert auto.startswith("auto keeps 95 %")
    close = {**rows, "auto": rows["auto"] | {"share_error": 0.01, "share_of_proxies": 0.4}}
    assert five.verdict(close)[1].startswith("auto may or may not keep 95 % of the gain, for more than 30 %: 96 ± 1 %")
    (equal,) = five.verdict({**rows, "carry": rows["full_reuse"]})
    assert equal.startswith("auto over the best fixed rule at equal runs, full: -0.40 ± 0.00 %") and "worse at" in equal


def run(name, workdir, *more):
    command = [sys.executable, "-m", f"experiments.{name}", "--scale=smoke", f"--workdir={workdir}", *more]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads((workdir / "results.json").read_text())


@pytest.mark.slow
def test_recompute_rule_runs_at_smoke_scale(tmp_path):
    rows = run("recompute_rule", tmp_path)["rows"]
    assert [row["worlds"] for row in rows] == ["no task shared", "tasks shared"]
    assert all(row["loss"]["natural"]["mean"] > row["loss"]["auto"]["mean"] > 0 for row in rows)


@pytest.mark.slow
def test_five_updates_runs_at_smoke_scale(tmp_path):
    results = run("five_updates", tmp_path)
    assert set(results["strategies"]) == set(five.STRATEGIES) and len(results["verdict"]) in (2, 3)
    assert results["chains"]["full_reuse"]["proxies"] == [8, 8, 8, 0, 8]


@pytest.mark.slow
def test_merged_members_runs_at_smoke_scale(tmp_path):
    results = run("merged_members", tmp_path)
    assert results["full_proxies"] == 0.75 + 8 * 0.25 and results["runs"] == 12
    assert len(results["kinds"]) == 5 and all(row["spread"] > 0 for row in results["kinds"].values())


def test_error_of_gains_is_the_larger_of_swarms_and_models():
    apart = cheaper.measured(np.array([[0.0, 0.0, 0.1], [1.0, 1.1, 1.0]]))
    assert apart["mean"] == pytest.approx(3.2 / 6) and apart["error"] == pytest.approx(0.5)
    alike_RS = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert cheaper.measured(alike_RS)["error"] == pytest.approx(alike_RS.std(ddof=1) / 2)


@pytest.mark.slow
def test_cheaper_swarms_runs_at_smoke_scale(tmp_path):
    corpus = run("cheaper_swarms", tmp_path)["corpora"]["smoke"]
    rows = corpus["designs"]
    assert corpus["swarms"] == 3 and set(rows) == {"full", "few_full", "branches", "two_fidelity", "merges"}
    assert rows["full"]["gain_minus_full"] == {"mean": 0.0, "error": 0.0}
    # Ten full proxies; a trunk of three quarters, eight experts of a quarter, and four full proxies.
    tokens = 20 * 5 * 32
    assert rows["few_full"]["tokens"] == 10 * tokens and rows["two_fidelity"]["tokens"] == (2.75 + 4) * tokens
    assert rows["merges"]["tokens"] == 2.75 * tokens
    assert all(len(row["seeds"]) == 3 and np.isfinite(row["regret"]) for row in rows.values())


@pytest.mark.slow
def test_learning_rate_runs_at_smoke_scale(tmp_path):
    rows = run("cheaper_swarms.learning_rate", tmp_path)["rows"]
    assert len(rows) == 1 + len(learning_rate.RATES) and all(
        -1 <= row["spearman_of_mean"] <= 1 for row in rows.values()
    )


def test_ranking_of_doubled_effects_is_that_of_the_target():
    target_KN = np.exp(np.random.default_rng(0).normal(0, 0.1, (6, 2)))
    result = learning_rate.compared(2 * target_KN**2, target_KN)
    assert result["spearman_task_mean"] == pytest.approx(1) and result["spread_of_target"] == pytest.approx(2)
