"""``find_optimum``, tested through ``propose``: laws of every kind, under all options."""

import itertools
import types

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.optimize

from olmix_jax.laws import FittedLaw, evaluate, evaluate_each, log_linear, warped_gp
from olmix_jax.solver.bounds import box
from olmix_jax.solver.problem import Problem
from olmix_jax.solver.status import Status
from olmix_jax.utils.errors import UserError
from tests.propose.cases import (
    NATURAL_M,
    PARAMS,
    RUNS_KM,
    SEARCH,
    WAVES,
    caps_of,
    fitted_gp,
    log_linear_proposal,
    proposal_of,
    sampled_params,
    waves,
    weights_of,
)

PAIR = {"web": {"web:a": 1, "web:b": 3}}


def rugged_gp(seed: int):
    """A warped GP through random measurements, with lengths so short that several minima exist; and its runs."""
    rng = np.random.default_rng(seed)
    ratios_KM = rng.dirichlet(np.ones(3), size=30)
    theta_NP = np.tile(np.log([1.0, 1.0, 1.0, 0.1, 1.0, 30.0, 0.01, 0.1]), (2, 1))
    bpb_KN = np.exp(0.3 * rng.normal(size=(30, 2)))
    near = types.SimpleNamespace(theta_NP=theta_NP)
    params = warped_gp.fit_weighted(ratios_KM, bpb_KN, np.ones((1, 30)), near=near)
    return FittedLaw(warped_gp.LAW, warped_gp.Params(*(x[0] for x in params))), ratios_KM


@pytest.mark.parametrize("kl_weight, seed", [(0.0, 0), (0.05, 2)])
def test_default_law_reaches_the_minimum_of_a_grid(kl_weight, seed):
    fitted, ratios_KM = rugged_gp(seed)
    natural_M, sizes = np.array([0.2, 0.3, 0.5]), {"tokens_M": np.array([20e9, 15e9, 50e9]), "target_tokens": 1e11}
    proposal = proposal_of(fitted, natural_M, ratios_KM=ratios_KM, kl_weight=kl_weight, **sizes)
    upper_M, axis = np.array([0.8, 0.6, 1.0]), np.linspace(0, 1, 201)
    grid_KM = np.array([(a, b, max(1 - a - b, 0)) for a, b in itertools.product(axis, axis) if a + b <= 1 + 1e-12])
    grid_KM = grid_KM[(grid_KM <= upper_M + 1e-12).all(axis=1)]
    problem = Problem(fitted.law, fitted.params, np.full(2, 0.5), natural_M, box(np.zeros(3), upper_M), kl_weight)
    least = problem.values(grid_KM).min()
    assert least - 0.01 < proposal.objective <= least + 1e-6
    assert proposal.objective == pytest.approx(problem.values(weights_of(proposal)[None])[0], abs=1e-12)
    certificate = proposal.certificate
    outcome = f"local optimum, reached from {certificate.agreeing} of 24 starts"
    assert proposal.status is Status.LOCAL_OPTIMUM and proposal.outcome == outcome
    assert certificate.gap is None and "convex" in certificate.no_gap
    assert certificate.starts == 24 and 1 <= certificate.agreeing <= 24 and certificate.residual < 1e-6
    assert (weights_of(proposal) <= caps_of(proposal)).all()


@pytest.mark.parametrize("kl_weight, seed", [(0.0, 0), (0.02, 1), (0.05, 2)])
def test_never_worse_than_slsqp_from_the_same_starts(kl_weight, seed):
    rng = np.random.default_rng(seed)
    fitted, natural_M = waves(rng, scale=4.0), rng.dirichlet(np.full(6, 3.0))
    ratios_KM = rng.dirichlet(np.ones(6), size=20)
    proposal = proposal_of(fitted, natural_M, ratios_KM=ratios_KM, kl_weight=kl_weight)
    problem = Problem(WAVES, fitted.params, np.full(2, 0.5), natural_M, box(np.zeros(6), np.ones(6)), kl_weight)
    runs_KM = ratios_KM[np.argsort(problem.values(ratios_KM))[:3]]
    direction_NM, phase_N = fitted.params

    def value(p_M):
        law = 2 + np.cos(direction_NM @ p_M + phase_N).mean()
        return law + kl_weight * (p_M * np.log(np.maximum(p_M, 1e-12) / natural_M)).sum()

    ends = [
        scipy.optimize.minimize(
            value,
            start_M,
            method="SLSQP",
            bounds=[(0, 1)] * 6,
            constraints={"type": "eq", "fun": lambda p_M: p_M.sum() - 1},
            options={"ftol": 1e-12, "maxiter": 300},
        )
        for start_M in [natural_M, *runs_KM]
    ]
    assert proposal.objective <= min(end.fun for end in ends if end.success) + 1e-6


