"""Fixtures that several tests of the proxy package share."""

import pytest

from olmix_jax.proxy import checkpoint, train
from tests import toy


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Train five members with different seeds on two devices. Return the swarm, its folder and its results."""
    swarm, folder = toy.make_swarm(seeds=range(5), mapping="shard"), tmp_path_factory.mktemp("trained")
    return swarm, folder, train.train(swarm, toy.make_tasks(), folder, "toy")


@pytest.fixture
def after_saves(monkeypatch):
    """Return a function that runs an action once a number of checkpoints is written, and lists the steps saved."""

    def install(count, action):
        steps, save = [], checkpoint.Checkpoints.save

        def save_and_count(self, step, arrays, batches):
            save(self, step, arrays, batches)
            steps.append(step)
            if len(steps) == count:
                action()

        monkeypatch.setattr(checkpoint.Checkpoints, "save", save_and_count)
        return steps

    return install
