"""next_runs.py and covariances.py: choices against posteriors that are recomputed in NumPy."""

import numpy as np
import pytest

from olmix_jax.laws import FittedLaw, log_linear, two_fidelity, warped_gp
from olmix_jax.propose import next_runs
from olmix_jax.propose.covariances import exact_covariances
from olmix_jax.swarm.fidelity import Cheap
from olmix_jax.utils.errors import UserError
from tests.laws import test_joint_posterior as joint

DOMAINS = tuple("abcd")
NATURAL_M = np.array([0.4, 0.3, 0.2, 0.1])


def runs(number=14, seed=0, shut=()):
    random = np.random.default_rng(seed)
    ratios_KM = random.dirichlet(np.ones(4), size=number)
    ratios_KM[:, list(shut)] = 0
    ratios_KM /= ratios_KM.sum(axis=1, keepdims=True)
    bpb_KN = 0.8 + np.exp(ratios_KM @ random.normal(-0.3, 0.8, size=(4, 2)))
    return ratios_KM, bpb_KN + 0.01 * random.normal(size=bpb_KN.shape)


@pytest.fixture(scope="module")
def params():
    return warped_gp.fit(*runs()).params


def latent_variance(params, trained_KM, at_QM):
    """Var_i(q) of the latent functions once ``trained_KM`` are trained, by a plain inverse in NumPy; NQ."""

    def kernel(theta_P, a_KM, b_QM):
        relevance_M, (linear, rough, length, _, warp) = theta_P[:-5], theta_P[-5:]
        a_KM, b_QM = (np.log1p(x / warp) / np.log1p(1 / warp) for x in (a_KM, b_QM))
        d2_KQ = (relevance_M * (a_KM[:, None] - b_QM[None]) ** 2).sum(axis=2)
        d_KQ = np.sqrt(3 * length * d2_KQ + 1e-12)
        return linear * (a_KM * relevance_M) @ b_QM.T + rough * (1 + d_KQ) * np.exp(-d_KQ)

    variance_NQ = []
    for theta_P in np.exp(params.theta_NP):
        noisy_KK = kernel(theta_P, trained_KM, trained_KM) + (theta_P[-2] + 1e-8) * np.eye(len(trained_KM))
        cross_KQ = kernel(theta_P, trained_KM, at_QM)
        prior_Q = np.diag(kernel(theta_P, at_QM, at_QM))
        variance_NQ.append(prior_Q - np.einsum("kq,kq->q", cross_KQ, np.linalg.solve(noisy_KK, cross_KQ)))
    return np.array(variance_NQ)


@pytest.mark.parametrize("weights_N", [None, [3.0, 0.5]])
def test_choice_equals_that_of_recomputed_posteriors(params, weights_N):
    random = np.random.default_rng(1)
    candidates_CM, reference_QM = random.dirichlet(np.ones(4), size=12), random.dirichlet(np.ones(4), size=9)
    w_N, trained_KM, expected, left = np.array(weights_N or [1.0, 1.0]), params.ratios_KM, [], []

    def doubt(trained_KM):
        return w_N @ np.log(latent_variance(params, trained_KM, reference_QM)).mean(axis=1) / w_N.sum() / 2

    before = doubt(trained_KM)
    for _ in range(4):
        after = [
            doubt(np.vstack([trained_KM, c_M])) if c not in expected else np.inf for c, c_M in enumerate(candidates_CM)
        ]
        expected.append(int(np.argmin(after)))
        left.append(np.exp(min(after) - before))
        trained_KM = np.vstack([trained_KM, candidates_CM[expected[-1]]])
    assert next_runs.choose(params, candidates_CM, reference_QM, 4, weights_N).tolist() == expected
    covariances = exact_covariances(params, candidates_CM, reference_QM)
    np.testing.assert_allclose(next_runs.choose_greedily(covariances, 4, weights_N).left_B, left, rtol=1e-6)


def test_run_of_weight_zero_counts_as_absent(params):
    ratios_KM, bpb_KN = runs()
    candidates_CM = np.random.default_rng(1).dirichlet(np.ones(4), size=12)
    wide_KM, wide_KN = np.vstack([ratios_KM, candidates_CM[:3]]), np.vstack([bpb_KN, np.ones((3, 2))])
    weight_RK = (np.arange(17) < 14)[None] * 1.0
    wide = warped_gp.Params(*(x[0] for x in warped_gp.fit_weighted(wide_KM, wide_KN, weight_RK)))
    chosen = [next_runs.choose(p, candidates_CM, candidates_CM, 5).tolist() for p in (params, wide)]
    assert chosen[0] == chosen[1]