@hypothesis.settings(deadline=None, max_examples=25)
@hypothesis.given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.05]))
def test_caps_hold_exactly_for_a_law_that_is_not_convex(seed, kl_weight):
    rng = np.random.default_rng(seed)
    fitted = waves(rng, scale=rng.choice([1.0, 10.0]))
    natural_M = rng.dirichlet(np.ones(6))
    tokens_M = 1e9 * natural_M * rng.uniform(0.3, 3, size=6)
    sizes = {"tokens_M": tokens_M, "target_tokens": 4 * tokens_M.sum() / rng.choice([1.01, 2.0, 5.0])}
    ratios_KM = rng.dirichlet(np.ones(6), size=20)
    proposal = proposal_of(fitted, natural_M, ratios_KM=ratios_KM, kl_weight=kl_weight, **sizes)
    weights_M, caps_M = weights_of(proposal), caps_of(proposal)
    assert (weights_M >= 0).all() and (weights_M <= caps_M).all() and abs(weights_M.sum() - 1) < 1e-13
    problem = Problem(WAVES, fitted.params, np.full(2, 0.5), natural_M, box(np.zeros(6), caps_M), kl_weight)
    # One of the starts is natural, projected into the caps.
    start = problem.values(problem.project(natural_M[None]))[0]
    assert proposal.objective <= start + (1e-9 if kl_weight == 0 else 1e-2)


def test_law_that_is_not_convex_needs_no_runs_and_is_reproducible():
    fitted = waves(np.random.default_rng(0), scale=3.0)
    first, second = (proposal_of(fitted, np.full(6, 1 / 6), seed=3) for _ in range(2))
    assert first == second and first.status is Status.LOCAL_OPTIMUM


def test_bounds_groups_and_fixed_domains_hold():
    free_M = weights_of(log_linear_proposal())
    assert free_M[:2].sum() > 0.6 and free_M[0] > 0.2
    proposal = log_linear_proposal(bounds={"web:*": [None, 0.5], "web:a": 0.15})
    weights_M = weights_of(proposal)
    assert weights_M[0] == 0.15 and weights_M[:2].sum() <= 0.5 + 1e-12 and abs(weights_M.sum() - 1) < 1e-13
    assert proposal.lower["web:a"] == proposal.caps["web:a"] == 0.15
    with pytest.raises(UserError, match="the caps of the domains of web:\\* sum to 0.2, less than its lower bound 0.9"):
        log_linear_proposal(bounds={"web:*": [0.9, 1], "web:a": [0, 0.1], "web:b": [0, 0.1]})


def test_kept_ratios_hold_and_their_optimum_equals_that_of_a_grid():
    proposal = log_linear_proposal(keep_ratios=PAIR, samples=sampled_params(0.1))
    weights_M = weights_of(proposal)
    assert weights_M[1] == pytest.approx(3 * weights_M[0], rel=1e-12) and proposal.status is Status.OPTIMAL
    grid = np.linspace(1e-6, 1 - 1e-6, 20001)
    mixed_KM = np.stack([grid / 4, 3 * grid / 4, 1 - grid], axis=1)
    problem = Problem(log_linear.LAW, PARAMS, np.full(2, 0.5), NATURAL_M, None, 0.05)
    assert proposal.objective == pytest.approx(problem.values(mixed_KM).min(), abs=1e-7)
    assert proposal.objective == pytest.approx(problem.values(weights_M[None])[0], abs=1e-12)
    assert set(proposal.weights_std) == set(proposal.weights)
    sizes = {"tokens_M": np.array([5e9, 9e9, 1e11]), "target_tokens": 1e11}
    capped = log_linear_proposal(keep_ratios=PAIR, **sizes)
    assert (weights_of(capped) <= caps_of(capped) + 1e-15).all()


