"""Descriptions of solutions for people (also covers status.py)."""

import numpy as np
import pytest

from olmix_jax.solver.solution import Solution
from olmix_jax.solver.status import Status


def solution(status, **fields):
    facts = {"weights_M": np.ones(1), "value": 1.0, "kl": 0.0, "gap": None, "iterations": 500, "residual": None}
    return Solution(status, **facts | {"multipliers_M": None} | fields)


@pytest.mark.parametrize(
    "status, fields, text",
    [
        (Status.OPTIMAL, {"gap": 1e-12}, "optimal"),
        (Status.LOCAL_OPTIMUM, {"starts": 24, "agreeing": 7}, "local optimum, reached from 7 of 24 starts"),
        (Status.SEARCHED, {"starts": 20002}, "best of 20,002 candidates"),
        (Status.MAX_ITERATIONS, {"gap": 1e-3}, "not converged (gap 0.001 BPB after 500 iterations)"),
        (Status.MAX_ITERATIONS, {"residual": 0.02}, "not converged (residual 0.02 after 500 iterations)"),
        (
            Status.MAX_ITERATIONS,
            {"gap": 1e-3, "guard_excess": 0.01},
            "not converged (a guard is exceeded by 0.01 BPB)",
        ),
        (
            Status.MAX_ITERATIONS,
            {"gap": 1e-3, "guard_excess": -0.01},
            "not converged (gap 0.001 BPB after 500 iterations)",
        ),
        (Status.MAX_ITERATIONS, {}, "not converged"),
    ],
)
def test_description_has_the_figures_of_the_status(status, fields, text):
    assert solution(status, **fields).describe() == text


def test_only_a_solver_that_ran_out_of_iterations_has_not_converged():
    assert [status for status in Status if not solution(status).converged] == [Status.MAX_ITERATIONS]
