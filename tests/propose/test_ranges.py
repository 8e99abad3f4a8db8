"""The ranges of the runs, and the nearest mixtures within them."""

import numpy as np
import pytest

from olmix_jax.propose import ranges

RUNS_KM = np.array([[0.1, 0.3, 0.6], [0.0, 0.5, 0.5], [0.2, 0.3, 0.5], [0.1, 0.1, 0.8]])


def test_nearest_mixture_within_the_ranges_moves_only_what_is_beyond():
    of = ranges.ranges(RUNS_KM)
    inside_M, outside_M = np.array([0.15, 0.25, 0.6]), np.array([0.6, 0.2, 0.2])
    np.testing.assert_array_equal(ranges.nearest(of, inside_M), inside_M)
    near_M = ranges.nearest(of, outside_M)
    assert near_M.sum() == pytest.approx(1)
    assert (near_M >= of.low_M - 1e-12).all() and (near_M <= of.high_M + 1e-12).all()


def test_beyond_has_a_sign_and_ignores_rounding():
    of = ranges.ranges(RUNS_KM)
    np.testing.assert_allclose(ranges.beyond(of, np.array([0.6, 0.2, 0.2])), [0.4, 0.0, -0.3], atol=1e-12)
    # A sequence more than any run is rounding.
    assert (ranges.beyond(of, np.array([0.2005, 0.2995, 0.5])) == 0).all()
