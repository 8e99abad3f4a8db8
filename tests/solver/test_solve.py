"""The proposal: cvxpy as referee, certificates, multipliers against differences, and clear errors."""

import itertools
import re

import cvxpy as cp
import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from olmix_jax.laws import evaluate, log_linear
from olmix_jax.propose import feasibility
from olmix_jax.propose.task_weights import task_weights
from olmix_jax.solver import objective
from olmix_jax.solver import solve as solver
from olmix_jax.solver.bounds import box
from olmix_jax.solver.minimise import minimise
from olmix_jax.solver.problem import Problem
from olmix_jax.solver.status import Status
from olmix_jax.swarm import table, task_groups
from olmix_jax.utils.errors import UserError

SIZE, TASKS = 30, 8


def problem(rng, size, kl_weight, kind):
    """A random law, natural distribution and bounds over ``size`` domains."""
    params = log_linear.Params(rng.normal(size=TASKS) * 0.3, rng.normal(size=(TASKS, size)) * rng.choice([0.3, 1, 3]))
    natural_M = rng.dirichlet(np.full(size, rng.choice([0.5, 3.0])))
    natural_M = np.maximum(natural_M, 1e-5) / np.maximum(natural_M, 1e-5).sum()
    lower_M, upper_M = np.zeros(size), np.ones(size)
    if kind != "free":
        upper_M = np.minimum(1, natural_M * {"loose": 4.0, "tight": 1.01, "fixed": 2.0}[kind])
    if kind == "fixed":
        fixed_M = rng.uniform(size=size) < 0.4
        lower_M, upper_M = (np.where(fixed_M, natural_M, bound) for bound in (natural_M * 0.1, upper_M))
    return params, rng.dirichlet(np.ones(TASKS)), natural_M, lower_M, upper_M, kl_weight


def solve(params, task_weights_N, natural_M, lower_M, upper_M, kl_weight, **options):
    """Solves with domains that are held at 0 added up to one size, so that all problems share one compilation."""
    extra, task_weights_N = SIZE - len(natural_M), task_weights_N / task_weights_N.sum()
    params = params._replace(coef_NM=np.pad(params.coef_NM, ((0, 0), (0, extra))))
    natural_M, *ends = (np.pad(x, (0, extra)) for x in (natural_M, lower_M, upper_M))
    problem = Problem(log_linear.LAW, params, task_weights_N, natural_M, box(*ends), kl_weight)
    solution = solver.solve(problem, **options)
    assert not solution.weights_M[SIZE - extra :].any()
    return solution


