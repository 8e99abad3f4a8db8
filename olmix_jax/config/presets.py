"""What belongs to a preset: the settings of its trainer. They are the values of all settings that are None.

METHOD §4: the paper's proxies train on 2,910,233,600 tokens in batches of 131,072, and the 1B target on 100B tokens in
batches of 2,097,152. "tiny" is this project's own preset, for ordinary CPUs; its values are measured (docs/log.md).
"""

import dataclasses
from typing import Any

from olmix_jax.utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Trainer:
    """How the models of a preset are trained and scored.

    Attributes:
      length: tokens per sequence.
      tokens_per_step: tokens per optimiser step.
      tokens: tokens of one model.
      lr, warmup: peak learning rate, and share of the steps with warm-up; None: from the number of parameters.
      dtype: type of the matrix products.
      remat: whether activations are computed again for the gradient.
      vocabulary: entries of a trained tokenizer.
      validation: steps of a validation model, as a multiple of a proxy's steps.
      seeds: validation models per mixture. Small models are noisy and cheap, so they have more.
    """

    length: int = 2048
    tokens_per_step: int = 131_072
    tokens: int = 2_910_233_600
    lr: float | None = None
    warmup: float | None = None
    dtype: str = "bfloat16"
    remat: bool = False
    vocabulary: int = 100_352
    validation: float = 1.0
    seeds: int = 3


TRAINERS = {
    # 1000 steps of 4 · 128 tokens, nine tokens per parameter. The target run is 1.8 times as long.
    "tiny": Trainer(128, 512, 512_000, 0.015, 0.1, "float32", vocabulary=2048, validation=1.8, seeds=9),
    **dict.fromkeys(("1M", "14M", "30M", "60M", "190M"), Trainer()),
    # A model sharded over several devices uses XLA's attention; remat avoids storing its scores.
    "1B": Trainer(4096, 2_097_152, 100_000_000_000, 0.0018, remat=True),
}


def derived() -> Any:
    """Declare a field of a section whose value, if it is None, comes from other settings: see :func:`resolved`."""
    return dataclasses.field(default=None, metadata={"derived": True})


def trainer(preset: str, field: str = "proxy.preset") -> Trainer:
    """Return the trainer of a preset.

    Raises:
      UserError: there is no such preset.
    """
    if preset not in TRAINERS:
        raise UserError(f"config field `{field}` must be one of {', '.join(TRAINERS)}, not {preset!r}")
    return TRAINERS[preset]


def values(config: Any) -> dict[str, tuple[Any, str]]:
    """Return {field: (the value that None stands for, where it comes from)}, given all other settings of a config.

    The steps follow from the tokens: those of the preset, but at most ``propose.target_tokens``, because a proxy that
    is longer than the run that it stands for cannot repeat text as that run does.
    """
    proxy, train, validate = config.proxy, config.train, config.validate
    preset, own = f"the preset {proxy.preset}", trainer(proxy.preset)
    scored = own if validate.preset is None else trainer(validate.preset, "validate.preset")
    length = own.length if proxy.length is None else proxy.length
    per_step = max(1, own.tokens_per_step // max(1, length))
    if train.micro_batch and per_step > train.micro_batch:
        per_step -= per_step % train.micro_batch
    batch = per_step if train.batch is None else train.batch
    target = config.propose.target_tokens
    tokens, of = own.tokens, f"{own.tokens:,} tokens, by {preset}"
    if target is not None:
        limit = f"{target:,.0f} tokens, by propose.target_tokens"
        tokens, of = (int(max(target, 1)), limit) if target < tokens else (tokens, of)
    made = max(1, tokens // max(1, batch * length))
    steps = made if train.steps is None else train.steps
    longer, by = max(1, round(own.validation * steps)), f"{own.validation:g} × train.steps, by {preset}"
    if target is not None and target < longer * batch * length:
        longer, by = max(1, int(max(target, 1)) // max(1, batch * length)), limit
    return {
        "corpus.vocabulary": (own.vocabulary, preset),
        "proxy.length": (own.length, preset),
        "proxy.dtype": (own.dtype, preset),
        "tasks.length": (length, "proxy.length"),
        "train.batch": (per_step, f"{own.tokens_per_step:,} tokens per step, by {preset}"),
        "train.steps": (made, of),
        "train.lr": (own.lr, preset if own.lr else "the number of parameters"),
        "train.warmup": (own.warmup, preset if own.warmup else "the number of parameters"),
        "train.remat": (own.remat, preset),
        "validate.steps": (longer, by),
        "validate.seeds": (scored.seeds, f"the preset {validate.preset or proxy.preset}"),
    }


def resolved(config: Any) -> dict[str, Any]:
    """Return the sections of a config, by name, with the value of each derived field that is None.

    ``train.lr`` and ``train.warmup`` stay None where they depend on the number of parameters, which is known when the
    tokenizer is (:mod:`olmix_jax.proxy.trainer`).

    Raises:
      UserError: a preset is unknown.
    """
    sections: dict[str, Any] = {}
    for field, (value, _) in values(config).items():
        section, _, name = field.partition(".")
        content = sections.get(section, getattr(config, section))
        if getattr(content, name) is None:
            sections[section] = dataclasses.replace(content, **{name: value})
    return sections


@dataclasses.dataclass(frozen=True)
class Setting:
    """The value of a derived setting, and where it comes from."""

    value: Any
    source: str


def settings(config: Any) -> dict[str, Setting]:
    """Return the derived settings of a resolved config by field."""
    shown = {}
    for field, (value, source) in values(config).items():
        section, _, name = field.partition(".")
        own = getattr(getattr(config, section), name)
        shown[field] = Setting(own, source if own == value else _instead(value, source))
    return shown


def _instead(value: Any, source: str) -> str:
    return f"set; None means {'' if value is None else f'{value}, from '}{source}"
