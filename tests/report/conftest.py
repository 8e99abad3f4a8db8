"""Sample results, made once per session."""

import pytest

from olmix_jax.report import style
from tests.report import samples


@pytest.fixture(autouse=True)
def low_resolution(monkeypatch):
    """Render figures quickly: the tests look at texts and sizes, not at pixels."""
    monkeypatch.setattr(style, "DPI", 48)


@pytest.fixture(scope="session")
def results():
    """Results of a first run."""
    return samples.first_run()


@pytest.fixture(scope="session")
def small():
    """Results of a small first run."""
    return samples.small_run()


@pytest.fixture(scope="session")
def workdir(results, tmp_path_factory):
    """A workdir with the files of ``results``. Tests must not change it."""
    return samples.write(results, tmp_path_factory.mktemp("first_run"))
