"""Search: the nearest run is the prediction, and the best run is the proposal."""

import numpy as np

from olmix_jax import laws
from olmix_jax.laws import search

RATIOS_KM = np.array([[1.0, 0, 0], [0, 1, 0], [0.5, 0.5, 0], [0.4, 0.5, 0.1]])
BPB_KN = np.array([[1.0, 2.0], [3.0, 1.0], [2.0, 1.2], [0.9, 4.0]])


def test_nearest_run_is_the_prediction():
    fit = search.fit(RATIOS_KM, BPB_KN)
    np.testing.assert_array_equal(laws.evaluate(search.LAW, fit.params, RATIOS_KM), BPB_KN)
    found_KN = laws.evaluate(search.LAW, fit.params, np.array([[0.9, 0.1, 0], [0, 0, 1.0]]))
    np.testing.assert_array_equal(found_KN, BPB_KN[[0, 3]])
    assert not fit.loss_N.any() and fit.unseen == () and search.fit(RATIOS_KM[:3], BPB_KN[:3]).unseen == (2,)


def test_runs_of_weight_zero_are_left_out():
    params = search.fit_weighted(RATIOS_KM, BPB_KN, np.array([[1, 1, 0, 2], [0, 1, 1, 1]]))
    first, second = (search.Params(*(x[r] for x in params)) for r in range(2))
    np.testing.assert_array_equal(laws.evaluate(search.LAW, first, RATIOS_KM), BPB_KN[[0, 1, 3, 3]])
    assert [search.best(p, [1, 1]) for p in (first, second)] == [0, 2]


def test_the_best_run_follows_the_task_weights():
    params = search.fit(RATIOS_KM, BPB_KN).params
    assert [search.best(params, w) for w in ([1, 0], [0, 1], [0.5, 0.5])] == [3, 1, 0]
    expected = {"best_run": 3, "bpb": 0.9, "mixture": {"a": 0.4, "b": 0.5, "c": 0.1}}
    assert search.describe(params, 0, ("a", "b", "c")) == expected and search.parameters(3) == 1
