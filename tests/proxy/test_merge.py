"""proxy/merge.py: models of any mixture from trained experts."""

import jax
import numpy as np
import pytest

from olmix_jax.corpus.task_set import bits_per_byte_N
from olmix_jax.proxy import merge, scoring, sharding
from olmix_jax.utils.errors import UserError
from tests import toy

MEMBERS = 3


@pytest.fixture(scope="module")
def swarm():
    return toy.make_swarm(MEMBERS, seeds=range(MEMBERS), mapping="shard")


@pytest.fixture(scope="module")
def experts(swarm):
    """Parameters [J, …] of three members with different seeds, without padding."""
    return swarm.on_host(swarm.start("shard").params)


def random_mixtures(count, domains, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(domains), count)


@pytest.mark.parametrize("tilt", [0.25, 0.5, 1.0])
def test_coefficients_are_the_closed_form_and_give_the_mixture_back(tilt):
    base_M, ratios_KM = random_mixtures(1, 6, 1)[0], random_mixtures(20, 6)
    experts_MM = merge.expert_mixtures(base_M, tilt)
    c_KM = merge.coefficients(ratios_KM, experts_MM)
    np.testing.assert_allclose(experts_MM.sum(axis=1), 1)
    np.testing.assert_allclose(c_KM, base_M + (ratios_KM - base_M) / tilt, atol=1e-12)
    np.testing.assert_allclose(c_KM @ experts_MM, ratios_KM, atol=1e-12)
    np.testing.assert_allclose(c_KM.sum(axis=1), 1)
    # The base is the mean of the experts by its own weights, and an expert's own mixture is that expert.
    np.testing.assert_allclose(merge.coefficients(base_M[None], experts_MM)[0], base_M, atol=1e-12)
    np.testing.assert_allclose(merge.coefficients(experts_MM, experts_MM), np.eye(6), atol=1e-12)


def test_coefficients_do_not_depend_on_the_order_of_domains_or_experts():
    experts_MM, ratios_KM = merge.expert_mixtures(random_mixtures(1, 5, 1)[0], 0.5), random_mixtures(7, 5)
    domains, order = np.array([3, 0, 4, 1, 2]), np.array([4, 2, 0, 1, 3])
    permuted = merge.coefficients(ratios_KM[:, domains], experts_MM[order][:, domains])
    np.testing.assert_allclose(permuted, merge.coefficients(ratios_KM, experts_MM)[:, order], atol=1e-12)


def test_more_experts_than_domains_give_the_mixture_and_too_few_are_an_error():
    experts_JM, ratios_KM = random_mixtures(7, 4, 2), random_mixtures(5, 4)
    c_KJ = merge.coefficients(ratios_KM, experts_JM)
    np.testing.assert_allclose(c_KJ @ experts_JM, ratios_KM, atol=1e-12)
    np.testing.assert_allclose(c_KJ.sum(axis=1), 1)
    with pytest.raises(UserError, match=r"mixture \d is no combination .* of the 3 experts, which span 3 of 4 domains"):
        merge.coefficients(ratios_KM, experts_JM[:3])


