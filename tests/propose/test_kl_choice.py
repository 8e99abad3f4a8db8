import dataclasses

import numpy as np
import pytest

from olmix_jax.laws import evaluate, log_linear, warped_gp
from olmix_jax.propose.kl_choice import SPLITS, choose_kl_weight
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


def test_too_few_runs_are_an_error_that_says_how_many_are_needed():
    problem, ratios_KM = free_problem(), np.random.default_rng(1).dirichlet(np.ones(5), size=6)
    with pytest.raises(
        UserError, match="6 different mixtures are too few to fit laws to halves of them; add runs up to 14"
    ):
        choose_kl_weight(log_linear.LAW, ratios_KM, np.ones((6, 6)), problem, LAMBDAS, natural_M=problem.anchor_M)
