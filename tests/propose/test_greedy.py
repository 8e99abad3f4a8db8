"""greedy.py: choices of runs of two kinds at a common cost. test_next_runs.py has those of one kind."""

import numpy as np
import pytest

from olmix_jax.laws.joint_posterior import Covariances
from olmix_jax.propose import greedy
from olmix_jax.propose.greedy import Kinds, choose_greedily, choose_split

REAL, CHEAP, REFERENCES = 6, 8, 5
IS_CHEAP = np.arange(REAL + CHEAP) >= REAL


@pytest.fixture
def matrix_XX():
    """Covariances of real candidates, cheap candidates and reference mixtures."""
    root_XX = np.random.default_rng(0).normal(size=(REAL + CHEAP + REFERENCES, 10))
    return root_XX @ root_XX.T


def covariances(matrix_XX, noise=(0.5, 0.3)) -> Covariances:
    """Return the covariances of one task."""
    number = REAL + CHEAP
    return Covariances(
        np.diag(matrix_XX)[None, :number].copy(),
        matrix_XX[None, :number, number:].copy(),
        np.diag(matrix_XX)[None, number:].copy(),
        lambda c: matrix_XX[None, :number, c],
        np.where(IS_CHEAP, noise[1], noise[0])[None],
    )


def test_choice_of_given_numbers_takes_the_most_information_at_every_step(matrix_XX):
    """Every step against the covariance matrix, conditioned as a whole."""
    noise_C, left, expected, share = np.where(IS_CHEAP, 0.3, 0.5), {False: 2, True: 3}, [], 1.0
    choice = choose_greedily(covariances(matrix_XX), 2, kinds=Kinds(IS_CHEAP, 3))
    while any(left.values()):
        variance_Q = np.diag(matrix_XX)[REAL + CHEAP :]
        lost_CQ = matrix_XX[: REAL + CHEAP, REAL + CHEAP :] ** 2
        lost_CQ /= (np.diag(matrix_XX)[: REAL + CHEAP] + noise_C)[:, None]
        gain_C = -0.5 * np.log1p(-lost_CQ / variance_Q).mean(axis=1)
        allowed_C = np.array([left[bool(cheap)] > 0 for cheap in IS_CHEAP])
        allowed_C[expected] = False
        c = int(np.where(allowed_C, gain_C, -1).argmax())
        expected.append(c)
        left[bool(IS_CHEAP[c])] -= 1
        share *= np.exp(-gain_C[c])
        matrix_XX = matrix_XX - np.outer(matrix_XX[c], matrix_XX[c]) / (matrix_XX[c, c] + noise_C[c])
    assert choice.index_B.tolist() == expected and choice.left_B[-1] == pytest.approx(share, rel=1e-9)


def split(matrix_XX, number, cost, ratios_CM=None, noise=(0.5, 0.3), first=0):
    return choose_split(covariances(matrix_XX, noise), number, None, ratios_CM, 0.5, first, IS_CHEAP, cost)


@pytest.mark.parametrize(("cost", "noise"), [(0.5, (0.5, 0.3)), (0.3, (20.0, 0.1)), (0.5, (0.01, 30.0))])
def test_split_leaves_the_least_uncertainty_of_all_that_cost_as_much(matrix_XX, cost, noise):
    best, alone = split(matrix_XX, 3, cost, noise=noise)
    assert len(alone.index_B) == 3 and not IS_CHEAP[alone.index_B].any()
    all_left = [
        choose_greedily(covariances(matrix_XX, noise), real, kinds=Kinds(IS_CHEAP, int((3 - real) / cost + 1e-9)))
        for real in range(4)
    ]
    assert best.left_B[-1] == min(of.left_B[-1] for of in all_left) <= alone.left_B[-1]
    cheap = int(IS_CHEAP[best.index_B].sum())
    assert len(best.index_B) - cheap + cost * cheap <= 3 + 1e-9
    assert bool(cheap) == (noise[1] < 1)


def test_costs_that_add_up_to_the_budget_with_rounding_are_all_spent(matrix_XX):
    """0.3 is below 3 · 0.1 in binary."""
    best, _ = split(matrix_XX, 1, 1 / 3, noise=(1e3, 0.1))
    assert len(best.index_B) == 3 and IS_CHEAP[best.index_B].all()


def test_number_of_cheap_runs_is_limited(matrix_XX, monkeypatch):
    monkeypatch.setattr(greedy, "MOST_CHEAP", 2)
    best, _ = split(matrix_XX, 3, 1e-3, noise=(1e3, 0.1))
    assert IS_CHEAP[best.index_B].sum() == 2 == (~IS_CHEAP[best.index_B]).sum()


def test_first_candidates_come_first_and_runs_keep_their_distance_to_those_of_their_kind(matrix_XX):
    ratios_CM = np.zeros((REAL + CHEAP, 2))
    ratios_CM[:, 0] = np.arange(REAL + CHEAP) % 2  # two mixtures, of both kinds
    ratios_CM[:, 1] = 1 - ratios_CM[:, 0]
    best, alone = split(matrix_XX, 3, 0.1, ratios_CM, (0.5, 0.01), first=1)
    assert best.index_B[0] == alone.index_B[0] == 0 and len(alone.index_B) == 2
    assert sorted((IS_CHEAP[c], ratios_CM[c, 0]) for c in best.index_B) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_without_cheap_candidates_the_choice_is_that_of_real_runs(matrix_XX):
    best, alone = choose_split(covariances(matrix_XX), 3, None, None, 0.5, 0, np.zeros(REAL + CHEAP, bool), 1.0)
    expected = choose_greedily(covariances(matrix_XX), 3)
    assert best is alone and best.index_B.tolist() == expected.index_B.tolist()
    np.testing.assert_array_equal(best.left_B, expected.left_B)
