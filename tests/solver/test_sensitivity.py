"""Derivatives of the proposed mixture against differences of the solver, and prices of bounds against its minimum."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from olmix_jax.laws import cpu, log_linear
from olmix_jax.propose.feasibility import repetition_caps
from olmix_jax.solver import sensitivity
from olmix_jax.solver.bounds import Bounds
from olmix_jax.solver.objective import Objective, mean
from olmix_jax.solver.problem import Problem
from olmix_jax.solver.solve import solve
from olmix_jax.solver.status import Status

SIZE = 8
KL_WEIGHTS = [0.05, 0.0]
STEP = 1e-5
both = pytest.mark.parametrize("kl_weight", KL_WEIGHTS)


def minimiser(kl_weight):
    """The minimiser as a function of (params, weights, anchor, λ, bounds, start)."""

    def minimum(params, weights_N, natural_M, kl_weight_, bounds, start_M):
        objective = Objective(log_linear.predict, mean, params, weights_N, natural_M, kl_weight_)
        return sensitivity.minimiser(objective, bounds, start_M, entropic=bool(kl_weight > 0))

    return minimum


def quick(function):
    return jax.jit(function, compiler_options=cpu.QUICK)


@functools.cache
def pushed(entropic):
    """(arguments, tangents) → (p, its move), one program for all directions."""
    f = minimiser(entropic)

    def push(arguments, tangents):
        tangents = tangents[:4] + (tangents[4]._replace(member_GM=np.zeros((2, SIZE), jax.dtypes.float0)), tangents[5])
        return jax.jvp(f, arguments, tangents)

    return quick(push)


@functools.cache
def minimum(entropic):
    return quick(minimiser(entropic))


def move(arguments, tangents):
    with cpu.float64():
        return np.asarray(pushed(bool(arguments[3] > 0))(arguments, tangents)[1])


def weights(arguments):
    with cpu.float64():
        return np.asarray(minimum(bool(arguments[3] > 0))(*arguments))


def solved(arguments):
    params, weights_N, natural_M, kl_weight, bounds, _ = arguments
    return solve(Problem(log_linear.LAW, params, weights_N, natural_M, bounds, float(kl_weight)))


@functools.cache
def problem(kl_weight):
    """A law with its optimum inside; then a cap and a lower bound that bind, and two nested groups that do."""
    rng = np.random.default_rng(4)
    params = log_linear.Params(0.3 * rng.normal(size=SIZE), 0.3 * rng.normal(size=(SIZE, SIZE)) - 6 * np.eye(SIZE))
    natural_M, weights_N = rng.dirichlet(np.full(SIZE, 9.0)), rng.dirichlet(np.full(SIZE, 99.0))
    member_GM = np.array([[1, 1, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0, 0, 0]], bool)
    bounds = Bounds(np.zeros(SIZE), np.ones(SIZE), member_GM, np.zeros(2), np.ones(2))
    arguments = params, weights_N, natural_M, np.float64(kl_weight), bounds, natural_M

    def bounded(**changes):
        return (*arguments[:4], arguments[4]._replace(**changes), arguments[5])

    sum_G = member_GM @ solved(arguments).weights_M
    arguments = bounded(low_G=np.array([0.0, 1.1 * sum_G[1]]), high_G=np.array([0.8 * sum_G[0], 1.0]))
    p_M, unit_MM = solved(arguments).weights_M, np.eye(SIZE)
    arguments = bounded(lower_M=1.2 * p_M * unit_MM[4], upper_M=1 + (0.9 * p_M - 1) * unit_MM[5])
    found, (lower_M, upper_M, *_) = solved(arguments), arguments[4]
    # Strict: each bound has its price.
    assert found.status is Status.OPTIMAL and found.multipliers_M[5] > 1e-3 and found.weights_M[4] == lower_M[4]
    assert found.group_multipliers_G[0] > 1e-3 and found.group_multipliers_G[1] < -1e-3
    assert ((found.weights_M > lower_M) & (found.weights_M < upper_M)).sum() == SIZE - 2
    return arguments


NAMES = ["λ", "cap", "lower bound", "task weights", "law", "natural", "inner group", "outer group", "slack", "all"]


def directions(arguments):
    """Tangents of all arguments, by what moves."""
    rng = np.random.default_rng(0)
    still = jax.tree.map(np.zeros_like, arguments)

    def of_bounds(**tangents):
        return still[:4] + (still[4]._replace(**tangents),) + still[5:]

    def only(i, tangent):
        return still[:i] + (tangent,) + still[i + 1 :]

    everything = jax.tree.map(lambda x: x if x.dtype == bool else 0.1 * rng.normal(size=x.shape), still)
    moves = (
        only(3, np.float64(1.0)),
        of_bounds(upper_M=np.eye(SIZE)[5]),
        of_bounds(lower_M=np.eye(SIZE)[4]),
        only(1, rng.normal(size=SIZE) @ (np.eye(SIZE) - 1 / SIZE)),
        only(0, jax.tree.map(lambda x: rng.normal(size=x.shape), arguments[0])),
        only(2, rng.normal(size=SIZE) @ (np.eye(SIZE) - 1 / SIZE) * arguments[2]),
        of_bounds(high_G=np.array([1.0, 0.0])),
        of_bounds(low_G=np.array([0.0, 1.0])),
        of_bounds(low_G=np.array([1.0, 0.0]), high_G=np.array([0.0, 1.0])),
        (*everything[:4], everything[4]._replace(lower_M=0.1 * np.eye(SIZE)[4]), everything[5]),
    )
    return dict(zip(NAMES, moves, strict=True))


@both
def test_the_value_is_the_solvers(kl_weight):
    arguments = problem(kl_weight)
    np.testing.assert_allclose(weights(arguments), solved(arguments).weights_M, atol=1e-12)


@both
@pytest.mark.parametrize("name", NAMES)
def test_derivatives_against_differences(name, kl_weight):
    arguments = problem(kl_weight)
    tangents = directions(arguments)[name]
    if kl_weight == 0:
        # Its program has no KL term: see the next test.
        tangents = (*tangents[:3], np.float64(0.0), *tangents[4:])
    found_M = move(arguments, tangents)

    def at(step):
        def moved(x, d):
            return x if x.dtype == bool else x + step * d

        return weights(jax.tree.map(moved, arguments, tangents))

    np.testing.assert_allclose(found_M, (at(STEP) - at(-STEP)) / (2 * STEP), atol=2e-6)
    none = name == "slack" or (kl_weight == 0 and name in ("λ", "natural"))
    assert abs(found_M.sum()) < 1e-12 and (none or abs(found_M).max() > 0.01)


def test_the_derivative_at_no_kl_weight_is_the_limit():
    """By λ at 0, against the solver's other geometry at a small λ."""
    arguments = problem(0.0)
    tangents = directions(arguments)["λ"]
    near = weights(arguments[:3] + (np.float64(STEP),) + arguments[4:])
    np.testing.assert_allclose(move(arguments, tangents), (near - weights(arguments)) / STEP, atol=1e-3)


