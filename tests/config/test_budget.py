"""budget.py: tokens of proxies, of validation models and of the target run."""

import dataclasses

from olmix_jax import config
from olmix_jax.config import budget

CONFIG = config.Config(
    proxy=config.Proxy(preset="1M", length=32),
    train=config.Train(steps=10, batch=4, lr=0.1),
    validate=config.Validate(steps=30),
)


def test_tokens_of_a_proxy_are_steps_times_batch_times_length():
    assert budget.tokens(CONFIG) == 10 * 4 * 32


def test_validation_models_replace_only_the_given_fields():
    validated = budget.validated(CONFIG)
    assert (validated.train.steps, validated.train.lr, validated.proxy.preset) == (30, 0.1, "1M")
    assert budget.tokens(validated) == 30 * 4 * 32
    larger = dataclasses.replace(CONFIG, validate=config.Validate(preset="14M", lr=0.2))
    assert budget.validated(larger).proxy.preset == "14M" and budget.validated(larger).train.lr == 0.2


def test_validation_models_of_another_preset_share_devices_as_many_as_fit():
    full = dataclasses.replace(CONFIG, swarm=config.Swarm(members_per_device=8))
    assert budget.validated(full).swarm.members_per_device == 8
    larger = dataclasses.replace(full, validate=config.Validate(preset="14M"))
    assert budget.validated(larger).swarm.members_per_device is None


def test_target_tokens_default_to_one_validation_model():
    assert budget.target_tokens(CONFIG) == 30 * 4 * 32
    assert budget.target_tokens(dataclasses.replace(CONFIG, propose=config.Propose(target_tokens=1e9))) == 1e9
