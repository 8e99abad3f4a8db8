import dataclasses

import numpy as np
import pytest

from olmix_jax.laws import evaluate, log_linear, warped_gp
from olmix_jax.propose.kl_choice import SPLITS, choose_kl_weight, chosen, not_chosen_by
from olmix_jax.solver.bounds import box
from olmix_jax.utils.errors import UserError
from tests.propose.test_path import five_domains

LAMBDAS = [0.01, 0.1, 1.0]


def free_problem():
    return dataclasses.replace(five_domains().problem, bounds=box(np.zeros(5), np.ones(5)))


@pytest.mark.parametrize(
    "law, noise, best", [(log_linear.LAW, 0.001, 0.01), (log_linear.LAW, 1.0, 1.0), (warped_gp.LAW, 0.001, 0.01)]
)
def test_lambda_is_small_for_a_clean_signal_and_large_for_noise(law, noise, best):
    rng, problem = np.random.default_rng(1), free_problem()
    ratios_KM = rng.dirichlet(np.ones(5), size=40)
    signal_KN = evaluate(log_linear.LAW, problem.params, ratios_KM) if noise < 0.1 else np.full((40, 6), 3.0)
    bpb_KN = signal_KN + noise * rng.normal(size=(40, 6))
    choice = choose_kl_weight(law, ratios_KM, bpb_KN, problem, LAMBDAS, natural_M=problem.anchor_M)
    assert choice.best == best, choice
    assert len(choice.gain) == len(choice.gain_error) == 3 and choice.splits == SPLITS and not choice.used


def test_gain_of_a_choice_is_that_of_a_split_which_did_not_choose():
    # The second split alone makes the first λ look best; the others agree on the second λ, by one standard error.
    gain_SL = np.array([[0.10, 0.20], [0.90, 0.10], [0.10, 0.20], [0.10, 0.20]])
    assert gain_SL.mean(axis=0).argmax() == 0
    np.testing.assert_array_equal(not_chosen_by(gain_SL[[0, 2, 3]]), [0.20, 0.20, 0.20])
    # Without the second split the others choose the second λ, where the second split gains least.
    assert not_chosen_by(gain_SL)[1] == 0.10
    assert chosen(gain_SL) == 1 and chosen(gain_SL[:, ::-1]) == 1


def test_gain_of_a_choice_is_unbiased_where_the_best_gain_is_not():
    """Independent splits of mixtures that are all as good as natural."""
    draws_TSL = np.random.default_rng(0).normal(size=(1000, SPLITS, 5))
    unseen_T = np.array([not_chosen_by(gain_SL).mean() for gain_SL in draws_TSL])
    shown_T = np.array([gain_SL.mean(axis=0)[chosen(gain_SL)] for gain_SL in draws_TSL])
    error = unseen_T.std() / np.sqrt(len(unseen_T))
    assert abs(unseen_T.mean()) < 3 * error < 0.1 < shown_T.mean()


def test_gain_of_a_choice_is_the_shown_one_where_all_splits_agree():
    rng, problem = np.random.default_rng(0), free_problem()
    ratios_KM, bpb_KN = rng.dirichlet(np.ones(5), size=24), 3 + 0.3 * rng.normal(size=(24, 6))
    choice = choose_kl_weight(warped_gp.LAW, ratios_KM, bpb_KN, problem, LAMBDAS, natural_M=problem.anchor_M)
    assert choice.best == 1.0 and choice.held_out_gain == pytest.approx(choice.gain[2], rel=1e-9)
    assert choice.held_out_gain_error == pytest.approx(choice.gain_error[2], rel=1e-9)


def test_too_few_runs_are_an_error_that_says_how_many_are_needed():
    problem, ratios_KM = free_problem(), np.random.default_rng(1).dirichlet(np.ones(5), size=6)
    with pytest.raises(
        UserError, match="6 different mixtures are too few to fit laws to halves of them; add runs up to 14"
    ):
        choose_kl_weight(log_linear.LAW, ratios_KM, np.ones((6, 6)), problem, LAMBDAS, natural_M=problem.anchor_M)
