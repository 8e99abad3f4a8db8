"""The parent that updates start from."""

import pytest

from tests.update import workdirs


@pytest.fixture(scope="package")
def parent(tmp_path_factory):
    """A finished workdir over four domains. Tests must not change it."""
    return workdirs.make_parent(tmp_path_factory.mktemp("parent"))
