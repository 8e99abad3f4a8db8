"""proxy/scoring.py: scores of all members, compared with members that are scored alone."""

import dataclasses

import jax
import numpy as np
import pytest

from olmix_jax.corpus.task_set import bits_per_byte_N
from olmix_jax.proxy import scoring
from olmix_jax.proxy.scoring import score


@pytest.mark.parametrize("parts", [50, 3, 1])
def test_scores_are_those_of_each_member_alone(monkeypatch, make_swarm, toy_tasks, parts):
    monkeypatch.setattr(scoring, "_PARTS", parts)
    monkeypatch.setattr(scoring, "SCORE_BYTES", 1)  # a block is one example
    swarm = make_swarm(seeds=range(5), mapping="shard")
    params = swarm.start("shard").params
    bpb_KN = score(swarm, params, toy_tasks, "shard", np.array([False, True, True, True, True]))
    assert bpb_KN.shape == (5, 2) and np.isnan(bpb_KN[0]).all()
    single = jax.jit(swarm.member.score)
    for k in (1, 4):
        nats_E = single(jax.tree.map(lambda x, k=k: x[k], params), toy_tasks.tokens_EL, toy_tasks.answer_EL)
        np.testing.assert_allclose(bpb_KN[k], bits_per_byte_N(np.asarray(nats_E, np.float64), toy_tasks), rtol=1e-6)


def test_blocks_have_similar_numbers_of_answer_tokens():
    answers_E = np.array([1, 9, 2, 8, 3, 7, 4])
    order_S = scoring._balanced(answers_E, 4, 2)
    assert sorted(set(order_S.tolist())) == list(range(7)) and answers_E[order_S].reshape(4, 2).sum(axis=1).max() == 10


def test_answers_of_different_lengths_are_scored_in_any_blocks(monkeypatch, make_swarm, toy_tasks):
    answer_EL = np.zeros((4, 8), bool)
    for row, (start, end) in enumerate(((7, 8), (0, 8), (2, 4), (5, 8))):
        answer_EL[row, start:end] = True
    tasks = dataclasses.replace(toy_tasks, answer_EL=answer_EL)
    swarm = make_swarm(members=1)
    params, alive_K = swarm.start("vmap").params, np.ones(1, bool)
    nats_E = np.asarray(jax.jit(swarm.member.score)(jax.tree.map(lambda x: x[0], params), tasks.tokens_EL, answer_EL))
    expected = bits_per_byte_N(nats_E.astype(np.float64), tasks)
    for examples in (1, 3, 4):
        monkeypatch.setattr(scoring, "SCORE_BYTES", examples * 8 * 8 * 4)
        np.testing.assert_allclose(score(swarm, params, tasks, "vmap", alive_K)[0], expected, rtol=1e-6)
