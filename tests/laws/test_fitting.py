"""A fit and all that is reported of it: complete, cached by content, and honest about what is held out."""

import dataclasses

import numpy as np
import pytest

from olmix_jax import laws
from olmix_jax.laws import fitting, params_files, per_task
from olmix_jax.swarm.table import SwarmTable
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError


def table(runs=24, tasks=("x", "y"), seed=0):
    rng = np.random.default_rng(seed)
    ratios_KM = rng.dirichlet(np.full(3, 0.5), size=runs)
    bpb_KN = np.exp(-0.3 * np.sqrt(ratios_KM[:, : len(tasks)])) + 0.01 * rng.normal(size=(runs, len(tasks)))
    ids = tuple(f"r{k}" for k in range(runs))
    return SwarmTable(ids, ("a", "b", "c"), tasks, ratios_KM, bpb_KN, np.array([0.5, 0.3, 0.2]), None, ids)


def options(law="warped_gp", **changes):
    return fitting.Options(**({"law": law, "starts": 4, "folds": 4, "resamples": 5, "seed": 0} | changes))


@pytest.mark.parametrize("law", ["warped_gp", "log_linear", "search"])
def test_a_fit_is_complete(law, tmp_path):
    content = fitting.fit(table(), options(law), tmp_path)
    files.write_json(tmp_path / "fit.json", content)  # no NaN
    task = content["tasks"]["x"]
    assert {"loss", "spearman_cv", "r2_cv", "rmse_cv", "coverage_cv", "spearman_loo", "spearman_in_sample"} <= set(task)
    assert list(task["effects"]) == ["a", "b", "c"] and content["law"] == law
    assert [len(content[name]["x"]) for name in ("measured", "predicted_cv", "low_cv", "high_cv")] == [24] * 4
    params = params_files.load(tmp_path / "params.npz", laws.LAWS[law])
    drawn = params_files.load(tmp_path / "samples.npz", laws.LAWS[law])
    ratios_KM = table().ratios_KM
    assert laws.evaluate_each(laws.LAWS[law], drawn, ratios_KM).shape == (5, 24, 2)
    base_M, effect_MN = fitting.effects(laws.LAWS[law], params, table())
    np.testing.assert_allclose(base_M, [0.5, 0.3, 0.2])
    np.testing.assert_allclose(effect_MN[:, 0], list(task["effects"].values()), atol=1e-12)
    if law != "search":
        assert task["effects"]["a"] < 0 < task["spearman_cv"]  # more of its own domain helps


def test_effects_are_what_they_say():
    params = laws.log_linear.Params(np.zeros(1), np.array([[-1.0, 0.0, 1.0]]))
    base_M, effect_MN = fitting.effects(laws.log_linear.LAW, params, table())
    f = lambda p_M: np.exp(p_M @ [-1.0, 0.0, 1.0])  # noqa: E731
    expected = [f(0.9 * base_M + 0.1 * np.eye(3)[j]) - f(base_M) for j in range(3)]
    np.testing.assert_allclose(effect_MN[:, 0], expected)


def test_the_cache_is_keyed_by_everything_that_matters(monkeypatch):
    """PITFALL 4: tasks, their order of columns, options, natural distribution and code are all in the key."""
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


def test_a_fit_is_found_again_and_a_torn_one_is_made_again(tmp_path, monkeypatch):
    first = fitting.fit(table(), options(), tmp_path)
    monkeypatch.setattr(fitting, "_fit", lambda *args: pytest.fail("fitted again"))
    again = fitting.fit(table(), options(), tmp_path)
    assert {**first, "wall_s": 0} == {**again, "wall_s": 0}
    monkeypatch.undo()
    kept = tmp_path / "cache" / fitting.key(table(), options())
    (kept / "fit.json").unlink()  # written last: without it the rest does not count
    (kept / "params.npz").write_bytes(b"torn")
    fitting.fit(table(), options(), tmp_path)
    params_files.load(tmp_path / "params.npz", laws.warped_gp)


def test_what_is_on_disk_is_arrays_and_a_wrong_file_is_an_error(tmp_path):
    params_files.save(tmp_path / "p.npz", laws.log_linear.Params(np.zeros(1), np.zeros((1, 3))))
    with np.load(tmp_path / "p.npz", allow_pickle=False) as arrays:
        assert set(arrays.files) == {"log_c_N", "coef_NM"}
    with pytest.raises(UserError, match="p.npz: holds log_c_N"):
        params_files.load(tmp_path / "p.npz", laws.warped_gp)
    (tmp_path / "p.npz").write_bytes(b"not arrays")
    with pytest.raises(UserError, match="p.npz: cannot be read as a fitted law"):
        params_files.load(tmp_path / "p.npz", laws.warped_gp)


def test_too_few_runs_are_refused_by_what_the_law_needs(tmp_path):
    """PITFALL 3: the guard fires, and says how many runs it wants."""
    few = table(runs=4)
    with pytest.raises(UserError, match="4 runs"):
        fitting.fit(few, options("log_linear", folds=2), tmp_path)
    content = fitting.fit(few, options(folds=2), tmp_path)
    assert np.isfinite(content["spearman_cv_mean"])


def test_a_domain_without_runs_is_reported(tmp_path):
    base = table()
    ratios_KM = np.insert(base.ratios_KM, 1, 0.0, axis=1)
    wide = dataclasses.replace(base, domains=("a", "new", "b", "c"), ratios_KM=ratios_KM, natural_M=None)
    content = fitting.fit(wide, options(resamples=0), tmp_path)
    assert content["digest"] != fitting.fit(base, options(resamples=0), tmp_path / "other")["digest"]
    assert content["unseen"] == ["new"] and content["barely_sampled"] == {"new": {"runs": 0, "max": 0.0}}
    assert not (tmp_path / "samples.npz").exists()


def test_every_law_keeps_the_contract_that_fits_rely_on():
    for name, law in laws.LAWS.items():
        assert law.name == name and law.cheap_refits == (name != "lightgbm")


def test_a_search_for_hyperparameters_that_ended_early_is_said(monkeypatch, tmp_path):
    said = []
    monkeypatch.setattr(fitting.log, "warning", lambda text, *args: said.append(text % args))
    fitting.fit(table(), options(), tmp_path)
    assert not said
    monkeypatch.setattr(laws.warped_gp, "STEPS", 1)
    per_task._program.clear_cache()
    fitting.fit(table(), options(seed=1), tmp_path)
    per_task._program.clear_cache()
    assert any("ended early for x, y" in line for line in said)


def test_folds_that_cannot_be_are_refused_before_anything_is_fitted(monkeypatch, tmp_path):
    law = dataclasses.replace(laws.warped_gp.LAW, fit=lambda *args, **kwargs: pytest.fail("fitted"))
    monkeypatch.setitem(laws.LAWS, "warped_gp", law)
    with pytest.raises(UserError, match="fit.folds to 24 or less"):
        fitting.fit(table(), options(folds=25), tmp_path)
