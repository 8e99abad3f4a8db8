"""Number of tokens that the models of a config are trained on."""

import dataclasses

from olmix_jax.config.schema import Config


def tokens(config: Config) -> int:
    """Return the number of tokens that one proxy is trained on."""
    return config.train.steps * config.train.batch * config.proxy.length


def target_tokens(config: Config) -> float:
    """Return R, the tokens of the target run: the config's, or by default those of one validation model."""
    return config.propose.target_tokens or tokens(validated(config))


def validated(config: Config) -> Config:
    """Return the config of the validation models: the proxies' config with the fields of ``validate`` replaced."""
    v = config.validate
    return dataclasses.replace(
        config,
        proxy=dataclasses.replace(config.proxy, preset=config.proxy.preset if v.preset is None else v.preset),
        train=dataclasses.replace(
            config.train,
            steps=config.train.steps if v.steps is None else v.steps,
            lr=config.train.lr if v.lr is None else v.lr,
        ),
    )
