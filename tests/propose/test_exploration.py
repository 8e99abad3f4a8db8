import numpy as np
import pytest

from olmix_jax.laws import evaluate, log_linear
from olmix_jax.utils.errors import UserError
from tests.propose.cases import PARAMS, log_linear_proposal, weights_of

FAMILIES = {"m": ["math"], "c": ["chat"]}
PAIR = {"web": {"web:a": 1, "web:b": 3}}


def test_chosen_lambda_is_used_and_is_on_the_path():
    rng = np.random.default_rng(1)
    ratios_KM = rng.dirichlet(np.ones(3), size=30)
    bpb_KN = evaluate(log_linear.LAW, PARAMS, ratios_KM) + 1e-4 * rng.normal(size=(30, 2))
    proposal = log_linear_proposal(
        ratios_KM=ratios_KM, bpb_KN=bpb_KN, explore=True, families=FAMILIES, choose_kl_weight=True
    )
    assert proposal.kl_weight == proposal.choice.best < 0.05 and proposal.choice.used
    at = proposal.path.kl_weight.index(proposal.kl_weight)
    np.testing.assert_allclose(proposal.path.weights[at][0], weights_of(proposal), atol=1e-6)
    assert proposal.path.chosen == {"kl_weight": proposal.kl_weight, "max_repeats": None}
    assert proposal.pareto.families == ("m", "c") and len(proposal.pareto.points) > 5


def test_choosing_lambda_without_runs_is_an_error():
    with pytest.raises(UserError, match="choose_kl_weight needs a differentiable law, the swarm's runs"):
        log_linear_proposal(choose_kl_weight=True)


def test_too_few_runs_to_choose_lambda_are_an_error_only_if_the_choice_is_asked_for(caplog):
    runs = {"ratios_KM": np.eye(3), "bpb_KN": np.ones((3, 2)), "families": FAMILIES}
    with pytest.raises(UserError, match="3 different mixtures are too few"):
        log_linear_proposal(choose_kl_weight=True, **runs)
    with caplog.at_level("INFO"):
        assert log_linear_proposal(explore=True, **runs).choice is None
    assert "λ is not chosen from data: 3 different mixtures" in caplog.text


def test_ignored_options_are_named():
    proposal = log_linear_proposal(guard=0.0, explore=True, families=FAMILIES)
    assert proposal.explored_without == ("guard",) and proposal.path and proposal.pareto
    assert log_linear_proposal(explore=True, families=FAMILIES).explored_without == ()


def test_kept_ratios_leave_out_the_path_and_the_log_says_why(caplog):
    with caplog.at_level("INFO"):
        proposal = log_linear_proposal(keep_ratios=PAIR, explore=True, families=FAMILIES)
    assert proposal.path is None and proposal.explored_without is None
    assert "no path over λ and k, no front and no choice of λ, because propose.keep_ratios is set" in caplog.text


def test_tasks_without_a_family_leave_out_the_front(caplog):
    with caplog.at_level("INFO"):
        proposal = log_linear_proposal(explore=True)
    assert proposal.path is not None and proposal.pareto is None and "the tasks have no families" in caplog.text
