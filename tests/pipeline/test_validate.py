"""The stage ``validate``: the mean over tasks, and models that diverge. test_processes.py trains models."""

import types

import numpy as np
import pytest

from olmix_jax import config
from olmix_jax.pipeline import jobs, validate
from olmix_jax.proxy.validation_result import MixtureScore
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
