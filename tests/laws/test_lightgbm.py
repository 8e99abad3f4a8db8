"""Trees of the real library if it is installed, else the error with the command to install it."""

import sys

import numpy as np
import pytest

from olmix_jax.laws import lightgbm
from olmix_jax.utils.errors import UserError


def swarm(runs=80, seed=0):
    rng = np.random.default_rng(seed)
    ratios_KM = rng.dirichlet(np.ones(3), size=runs)
    return ratios_KM, np.exp(ratios_KM @ rng.normal(size=(3, 2)))


@pytest.fixture
def library(monkeypatch):
    monkeypatch.setattr(lightgbm, "TREES", 100)
    return pytest.importorskip("lightgbm")


def test_missing_library_is_an_error_with_the_command_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(UserError, match="pip install -r requirements-lightgbm.txt"):
        lightgbm.fit(*swarm())


def test_predictions_match_the_library(library):
    ratios_KM, bpb_KN = swarm()
    fit = lightgbm.fit(ratios_KM, bpb_KN)
    regmix = {"task": "train", "boosting_type": "gbdt", "objective": "regression", "seed": 42, "learning_rate": 1e-2}
    for i in range(2):
        data = library.Dataset(ratios_KM, bpb_KN[:, i], params={"verbosity": -1})
        expected_K = library.train(regmix | {"num_iterations": 100, "verbosity": -1}, data).predict(ratios_KM)
        np.testing.assert_allclose(lightgbm.predict(fit.params, ratios_KM)[:, i], expected_K, rtol=1e-9)
    assert (fit.loss_N < 0.5 * ((bpb_KN - bpb_KN.mean(axis=0)) ** 2).sum(axis=0)).all()


def test_weights_repeat_runs(library):
    ratios_KM, bpb_KN = swarm()
    weight_K = np.arange(80) % 3
    params = lightgbm.Params(lightgbm.fit_weighted(ratios_KM, bpb_KN, weight_K[None]).model_N[0])
    rows = np.repeat(np.arange(80), weight_K)
    alone = lightgbm.fit(ratios_KM[rows], bpb_KN[rows]).params
    np.testing.assert_array_equal(*(lightgbm.predict(p, ratios_KM) for p in (params, alone)))
    with pytest.raises(UserError, match="whole numbers"):
        lightgbm.fit_weighted(ratios_KM, bpb_KN, np.full((1, 80), 0.5))


def test_unsampled_domains_and_few_runs_are_fitted(library):
    ratios_KM, bpb_KN = swarm()
    wide_KM = np.insert(ratios_KM, 1, 0.0, axis=1)
    wide, narrow = lightgbm.fit(wide_KM, bpb_KN), lightgbm.fit(ratios_KM, bpb_KN)
    assert wide.unseen == (1,) and lightgbm.describe(wide.params, 0, ("a", "b", "c", "d"))["splits"]["b"] == 0
    np.testing.assert_allclose(
        lightgbm.predict(wide.params, wide_KM), lightgbm.predict(narrow.params, ratios_KM), rtol=1e-12
    )
    few = lightgbm.fit(ratios_KM[:5], bpb_KN[:5]).params
    np.testing.assert_allclose(lightgbm.predict(few, ratios_KM), np.tile(bpb_KN[:5].mean(axis=0), (80, 1)), rtol=1e-6)


def test_models_are_saved_and_loaded_as_arrays(library, tmp_path):
    ratios_KM, bpb_KN = swarm()
    params = lightgbm.fit(ratios_KM, bpb_KN).params
    np.savez(tmp_path / "law.npz", **params._asdict())
    with np.load(tmp_path / "law.npz", allow_pickle=False) as stored:
        again = lightgbm.Params(**stored)
    np.testing.assert_array_equal(lightgbm.predict(again, ratios_KM), lightgbm.predict(params, ratios_KM))
