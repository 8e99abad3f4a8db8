"""The summary of a fit: complete by task and by run, and effects that follow from the law."""

import dataclasses

import numpy as np

from olmix_jax.laws import fitting, log_linear, params_files, summary
from tests.laws.synthetic import table


def fit(swarm, folder, **changes):
    """Return the FitResult of a quick fit."""
    options = {"law": "search", "starts": 1, "folds": 4, "resamples": 0, "seed": 0} | changes
    return fitting.fit(swarm, fitting.Options(**options), folder)


def test_result_has_a_value_for_every_task_run_and_domain(tmp_path):
    result = fit(table(), tmp_path, law="log_linear")
    assert list(result.tasks) == ["x", "y"] and result.runs == table().runs
    for by_task in (result.measured, result.predicted_cv, result.low_cv, result.high_cv):
        assert list(by_task) == ["x", "y"] and {len(values) for values in by_task.values()} == {24}
    assert all(list(task.effects) == ["a", "b", "c"] for task in result.tasks.values())
    assert len(result.average.measured) == len(result.average.low_cv) == 24
    np.testing.assert_allclose(result.average.measured, np.mean([*result.measured.values()], axis=0))
    assert result.coverage_curve.nominal == summary.LEVELS
    assert (np.diff(result.coverage_curve.covered) >= 0).all()
    assert result.effect == "change in BPB when a tenth of the natural mixture is replaced by the domain"
    assert result.learning_curve.now.runs == 24 and result.folds == 4 and result.wall_s > 0


def test_effects_replace_a_tenth_of_the_base_mixture():
    params = log_linear.Params(np.zeros(1), np.array([[-1.0, 0.0, 1.0]]))
    base_M, effect_MN = summary.effects(log_linear.LAW, params, table())

    def law(p_M):
        return np.exp(p_M @ [-1.0, 0.0, 1.0])

    expected_M = [law(0.9 * base_M + 0.1 * np.eye(3)[j]) - law(base_M) for j in range(3)]
    np.testing.assert_allclose(base_M, [0.5, 0.3, 0.2])
    np.testing.assert_allclose(effect_MN[:, 0], expected_M)


def test_effects_in_the_result_are_those_of_the_written_parameters(tmp_path):
    result = fit(table(), tmp_path, law="log_linear")
    params = params_files.load(tmp_path / "params.npz", log_linear.LAW)
    _, effect_MN = summary.effects(log_linear.LAW, params, table())
    np.testing.assert_allclose(effect_MN[:, 1], list(result.tasks["y"].effects.values()), atol=1e-12)


def test_unsampled_domain_is_reported_and_changes_the_digest(tmp_path):
    base = table()
    ratios_KM = np.insert(base.ratios_KM, 1, 0.0, axis=1)
    wide = dataclasses.replace(base, domains=("a", "new", "b", "c"), ratios_KM=ratios_KM, natural_M=None)
    result = fit(wide, tmp_path)
    assert result.digest != fit(base, tmp_path / "other").digest
    assert result.unseen == ("new",) and result.effect.startswith("change in BPB when a tenth of the average run's")
    assert {name: (d.runs, d.max) for name, d in result.barely_sampled.items()} == {"new": (0, 0.0)}
    assert not (tmp_path / "samples.npz").exists()
