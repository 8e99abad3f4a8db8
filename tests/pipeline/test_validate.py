"""The stage ``validate``: the mean over tasks, and models that diverge. test_processes.py trains models."""

import types

import numpy as np
import pytest

from olmix_jax import config
from olmix_jax.pipeline import jobs, validate
from olmix_jax.proxy.validation_result import MixtureScore
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.swarm.table import write_swarm
from olmix_jax.utils.errors import UserError

TASKS = ("a1", "a2", "b", "dropped")


def test_score_has_the_weighted_mean_of_each_seed():
    bpb = {"a": np.array([1.0, 2.0]), "b": np.array([5.0, 3.0])}
    score = validate._score({"web": 1.0}, bpb, {"a": 1.0, "b": 0.0})
    assert score.per_seed == (1.0, 2.0) and score.bpb_mean == 1.5 and score.bpb_std == pytest.approx(np.sqrt(0.5))
    assert validate._score({"web": 1.0}, bpb, {}).per_seed == (3.0, 2.5)


@pytest.mark.parametrize(
    ("fit", "weights", "expected"),
    [
        ({}, {"a1": 0.25, "a2": 0.25, "b": 0.25, "dropped": 0.25}, {}),
        ({}, {"a1": 1.0, "a2": 0.0, "b": 0.0, "dropped": 0.0}, {"a1": 1.0, "a2": 0.0, "b": 0.0, "dropped": 0.0}),
        (
            {"granularity": "family", "families": '{"a": ["a*"], "b": ["b"]}', "drop_metrics": ("dropped",)},
            {"a": 0.5, "b": 0.5},
            {"a1": 0.25, "a2": 0.25, "b": 0.5, "dropped": 0.0},
        ),
    ],
)
def test_weights_of_the_law_become_weights_of_the_scored_tasks(tmp_path, monkeypatch, fit, weights, expected):
    runs, ratios_KM = tuple("rstu"), np.random.default_rng(0).dirichlet(np.ones(2), size=4)
    write_swarm(
        tmp_path / "swarm", runs, runs, ("web", "code"), TASKS, ratios_KM, np.ones((4, 4)), [0.5, 0.5], [1, 1], {}
    )
    monkeypatch.setattr(jobs, "tasks_of", lambda config, workdir: types.SimpleNamespace(names=TASKS))
    proposal = types.SimpleNamespace(task_weights=weights)
    assert validate._weights_of_tasks(config.from_dict({"fit": fit}), tmp_path, proposal) == expected


def test_diverged_uniform_mixture_is_left_out_and_others_are_errors(caplog):
    validate._check_optional("uniform")
    assert "a model of the uniform mixture diverged, so this mixture is left out" in caplog.text
    with pytest.raises(UserError, match="a validation model of the proposed mixture diverged; lower `validate.lr`"):
        validate._check_optional("proposed")


def test_score_along_the_run_that_is_not_finite_costs_only_the_equivalent_compute():
    def score(*curves) -> MixtureScore:
        return MixtureScore({"a": 1.0}, 1.0, 0.0, tuple(curve[-1] for curve in curves), {}, tuple(curves))

    natural, tokens_P = score((2.0, 1.0), (2.0, 1.1)), (100, 200)
    good, bad = score((1.5, 0.9), (1.6, 1.0)), score((float("nan"), 0.9), (1.6, 1.0))
    assert validate._equivalent_compute(tokens_P, {"natural": natural, "proposed": good}).ratio > 1
    assert validate._equivalent_compute(tokens_P, {"natural": natural, "proposed": bad}) is None


def test_uniform_has_fewer_models_and_each_mixture_its_own(tmp_path, monkeypatch):
    DomainSet(("web", "code"), (1000, 3000)).write(tmp_path / "domains.json")
    settings = {"proxy": {"preset": "tiny"}, "validate": {"seeds": 4, "steps": 8}, "train": {"batch": 4}}
    chosen = config.from_dict(settings)
    seeds = validate.seeds_of(chosen)
    assert seeds == {"natural": 4, "uniform": 3, "proposed": 4}

    def swarm_of(target, workdir, domains, runs, score_steps):
        return types.SimpleNamespace(runs=runs, stops=(*score_steps, 8), train=target.train)

    monkeypatch.setattr(jobs, "swarm_of", swarm_of)
    monkeypatch.setattr(jobs, "tasks_of", lambda config, workdir: types.SimpleNamespace(names=("t",)))
    monkeypatch.setattr(jobs, "write_curves", lambda *_: None)
    monkeypatch.setattr(validate.trainer, "log_settings", lambda *_: None)
    weights = {"natural": np.array([0.25, 0.75]), "uniform": np.array([0.5, 0.5]), "proposed": np.array([0.75, 0.25])}
    job = validate._job(chosen, tmp_path, weights, {}, seeds)
    runs, points = job.swarm.runs, len(job.swarm.stops)
    assert runs.names == tuple(f"{name}/{s}" for name, number in seeds.items() for s in range(number))
    assert (runs.init_seed_K[:3] == runs.init_seed_K[4:7]).all() and (
        runs.init_seed_K[:4] == runs.init_seed_K[7:]
    ).all()

    bpb_KPN = np.arange(11.0)[:, None, None] + np.zeros((11, points, 1))
    info = types.SimpleNamespace(tokens_per_member=1, parameters=2)
    trained = types.SimpleNamespace(died_K=np.full(11, -1), scores_KPN=bpb_KPN, info=info)
    scores = validate._judge(chosen, tmp_path, job, seeds, trained, {}, {}).mixtures
    assert {name: score.per_seed for name, score in scores.items()} == {
        "natural": (0.0, 1.0, 2.0, 3.0),
        "uniform": (4.0, 5.0, 6.0),
        "proposed": (7.0, 8.0, 9.0, 10.0),
    }
    assert [score.weights["web"] for score in scores.values()] == [0.25, 0.5, 0.75]
