import numpy as np
import pytest

from olmix_jax.propose.task_weights import task_weights
from olmix_jax.utils.errors import UserError

TASKS = ("arc", "mmlu", "code")


def test_default_weights_are_proportional_to_sizes():
    np.testing.assert_allclose(task_weights(None, TASKS), 1 / 3)
    np.testing.assert_allclose(task_weights(None, ("math", "chat"), [3, 1]), [0.75, 0.25])


def test_weights_are_normalised_and_tasks_without_one_get_zero():
    """PITFALL 17."""
    np.testing.assert_allclose(task_weights({"code": 30, "arc": 10}, TASKS), [0.25, 0, 0.75])
    np.testing.assert_allclose(task_weights({"chat": 2}, ("math", "chat"), [3, 1]), [0, 1])


def test_largest_floats_do_not_overflow():
    np.testing.assert_allclose(task_weights({"mmlu": 1e308, "arc": 1e308}, TASKS), [0.5, 0.5, 0])


def test_weight_of_a_family_is_divided_among_its_tasks():
    tasks = ("gsm8k", "minerva_math_x", "mbpp", "piqa")
    np.testing.assert_allclose(task_weights({"math": 2, "code": 1}, tasks), np.array([1, 1, 1, 0]) / 3)
    np.testing.assert_allclose(task_weights({"math": 1, "piqa": 3}, tasks), [0.125, 0.125, 0, 0.75])
    families = {"mine": ["gsm8k", "piqa"], "rest": ["m*"]}
    np.testing.assert_allclose(task_weights({"mine": 1}, tasks, families=families), [0.5, 0, 0, 0.5])


def test_name_of_a_task_and_a_family_means_the_task():
    np.testing.assert_allclose(task_weights({"math": 1}, ("math", "code")), [1, 0])


def test_task_with_two_weights_is_an_error():
    with pytest.raises(UserError, match="gsm8k is weighted by name and by its family"):
        task_weights({"math": 1, "gsm8k": 1}, ("gsm8k", "mbpp", "piqa"))


def test_unknown_name_lists_tasks_and_families():
    with pytest.raises(UserError, match="unknown tasks: mth; the tasks are gsm8k, .*, and their families math, code"):
        task_weights({"mth": 1}, ("gsm8k", "mbpp"))
    with pytest.raises(UserError, match="unknown tasks: cod; the tasks are arc, codes. Families cannot be used"):
        task_weights({"cod": 1}, ("arc", "codes"))


@pytest.mark.parametrize("weight", [-1, "1", float("nan"), float("inf"), True, None])
def test_weight_that_is_not_a_number_of_zero_or_more_is_an_error(weight):
    with pytest.raises(UserError, match="the weight of code must be a number of 0 or more"):
        task_weights({"code": weight}, TASKS)


@pytest.mark.parametrize("weights", [{"code": 0}, {}])
def test_all_weights_zero_is_an_error(weights):
    with pytest.raises(UserError, match="all weights are 0"):
        task_weights(weights, TASKS)