def test_choice_from_samples_equals_choice_from_their_covariance():
    """Samples a·u have the covariance a aᵀ, which is conditioned here as a whole matrix."""
    random = np.random.default_rng(2)
    root_XR = random.normal(size=(15, 15))
    # Orthogonal samples with mean 0 have exactly this covariance.
    basis_RR = np.linalg.qr(np.hstack([np.ones((16, 1)), random.normal(size=(16, 15))]))[0][:, 1:]
    predicted_RX = basis_RR @ root_XR.T * np.sqrt(15) + np.arange(15.0)
    covariance_XX, noise, expected = root_XR @ root_XR.T, 0.7, []
    for _ in range(5):
        lost_CQ = covariance_XX[:10, 10:] ** 2 / (np.diag(covariance_XX)[:10, None] + noise)
        gain_C = -np.log(1 - lost_CQ / np.diag(covariance_XX)[None, 10:]).sum(axis=1)
        gain_C[expected] = -1
        c = int(gain_C.argmax())
        covariance_XX = covariance_XX - np.outer(covariance_XX[c], covariance_XX[c]) / (covariance_XX[c, c] + noise)
        expected.append(c)
    predicted = predicted_RX[:, :10, None], predicted_RX[:, 10:, None]
    assert next_runs.choose_sampled(*predicted, np.array([noise]), 5).tolist() == expected
    with pytest.raises(UserError, match="16 samples"):
        next_runs.choose_sampled(*predicted, np.array([noise]), 16)


def propose(fitted, number=6, existing_KM=None, **settings):
    existing_KM = fitted.params.ratios_KM if existing_KM is None else existing_KM
    arguments = {"natural_M": NATURAL_M, "domains": DOMAINS, "existing_KM": existing_KM, "candidates": 200}
    return next_runs.propose_next(fitted, number, **arguments | settings)


def test_proposed_mixtures_keep_their_distance_and_depend_only_on_the_seed(params):
    found, again, other = (
        propose(FittedLaw(warped_gp.LAW, params), seed=seed, min_distance=0.1, total=64) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(found.ratios_BM, again.ratios_BM)
    assert not np.array_equal(found.ratios_BM, other.ratios_BM)
    assert (found.ratios_BM >= 0).all() and found.ratios_BM.shape == (6, 4)
    np.testing.assert_allclose(found.ratios_BM.sum(axis=1), 1)
    np.testing.assert_array_equal(found.ratios_BM * 64, np.rint(found.ratios_BM * 64))
    everything_KM = np.vstack([params.ratios_KM, found.ratios_BM])
    far_BK = next_runs.total_variation(found.ratios_BM, everything_KM)
    far_BK[np.arange(6), np.arange(14, 20)] = np.inf
    assert (far_BK >= 0.1).all()
    assert (np.diff(np.append(1.0, found.left_B)) < 0).all() and found.left_B[-1] > 0


def test_given_mixtures_come_first_and_the_others_are_chosen_as_if_they_were_trained(params):
    fitted, first_FM = FittedLaw(warped_gp.LAW, params), np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1]])
    found = propose(fitted, 5, first_FM=first_FM, min_distance=0.1)
    np.testing.assert_array_equal(found.ratios_BM[:2], first_FM)
    assert (next_runs.total_variation(found.ratios_BM[2:], first_FM) >= 0.1).all()
    assert (np.diff(np.append(1.0, found.left_B)) < 0).all()
    np.testing.assert_array_equal(propose(fitted, 2, first_FM=first_FM).ratios_BM, first_FM)
    # A given mixture may be that of a run, and another one need not be left.
    same = propose(fitted, 3, first_FM=params.ratios_KM[:2], min_distance=0.9, existing_KM=params.ratios_KM[:0])
    np.testing.assert_array_equal(same.ratios_BM[:2], params.ratios_KM[:2])


def test_domain_that_no_run_contains_is_proposed():
    params = warped_gp.fit(*runs(shut=(3,))).params
    found = propose(FittedLaw(warped_gp.LAW, params), 4)
    assert found.ratios_BM[0, 3] > 0.1 and (found.ratios_BM[:, 3] > 0).sum() >= 2


