"""proxy/autotune.py: choice of the mapping with `train.mapping=auto`."""

import pytest

from olmix_jax.proxy import autotune


def test_auto_chooses_the_fastest_mapping_and_stores_it(make_swarm, tmp_path, monkeypatch):
    swarm = make_swarm(members=3, mapping="auto")
    monkeypatch.setattr(autotune, "time_mappings", lambda s, per_device: {"vmap": 0.2, "map": 0.1, "shard": 0.3})
    assert autotune.choose_mapping(swarm, tmp_path) == "map"
    monkeypatch.setattr(autotune, "time_mappings", lambda s, per_device: {"vmap": 0.1, "map": 0.2})
    assert autotune.choose_mapping(swarm, tmp_path) == "map"


def test_configured_mapping_is_not_timed(make_swarm, tmp_path):
    assert autotune.choose_mapping(make_swarm(members=3, mapping="pmap"), tmp_path) == "pmap"
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_every_mapping_is_timed(make_swarm):
    seconds = autotune.time_mappings(make_swarm(members=3))
    assert set(seconds) == {"vmap", "map", "pmap", "shard"} and all(s > 0 for s in seconds.values())
