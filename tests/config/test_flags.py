"""flags.py: the defaults as a ConfigDict."""

import ml_collections
import pytest

from olmix_jax import config


def test_defaults_survive_the_config_dict():
    assert config.from_dict(config.default()) == config.Config()


def test_optional_fields_keep_their_type():
    c = config.default()
    c.swarm.size = 12
    with pytest.raises(TypeError):
        c.swarm.size = "many"


def test_section_update_is_a_section_not_the_method():
    assert isinstance(config.default().update, ml_collections.ConfigDict)
    assert config.default().update.strategy == "auto"