def test_any_law_with_samples_proposes_next_runs():
    ratios_KM, bpb_KN = runs()
    weight_RK = np.random.default_rng(0).multinomial(14, np.full(14, 1 / 14), size=12) * 1.0
    fit = log_linear.fit(ratios_KM, bpb_KN, starts=2)
    samples = log_linear.fit_weighted(ratios_KM, bpb_KN, weight_RK, starts=2, near=fit.params)
    found = propose(FittedLaw(log_linear.LAW, fit.params, samples), 3, ratios_KM, noise_N=np.full(2, 1e-4))
    assert found.ratios_BM.shape == (3, 4) and (np.diff(found.left_B) < 0).all()
    with pytest.raises(UserError, match="law log_linear need samples of it; set fit.resamples"):
        propose(FittedLaw(log_linear.LAW, fit.params), 3, ratios_KM)


def test_fewer_runs_are_proposed_if_no_other_candidate_is_far_enough(params):
    found = propose(FittedLaw(warped_gp.LAW, params), 9, np.array([NATURAL_M]), min_distance=0.55)
    assert 0 < len(found.ratios_BM) == len(found.left_B) < 9


def test_many_tasks_get_fewer_candidates_and_references(params, monkeypatch):
    seen = []

    def record(params, ratios_CM, reference_QM):
        seen.append((len(ratios_CM), len(reference_QM)))
        return exact_covariances(params, ratios_CM, reference_QM)

    monkeypatch.setattr(next_runs, "exact_covariances", record)
    monkeypatch.setattr(next_runs, "MEMORY", 8 * 2 * 14 * 50)
    assert len(propose(FittedLaw(warped_gp.LAW, params), 3).ratios_BM) == 3
    assert seen == [(50, 3)]


def test_impossible_requests_are_errors(params):
    with pytest.raises(UserError, match="none of .* at least 0.6 to all 14 runs; lower swarm.min_distance"):
        propose(FittedLaw(warped_gp.LAW, params), 9, min_distance=0.6)
    candidates_CM = np.eye(4)
    with pytest.raises(UserError, match="only 4 of 5 next runs can be proposed"):
        next_runs.choose(params, candidates_CM, candidates_CM, 5)
    with pytest.raises(UserError, match="4 domains"):
        next_runs.choose(params, np.eye(3), candidates_CM, 1)
    with pytest.raises(UserError, match="2 task weights"):
        next_runs.choose(params, candidates_CM, candidates_CM, 1, [1.0, -1.0])


def propose_both(cost, number=4, params=None, **settings):
    """Propose for a law of 5 real and 9 cheap runs."""
    params = joint.law()._replace(slope_N=np.array([4.0, 6.0])) if params is None else params
    ids = tuple(f"c{j}" for j in range(joint.CHEAP))
    cheap = Cheap(ids, params.cheap.ratios_KM, np.ones((joint.CHEAP, joint.TASKS)), cost)
    return propose(FittedLaw(two_fidelity.LAW, params), number, params.own.ratios_KM, cheap=cheap, **settings)


def test_law_of_two_fidelities_proposes_runs_of_both_kinds_within_the_budget():
    found = propose_both(0.05)
    real, cheap = int((~found.cheap_B).sum()), int(found.cheap_B.sum())
    assert real and cheap and real + 0.05 * cheap <= 4 + 1e-9 < real + 0.05 * (cheap + 1)
    assert found.left_B[-1] < found.left_alone < 1 and (np.diff(found.left_B) < 0).all()
    params = joint.law()
    for own_BM, trained_KM in (
        (found.ratios_BM[~found.cheap_B], params.own.ratios_KM),
        (found.ratios_BM[found.cheap_B], params.cheap.ratios_KM),
    ):
        distance_BX = next_runs.total_variation(own_BM, np.vstack([own_BM, trained_KM]))
        distance_BX[np.arange(len(own_BM)), np.arange(len(own_BM))] = 1
        assert (distance_BX >= 0.02).all()


def test_runs_are_real_alone_where_cheap_ones_have_no_known_cost_or_are_not_used():
    unknown, merged, expensive = (propose_both(cost) for cost in (None, 0.0, 0.999))
    unused = joint.law()._replace(slope_N=np.zeros(joint.TASKS))
    for found in (unknown, merged, expensive, propose_both(0.1, params=unused)):
        assert len(found.ratios_BM) == 4 and not found.cheap_B.any() and found.left_alone == found.left_B[-1]
    np.testing.assert_array_equal(unknown.ratios_BM, merged.ratios_BM)
