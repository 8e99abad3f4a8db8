import collections

import jax
import numpy as np
import pytest

from olmix_jax.config import from_dict
from olmix_jax.config.json_fields import propose_options
from olmix_jax.laws import FittedLaw, log_linear
from olmix_jax.propose import propose
from olmix_jax.propose.options import Options
from olmix_jax.propose.swarm_facts import SwarmFacts
from olmix_jax.solver.status import Status
from olmix_jax.utils.errors import UserError
from tests.propose.cases import (
    NATURAL_M,
    RUNS_KM,
    caps_of,
    log_linear_proposal,
    proposal_of,
    sampled_params,
    weights_of,
)
from tests.propose.test_proposal import reread

TOKENS_M = np.array([20e9, 60e9, 120e9])


def capped(**arguments):
    given = {"natural_M": TOKENS_M, "tokens_M": TOKENS_M, "kl_weight": 0.01, "target_tokens": 3e11} | arguments
    return log_linear_proposal(**given)


def test_numbers_of_a_proposal_agree():
    proposal = capped()
    assert reread(proposal) == proposal
    assert proposal.status is Status.OPTIMAL and sum(proposal.weights.values()) == pytest.approx(1, abs=1e-14)
    assert (weights_of(proposal) <= caps_of(proposal)).all()
    assert proposal.caps["web:a"] == pytest.approx(4 * 20e9 / 3e11) == pytest.approx(proposal.weights["web:a"])
    predicted, natural = (np.mean(list(v.values())) for v in (proposal.predicted, proposal.predicted_natural))
    assert proposal.objective_natural == pytest.approx(natural)
    assert proposal.objective == pytest.approx(predicted + 0.01 * proposal.kl, rel=1e-12)
    assert proposal.objective < proposal.objective_natural
    assert proposal.predicted_natural["math"] == pytest.approx(0.5 + np.exp(-0.15 + 0.09 + 0.12))
    assert (proposal.kl_weight, proposal.max_repeats, proposal.target_tokens) == (0.01, 4.0, 3e11)
    certificate = proposal.certificate
    assert certificate.gap <= 1e-9 * max(1, proposal.objective) and certificate.no_gap is None


def test_options_and_seed_have_defaults():
    swarm = SwarmFacts(tasks=("t",), domains=("a", "b"), natural_M=[1, 1])
    proposal = propose(FittedLaw(log_linear.LAW, log_linear.Params(np.zeros(1), np.array([[0.5, -0.5]]))), swarm)
    assert proposal.weights["b"] > 0.5 and proposal.path is not None


def test_task_that_gets_worse_is_named():
    """PITFALL 20: with all weight on one task the other gets worse, and a warning names it."""
    proposal = capped(task_weights={"math": 2})
    assert proposal.worse_tasks == ("chat",) and any("chat" in warning for warning in proposal.warnings)
    assert proposal.objective_natural == pytest.approx(proposal.predicted_natural["math"])


def test_rounding_is_not_worse_than_natural():
    assert capped(kl_weight=1e9).worse_tasks == ()


def test_missing_token_counts_are_a_warning():
    assert "repetition is not capped: unique tokens per domain not given" in capped(tokens_M=None).warnings
    assert "repetition is not capped: propose.target_tokens not given" in capped(target_tokens=None).warnings


def test_infeasible_repetition_caps_are_an_error():
    with pytest.raises(UserError, match="web:a.*max_repeats"):
        capped(max_repeats=1.0)


def test_families_have_weights():
    families = {"m": ["math"], "c": ["chat"]}
    proposal = log_linear_proposal(task_weights={"m": 3, "chat": 1}, families=families)
    assert proposal.task_weights == {"math": 0.75, "chat": 0.25}


def test_infinite_divergence_is_none():
    """0·∞ must not become NaN."""
    anchor = {"web:a": 0, "web:b": 0.5, "code": 0.5}
    proposal = log_linear_proposal(anchor=anchor, kl_weight=0.05)
    assert proposal.weights["web:a"] == 0 and proposal.objective_natural is None
    free = log_linear_proposal(anchor=anchor, kl_weight=0.0)
    assert free.weights["web:a"] > 0.1 and free.kl is None and free.status is Status.OPTIMAL
    assert reread(proposal) == proposal and reread(free) == free
    samples, natural_M = sampled_params(0.1), np.array([0, 0.5, 0.5])
    with_tail = log_linear_proposal(natural_M=natural_M, kl_weight=0.0, tail=0.5, samples=samples)
    assert reread(with_tail) == with_tail
    assert with_tail.weights["web:a"] > 0.1 and with_tail.kl is None and with_tail.status is Status.OPTIMAL


def test_objective_of_natural_includes_its_divergence_from_the_anchor():
    proposal = log_linear_proposal(anchor={"web:a": 0.8, "web:b": 0.1, "code": 0.1}, kl_weight=0.05)
    kl = (NATURAL_M * np.log(NATURAL_M / np.array([0.8, 0.1, 0.1]))).sum()
    law = np.mean(list(proposal.predicted_natural.values()))
    assert proposal.objective_natural == pytest.approx(law + 0.05 * kl, rel=1e-12)


def test_law_without_finite_predictions_is_an_error():
    fitted = FittedLaw(log_linear.LAW, log_linear.Params(np.full(2, 1e4), np.zeros((2, 3))))
    with pytest.raises(UserError, match="no finite BPB"):
        proposal_of(fitted, NATURAL_M)


