"""Weights of tasks and families from ``propose.task_weights``."""

import numpy as np
import pytest

from olmix_jax.propose.task_weights import task_weights
from olmix_jax.utils.errors import UserError


def test_task_weights_are_normalised_and_unnamed_tasks_weigh_nothing(tmp_path):
    tasks = ("arc", "mmlu", "code")
    np.testing.assert_allclose(task_weights("", tasks), 1 / 3)
    # Row 17 of docs/pitfalls.md.
    np.testing.assert_allclose(task_weights('{"code": 30, "arc": 10}', tasks), [0.25, 0, 0.75])
    (tmp_path / "weights.json").write_text('{"mmlu": 1e308, "arc": 1e308}')
    np.testing.assert_allclose(task_weights(str(tmp_path / "weights.json"), tasks), [0.5, 0.5, 0])


def test_the_weight_of_a_family_is_spread_evenly_over_its_tasks():
    """The example of docs/proposal.md."""
    tasks = ("gsm8k", "minerva_math_x", "mbpp", "piqa")
    weights_N = task_weights('{"math": 2, "code": 1}', tasks)
    np.testing.assert_allclose(weights_N, np.array([1, 1, 1, 0]) / 3)
    np.testing.assert_allclose(task_weights('{"math": 1, "piqa": 3}', tasks), [0.125, 0.125, 0, 0.75])
    families = '{"chosen": ["gsm8k", "piqa"], "rest": ["m*"]}'
    np.testing.assert_allclose(task_weights('{"chosen": 1}', tasks, families=families), [0.5, 0, 0, 0.5])
    # A name that is a task and a family means the task.
    np.testing.assert_allclose(task_weights('{"math": 1}', ("math", "code")), [1, 0])
    with pytest.raises(UserError, match="names gsm8k twice"):
        task_weights('{"math": 1, "gsm8k": 1}', tasks)
    with pytest.raises(UserError, match="unknown tasks: mth; the tasks are .*, and their families math, code, qa"):
        task_weights('{"mth": 1}', tasks)


@pytest.mark.parametrize(
    "spec, message",
    [
        ('{"cod": 1}', "unknown tasks: cod"),
        ('{"code": 1, "arc": 2, "code": 3}', "propose.task_weights`: code is there twice"),
        ('{"code": -1}', "code must be"),
        ('{"code": "1"}', "code must be"),
        ('{"code": NaN}', "code must be"),
        ('{"code": 0}', "all weights are 0"),
        ('{"code": ', "not valid JSON"),
        ("nowhere.json", "no such file"),
    ],
)
def test_invalid_task_weights_are_errors(spec, message):
    with pytest.raises(UserError, match=message):
        task_weights(spec, ("arc", "code"))
