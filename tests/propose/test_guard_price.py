"""What it costs that no task is predicted worse than under natural."""

import numpy as np
import pytest

from olmix_jax.propose import guard_price
from tests.propose.cases import DOMAINS, log_linear_proposal, sampled_params

# The optimum for math alone makes chat worse.
MATH = {"math": 0.9, "chat": 0.1}


def test_price_is_that_of_the_proposal_with_guards():
    free = log_linear_proposal(explore=True, kl_weight=0.01, task_weights=MATH)
    guarded = log_linear_proposal(kl_weight=0.01, task_weights=MATH, guard=0.0)
    price = free.guard_price
    assert free.worse_tasks == ("chat",) and price.worse == 1
    assert price.largest == pytest.approx(free.predicted["chat"] - free.predicted_natural["chat"])
    assert [price.weights[d] for d in DOMAINS] == pytest.approx([guarded.weights[d] for d in DOMAINS], abs=1e-6)
    assert price.gain == pytest.approx(free.headline.natural - free.headline.proposed)
    assert price.guarded_gain == pytest.approx(guarded.headline.natural - guarded.headline.proposed, abs=1e-8)
    assert 0 < price.guarded_gain < price.gain
    assert any("propose.guard=0 makes no task worse (now 1" in text for text in free.warnings)


@pytest.mark.parametrize("options", [{"guard": 0.0}, {"tail": 0.5}, {"method": "search", "ratios_KM": np.eye(3)}])
def test_with_guards_or_without_a_solver_there_is_no_price(options):
    arguments = {"explore": True, "kl_weight": 0.01, "task_weights": MATH, "samples": sampled_params(0.1)}
    assert log_linear_proposal(**arguments | options).guard_price is None


def test_without_a_worse_task_there_is_no_price():
    assert log_linear_proposal(explore=True, task_weights=MATH).guard_price is not None
    proposal = log_linear_proposal(explore=True, task_weights=MATH, bounds={"web:b": 0.3, "web:a": 0.1})
    assert proposal.worse_tasks == () and proposal.guard_price is None


def test_failure_leaves_the_proposal(monkeypatch):
    def fails(*_):
        raise MemoryError

    monkeypatch.setattr(guard_price, "guard_price", fails)
    proposal = log_linear_proposal(explore=True, kl_weight=0.01, task_weights=MATH)
    assert proposal.guard_price is None and any("price of keeping every task" in text for text in proposal.left_out)
