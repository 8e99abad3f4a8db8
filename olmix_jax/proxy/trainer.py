"""Learning rate and warm-up of models of a given size, where the settings leave them to the number of parameters."""

import dataclasses

from olmix_jax.config import presets
from olmix_jax.config.presets import Setting
from olmix_jax.config.schema import Config, Train
from olmix_jax.proxy import model, optimizer, state
from olmix_jax.utils.progress import log

# METHOD §4: at this length and above, the rate is a quarter.
LONG, LONG_SHARE = 4096, 0.25
# What is counted in which tokens with `proxy.vocabulary`.
UNITS = (
    "set; steps and lengths of proxies and validation models are in its tokens; weights, domain sizes and "
    "propose.target_tokens are in tokens of the corpus' tokenizer"
)


def resolved(config: Config, vocabulary: int) -> Train:
    """Return the config's trainer with a number for ``lr`` and ``warmup``.

    Args:
      config: the sections ``proxy`` and ``train`` define the models.
      vocabulary: number of tokens of the tokenizer.
    """
    train, shape = config.train, model.PRESETS[config.proxy.preset]
    if train.lr is not None and train.warmup is not None:
        return train
    parameters = state.parameters(shape, vocabulary)
    lr, warmup = train.lr, train.warmup
    if lr is None:
        lr = optimizer.learning_rate(train, parameters) * (LONG_SHARE if config.proxy.length >= LONG else 1.0)
    if warmup is None:
        warmup = optimizer.warmup_share(train, parameters + model.padded(vocabulary) * shape.width)
    return dataclasses.replace(train, lr=lr, warmup=warmup)


def settings(config: Config, vocabulary: int) -> dict[str, Setting]:
    """Return the derived settings of models with a vocabulary of this size, by field."""
    shown, train = presets.settings(config), resolved(config, vocabulary)
    size = state.parameters(model.PRESETS[config.proxy.preset], vocabulary)
    for field, name in (("train.lr", "lr"), ("train.warmup", "warmup")):
        if getattr(config.train, name) is None:
            shown[field] = Setting(getattr(train, name), f"{size:,} parameters, a vocabulary of {vocabulary:,}")
    if config.proxy.vocabulary is not None:
        shown["proxy.vocabulary"] = Setting(vocabulary, UNITS)
    return shown


def log_settings(config: Config, train: Train, label: str) -> None:
    """Log how models are trained."""
    assert train.lr is not None
    log.info(
        "%s: %s models, %d steps of %d × %d tokens, learning rate %.3g after %d steps of warm-up, %s",
        *(label, config.proxy.preset, train.steps, train.batch, config.proxy.length, train.lr),
        *(optimizer.warmup_steps(train), config.proxy.dtype),
    )
