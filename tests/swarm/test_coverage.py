"""coverage.py: runs that sample a domain, and the range of its weight."""

import numpy as np

from olmix_jax.swarm import coverage


def test_coverage_counts_runs_and_summarises_weights():
    got = coverage.by_domain(np.array([[0.75, 0.25], [1.0, 0.0]]), ("a", "b"))
    assert got == {"a": coverage.Coverage(2, 0.75, 0.875, 1.0), "b": coverage.Coverage(1, 0.0, 0.125, 0.25)}
    assert isinstance(got["a"].runs, int)
