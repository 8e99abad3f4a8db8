"""The mean over tasks: weights, names, and weights of the columns behind families."""

import numpy as np
import pytest

from olmix_jax.swarm import task_means
from olmix_jax.swarm.task_means import task_mean

FAMILIES = {"big": ["a*"], "small": ["b"]}


def test_mean_is_weighted_and_equal_by_default():
    bpb = {"a": 1.0, "b": 3.0}
    assert task_mean(bpb) == task_mean(bpb, {}) == 2.0
    assert task_mean(bpb, {"a": 3, "b": 1}) == 1.5 and task_mean(bpb, {"b": 2.0}) == 3.0
    seeds = {"a": (1.0, 2.0), "b": (3.0, 6.0)}
    np.testing.assert_array_equal(task_mean(seeds, {"a": 1, "b": 1}), [2.0, 4.0])


@pytest.mark.parametrize(
    ("weights", "name"),
    [
        ({}, "mean of 3 tasks"),
        ({"a": 0.2, "b": 0.2, "c": 0.2}, "mean of 3 tasks"),
        ({"a": 0.6, "b": 0.2, "c": 0.2}, "weighted mean of 3 tasks"),
        ({"a": 0.6, "b": 0.4, "c": 0.0}, "weighted mean of 2 of 3 tasks"),
        ({"a": 1.0, "b": 0.0, "c": 0.0}, "task a alone"),
    ],
)
def test_name_says_whether_tasks_weigh_the_same(weights, name):
    assert task_means.name(3, weights) == name
    assert task_means.word(weights) == ("weighted mean" if name != "mean of 3 tasks" else "mean")


def test_one_task_is_singular():
    assert task_means.name(1, {}) == "mean of 1 task"


def test_weights_of_families_become_weights_of_their_tasks():
    columns = ("a1", "b", "a2")
    settings = {"mmlu_groups": True, "granularity": "family", "families": FAMILIES}
    weights = task_means.weights_of_columns({"big": 0.9, "small": 0.1}, columns, **settings)
    assert weights == pytest.approx({"a1": 0.45, "b": 0.1, "a2": 0.45})
    scores = {"a1": 1.0, "a2": 2.0, "b": 5.0}
    assert task_mean(scores, weights) == pytest.approx(0.9 * 1.5 + 0.1 * 5.0)


def test_columns_that_the_law_leaves_out_have_no_weight():
    settings = {"mmlu_groups": True, "granularity": "task", "families": None}
    assert task_means.weights_of_columns({"a": 0.5, "b": 0.5}, ("a", "b", "dropped"), **settings) == {
        "a": 0.5,
        "b": 0.5,
        "dropped": 0.0,
    }
