"""presets.py: a preset brings its trainer; derived settings follow the settings that they depend on."""

import dataclasses
import importlib

import pytest

from olmix_jax import config
from olmix_jax.config import budget, presets
from olmix_jax.proxy.model import PRESETS
from olmix_jax.utils.errors import UserError

# length, batch, steps, lr, warm-up, dtype, vocabulary, task length, validation steps, seeds
QUICKSTART = (128, 4, 1000, 0.015, 0.1, "float32", 1024, 128, 1800, 9)
SMOKE = (32, 5, 20, 0.015, 0.1, "float32", 384, 64, 30, 2)
PAPER = (2048, 64, 22_203, None, None, "bfloat16", 100_352, 2048, 22_203, 3)
TARGET = (4096, 512, 47_683, 0.0018, None, "bfloat16", 100_352, 4096, 47_683, 3)
OWN = (128, 4, 1000, 0.015, 0.1, "float32", 2048, 128, 1800, 9)


def settings(name: str, **changes) -> config.Config:
    """Return the config of ``file:variant``; the keyword ``train_steps`` sets ``train.steps``."""
    file, _, variant = name.partition(":")
    made = importlib.import_module(f"configs.{file}").get_config(variant)
    for field, value in changes.items():
        section, _, field = field.partition("_")
        made[section][field] = value
    return config.from_dict(made)


def of(c: config.Config) -> tuple:
    return (
        *(c.proxy.length, c.train.batch, c.train.steps, c.train.lr, c.train.warmup, c.proxy.dtype),
        *(c.corpus.vocabulary, c.tasks.length, c.validate.steps, c.validate.seeds),
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("quickstart:", QUICKSTART),
        ("quickstart:smoke", SMOKE),
        ("own:", OWN),
        ("own:smoke", SMOKE),
        ("own:tiny", OWN),
        ("own:30M", PAPER),
        ("own:1B", TARGET),
        ("update:", OWN),
        ("update:smoke", SMOKE),
        *((f"paper:{variant}", PAPER) for variant in ("", "1M", "14M", "30M", "60M", "190M")),
        ("paper:1B", TARGET),
        ("paper:smoke", (32, 4, 20, None, None, "bfloat16", 384, 64, 30, 2)),
        ("fit_csv:", PAPER),
        ("fit_csv:smoke", PAPER),
    ],
)
def test_resolved_trainer_of_every_config_and_variant(name, expected):
    assert of(settings(name)) == expected


def test_quickstart_keeps_the_settings_of_its_published_figures():
    c = settings("quickstart:")
    assert budget.tokens(c) == 512_000 and budget.target_tokens(c) == 921_600 and c.propose.kl_weight == 0.1
    assert (c.proxy.preset, c.swarm.size, c.corpus.max_bytes, c.train.remat) == ("tiny", 45, 2_400_000, False)


def test_another_preset_brings_its_trainer_and_an_own_value_stays():
    c = settings("own:", proxy_preset="30M")
    assert of(c) == of(settings("own:30M")) and budget.target_tokens(c) == budget.tokens(c) == 2_910_191_616
    assert settings("paper:", proxy_preset="1B").train.remat
    c = settings("own:", proxy_preset="30M", train_lr=0.01, train_batch=32, proxy_length=1024)
    assert (c.train.lr, c.train.batch, c.tasks.length) == (0.01, 32, 1024)
    assert c.train.steps == 2_910_233_600 // (32 * 1024)
    # A batch of whole micro-batches, and steps of a proxy that is no longer than the target run.
    assert settings("paper:", proxy_length=3000).train.batch == 40
    assert budget.tokens(settings("own:30M", propose_target_tokens=1e8)) == 762 * 131_072
    # The same for validation models, which are otherwise 1.8 times as long as a proxy of this preset.
    c = settings("own:", propose_target_tokens=300_000)
    assert (c.train.steps, c.validate.steps) == (585, 585)
    assert settings("own:", propose_target_tokens=800_000).validate.steps == 800_000 // 512
    assert settings("own:", propose_target_tokens=1e9).validate.steps == 1800


def test_replacing_a_section_keeps_the_values_of_the_others():
    c = settings("quickstart:")
    assert dataclasses.replace(c, seed=3).train == c.train
    assert config.from_dict(dataclasses.asdict(c)) == c


def test_validation_of_another_preset_has_its_own_rate_and_seeds():
    c = settings("own:", validate_preset="30M")
    assert budget.validated(c).train.lr is None and budget.validated(c).train.warmup is None
    assert c.validate.seeds == 3 and budget.validated(c).train.steps == 1800
    assert budget.validated(settings("own:", validate_preset="30M", validate_lr=0.1)).train.lr == 0.1


def test_settings_name_what_a_value_follows():
    by = presets.settings(settings("own:", proxy_preset="30M", train_lr=0.01))
    assert by["train.batch"] == presets.Setting(64, "131,072 tokens per step, by the preset 30M")
    assert by["tasks.length"] == presets.Setting(2048, "proxy.length")
    assert by["train.lr"] == presets.Setting(0.01, "set; None means the number of parameters")
    set_steps = presets.settings(settings("quickstart:", train_steps=7))
    assert set_steps["train.steps"].source == "set; None means 1000, from 512,000 tokens, by the preset tiny"
    assert set_steps["validate.steps"] == presets.Setting(13, "1.8 × train.steps, by the preset tiny")


def test_every_preset_of_the_model_has_a_trainer_and_an_unknown_one_is_an_error():
    assert list(presets.TRAINERS) == list(PRESETS)
    for field in ("proxy", "validate"):
        with pytest.raises(UserError, match=f"`{field}.preset` must be one of tiny, 1M.*not '2M'"):
            config.from_dict({field: {"preset": "2M"}})
