"""proxy/scoring.py: scores of all members, compared with members that are scored alone."""

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
