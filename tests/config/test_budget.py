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


def test_branches_share_steps_and_validation_models_do_not():
    branched = dataclasses.replace(CONFIG, swarm=config.Swarm(trunk=0.75))
    assert (budget.trunk_steps(branched), budget.sequences(branched)) == (8, 2 * 4)
    assert budget.tokens(branched) == budget.tokens(CONFIG)
    validated = budget.validated(branched)
    assert (budget.trunk_steps(validated), budget.sequences(validated)) == (0, 30 * 4)
    assert budget.decay_steps(validated) is budget.decay_steps(CONFIG) is None


def test_proxies_beside_merged_members_are_full_and_experts_are_branches():
    merged = dataclasses.replace(CONFIG, swarm=config.Swarm(trunk=0.75, merged=20))
    assert (budget.trunk_steps(merged), budget.sequences(merged), budget.decay_steps(merged)) == (0, 10 * 4, None)
    experts = budget.experts(merged)
    assert (budget.trunk_steps(experts), budget.sequences(experts), budget.decay_steps(experts)) == (8, 2 * 4, 2)
    assert budget.trunk_steps(budget.validated(merged)) == 0 and budget.experts(CONFIG) == CONFIG


def test_rate_of_branches_falls_over_a_fifth_of_the_steps_or_over_all_that_they_have():
    steps = config.Train(steps=1000, batch=4)
    shares = {0.5: 200, 0.75: 200, 0.8: 200, 0.9: 100}
    for share, expected in shares.items():
        branched = dataclasses.replace(CONFIG, train=steps, swarm=config.Swarm(trunk=share))
        assert budget.decay_steps(branched) == expected
