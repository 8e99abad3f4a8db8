"""The joint posterior of real and cheap runs: against plain inverses in NumPy, and what further runs do to it."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix_jax.laws import evaluate, joint_posterior, two_fidelity, warped_gp
from olmix_jax.laws.law import evaluate_spread

DOMAINS, TASKS, REAL, CHEAP = 4, 2, 5, 9


def process(draw, runs):
    """Return a posterior of the standardised latent functions of some runs, with any hyperparameters."""
    theta_NP = np.log(draw.uniform(0.2, 2.0, size=(TASKS, DOMAINS + 5)))
    theta_NP[:, -2] = np.log(draw.uniform(0.02, 0.3, size=TASKS))
    zeros_N = np.zeros(TASKS)
    return warped_gp.Params(
        draw.dirichlet(np.ones(DOMAINS), size=runs),
        draw.uniform(0.5, 2.0, size=runs),
        theta_NP,
        np.zeros((TASKS, runs)),
        0.1 * draw.normal(size=(TASKS, runs)),
        zeros_N,
        draw.uniform(0.1, 0.2, size=TASKS),
        np.ones(TASKS),
        np.zeros((0, DOMAINS)),
        np.zeros(0),
        np.zeros((TASKS, 0)),
        np.zeros((TASKS, DOMAINS)),
        zeros_N,
    )


def law(seed=0, error=0.0):
    """Return the params of a law of both kinds."""
    draw = np.random.default_rng(seed)
    own, cheap = process(draw, REAL), process(draw, CHEAP)._replace(floor_N=np.array([0.3, 0.0]))
    slope_N, error_N = draw.uniform(1.0, 2.0, size=TASKS), np.full(TASKS, error)
    return two_fidelity.Params(own, slope_N, error_N, 0.5 * error_N, np.array([0.2, 0.1]), 1.5, 0.1, cheap)


def mixtures(number, seed=1):
    return np.random.default_rng(seed).dirichlet(np.ones(DOMAINS), size=number)


def kernel(theta_P, one_KM, other_QM):
    relevance_M, (linear, rough, length, _, warp) = np.exp(theta_P[:-5]), np.exp(theta_P[-5:])
    one_KM, other_QM = (np.log1p(x / warp) / np.log1p(1 / warp) for x in (one_KM, other_QM))
    d_KQ = np.sqrt(3 * length * (relevance_M * (one_KM[:, None] - other_QM[None]) ** 2).sum(axis=2) + 1e-12)
    return linear * (one_KM * relevance_M) @ other_QM.T + rough * (1 + d_KQ) * np.exp(-d_KQ)


def noise(of, i):
    return np.exp(of.theta_NP[i, -2])


def by_inverse(params, i, real_CM, cheap_DM, reference_QM):
    """Return the covariance of what is asked, [C; D; Q], given all runs of both kinds at once; task i."""
    own, cheap = params.own, params.cheap
    asked = [(own.ratios_KM, True), (cheap.ratios_KM, False), (real_CM, True), (cheap_DM, False), (reference_QM, True)]
    at_XM = np.concatenate([ratios_KM for ratios_KM, _ in asked])
    real_X = np.concatenate([np.full(len(ratios_KM), real) for ratios_KM, real in asked])
    bpb_X = evaluate(warped_gp.LAW, cheap, at_XM)[:, i]
    # The slope of log f by the latent function of the cheap law, by finite differences of its offset.
    moved = cheap._replace(offset_N=cheap.offset_N + 1e-5 * cheap.scale_N)
    steep_X = (np.log(evaluate(warped_gp.LAW, moved, at_XM)[:, i]) - np.log(bpb_X)) / 1e-5
    unit = own.scale_N[i]
    shape_X = np.where(real_X, params.slope_N[i] * steep_X / unit, 1.0)
    prior_XX = np.outer(real_X, real_X) * kernel(own.theta_NP[i], at_XM, at_XM)
    prior_XX = prior_XX + np.outer(shape_X, shape_X) * kernel(cheap.theta_NP[i], at_XM, at_XM)
    seen = REAL + CHEAP
    noise_K = np.concatenate([noise(own, i) / own.weight_K, noise(cheap, i) / cheap.weight_K]) + 1e-8
    gain_XX = prior_XX[seen:, :seen] @ np.linalg.solve(
        prior_XX[:seen, :seen] + np.diag(noise_K), prior_XX[:seen, seen:]
    )
    unsure = np.hypot(params.common_error_N[i], params.own_error_N[i]) / unit
    error_X = (real_X * unsure * (np.log(bpb_X) - params.centre_N[i]))[seen:]
    return prior_XX[seen:, seen:] - gain_XX + np.outer(error_X, error_X)


def test_covariances_equal_those_given_all_runs_at_once():
    params, (real_CM, cheap_DM, reference_QM) = law(error=0.2), (mixtures(2), mixtures(2, 2), mixtures(4, 3))
    found = joint_posterior.covariances(params, real_CM, cheap_DM, reference_QM)
    for i in range(TASKS):
        expected_XX = by_inverse(params, i, real_CM, cheap_DM, reference_QM)
        np.testing.assert_allclose(found.variance_NC[i], np.diag(expected_XX)[:4], rtol=1e-6)
        np.testing.assert_allclose(found.variance_NQ[i], np.diag(expected_XX)[4:], rtol=1e-6)
        np.testing.assert_allclose(found.cross_NCQ[i], expected_XX[:4, 4:], rtol=1e-6, atol=1e-9)
        for c in range(4):
            np.testing.assert_allclose(found.column(c)[i], expected_XX[:4, c], rtol=1e-6, atol=1e-9)
        expected_C = np.repeat([noise(params.own, i), noise(params.cheap, i)], [2, 2]) + 1e-8
        np.testing.assert_allclose(found.noise_NC[i], expected_C, rtol=1e-12)


def trained(of, one_M):
    """Return a posterior whose last run, of weight 0, is trained at another mixture."""
    weight_K = np.append(of.weight_K[:-1], 1.0)
    return of._replace(ratios_KM=np.vstack([of.ratios_KM[:-1], one_M]), weight_K=weight_K)


@pytest.mark.parametrize("kind", ["own", "cheap"])
def test_run_of_either_kind_lowers_variances_by_the_covariance(kind):
    """Var − Cov²/(Var(c) + s²) equals the variance of a law that has the run."""
    params, two_2M, reference_QM = law(), mixtures(2), mixtures(4, 3)
    for of in (params.own, params.cheap):
        of.weight_K[-1], of.alpha_NK[:, -1] = 0.0, 0.0
    before = joint_posterior.covariances(params, two_2M, two_2M, reference_QM)
    # A run of weight 0, which is then trained, so that the shapes stay.
    after = params._replace(**{kind: trained(getattr(params, kind), two_2M[0])})
    after_NQ = joint_posterior.covariances(after, two_2M, two_2M, reference_QM).variance_NQ
    c = 0 if kind == "own" else 2
    lost_NQ = before.cross_NCQ[:, c] ** 2 / (before.variance_NC[:, c] + before.noise_NC[:, c])[:, None]
    np.testing.assert_allclose(before.variance_NQ - lost_NQ, after_NQ, rtol=1e-6)
    assert (after_NQ < before.variance_NQ).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_cheap_run_is_worth_no_more_than_a_real_run_of_equal_noise(seed):
    """At the mixture of the run, before real runs, which make what is left of u and h depend on each other."""
    params, at_2M = law(seed, error=0.1), mixtures(2, seed + 1)
    own, cheap = params.own, params.cheap._replace(floor_N=np.zeros(TASKS))
    steep_N = params.slope_N * cheap.scale_N / own.scale_N
    theta_NP = own.theta_NP.copy()
    theta_NP[:, -2] = cheap.theta_NP[:, -2] + 2 * np.log(steep_N)
    params = params._replace(own=own._replace(theta_NP=theta_NP, weight_K=np.zeros(REAL)), cheap=cheap)
    found = joint_posterior.covariances(params, at_2M, at_2M, np.vstack([at_2M, at_2M]))
    worth_NC = np.einsum("ncc->nc", found.cross_NCQ) ** 2 / (found.variance_NC + found.noise_NC)
    assert (worth_NC[:, 2:] <= worth_NC[:, :2] * (1 + 1e-6)).all() and (worth_NC > 0).all()


def test_cheap_runs_tell_nothing_of_tasks_without_a_slope():
    params = law()._replace(slope_N=np.array([0.0, 1.0]), common_error_N=np.array([0.0, 0.1]))
    found = joint_posterior.covariances(params, mixtures(2), mixtures(2, 2), mixtures(4, 3))
    np.testing.assert_array_equal(found.cross_NCQ[0, 2:], 0)
    assert (found.cross_NCQ[1, 2:] != 0).all()
    assert all(np.isfinite(of).all() for of in jax.tree.leaves(found._replace(column=None)))


def test_variance_without_real_runs_is_that_of_the_law():
    params, reference_QM = law(error=0.2), mixtures(4, 3)
    params.own.weight_K[:] = 0.0
    for of in (params.own, params.cheap):  # predictions that agree with the targets
        of.alpha_NK[:] = 0.0
    bpb_NQ = evaluate(two_fidelity.LAW, params, reference_QM).T
    spread_NQ = evaluate_spread(two_fidelity.LAW, params, reference_QM).T / bpb_NQ / params.own.scale_N[:, None]
    found_NQ = joint_posterior.covariances(params, mixtures(2), mixtures(2), reference_QM).variance_NQ
    np.testing.assert_allclose(found_NQ, spread_NQ**2 - np.exp(params.own.theta_NP[:, -2:-1]), rtol=1e-6)
