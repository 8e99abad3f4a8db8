"""proxy/proxy_swarm.py: length of dispatches, and identity of a swarm."""

import dataclasses

import pytest

from configs import paper
from olmix_jax import config
from olmix_jax.proxy import model, sharding


@pytest.mark.parametrize(("preset", "steps"), [("1B", 1), ("190M", 13), ("30M", 20)])
def test_dispatch_is_short_enough_to_be_stopped(make_swarm, preset, steps):
    """A step of the 1B target takes half a minute on eight chips, so its dispatches have one step."""
    settings = config.from_dict(paper.get_config(preset))
    swarm = make_swarm(members=1)
    swarm = dataclasses.replace(
        swarm,
        shape=model.PRESETS[preset],
        vocabulary=100_352,
        length=settings.proxy.length,
        train=settings.train,
    )
    assert swarm.chunk_steps == steps


def test_identity_ignores_how_members_are_computed(make_swarm):
    swarm = make_swarm()

    def identity(**changes):
        return dataclasses.replace(swarm, train=dataclasses.replace(swarm.train, **changes)).identity

    assert identity(mapping=sharding.FSDP, micro_batch=2, remat=True, map_batch=3) == swarm.identity
    assert (
        len({swarm.identity, identity(lr=0.5), identity(seed=1), dataclasses.replace(swarm, share=0.5).identity}) == 4
    )


def test_identity_includes_the_steps_at_which_members_are_scored(make_swarm):
    """A checkpoint holds the scores so far, so one with other steps cannot be resumed."""
    swarm = make_swarm()
    scored = dataclasses.replace(swarm, score_steps=(3, 4))
    assert scored.identity != swarm.identity and scored.stops == (3, 4, 7)
    assert scored.dispatch_ends() == [2, 3, 4, 6, 7] and scored.dispatch_ends(3) == [4, 6, 7]