def test_forward_is_reverse():
    arguments = problem(0.05)
    params, weights_N, natural_M, kl_weight, bounds, start_M = arguments

    def of(x):
        moved = bounds._replace(upper_M=x["upper"], low_G=x["low"], high_G=x["high"])
        return minimiser(0.05)(x["law"], x["weights"], x["natural"], x["λ"], moved, start_M)

    x = {"law": params, "weights": weights_N, "natural": natural_M, "λ": kl_weight}
    x |= {"upper": bounds.upper_M, "low": bounds.low_G, "high": bounds.high_G}
    with cpu.float64():
        forward, reverse = (jax.tree.map(np.asarray, quick(jac(of))(x)) for jac in (jax.jacfwd, jax.jacrev))
    for a, b in zip(jax.tree.leaves(forward), jax.tree.leaves(reverse), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    columns = {"λ": ("λ", ()), "cap": ("upper", 5), "inner group": ("high", 0), "outer group": ("low", 1)}
    for direction, (key, j) in columns.items():
        column_M = forward[key] if j == () else forward[key][:, j]
        np.testing.assert_allclose(column_M, move(arguments, directions(arguments)[direction]), atol=1e-12)


def test_batches():
    """A gradient in λ of a mixture's weight, for many λ at once."""
    arguments = problem(0.05)

    def first(kl_weight):
        return minimiser(0.05)(*arguments[:3], kl_weight, *arguments[4:])[0]

    weights_of_kl = np.array([0.03, 0.05, 0.08])
    with cpu.float64():
        found = np.asarray(quick(jax.vmap(jax.grad(first)))(weights_of_kl))
    tangents = directions(arguments)["λ"]
    expected = [move(arguments[:3] + (np.float64(x),) + arguments[4:], tangents)[0] for x in weights_of_kl]
    np.testing.assert_allclose(found, expected, atol=1e-9)


# Derivatives of a minimiser that is already known.


def columns(moves):
    return [getattr(moves, field.name) for field in dataclasses.fields(moves)]


def derivatives(arguments, p_M=None):
    params, weights_N, natural_M, kl_weight, bounds, _ = arguments
    p_M = weights(arguments) if p_M is None else p_M
    return sensitivity.derivatives(Problem(log_linear.LAW, params, weights_N, natural_M, bounds, float(kl_weight)), p_M)


@both
def test_derivatives_of_a_known_minimiser(kl_weight):
    arguments = problem(kl_weight)
    found, by = derivatives(arguments), directions(arguments)
    assert found.kl_weight_M.shape == (SIZE,) and found.weights_MN.shape == found.upper_MM.shape == (SIZE, SIZE)
    assert found.low_MG.shape == found.high_MG.shape == (SIZE, 2)
    expected = {name: move(arguments, tangents) for name, tangents in by.items()}
    np.testing.assert_allclose(found.kl_weight_M, expected["λ"], atol=1e-9)
    np.testing.assert_allclose(found.upper_MM[:, 5], expected["cap"], atol=1e-9)
    np.testing.assert_allclose(found.weights_MN @ by["task weights"][1], expected["task weights"], atol=1e-9)
    np.testing.assert_allclose(found.high_MG[:, 0], expected["inner group"], atol=1e-9)
    np.testing.assert_allclose(found.low_MG[:, 1], expected["outer group"], atol=1e-9)
    for x in columns(found):
        np.testing.assert_allclose(x.sum(axis=0), np.zeros(x.shape[1:]), atol=1e-12)
    # A cap that does not bind moves nothing.
    assert not np.delete(found.upper_MM, 5, axis=1).any() and not found.high_MG[:, 1].any()


def test_a_vertex_moves_with_its_bounds():
    """Two tasks, both best with domain 0: no curvature, and none needed. The next domain takes what the cap leaves."""
    params = log_linear.Params(np.zeros(SIZE), np.tile(-np.linspace(1, 0.3, SIZE), (SIZE, 1)))
    arguments = (params, *problem(0.0)[1:])
    bounds = arguments[4]._replace(lower_M=np.zeros(SIZE), upper_M=np.full(SIZE, 0.6), low_G=np.zeros(2))
    arguments = (*arguments[:4], bounds._replace(high_G=np.ones(2)), arguments[5])
    np.testing.assert_allclose(weights(arguments), [0.6, 0.4, *[0] * 6], atol=1e-14)
    found = derivatives(arguments)
    np.testing.assert_allclose(found.upper_MM[:, 0], [1, -1, *[0] * 6], atol=1e-12)
    assert not found.upper_MM[:, 1:].any() and not found.kl_weight_M.any() and not found.weights_MN.any()


@both
def test_what_is_fixed_cannot_move_alone(kl_weight):
    arguments = problem(kl_weight)
    p_M = weights(arguments)
    bounds = arguments[4]._replace(lower_M=p_M, upper_M=p_M, low_G=np.zeros(2), high_G=np.ones(2))
    arguments = (*arguments[:4], bounds, arguments[5])
    assert not any(x.any() for x in columns(derivatives(arguments)))
    # All together it can.
    exchange_M = np.eye(SIZE)[0] - np.eye(SIZE)[1]
    tangents = directions(arguments)["cap"]
    moved = tangents[4]._replace(lower_M=exchange_M, upper_M=exchange_M)
    np.testing.assert_allclose(move(arguments, (*tangents[:4], moved, tangents[5])), exchange_M, atol=1e-14)


def test_a_minimiser_among_many_has_no_derivative():
    """Domains 0 and 1 are the same to all tasks, and λ = 0."""
    params, *rest = problem(0.0)
    params = params._replace(coef_NM=params.coef_NM @ (np.eye(SIZE) + np.eye(SIZE, k=1) * (np.arange(SIZE) == 1)))
    coef_NM = params.coef_NM.copy()
    coef_NM[:, 1] = coef_NM[:, 0]
    arguments = (params._replace(coef_NM=coef_NM), *rest)
    bounds = arguments[4]._replace(lower_M=np.zeros(SIZE), upper_M=np.ones(SIZE), low_G=np.zeros(2), high_G=np.ones(2))
    arguments = (*arguments[:4], bounds, arguments[5])
    p_M = weights(arguments)
    assert (p_M[:2] > 0.01).all() and derivatives(arguments, p_M) is None
    assert np.isnan(move(arguments, directions(arguments)["law"])).all()
    # The KL term makes it one.
    assert derivatives((*arguments[:3], np.float64(0.05), *arguments[4:])) is not None


def test_equal_bounds_move_on_the_side_of_the_price():
    """A fixed domain that should have more moves with its cap, and one that should have less with its lower bound."""
    arguments = problem(0.05)
    p_M, bounds = weights(arguments), arguments[4]
    for extra, name, j in ((-0.01, "upper", 6), (0.01, "lower", 6)):
        fixed_M = np.where(np.arange(SIZE) == j, p_M[j] + extra, 0.0)
        fixed = bounds._replace(lower_M=np.maximum(bounds.lower_M, fixed_M))
        fixed = fixed._replace(upper_M=np.where(fixed_M > 0, fixed_M, bounds.upper_M))
        column_M = derivatives((*arguments[:4], fixed, arguments[5])).upper_MM[:, j]
        assert column_M[j] == (name == "upper")
        # The cap of a group of one, fixed by the group.
        member_GM = np.stack([np.arange(SIZE) == j, bounds.member_GM[1]])
        low_G, high_G = np.array([fixed_M[j], bounds.low_G[1]]), np.array([fixed_M[j], 1.0])
        grouped = bounds._replace(member_GM=member_GM, low_G=low_G, high_G=high_G)
        found = derivatives((*arguments[:4], grouped, arguments[5]))
        np.testing.assert_allclose((found.high_MG if name == "upper" else found.low_MG)[j, 0], 1, atol=1e-12)
        assert not (found.low_MG if name == "upper" else found.high_MG)[:, 0].any()


def test_absent_and_redundant():
    """A domain of natural weight 0 stays out; of two groups that say the same, one is enough."""
    params, weights_N, natural_M, kl_weight, bounds, start_M = problem(0.05)
    natural_M = np.where(np.arange(SIZE) == 7, 0.0, natural_M) / (1 - natural_M[7])
    bounds = bounds._replace(member_GM=bounds.member_GM[[0, 0]], low_G=np.zeros(2), high_G=bounds.high_G[[0, 0]])
    arguments = params, weights_N, natural_M, kl_weight, bounds, start_M
    p_M, found = weights(arguments), derivatives(arguments)
    assert p_M[7] == 0 and p_M.sum() == pytest.approx(1, abs=1e-14)
    assert all(np.isfinite(x).all() and not x[7].any() for x in columns(found))
    np.testing.assert_allclose(found.high_MG[:2].sum(axis=0), [1, 0], atol=1e-12)


@both
def test_groups_that_have_all_domains(kl_weight):
    """Two fixed groups that have all domains between them: what one gains the other loses."""
    *arguments, start_M = problem(kl_weight)
    member_GM = np.stack([np.arange(SIZE) < 4, np.arange(SIZE) >= 4])
    sum_G = member_GM @ weights((*arguments, start_M)) + np.array([0.03, -0.03])
    bounds = arguments[4]._replace(member_GM=member_GM, low_G=sum_G, high_G=sum_G)

    def at(step):
        moved_G = sum_G + step * np.array([1, -1])
        return weights((*arguments[:4], bounds._replace(low_G=moved_G, high_G=moved_G), start_M))

    found = derivatives((*arguments[:4], bounds, start_M))
    assert all(abs(x.sum(axis=0)).max() < 1e-12 for x in columns(found))
    # One bound follows from the other, so that it is the move of one of them that counts.
    found_M = (found.low_MG + found.high_MG) @ np.array([1, -1])
    np.testing.assert_allclose(found_M, (at(STEP) - at(-STEP)) / (2 * STEP), atol=2e-6)
    assert abs(found_M).max() > 0.1
    price_G = solved((*arguments[:4], bounds, start_M)).group_multipliers_G
    down, up = (solved((*arguments[:4], _exchange(bounds, sign * STEP), start_M)).value for sign in (-1, 1))
    assert price_G.min() == 0 and price_G[0] - price_G[1] == pytest.approx((down - up) / (2 * STEP), rel=1e-5)


def _exchange(bounds, step):
    moved_G = bounds.low_G + step * np.array([1, -1])
    return bounds._replace(low_G=moved_G, high_G=moved_G)


def test_weights_near_zero_have_exact_derivatives():
    """Relative, not absolute, precision of the move of a weight of 2e-12."""
    params, weights_N, natural_M, kl_weight, bounds, start_M = problem(0.05)
    coef_NM = params.coef_NM.copy()
    coef_NM[:, 6] = 2.0
    arguments = params._replace(coef_NM=coef_NM), weights_N, natural_M, kl_weight, bounds, start_M
    p_M, tangents = weights(arguments), directions(arguments)["λ"]
    assert 0 < p_M[6] < 1e-11

    def log_at(step):
        return np.log(weights((*arguments[:3], kl_weight + step, *arguments[4:]))[6])

    expected = (log_at(STEP) - log_at(-STEP)) / (2 * STEP)
    assert move(arguments, tangents)[6] / p_M[6] == pytest.approx(expected, rel=1e-5)


# Prices of bounds.


@both
def test_multipliers_are_the_fall_of_the_minimum(kl_weight):
    """Of the cap and of both groups: −dF*/dbound, nested as they are."""
    arguments = problem(kl_weight)
    found, by = solved(arguments), directions(arguments)
    prices = {"cap": found.multipliers_M[5]}
    prices |= {"inner group": found.group_multipliers_G[0], "outer group": found.group_multipliers_G[1]}
    for name, price in prices.items():
        d_bounds = by[name][4]
        down, up = (
            solved((*arguments[:4], _moved(arguments[4], d_bounds, sign * STEP), arguments[5])).value
            for sign in (-1, 1)
        )
        assert price == pytest.approx((down - up) / (2 * STEP), rel=1e-5), name


def _moved(bounds, d_bounds, step):
    return Bounds(*(x if x.dtype == bool else x + step * d for x, d in zip(bounds, d_bounds)))


@both
def test_prices_of_repeats_and_tokens(kl_weight):
    """One more repeat of domain j is worth μ_j N_j/R, and a billion more unique tokens of it μ_j k·1e9/R."""
    arguments, target, repeats = problem(kl_weight), 1e12, 4.0
    bounds = arguments[4]
    tokens_M = np.where(np.arange(SIZE) == 5, bounds.upper_M * target / repeats, 0.9 * target)

    def at(tokens_M, repeats):
        upper_M = repetition_caps(tokens_M, target, repeats)
        return solved((*arguments[:4], bounds._replace(upper_M=upper_M), arguments[5]))

    price_M = at(tokens_M, repeats).multipliers_M
    assert price_M[5] > 1e-3 and not np.delete(price_M, 5).any()
    step_M = 1.0 * (np.arange(SIZE) == 5)
    few, more = (at(tokens_M, repeats + step * step_M).value for step in (-1e-3, 1e-3))
    assert price_M[5] * tokens_M[5] / target == pytest.approx((few - more) / 2e-3, rel=1e-4)
    few, more = (at(tokens_M + step * 1e9 * step_M, repeats).value for step in (-1e-2, 1e-2))
    assert price_M[5] * repeats * 1e9 / target == pytest.approx((few - more) / 2e-2, rel=1e-4)
