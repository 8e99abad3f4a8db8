"""trainer.py: learning rate and warm-up from the number of parameters (METHOD §4)."""

import pytest

from olmix_jax import config
from olmix_jax.proxy import optimizer, trainer


@pytest.mark.parametrize(
    ("preset", "parameters"),
    # All parameters, with both embeddings, at a vocabulary of 100,352.
    [("1M", 2_448_620), ("14M", 26_740_864), ("30M", 54_792_448), ("60M", 95_957_376), ("190M", 267_424_512)],
)
def test_warm_up_follows_the_number_of_all_parameters(preset, parameters):
    train = trainer.resolved(config.from_dict({"proxy": {"preset": preset}}), 100_352)
    assert optimizer.warmup_steps(train) == round(parameters / (64 * 4096))


def test_rate_of_30m_is_that_of_the_paper_and_a_quarter_at_4096():
    c = config.from_dict({"proxy": {"preset": "30M"}})
    assert trainer.resolved(c, 100_352).lr == pytest.approx(0.00728, abs=5e-6)
    longer = config.from_dict({"proxy": {"preset": "30M", "length": 4096}})
    assert trainer.resolved(longer, 100_352).lr == pytest.approx(0.00728 / 4, abs=2e-6)
    # 16 · (4 · 2048² + 3 · 2048 · 8192 + 4 · 2048) + 2048 + 2 · 100,352 · 2048 parameters.
    target = trainer.resolved(config.from_dict({"proxy": {"preset": "1B"}}), 100_352)
    assert target.lr == 0.0018 and optimizer.warmup_steps(target) == round(1_484_916_736 / (512 * 4096)) == 708


def test_set_values_stay_and_a_short_run_warms_up_for_a_tenth():
    c = config.from_dict({"proxy": {"preset": "30M"}, "train": {"lr": 0.1, "warmup": 0.3}})
    assert trainer.resolved(c, 384) is c.train
    short = config.from_dict({"proxy": {"preset": "30M"}, "train": {"steps": 50}})
    assert optimizer.warmup_steps(trainer.resolved(short, 100_352)) == 5


def test_settings_name_the_units_of_a_smaller_vocabulary():
    whole, small = (config.from_dict({"proxy": {"preset": "30M", "vocabulary": n}}) for n in (None, 16_384))
    assert "proxy.vocabulary" not in trainer.settings(whole, 100_278)
    setting = trainer.settings(small, 16_384)["proxy.vocabulary"]
    assert setting.value == 16_384 and "target_tokens are in tokens of the corpus' tokenizer" in setting.source
