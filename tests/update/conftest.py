"""The parent that updates start from."""

import pytest

from olmix_jax.update import trial_fits
from tests.update import workdirs


@pytest.fixture(scope="package")
def parent(tmp_path_factory):
    """A finished workdir over four domains. Tests must not change it."""
    return workdirs.make_parent(tmp_path_factory.mktemp("parent"))


@pytest.fixture(autouse=True)
def few_trial_fits(monkeypatch, request):
    """Judge choices by trial fits to two truths, which take most of the time; test_trial_fits.py has all of them."""
    if request.module.__name__ != "tests.update.test_trial_fits":
        monkeypatch.setattr(trial_fits, "RUNS", 1)
        monkeypatch.setattr(trial_fits, "LEAST_TRUTHS", 2)
