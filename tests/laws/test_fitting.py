"""Fits of a table: complete, cached by content, and refused early if they cannot succeed."""

import dataclasses

import numpy as np
import pytest

from olmix_jax import laws
from olmix_jax.laws import fitting, params_files
from olmix_jax.laws.fit_result import FitResult
from olmix_jax.utils.errors import UserError
from tests.laws.synthetic import table


def options(law="warped_gp", **changes):
    return fitting.Options(**({"law": law, "starts": 4, "folds": 4, "resamples": 5, "seed": 0} | changes))


@pytest.mark.parametrize("law", ["warped_gp", "log_linear", "search"])
def test_fit_writes_parameters_samples_and_a_readable_result(law, tmp_path):
    result = fitting.fit(table(), options(law), tmp_path)
    result.write(tmp_path / "fit.json")  # refuses NaN
    assert FitResult.read(tmp_path / "fit.json") == result
    assert result.law == law and result.spearman_loo_mean is not None
    fitted = params_files.load_fitted(tmp_path, laws.LAWS[law])
    assert fitted.predict_samples(table().ratios_KM).shape == (5, 24, 2)
    if law != "search":
        # More of a task's own domain helps it.
        assert result.tasks["x"].effects["a"] < 0 < result.tasks["x"].spearman_cv


def test_cache_key_changes_with_data_options_and_code(monkeypatch):
    """PITFALL 4: tasks, the order of columns, options, natural distribution and code are all in the key."""
    base = table()
    keys = [
        fitting.key(base, options()),
        fitting.key(table(seed=1), options()),
        fitting.key(table(tasks=("x", "z")), options()),
        fitting.key(dataclasses.replace(base, domains=("b", "a", "c")), options()),
        fitting.key(dataclasses.replace(base, runs=base.runs[::-1]), options()),
        fitting.key(dataclasses.replace(base, natural_M=None), options()),
        fitting.key(base, options("log_linear")),
        fitting.key(base, options(seed=1)),
        fitting.key(base, options(folds=5)),
    ]
    assert len(set(keys)) == len(keys) and fitting.key(table(), options()) == keys[0]
    monkeypatch.setattr(fitting.pathlib.Path, "read_bytes", lambda path: b"other code")
    assert fitting.key(base, options()) != keys[0]


def test_unchanged_fit_comes_from_the_cache_and_an_incomplete_one_is_repeated(tmp_path, monkeypatch):
    law, calls = laws.LAWS["search"], []

    def fit(*args, **kwargs):
        calls.append(args)
        return law.fit(*args, **kwargs)

    monkeypatch.setitem(laws.LAWS, "search", dataclasses.replace(law, fit=fit))
    first = fitting.fit(table(), options("search"), tmp_path)
    (tmp_path / "samples.npz").unlink()
    again = fitting.fit(table(), options("search"), tmp_path)
    assert dataclasses.replace(first, wall_s=0) == dataclasses.replace(again, wall_s=0) and len(calls) == 1
    assert (tmp_path / "samples.npz").exists()
    cache = tmp_path / "cache" / fitting.key(table(), options("search"))
    (cache / "fit.json").unlink()  # written last, so a fit without it is incomplete
    (cache / "params.npz").write_bytes(b"torn")
    fitting.fit(table(), options("search"), tmp_path)
    assert len(calls) == 2
    params_files.load(tmp_path / "params.npz", law)


def test_fewer_runs_than_parameters_are_an_error(tmp_path):
    """PITFALL 3: the message says how many runs the law needs."""
    few = table(runs=4)
    with pytest.raises(UserError, match="4 runs"):
        fitting.fit(few, options("log_linear", folds=2), tmp_path)
    assert np.isfinite(fitting.fit(few, options(folds=2), tmp_path).spearman_cv_mean)


def test_impossible_folds_are_refused_before_the_fit(monkeypatch, tmp_path):
    law = dataclasses.replace(laws.LAWS["warped_gp"], fit=lambda *args, **kwargs: pytest.fail("fitted"))
    monkeypatch.setitem(laws.LAWS, "warped_gp", law)
    with pytest.raises(UserError, match="fit.folds to 24 or less"):
        fitting.fit(table(), options(folds=25), tmp_path)


def test_search_for_hyperparameters_that_ends_early_is_a_warning(monkeypatch, tmp_path, caplog):
    law = laws.LAWS["search"]

    def fit(*args, **kwargs):
        return law.fit(*args, **kwargs)._replace(promised_N=np.array([0.5, 1.5]) * fitting.UNSETTLED)

    fitting.fit(table(), options("search"), tmp_path)
    assert "ended early" not in caplog.text
    monkeypatch.setitem(laws.LAWS, "search", dataclasses.replace(law, fit=fit))
    fitting.fit(table(), options("search", seed=1), tmp_path)
    assert "ended early for y;" in caplog.text


def test_samples_of_a_law_without_a_posterior_are_bootstrap_refits():
    swarm, law = table(), laws.LAWS["search"]
    params = law.fit(swarm.ratios_KM, swarm.bpb_KN).params
    drawn = fitting.samples(law, params, swarm.ratios_KM, swarm.bpb_KN, 200, weight_K=np.ones(24))
    # A bootstrap of 24 runs leaves out a share of (1 − 1/24)^24 = 0.36 of them.
    assert drawn.present_K.shape == (200, 24) and abs(drawn.present_K.mean() - 0.64) < 0.02
    weight_K = np.arange(24) != 3
    assert (
        fitting.samples(law, params, swarm.ratios_KM, swarm.bpb_KN, 20, weight_K=weight_K).present_K[:, 3] == 0
    ).all()


def test_changed_library_makes_the_fit_stage_stale(monkeypatch):
    before = fitting.code()
    assert fitting.code() == before
    monkeypatch.setattr(fitting.importlib.metadata, "version", lambda library: "another")
    assert fitting.code() != before
