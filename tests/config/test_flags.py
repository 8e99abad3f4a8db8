"""flags.py: the defaults as a ConfigDict."""

import ml_collections
import pytest
from absl import flags
from ml_collections import config_flags

from olmix_jax import cli, config


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


def test_none_on_the_command_line_gives_the_derived_value():
    argv = ["run.py", "--config.train.lr=None", "--config.swarm.size", "None", "--config.corpus.path=None", "--x=None"]
    assert cli.without_none(argv) == (["run.py", "--config.corpus.path=None", "--x=None"], ["train.lr", "swarm.size"])
    # The last value counts, and a flag without a value takes none.
    argv = ["--config.train.lr=None", "--config.train.lr=0.5", "--config.train.common", "--config.train.steps=None"]
    assert cli.without_none(argv) == (["--config.train.lr=0.5", "--config.train.common"], ["train.steps"])
    c = config.default()
    c.train.lr, c.swarm.size = 0.5, 12
    built = config.from_dict(config.with_none(c.to_dict(), ["train.lr", "swarm.size"]))
    assert built.train.lr is None and built.swarm.size is None
    assert not config.optional("swarm.sparsity") and not config.optional("seed") and not config.optional("x.y")


@pytest.mark.parametrize("text", ["t1,t2", "[t1, t2]", '["t1","t2"]', "('t1','t2')"])
def test_list_flags_are_read_as_people_type_them(text):
    values, c = flags.FlagValues(), config.default()
    argv = ["run.py", f"--config.fit.drop_metrics={text}", "--config.swarm.strength=0.2,1"]
    config_flags.DEFINE_config_dict("config", c, flag_values=values, sys_argv=argv)
    values(argv)
    read = config.from_dict(c)
    assert read.fit.drop_metrics == ("t1", "t2") and read.swarm.strength == (0.2, 1.0)
