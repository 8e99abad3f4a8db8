"""The record of ``fit/fit.json``: round trip and checks of lengths and tasks."""

import dataclasses

import pytest

from olmix_jax.laws.fit_result import AverageFit, CoverageCurve, CurvePoint, FitResult, LearningCurve, TaskFit
from olmix_jax.utils.errors import UserError

SCORES = ("loss", "spearman_cv", "r2_cv", "rmse_cv", "coverage_cv", "stretch", "spearman_in_sample", "rmse_in_sample")
VALUES = {"task": (1.0, 1.1)}
AVERAGE = AverageFit((1.0, 1.1), (1.0, 1.1), (0.9, 1.0), (1.1, 1.2), 0.9)
CURVE = LearningCurve(
    *((1, 2), (0.8, 0.9), (0.1, 0.1), (0.9, 0.9), (0.2, 0.1), 2), now=CurvePoint(2, 0.9, 0.1), next=CurvePoint(12, 1, 0)
)


@pytest.fixture
def fit():
    means = dict.fromkeys(("spearman_cv_mean", "spearman_of_mean_cv", "r2_cv_mean", "rmse_cv_mean"), 0.9)
    return FitResult(
        tasks={"task": TaskFit(**dict.fromkeys(SCORES, 0.9), parameters={}, effects={"web": 0.1})},
        **means,
        **{"coverage_cv_mean": 0.9, "spearman_in_sample_mean": 1.0, "level": 0.9, "effect": "", "base": {"web": 1.0}},
        **{"runs": ("a", "b"), "measured": VALUES, "predicted_cv": VALUES, "low_cv": VALUES, "high_cv": VALUES},
        **{"average": AVERAGE, "coverage_curve": CoverageCurve((0.9,), (0.88,)), "learning_curve": CURVE},
        **{"unseen": (), "barely_sampled": {}, "law": "log_linear", "folds": 2, "digest": "digest"},
    )


def test_record_survives_a_round_trip(fit, tmp_path):
    fit.write(tmp_path / "fit.json")
    assert FitResult.read(tmp_path / "fit.json") == fit


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"low_cv": {}}, "low_cv has no values for the task 'task'"),
        ({"runs": ("a", "b", "c")}, "measured.task must have 3 values, not 2"),
        ({"average": dataclasses.replace(AVERAGE, high_cv=(1.0,))}, "high_cv must have 2 values, not 1"),
        ({"coverage_curve": CoverageCurve((0.5, 0.9), (0.5,))}, "covered must have 2 values, not 1"),
        ({"learning_curve": dataclasses.replace(CURVE, rmse_mean=())}, "rmse_mean must have 2 values, not 0"),
    ],
)
def test_missing_values_are_named(fit, tmp_path, change, message):
    dataclasses.replace(fit, **change).write(tmp_path / "fit.json")
    with pytest.raises(UserError, match=rf"fit\.json: {message}; delete the file and rerun --stages=fit"):
        FitResult.read(tmp_path / "fit.json")
