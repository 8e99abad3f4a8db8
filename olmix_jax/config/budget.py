"""Tokens that a config's runs train on."""

import dataclasses

from olmix_jax.config.schema import Config


def tokens(config: Config) -> int:
    """Tokens that a model of this config is trained on."""
    return config.train.steps * config.train.batch * config.proxy.length


def target_tokens(config: Config) -> float:
    """R of a swarm that is trained here: the config's, or that of a validation run."""
    return config.propose.target_tokens or tokens(validated(config))


def validated(config: Config) -> Config:
    """The config of the validation models: the proxies', longer or larger."""
    v = config.validate
    changes = {name: value for name, value in (("steps", v.steps), ("lr", v.lr)) if value is not None}
    preset = v.preset if v.preset is not None else config.proxy.preset
    return dataclasses.replace(
        config,
        proxy=dataclasses.replace(config.proxy, preset=preset),
        train=dataclasses.replace(config.train, **changes),
    )