def test_infeasible_block_is_named_with_advice_that_is_enough():
    given = {"keep_ratios": PAIR, "target_tokens": 1e11, "tokens_M": np.array([5e9, 9e9, 2e10])}
    with pytest.raises(UserError, match=r"web \(web:a \+ web:b\) 0.12.*max_repeats to") as error:
        log_linear_proposal(max_repeats=1.0, **given)
    enough = float(str(error.value).split("max_repeats to ")[1].split()[0])
    assert log_linear_proposal(max_repeats=enough, **given).status is Status.OPTIMAL
    with pytest.raises(UserError, match="max_repeats to"):
        log_linear_proposal(max_repeats=0.999 * enough, **given)


def test_extreme_repeats_give_caps_or_advice():
    sizes = {"tokens_M": np.array([5e9, 9e9, 2e10]), "target_tokens": 1e11}
    assert set(log_linear_proposal(max_repeats=1e300, **sizes).caps.values()) == {1.0}
    with pytest.raises(UserError, match="set propose.max_repeats to 2.94118 or more, or add text"):
        log_linear_proposal(max_repeats=1e-300, **sizes)


def test_large_lambda_leads_to_the_anchor():
    anchor = {"web:a": 0.8, "web:b": 0.1, "code": 0.1}
    proposal = log_linear_proposal(anchor=anchor, kl_weight=50.0)
    np.testing.assert_allclose(weights_of(proposal), [0.8, 0.1, 0.1], atol=2e-3)
    assert proposal.natural["code"] == 0.6 and proposal.anchor["web:a"] == 0.8


def test_worst_mixture_is_the_worst_corner():
    proposal = log_linear_proposal(worst=True, kl_weight=0.0)
    corners_K = evaluate(log_linear.LAW, PARAMS, np.eye(3)).mean(axis=1)
    assert proposal.objective == pytest.approx(corners_K.max()) and proposal.worst
    np.testing.assert_allclose(weights_of(proposal), np.eye(3)[corners_K.argmax()], atol=1e-6)
    assert "WORST" in proposal.warnings[0] and proposal.objective >= proposal.objective_natural


def vertices(upper_M):
    """All vertices of {0 ≤ p ≤ upper, Σp = 1}: some domains at their caps, one with the rest, the others empty."""
    found, size = [], len(upper_M)
    for full in itertools.product([False, True], repeat=size):
        full_M = np.array(full)
        rest = 1 - upper_M[full_M].sum()
        for j in np.flatnonzero(~full_M):
            if 0 <= rest <= upper_M[j]:
                found.append(np.where(full_M, upper_M, 0.0) + rest * (np.arange(size) == j))
    return np.array(found)


@pytest.mark.parametrize("seed", [1, 6, 11])
def test_worst_mixture_within_caps_is_the_worst_vertex(seed):
    """A convex law is largest at a vertex. Starts for minimisation miss the worst vertex in two of these cases."""
    rng = np.random.default_rng(seed)
    size, tasks = 5 + seed % 4, tuple("abcd")
    params = log_linear.Params(0.3 * rng.normal(size=4), 4 * rng.normal(size=(4, size)))
    upper_M, natural_M = rng.uniform(0.1, 0.6, size), rng.dirichlet(np.ones(size))
    tokens_M = 1e10 * np.maximum(upper_M, upper_M / upper_M.sum() * 1.3)
    fitted = FittedLaw(log_linear.LAW, params)
    given = {"tasks": tasks, "tokens_M": tokens_M, "target_tokens": 1e10, "max_repeats": 1.0, "worst": True}
    proposal = proposal_of(fitted, natural_M, kl_weight=0.0, **given)
    upper_M = caps_of(proposal)
    corners_KM = vertices(upper_M)
    most = evaluate(log_linear.LAW, params, corners_KM).mean(axis=1).max()
    assert proposal.objective == pytest.approx(most, rel=1e-12)
    assert "maximum" in proposal.certificate.no_gap
    # With KL, no vertex and no random mixture is worse.
    proposal = proposal_of(fitted, natural_M, kl_weight=0.05, **given)
    problem = Problem(log_linear.LAW, params, np.full(4, -0.25), natural_M, box(np.zeros(size), upper_M), 0.05)
    drawn_KM = problem.project(np.concatenate([corners_KM, rng.dirichlet(np.full(size, 0.3), 5000)]))
    assert -proposal.objective <= problem.values(drawn_KM).min() + 1e-9


