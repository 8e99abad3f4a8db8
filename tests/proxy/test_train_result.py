"""proxy/train_result.py: results of a swarm, and of its waves or parts combined."""

import dataclasses

import numpy as np

from olmix_jax.proxy.train_result import TrainInfo, TrainResult, combine
from olmix_jax.utils import records

INFO = TrainInfo("shard", "2 × cpu", 3, 100, 640, 5.0, 1.0, 2.0)


def test_info_is_written_without_empty_fields():
    content = records.plain(INFO)
    names = "mapping devices members parameters tokens_per_member tokens_per_second compile_s wall_s"
    assert list(content) == names.split()
    assert records.from_plain(TrainInfo, content) == INFO


def test_combined_results_are_in_the_order_of_the_swarm():
    def result(members):
        rows = np.asarray(members, float)[:, None]
        return TrainResult(rows + 0.5, rows + 0.25, np.asarray(members), INFO)

    members = [np.array([0, 2]), np.array([1])]
    combined = combine([result(k) for k in members], members, INFO)
    assert combined.died_K.tolist() == [0, 1, 2]
    assert combined.bpb_KN.tolist() == [[0.5], [1.5], [2.5]]
    assert combined.loss_KT.tolist() == [[0.25], [1.25], [2.25]]
    assert combined.bpb_KPN is None and combined.scores_KPN.tolist() == [[[0.5]], [[1.5]], [[2.5]]]
    scored = [dataclasses.replace(result(k), bpb_KPN=np.asarray(k, float)[:, None, None]) for k in members]
    assert combine(scored, members, INFO).scores_KPN.tolist() == [[[0.0], [0.5]], [[1.0], [1.5]], [[2.0], [2.5]]]
