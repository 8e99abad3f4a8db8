"""Which mapping is taken where the config leaves it to be tried."""

import pytest

from olmix_jax.proxy import autotune


def test_the_fastest_is_taken_and_remembered(make_swarm, tmp_path, monkeypatch):
    swarm = make_swarm(members=3, mapping="auto")
    monkeypatch.setattr(autotune, "timings", lambda s, held: {"vmap": 0.2, "map": 0.1, "shard": 0.3})
    assert autotune.choose(swarm, tmp_path) == "map"
    monkeypatch.setattr(autotune, "timings", lambda s, held: {"vmap": 0.1, "map": 0.2})
    assert autotune.choose(swarm, tmp_path) == "map"
    assert autotune.choose(make_swarm(members=3, mapping="pmap"), tmp_path) == "pmap"


@pytest.mark.slow
def test_timings_run_every_mapping(make_swarm):
    seconds = autotune.timings(make_swarm(members=3))
    assert set(seconds) == {"vmap", "map", "pmap", "shard"} and all(s > 0 for s in seconds.values())
