"""The least slack with which guards can hold, and the advice that follows from it."""

import re
import time

import numpy as np
import pytest

from olmix_jax.laws import FittedLaw, log_linear
from olmix_jax.propose import guards, propose
from olmix_jax.propose.guard_slack import least_slack
from olmix_jax.propose.options import Options
from olmix_jax.propose.swarm_facts import SwarmFacts
from olmix_jax.solver.status import Status
from olmix_jax.utils.errors import UserError
from tests.propose.guard_cases import EACH_TASK, NAMES, guards_of, infeasible_problem, random_problem


def test_guards_hold_with_the_least_slack_and_not_with_less():
    problem = infeasible_problem()
    least = least_slack(problem, guards_of(problem, EACH_TASK, 0.0), problem.anchor_M[None])
    assert 0 < least.lower_bound <= least.excess and least.excess > 1e-3 and least.hardest in NAMES
    for slack, hold in ((least.excess + 1e-6, True), (least.excess - 1e-4, False)):
        guarded = guards.solve(problem, guards_of(problem, EACH_TASK, slack), starts_SM=problem.anchor_M[None])
        assert guarded.solution.converged == hold


def test_a_start_at_which_guards_hold_is_returned():
    problem = random_problem(1)
    least = least_slack(problem, guards_of(problem, EACH_TASK, 0.01), problem.anchor_M[None])
    assert least.excess == pytest.approx(-0.01)
    np.testing.assert_allclose(least.weights_M, problem.anchor_M, atol=1e-15)


def proposal(params, natural_M, **options):
    """Return a proposal for unnamed domains and tasks."""
    tasks, domains = ([f"{letter}{i}" for i in range(n)] for letter, n in zip("td", params.coef_NM.shape))
    swarm = SwarmFacts(tasks=tasks, domains=domains, natural_M=natural_M)
    return propose(FittedLaw(log_linear.LAW, params), swarm, Options(explore=False, **options))


@pytest.mark.parametrize("kl_weight", [0.05, 0.0])
def test_infeasible_guards_are_refused_within_seconds_with_advice_that_works(kl_weight):
    """The size of the published swarm. Regression: the search for the least slack did not end."""
    rng = np.random.default_rng(3)
    params = log_linear.Params(np.log(rng.uniform(0.3, 0.6, 52)), rng.normal(size=(52, 24)))
    natural_M, settings = rng.dirichlet(np.full(24, 3.0)), {"bounds": {"d3": [0.5, 1]}, "kl_weight": kl_weight}
    begun = time.monotonic()
    with pytest.raises(UserError, match=r"propose.guard = 0 BPB.*t\d+") as error:
        proposal(params, natural_M, guard=0.0, **settings)
    assert time.monotonic() - begun < 20
    advised = float(re.search(r"raise it to (\S+), or", str(error.value))[1])
    allowed = proposal(params, natural_M, guard=advised, **settings)
    assert allowed.status is Status.OPTIMAL and allowed.guard.worst <= advised + 1e-9
    with pytest.raises(UserError, match="no mixture"):
        proposal(params, natural_M, guard=0.99 * advised, **settings)
