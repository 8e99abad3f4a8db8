"""The record of ``validate/validation.json``: round trip and checks."""

import dataclasses

import numpy as np
import pytest

from olmix_jax.proxy.equivalent_compute import equivalent_compute
from olmix_jax.proxy.validation_result import MixtureScore, TaskScore, Validation
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError

WEIGHTS = {"web": 0.75, "code": 0.25}
SCORE = MixtureScore(WEIGHTS, 1.0, 0.1, (0.9, 1.1), {"task": TaskScore(1.0, 0.1, (0.9, 1.1))})
VALIDATION = Validation({"natural": SCORE, "proposed": SCORE}, WEIGHTS, 2, 10, 1280, 1000, "1M")


def test_record_survives_a_round_trip(tmp_path):
    VALIDATION.write(tmp_path / "validation.json")
    assert Validation.read(tmp_path / "validation.json") == VALIDATION


def test_scores_along_the_run_survive_a_round_trip_and_are_optional(tmp_path):
    scored = dataclasses.replace(SCORE, curves=((1.2, 0.9), (1.3, 1.1)))
    compute = equivalent_compute([640, 1280], SCORE.per_seed, np.array(scored.curves))
    mixtures = {"natural": scored, "proposed": scored}
    along = dataclasses.replace(VALIDATION, mixtures=mixtures, scored_tokens=(640, 1280), equivalent_compute=compute)
    along.write(tmp_path / "validation.json")
    assert Validation.read(tmp_path / "validation.json") == along
    # A file of an earlier version has none of these fields.
    VALIDATION.write(tmp_path / "validation.json")
    assert not {"scored_tokens", "equivalent_compute"} & files.read_json(tmp_path / "validation.json").keys()
    for curves, message in ((((1.2, 0.9),), "a row for each seed"), (((1.2,), (1.3,)), "for each of scored_tokens")):
        wrong = {"natural": dataclasses.replace(scored, curves=curves)}
        dataclasses.replace(along, mixtures=wrong).write(tmp_path / "validation.json")
        with pytest.raises(UserError, match=message):
            Validation.read(tmp_path / "validation.json")


def test_task_without_a_score_for_each_seed_is_an_error(tmp_path):
    short = dataclasses.replace(SCORE, tasks={"task": TaskScore(1.0, 0.1, (0.9,))})
    dataclasses.replace(VALIDATION, mixtures={"natural": short}).write(tmp_path / "validation.json")
    with pytest.raises(UserError, match=r"validation\.json: .*every task must have a score for each seed"):
        Validation.read(tmp_path / "validation.json")


def test_mixtures_with_other_tasks_are_an_error(tmp_path):
    other = dataclasses.replace(SCORE, tasks={"another task": SCORE.tasks["task"]})
    mixtures = {"natural": SCORE, "proposed": other}
    dataclasses.replace(VALIDATION, mixtures=mixtures).write(tmp_path / "validation.json")
    with pytest.raises(UserError, match="all mixtures must be scored on the same tasks"):
        Validation.read(tmp_path / "validation.json")