def referee(params, task_weights_N, natural_M, lower_M, upper_M, kl_weight):
    p = cp.Variable(len(natural_M))
    value = task_weights_N @ (np.exp(params.log_c_N) + cp.exp(params.coef_NM @ p))
    if kl_weight:
        value += kl_weight * cp.sum(cp.rel_entr(p, natural_M))
    model = cp.Problem(cp.Minimize(value), [p >= lower_M, p <= upper_M, cp.sum(p) == 1])
    model.solve(solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    return p.value, model.value


CASES = list(itertools.product([1, 2, 7, 30], [0.0, 0.01, 0.3], ["free", "loose", "fixed"]))[::2] + [
    (10, kl_weight, "tight") for kl_weight in (0.0, 1e-3, 0.01, 0.05, 1.0)
]


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
@pytest.mark.parametrize("size, kl_weight, kind", CASES)
def test_against_cvxpy(size, kl_weight, kind):
    args = problem(np.random.default_rng(size), size, kl_weight, kind)
    ours, (weights_M, value) = solve(*args), referee(*args)
    assert ours.status is Status.OPTIMAL and ours.gap <= 1e-9 * max(1, abs(ours.value))
    assert ours.value <= value + 1e-8 * max(1, abs(value))
    # The certificate's lower bound is below any feasible value, up to the referee's own infeasibility.
    assert ours.value - ours.gap <= value + 1e-7 * max(1, abs(value))
    assert abs(ours.value - value) <= 1e-6 * max(1, abs(value))
    if kl_weight >= 0.01:
        assert abs(ours.weights_M[:size] - weights_M).sum() / 2 < 1e-5


fuzz = hypothesis.settings(deadline=None, max_examples=60)


@fuzz
@hypothesis.given(
    st.integers(0, 2**32 - 1),
    st.integers(1, SIZE),
    st.sampled_from([0.0, 1e-4, 0.05, 100.0]),
    st.sampled_from(["free", "loose", "tight", "fixed"]),
)
def test_solutions_are_feasible_finite_and_certified(seed, size, kl_weight, kind):
    rng = np.random.default_rng(seed)
    args = problem(rng, size, kl_weight, kind)
    params, task_weights_N, natural_M, lower_M, upper_M, _ = args
    found = solve(*args)
    weights_M = found.weights_M[:size]
    assert np.isfinite([*weights_M, found.value, found.kl, found.gap, found.residual, *found.multipliers_M]).all()
    assert (weights_M >= lower_M).all() and (weights_M <= upper_M).all() and abs(weights_M.sum() - 1) < 1e-13
    assert found.status is Status.OPTIMAL and (found.multipliers_M >= 0).all()

    def value(p_M):
        kl = kl_weight * (p_M * np.log(np.maximum(p_M, 1e-300) / natural_M)).sum() if kl_weight else 0.0
        return task_weights_N @ (np.exp(params.log_c_N) + np.exp(params.coef_NM @ p_M)) + kl

    assert found.value == pytest.approx(value(weights_M), rel=1e-12, abs=1e-13)
    # No feasible mixture goes below the certificate: natural, and steps from the solution towards it.
    for share in (1.0, 0.1, 1e-3, 1e-6):
        assert value((1 - share) * weights_M + share * natural_M) >= found.value - found.gap - 1e-12 * abs(found.value)


@pytest.mark.parametrize("kl_weight", [0.0, 0.05])
def test_multipliers_are_the_price_of_the_caps(kl_weight):
    """μ_j against central differences of the minimum in cap j."""
    args = problem(np.random.default_rng(3), 10, kl_weight, "loose")
    *rest, upper_M, _ = args
    found = solve(*args)
    binding = np.flatnonzero(found.multipliers_M[:10] > 1e-3)
    assert len(binding) >= 2
    for j in binding:
        step_M = np.where(np.arange(10) == j, 1e-5, 0.0)
        up, down = (solve(*rest, upper_M + sign * step_M, kl_weight).value for sign in (1, -1))
        assert found.multipliers_M[j] == pytest.approx((down - up) / 2e-5, rel=1e-3)


def test_closed_forms():
    """One law falls by e^{-1} along domain 0: all of it for λ = 0, and p ∝ natural·e^{-g/λ} at the fixed point."""
    params = log_linear.Params(np.zeros(TASKS), np.tile([-1.0, 0.0, 0.5], (TASKS, 1)))
    equal_N = np.ones(TASKS)
    natural_M, zeros_M, ones_M = np.array([0.2, 0.3, 0.5]), np.zeros(3), np.ones(3)
    free = solve(params, equal_N, natural_M, zeros_M, ones_M, 0.0)
    np.testing.assert_allclose(free.weights_M[:3], [1, 0, 0], atol=1e-12)
    assert free.value == pytest.approx(1 + np.exp(-1), rel=1e-12)
    tied = solve(params, equal_N, natural_M, zeros_M, ones_M, 0.5)
    slope_M = np.exp(params.coef_NM[0] @ tied.weights_M[:3]) * params.coef_NM[0]
    expected_M = natural_M * np.exp(-slope_M / 0.5)
    np.testing.assert_allclose(tied.weights_M[:3], expected_M / expected_M.sum(), atol=1e-6)
    # A large λ keeps natural, where natural is allowed.
    still = solve(params, equal_N, natural_M, zeros_M, ones_M, 1e6)
    np.testing.assert_allclose(still.weights_M[:3], natural_M, atol=1e-6)
    assert still.kl < 1e-9


def test_batches_of_problems_agree_with_single_ones():
    params, task_weights_N, natural_M, lower_M, upper_M, _ = problem(np.random.default_rng(2), 6, 0.05, "loose")
    weights = np.array([0.01, 0.05, 0.2])

    def one(kl_weight):
        goal = objective.Objective(log_linear.predict, objective.mean, params, task_weights_N, natural_M, kl_weight)
        return minimise(goal, box(lower_M, upper_M), 500, natural_M, entropic=True)

    with jax.enable_x64(True):
        batch = jax.jit(jax.vmap(one))(weights)
    assert (np.asarray(batch.gap) < 1e-9).all()
    for i, kl_weight in enumerate(weights):
        single = solve(params, task_weights_N, natural_M, lower_M, upper_M, float(kl_weight))
        np.testing.assert_allclose(np.asarray(batch.weights_M)[i], single.weights_M[:6], atol=1e-6)


def test_an_early_stop_says_so():
    args = problem(np.random.default_rng(1), 3, 0.05, "free")
    found = solve(*args, max_iterations=1)
    assert found.describe().startswith("not converged (gap ") and found.gap > 1e-6 and found.iterations == 1
    assert abs(found.weights_M.sum() - 1) < 1e-14
    assert found.value - found.gap <= solve(*args).value <= found.value


def test_broken_input_to_the_solver_is_an_error():
    params, *rest = problem(np.random.default_rng(0), 3, 0.05, "free")
    with pytest.raises(UserError, match="contain a number that is not finite"):
        solve(params._replace(coef_NM=params.coef_NM * np.nan), *rest)
    with pytest.raises(UserError, match="no finite BPB"):
        solve(params._replace(log_c_N=np.full(TASKS, 1e4)), *rest)
    with pytest.raises(UserError, match="natural weight 0"):
        bounds = box(np.array([0.1, 0, 0]), np.ones(3))
        solver.solve(Problem(log_linear.LAW, params, rest[0], np.array([0, 0.5, 0.5]), bounds, 1))
    with pytest.raises(UserError, match="must sum to 1, not 8"):
        solver.solve(Problem(log_linear.LAW, params, np.ones(TASKS), rest[1], box(np.zeros(3), np.ones(3)), 1))


def test_weight_where_natural_has_none_is_allowed_without_kl():
    """The divergence is infinite there, and counts for nothing."""
    params = log_linear.Params(np.zeros(TASKS), np.tile([-1.0, 0.0, 0.5], (TASKS, 1)))
    bounds, weights_N = box(np.zeros(3), np.array([0.7, 1, 1])), np.full(TASKS, 1 / TASKS)
    found = solver.solve(Problem(log_linear.LAW, params, weights_N, np.array([0, 0.5, 0.5]), bounds, 0.0))
    np.testing.assert_allclose(found.weights_M, [0.7, 0.3, 0], atol=1e-12)
    assert found.status is Status.OPTIMAL and found.kl == np.inf and np.isfinite(found.value)


# Caps.


def test_caps():
    np.testing.assert_allclose(feasibility.repetition_caps([1e9, 5e9, 1e12], 1e11, 4), [0.04, 0.2, 1.0])


def test_infeasible_caps_name_domains_and_the_least_change():
    """PITFALL 18: and what the message advises does help, while a little less does not."""
    tokens_M, target, repeats, names = np.array([1.7e9, 3.1e9, 5.9e9]), 1.234567e12, 4.0, ("web", "code", "books")

    def check(target, repeats):
        upper_M = feasibility.repetition_caps(tokens_M, target, repeats)
        feasibility.check_feasible(
            box(np.zeros(3), upper_M), names, tokens_M=tokens_M, target_tokens=target, max_repeats=repeats
        )

    with pytest.raises(UserError, match="web.*code.*books") as error:
        check(target, repeats)
    advised_k = float(re.search(r"max_repeats to (\S+) or", str(error.value))[1])
    advised_r = float(re.search(r"target_tokens to (\S+) or", str(error.value))[1])
    check(target, advised_k)
    check(advised_r, repeats)
    for worse in ((target, advised_k * 0.9999), (advised_r * 1.0001, repeats)):
        with pytest.raises(UserError):
            check(*worse)


@pytest.mark.parametrize(
    "lower_M, upper_M, message",
    [
        ([0, 0, 0], [0.2, 0.3, 0.4], "raise them by 0.1"),
        ([0.6, 0.5, 0], [1, 1, 1], "lower bounds sum to 1.1, more than 1: web 0.6, code 0.5"),
        ([0, 0.5, 0], [1, 0.4, 1], r"code \[0.5, 0.4\]"),
        ([0, float("nan"), 0], [1, 1, 1], "code"),
    ],
)
def test_other_infeasible_bounds(lower_M, upper_M, message):
    with pytest.raises(UserError, match=message):
        feasibility.check_feasible(box(np.array(lower_M, float), np.array(upper_M, float)), ("web", "code", "books"))


def test_caps_that_just_suffice():
    feasibility.check_feasible(box(np.zeros(4), np.array([0.1, 0.2, 0.3, 0.4])), "abcd")
    feasibility.check_feasible(box(np.array([0.1, 0.2, 0.3, 0.4]), np.ones(4)), "abcd")


# Task weights.


def test_task_weights(tmp_path):
    tasks = ("arc", "mmlu", "code")
    np.testing.assert_allclose(task_weights("", tasks), 1 / 3)
    # PITFALL 17: normalised, and what is not named weighs nothing.
    np.testing.assert_allclose(task_weights('{"code": 30, "arc": 10}', tasks), [0.25, 0, 0.75])
    (tmp_path / "weights.json").write_text('{"mmlu": 1e308, "arc": 1e308}')
    np.testing.assert_allclose(task_weights(str(tmp_path / "weights.json"), tasks), [0.5, 0.5, 0])


def test_families_have_weights_too():
    """README's own example: a family's weight is spread evenly over its tasks."""
    tasks = ("gsm8k", "minerva_math_x", "mbpp", "piqa")
    weights_N = task_weights('{"math": 2, "code": 1}', tasks)
    np.testing.assert_allclose(weights_N, np.array([1, 1, 1, 0]) / 3)
    np.testing.assert_allclose(task_weights('{"math": 1, "piqa": 3}', tasks), [0.125, 0.125, 0, 0.75])
    own = '{"mine": ["gsm8k", "piqa"], "rest": ["m*"]}'
    np.testing.assert_allclose(task_weights('{"mine": 1}', tasks, families=own), [0.5, 0, 0, 0.5])
    # A name of both kinds is the task.
    np.testing.assert_allclose(task_weights('{"math": 1}', ("math", "code")), [1, 0])
    with pytest.raises(UserError, match="names gsm8k twice"):
        task_weights('{"math": 1, "gsm8k": 1}', tasks)
    with pytest.raises(UserError, match="unknown tasks: mth; the tasks are .*, and their families math, code, qa"):
        task_weights('{"mth": 1}', tasks)


@pytest.mark.parametrize(
    "spec, message",
    [
        ('{"cod": 1}', "unknown tasks: cod"),
        ('{"code": 1, "arc": 2, "code": 3}', "propose.task_weights`: code is there twice"),
        ('{"code": -1}', "code must be"),
        ('{"code": "1"}', "code must be"),
        ('{"code": NaN}', "code must be"),
        ('{"code": 0}', "all weights are 0"),
        ('{"code": ', "not valid JSON"),
        ("nowhere.json", "no such file"),
    ],
)
def test_bad_task_weights(spec, message):
    with pytest.raises(UserError, match=message):
        task_weights(spec, ("arc", "code"))


# Many of all shapes.


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
def test_a_thousand_random_problems_against_cvxpy():
    """Objective to 1e-8, weights to 1e-5 in total variation where λ makes them unique, bounds to 1e-10."""
    rng, judged = np.random.default_rng(0), 0
    for _ in range(1000):
        size, kl_weight = int(rng.integers(1, SIZE + 1)), float(rng.choice([0.0, 1e-3, 0.01, 0.05, 0.3]))
        args = problem(rng, size, kl_weight, str(rng.choice(["free", "loose", "tight", "fixed"])))
        try:
            weights_M, value = referee(*args)
        except cp.error.SolverError:
            continue
        ours, judged = solve(*args), judged + 1
        found_M = ours.weights_M[:size]
        assert ours.status is Status.OPTIMAL and ours.gap <= 1e-9 * max(1, abs(ours.value))
        assert (found_M >= args[3] - 1e-10).all() and (found_M <= args[4] + 1e-10).all()
        assert abs(found_M.sum() - 1) < 1e-10
        assert ours.value <= value + 1e-8 * max(1, abs(value))
        # The referee's mixture breaks its bounds by a little, and its value may be lower by that.
        clean_M = np.clip(weights_M, args[3], args[4])
        clean_M = clean_M / clean_M.sum()
        slack = 1e-8 * max(1, abs(value)) + 10 * abs(ours.value) * abs(clean_M - weights_M).sum()
        assert abs(ours.value - value) <= slack
        if kl_weight >= 0.01:
            assert abs(found_M - weights_M).sum() / 2 < 1e-5
    assert judged > 950


@pytest.mark.slow
def test_ten_thousand_hostile_inputs_end_in_a_mixture_or_an_error():
    """PITFALL 18: no NaN, None or vector of zeros, whatever goes in."""
    rng, solved = np.random.default_rng(1), 0
    odd = np.array([0.0, 1.0, -1.0, 1e-300, 1e300, -1e300, np.nan, np.inf, -np.inf, 1e-12, 0.5, 700.0])

    def spoilt(x, share):
        x = np.array(x, np.float64)
        return np.where(rng.uniform(size=x.shape) < share, rng.choice(odd, size=x.shape), x)

    for _ in range(10_000):
        size, kl_weight = int(rng.integers(1, SIZE + 1)), float(rng.choice([0.0, 1e-9, 0.05, 1e9, np.nan, -1.0]))
        params, weights_N, natural_M, lower_M, upper_M, _ = problem(rng, size, 0.0, str(rng.choice(["free", "loose"])))
        share = float(rng.choice([0.0, 0.02, 0.2]))
        params = log_linear.Params(*(spoilt(x, share / 4) for x in params))
        lower_M, upper_M, natural_M = (spoilt(x, share) for x in (lower_M, upper_M, natural_M))
        try:
            feasibility.check_feasible(box(lower_M, upper_M), [str(j) for j in range(size)])
            if not (natural_M >= 0).all() or not 0 < natural_M.sum() < np.inf:
                continue
            natural_M = natural_M / natural_M.sum()
            if kl_weight > 0:
                feasibility.check_feasible(
                    box(lower_M, np.where(natural_M > 0, upper_M, 0)), [str(j) for j in range(size)]
                )
            found = solve(params, weights_N, natural_M, lower_M, upper_M, kl_weight)
        except UserError:
            continue
        solved += 1
        weights_M = found.weights_M[:size]
        assert np.isfinite([*weights_M, found.value, found.gap]).all() and abs(weights_M.sum() - 1) < 1e-10
        assert (weights_M >= lower_M).all() and (weights_M <= upper_M).all()
        assert found.status is Status.OPTIMAL or found.status is Status.MAX_ITERATIONS
    assert solved > 3000


def test_the_published_swarm_against_cvxpy(published):
    """METHOD §5: λ = 0.05, k = 4, R = 1e12 on DCLM; the law is fitted here, and both solve the same one."""
    folder = published / "olmix_dclm"
    swarm = table.SwarmTable.read(folder / "ratios.csv", folder / "metrics.csv", folder / "meta.json")
    swarm = task_groups.with_mmlu_groups(swarm)
    params = log_linear.fit(swarm.ratios_KM, swarm.bpb_KN, starts=4).params
    tasks, domains = len(swarm.tasks), len(swarm.domains)
    upper_M = feasibility.repetition_caps(swarm.tokens_M, 1e12, 4.0)
    weights_N = np.full(tasks, 1 / tasks)
    assert (tasks, domains) == (52, 24)
    for kl_weight in (0.05, 0.0):
        bounds = box(np.zeros(domains), upper_M)
        ours = solver.solve(Problem(log_linear.LAW, params, weights_N, swarm.natural_M, bounds, kl_weight))
        weights_M, value = referee(params, weights_N, swarm.natural_M, np.zeros(domains), upper_M, kl_weight)
        assert ours.status is Status.OPTIMAL and ours.value == pytest.approx(value, rel=1e-8)
        if kl_weight:
            assert abs(ours.weights_M - weights_M).sum() / 2 < 1e-5
            found = dict(zip(swarm.domains, ours.weights_M))
            assert found["software_development"] == pytest.approx(0.345, abs=0.01)
            assert found["software_development"] == pytest.approx(0.347, abs=0.008)
            assert found["science_math_and_technology"] == pytest.approx(0.180, abs=0.005)
            assert ours.value - kl_weight * ours.kl == pytest.approx(1.6426, abs=0.005)
            natural_N = evaluate(log_linear.LAW, params, swarm.natural_M[None])[0]
            assert natural_N.mean() == pytest.approx(2.0355, abs=0.005)