def test_merged_parameters_are_linear_in_the_coefficients(swarm, experts):
    c_KJ = np.random.default_rng(0).normal(size=(4, MEMBERS))
    params = merge.merged(experts, np.concatenate([c_KJ, c_KJ[:2] + c_KJ[2:]]), "shard")
    for x_K, x_J in zip(jax.tree.leaves(params), jax.tree.leaves(experts), strict=True):
        np.testing.assert_allclose(x_K[:4], np.tensordot(c_KJ, x_J, 1), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(x_K[4:], x_K[:2] + x_K[2:4], rtol=1e-4, atol=1e-5)


def test_unit_vectors_give_the_scores_of_the_experts(swarm, experts, toy_tasks):
    alone = scoring.score(swarm, swarm.start("shard").params, toy_tasks, "shard", np.ones(MEMBERS, bool))
    for score in (merge.score_weights, merge.score_probabilities):
        bpb_KN = score(swarm, experts, np.eye(MEMBERS)[[2, 0, 1, 1]], toy_tasks, "shard")
        np.testing.assert_allclose(bpb_KN, alone[[2, 0, 1, 1]], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("score", [merge.score_weights, merge.score_probabilities])
def test_blocks_of_any_size_and_every_mapping_give_the_same_scores(swarm, experts, toy_tasks, score):
    weights_KJ = random_mixtures(7, MEMBERS)
    expected = score(swarm, experts, weights_KJ, toy_tasks, "shard")
    assert expected.shape == (7, 2) and len(np.unique(expected)) == 14
    for block in (1, 4, 100):
        np.testing.assert_allclose(score(swarm, experts, weights_KJ, toy_tasks, "shard", block), expected, rtol=1e-6)
    for mapping in ("vmap", "map", "pmap", sharding.FSDP):
        np.testing.assert_allclose(score(swarm, experts, weights_KJ, toy_tasks, mapping), expected, rtol=1e-5)


def test_blocks_share_one_program_and_no_more_than_a_block_of_models_exists(swarm, experts, toy_tasks, monkeypatch):
    sizes, merged = [], merge.merged

    def record(experts, c_KJ, mapping):
        params = merged(experts, c_KJ, mapping)
        sizes.append({len(x) for x in jax.tree.leaves(params)})
        return params

    monkeypatch.setattr(merge, "merged", record)
    merge.score_weights(swarm, experts, random_mixtures(7, MEMBERS), toy_tasks, "shard", 4)
    assert sizes == [{4}, {4}]


def test_probabilities_are_the_weighted_mean_of_the_experts(swarm, experts, toy_tasks):
    weights_KJ = random_mixtures(2, MEMBERS)
    params = sharding.place(experts, "vmap")
    nats_JA = scoring.token_nats(swarm, params, toy_tasks, "vmap")
    assert nats_JA.shape == (MEMBERS, toy_tasks.answer_EL.sum())
    # The tokens of an example sum to its score.
    of_example = np.stack([nats_JA[:, 3 * e : 3 * e + 3].sum(axis=1) for e in range(4)], axis=1)
    np.testing.assert_allclose(of_example, scoring.example_nats(swarm, params, toy_tasks, "vmap"), rtol=1e-6)
    bpb_KN = merge.score_probabilities(swarm, experts, weights_KJ, toy_tasks, "vmap")
    for weights_J, bpb_N in zip(weights_KJ, bpb_KN):
        nats_A = -np.log(weights_J @ np.exp(-nats_JA.astype(np.float64)))
        np.testing.assert_allclose(bpb_N, bits_per_byte_N(nats_A.reshape(4, 3).sum(axis=1), toy_tasks), rtol=1e-6)
    np.testing.assert_allclose(merge.expert_weights(np.array([[1.5, -0.5, 0.5]])), [[0.75, 0, 0.25]])


def test_score_is_the_mean_of_both_kinds_and_that_of_an_expert_at_its_mixture(swarm, experts, toy_tasks):
    # Three experts on two domains: coefficients are one of several solutions.
    ratios_KM = random_mixtures(4, 2)
    c_KJ, rest = merge.coefficients(ratios_KM, merge.mixtures(swarm)), (toy_tasks, "shard")
    by_weights_KN = merge.score_weights(swarm, experts, c_KJ, *rest)
    by_probabilities_KN = merge.score_probabilities(swarm, experts, merge.expert_weights(c_KJ), *rest)
    bpb_KN = merge.score(swarm, experts, ratios_KM, *rest)
    np.testing.assert_allclose(bpb_KN, (by_weights_KN + by_probabilities_KN) / 2, rtol=1e-6)
    two = swarm.subset(np.array([0, 2]))
    own_JN = merge.score(two, jax.tree.map(lambda x: x[[0, 2]], experts), merge.mixtures(two), *rest)
    np.testing.assert_allclose(own_JN, merge.score_weights(swarm, experts, np.eye(3)[[0, 2]], *rest), rtol=1e-5)


def test_a_merge_that_is_not_finite_has_no_score(swarm, experts, toy_tasks):
    c_KJ = np.array([[1.0, 0, 0], [1e38, 1e38, 1e38]])
    bpb_KN = merge.score_weights(swarm, experts, c_KJ, toy_tasks, "shard")
    assert np.isfinite(bpb_KN[0]).all() and np.isnan(bpb_KN[1]).all()