# Extreme options.

FUZZED, FUZZED_TASKS = ("web:a", "web:b", "code", "law"), ("gsm8k", "mbpp", "piqa")


def extreme_options(rng):
    """Options that a person might set, from careful to careless."""

    def one(*choices):
        return choices[rng.integers(len(choices))]

    def mixture(zeros):
        weights = rng.dirichlet(np.ones(4)) * (rng.uniform(size=4) >= zeros)
        return dict(zip(FUZZED, (weights / max(weights.sum(), 1e-300)).tolist()))

    def bound():
        low, high = np.sort(rng.uniform(0, one(0.3, 1.0), 2)).round(3).tolist()
        odd = one([0, 0], [1, 1], [high, low], None, "x", [0, 1e-300])
        return one([low, high], [low, None], [None, high], low, odd)

    names = [*FUZZED, "web:*", "*", "c*", *["nowhere"] * (rng.uniform() < 0.1)]
    weights = [*FUZZED_TASKS, "math", "code", "qa", *["none"] * (rng.uniform() < 0.1)]
    blocks = {"old": {"web:a": one(1, 3, 1e-12, 1e12), one("web:b", "code"): one(1, 2, 0)}}
    values = {
        "kl_weight": one(0.0, 1e-9, 0.05, 0.05, 1.0, 1e9),
        "max_repeats": one(4.0, 4.0, 1.0, 20.0, 0.5, 1e-300, 1e300),
        "target_tokens": one(1e9, 3e9, 1e10, 1e10, 1e300, 1e-300),
        "bounds": {str(name): bound() for name in rng.choice(names, rng.integers(1, 3), replace=False)},
        "anchor": mixture(one(0.0, 0.3)),
        "keep_ratios": one(blocks, {"old": {"web:a": 1, "web:b": 1, "code": 2}}, {"old": 3}, {"web:a": {}}),
        "task_weights": {str(n): one(1, 0, 2, 3, 5, 1e300, -1) for n in rng.choice(weights, 2, replace=False)},
        "guard": one(0.0, 1e-300, 0.01, 0.5, 1e300),
        "guard_by": one("task", "family"),
        "tail": one(0.0, 0.1, 0.5, 1.0),
        "worst": True,
        "method": one("search", "simulation"),
    }
    chosen = [name for name in values if rng.uniform() < (0.1 if name in ("worst", "method") else 0.25)]
    return {name: values[name] for name in chosen if name != "guard_by" or "guard" in chosen}


@pytest.mark.slow
def test_extreme_options_give_a_mixture_within_bounds_or_an_error():
    """PITFALL 18, for the whole proposal: no NaN, None or vector of zeros, whatever the options are."""
    rng, done, refused = np.random.default_rng(0), 0, collections.Counter()
    for _ in range(1500):
        params = log_linear.Params(0.3 * rng.normal(size=3), rng.choice([0.3, 1, 3]) * rng.normal(size=(3, 4)))
        samples = jax.tree.map(lambda x: x + 0.1 * rng.normal(size=(6, *x.shape)), params)
        natural_M = rng.dirichlet(np.ones(4)) * (rng.uniform(size=4) >= rng.choice([0.0, 0.0, 0.2]))
        tokens_M = rng.choice([1e8, 1e9, 1e10], size=4) * rng.uniform(0.5, 2, size=4)
        options, natural_M = extreme_options(rng), natural_M if natural_M.sum() > 0 else np.ones(4)
        fitted = FittedLaw(log_linear.LAW, params, samples if rng.uniform() < 0.5 else None)
        swarm = SwarmFacts(FUZZED_TASKS, FUZZED, natural_M, tokens_M, ratios_KM=rng.dirichlet(np.ones(4), size=6))
        try:
            proposal = propose(fitted, swarm, Options(**{"explore": bool(rng.uniform() < 0.03)} | options))
        except UserError as e:
            refused[str(e)[:30]] += 1
            continue
        done += 1
        assert reread(proposal) == proposal
        weights_M, low_M, high_M = (
            np.array(list(v.values())) for v in (proposal.weights, proposal.lower, proposal.caps)
        )
        assert abs(weights_M.sum() - 1) < 1e-9, (options, proposal)
        assert (weights_M >= low_M - 1e-12).all() and (weights_M <= high_M + 1e-12).all(), (options, proposal)
        for group in proposal.groups:
            assert group.low - 1e-9 <= group.weight <= group.high + 1e-9, (options, proposal)
    assert done > 600 and len(refused) > 10, (done, refused)


def test_config_and_library_options_are_the_same():
    assert Options(**propose_options(from_dict({}))) == Options()


def test_weight_far_above_those_of_all_runs_is_named():
    runs_KM = np.array([[0.02, 0.3, 0.68], [0.01, 0.4, 0.59], [0.0, 0.5, 0.5]])
    warning = "extrapolated: weights over twice those of any run, where no score tests the law: web:a "
    named = log_linear_proposal(kl_weight=0.01, ratios_KM=runs_KM).warnings
    assert any(text.startswith(warning) and text.endswith("(runs: up to 0.02)") for text in named)
    assert not any("extrapolated" in text for text in log_linear_proposal(kl_weight=0.01, ratios_KM=RUNS_KM).warnings)
