"""Number of tokens that the models of a config are trained on."""

import dataclasses

from olmix_jax.config import presets
from olmix_jax.config.schema import Config

# Share of the steps over which the learning rate of a branched swarm falls.
DECAY = 0.2


def tokens(config: Config) -> int:
    """Return the number of tokens that one proxy is trained on."""
    return config.train.steps * config.train.batch * config.proxy.length


def trunk_steps(config: Config) -> int:
    """Return the number of steps that all proxies share; 0 for full proxies.

    The proxies beside merged members are full ones, and :func:`experts` have the trunk.
    """
    return 0 if config.swarm.merged else round(config.swarm.trunk * config.train.steps)


def experts(config: Config) -> Config:
    """Return the config of the branches that members are merged from; the same config without merged members."""
    return dataclasses.replace(config, swarm=dataclasses.replace(config.swarm, merged=0))


def sequences(config: Config) -> int:
    """Return the number of sequences that a proxy reads after the trunk. Only these are of its own mixture."""
    return (config.train.steps - trunk_steps(config)) * config.train.batch


def decay_steps(config: Config) -> int | None:
    """Return over how many last steps the learning rate of a branch falls linearly to 0; None for full proxies."""
    if not trunk_steps(config):
        return None
    return min(round(DECAY * config.train.steps), config.train.steps - trunk_steps(config))


def target_tokens(config: Config, tokens_per_token: float = 1.0) -> float:
    """Return R, the tokens of the target run: the config's, or by default those of one validation model.

    Args:
      config: the config.
      tokens_per_token: the models' tokens per token of the corpus' tokenizer, in which R is counted.
    """
    own = tokens(validated(config))
    return config.propose.target_tokens or (own if tokens_per_token == 1 else own / tokens_per_token)


def validated(config: Config) -> Config:
    """Return the config of the validation models: the proxies' config with the fields of ``validate`` replaced.

    They are trained from their first step, also if the proxies are branches of a trunk.
    Models of another preset have the learning rate and warm-up of that preset, unless ``validate.lr`` is set, and as
    many of them share a device as fit.
    """
    v, proxy, train, swarm = config.validate, config.proxy, config.train, config.swarm
    if v.preset is not None and v.preset != proxy.preset:
        other = presets.trainer(v.preset, "validate.preset")
        proxy = dataclasses.replace(proxy, preset=v.preset)
        train = dataclasses.replace(train, lr=other.lr, warmup=other.warmup)
        swarm = dataclasses.replace(swarm, members_per_device=None)
    swarm = dataclasses.replace(swarm, merged=0, trunk=0.0, trunk_mixture="", trunk_from="")
    train = dataclasses.replace(train, steps=v.steps, lr=train.lr if v.lr is None else v.lr)
    return dataclasses.replace(config, swarm=swarm, proxy=proxy, train=train)