def test_guard_keeps_tasks_from_getting_worse_and_costs_something():
    free = log_linear_proposal(kl_weight=0.0)
    assert free.worse_tasks == ("chat",)
    guarded = log_linear_proposal(kl_weight=0.0, guard=0.0)
    assert guarded.worse_tasks == () and guarded.objective > free.objective
    assert guarded.guard.binding == ("chat",) and guarded.guard.worst <= 1e-9


def test_guard_by_family_bounds_the_mean_of_the_family():
    guarded = log_linear_proposal(kl_weight=0.0, guard=0.0, guard_by="family", families={"m": ["math"], "c": ["chat"]})
    assert guarded.guard.names == ("m", "c") and guarded.guard.binding == ("c",)


def test_guard_that_cannot_hold_is_an_error_with_the_slack_that_is_enough():
    with pytest.raises(UserError, match=r"meets propose.guard = 0 BPB \(chat exceeds it most\); raise it to 0\.\d+"):
        log_linear_proposal(guard=0.0, bounds={"web:a": [0.9, 1]})


def test_guard_of_a_law_that_is_not_convex_gives_no_warning():
    """If guards held only to the precision of the solver, tasks would rise by 1e-8, which is a warning."""
    fitted, ratios_KM = fitted_gp()
    for kl_weight in (0.0, 0.01):
        free = proposal_of(fitted, NATURAL_M, ratios_KM=ratios_KM, kl_weight=kl_weight)
        guarded = proposal_of(fitted, NATURAL_M, ratios_KM=ratios_KM, kl_weight=kl_weight, guard=0.0)
        assert free.worse_tasks and guarded.guard.binding, "the guard must bind"
        assert guarded.worse_tasks == () and guarded.status is Status.LOCAL_OPTIMUM
        assert -1e-6 < guarded.guard.worst <= 1e-9


def test_tail_lowers_the_mean_over_the_worst_samples():
    with_tail = log_linear_proposal(tail=0.1, samples=sampled_params(0.5))
    plain = log_linear_proposal(samples=sampled_params(0.5))
    # The worst tenth of 24 samples is 2.4 samples.
    worst_S = np.sort(evaluate_each(log_linear.LAW, sampled_params(0.5), weights_of(plain)[None])[:, 0].mean(axis=1))
    tail = (worst_S[-2:].sum() + 0.4 * worst_S[-3]) / 2.4
    assert with_tail.tail.share == 0.1 and with_tail.tail.samples == 24
    assert with_tail.objective == pytest.approx(with_tail.tail.value + 0.05 * with_tail.kl)
    assert with_tail.objective < tail + 0.05 * plain.kl - 1e-6


def test_objective_of_natural_uses_the_same_tail():
    with_tail = log_linear_proposal(tail=0.1, samples=sampled_params(0.5))
    worst_S = np.sort(evaluate_each(log_linear.LAW, sampled_params(0.5), NATURAL_M[None])[:, 0].mean(axis=1))
    tail = (worst_S[-2:].sum() + 0.4 * worst_S[-3]) / 2.4
    assert with_tail.tail.natural == pytest.approx(tail) == with_tail.objective_natural
    assert with_tail.objective < with_tail.objective_natural


def test_tail_without_samples_is_an_error():
    with pytest.raises(UserError, match="propose.tail needs samples of the law; set fit.resamples to 100"):
        log_linear_proposal(tail=0.1)


@pytest.mark.parametrize("option", [{"guard": 0.0}, {"tail": 0.5}])
def test_guards_and_tails_need_a_differentiable_law(option):
    with pytest.raises(UserError, match="propose.guard and propose.tail need a differentiable law"):
        proposal_of(SEARCH, np.array([0.2, 0.3, 0.5]), **option)


def test_kept_ratios_and_a_search_over_runs_exclude_each_other():
    kept = {"keep_ratios": {"pair": {"d0": 1, "d1": 1}}}
    fitted = FittedLaw(log_linear.LAW, PARAMS)
    with pytest.raises(UserError, match="no effect with propose.method=search"):
        proposal_of(fitted, NATURAL_M, ratios_KM=RUNS_KM, method="search", **kept)
    with pytest.raises(UserError, match="no effect with fit.law=search"):
        proposal_of(SEARCH, NATURAL_M, **kept)
    proposal = proposal_of(fitted, NATURAL_M, method="simulation", **kept)
    assert proposal.weights["d0"] == pytest.approx(proposal.weights["d1"])
