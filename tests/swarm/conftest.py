"""Fixtures of the tests of this folder."""

import pytest

from olmix_jax.utils import progress


@pytest.fixture
def logged(monkeypatch):
    """Return the list of logged lines."""
    lines = []
    monkeypatch.setattr(progress.log, "info", lambda text, *args: lines.append(text % args))
    return lines
