"""Parameters on disk: plain arrays, checked against the law that reads them."""

import jax
import numpy as np
import pytest

from olmix_jax.laws import log_linear, params_files, two_fidelity, warped_gp
from olmix_jax.utils.errors import UserError

PARAMS = log_linear.Params(np.array([-1.0]), np.array([[0.1, 0.2, 0.3]]))


def test_parameters_are_arrays_without_pickles(tmp_path):
    params_files.save(tmp_path / "p.npz", PARAMS)
    with np.load(tmp_path / "p.npz", allow_pickle=False) as arrays:
        assert set(arrays.files) == {"log_c_N", "coef_NM"}
    for written, read in zip(PARAMS, params_files.load(tmp_path / "p.npz", log_linear.LAW), strict=True):
        np.testing.assert_array_equal(read, written)


def test_an_optional_array_is_kept(tmp_path):
    params_files.save(tmp_path / "p.npz", PARAMS._replace(top_N=np.array([0.5])))
    np.testing.assert_array_equal(params_files.load(tmp_path / "p.npz", log_linear.LAW).top_N, [0.5])


def test_arrays_of_another_law_are_refused(tmp_path):
    params_files.save(tmp_path / "p.npz", PARAMS)
    with pytest.raises(UserError, match="p.npz: holds the arrays log_c_N, coef_NM, but warped_gp has ratios_KM"):
        params_files.load(tmp_path / "p.npz", warped_gp.LAW)


@pytest.mark.parametrize("content", [b"not arrays", b"", None])
def test_unreadable_and_missing_files_are_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "p.npz").write_bytes(content)
    with pytest.raises(UserError, match="p.npz: cannot be read as a fitted law.*rerun --stages=fit"):
        params_files.load(tmp_path / "p.npz", log_linear.LAW)


def test_fitted_law_is_read_with_and_without_samples(tmp_path):
    params_files.save(tmp_path / params_files.PARAMS, PARAMS)
    assert params_files.load_fitted(tmp_path, log_linear.LAW).samples is None
    samples = jax.tree.map(lambda x: np.stack([x, x + 1]), PARAMS)
    params_files.save(tmp_path / params_files.SAMPLES, samples)
    fitted = params_files.load_fitted(tmp_path, log_linear.LAW)
    assert fitted.law == log_linear.LAW and fitted.predict_samples(np.eye(3)).shape == (2, 3, 1)


def test_samples_of_a_posterior_are_drawn_when_they_are_read_and_arrays_of_older_versions_are_read(tmp_path):
    random = np.random.default_rng(0)
    ratios_KM = random.dirichlet(np.ones(3), size=12)
    params = warped_gp.fit(ratios_KM, 1 + random.random((12, 2))).params
    drawn = warped_gp.sample(params, 5, seed=3)
    params_files.save(tmp_path / params_files.PARAMS, params)
    params_files.save_draws(tmp_path / params_files.SAMPLES, 5, 3)
    assert (tmp_path / params_files.SAMPLES).stat().st_size < 2000
    new = params_files.load_fitted(tmp_path, warped_gp.LAW)
    params_files.save(tmp_path / params_files.SAMPLES, drawn)
    old = params_files.load_fitted(tmp_path, warped_gp.LAW)
    for fitted in (new, old):
        for expected, found in zip(drawn, fitted.samples, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_parameters_within_parameters_are_dotted_arrays(tmp_path):
    random = np.random.default_rng(0)
    real, cheap = ((random.dirichlet(np.ones(3), size=k), 1 + random.random((k, 2))) for k in (6, 12))
    for base in (None, two_fidelity.LAW.base(*cheap)):
        params = two_fidelity.LAW.fit(*real, base=base).params
        params_files.save(tmp_path / "p.npz", params)
        with np.load(tmp_path / "p.npz", allow_pickle=False) as arrays:
            assert {"slope_N", "own.theta_NP"} <= set(arrays.files)
            assert ("cheap.theta_NP" in arrays.files) == (base is not None)
        found = params_files.load(tmp_path / "p.npz", two_fidelity.LAW)
        assert jax.tree.structure(found) == jax.tree.structure(params)
        jax.tree.map(np.testing.assert_array_equal, found, params)
    np.savez(tmp_path / "p.npz", **{"own.nothing": np.ones(1), "slope_N": np.ones(1)})
    with pytest.raises(UserError, match="p.npz: holds the arrays .*, but two_fidelity has own, slope_N"):
        params_files.load(tmp_path / "p.npz", two_fidelity.LAW)
    with pytest.raises(UserError, match="p.npz: holds the arrays .*, but warped_gp has ratios_KM"):
        params_files.load(tmp_path / "p.npz", warped_gp.LAW)
