"""Fixtures that several tests of the proxy package share."""

import pytest

from olmix_jax.proxy import checkpoint, train
from olmix_jax.proxy.resource_plan import MemoryParts, ModelSize, ResourcePlan
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

        def save_and_count(self, step, arrays):
            save(self, step, arrays)
            self.wait()
            steps.append(step)
            if len(steps) == count:
                action()

        monkeypatch.setattr(checkpoint.Checkpoints, "save", save_and_count)
        return steps

    return install


@pytest.fixture
def plan():
    """Return a plan of three waves of two members per device on four devices, without times."""
    return ResourcePlan(
        model=ModelSize(32, 2, 2, 96, None, 384, 384, 900_000, 1_000_000),
        topology="4 × chip",
        devices=4,
        members=24,
        members_per_device=2,
        waves=3,
        steps=3600,
        tokens_per_step=1000,
        tokens_per_member=3_600_000,
        flops_per_token=1e6,
        flops=24 * 3.6e12,
        memory_per_device_bytes=2**30,
        memory_parts_bytes=MemoryParts(2**29, 2**29, 0, 8_000_000, 16_000_000, 8_000_000),
        collectives_across_members=0,
        collectives_within_a_member=0,
        fits=True,
    )
