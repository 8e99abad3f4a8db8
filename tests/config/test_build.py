"""build.py: configs are read back from JSON; unknown and ill-typed fields raise errors that name the field."""

import json

import pytest

from olmix_jax import config
from olmix_jax.utils.errors import UserError


def test_config_is_read_back_from_json():
    built = config.default()
    built.swarm.size = 30
    built.swarm.strength = (0.5, 2.0)
    assert config.from_dict(json.loads(built.to_json())) == config.from_dict(built)


def test_integers_are_accepted_as_floats():
    assert config.from_dict({"propose": {"max_repeats": 2}}).propose.max_repeats == 2.0


def test_field_names_are_dotted():
    names = config.field_names()
    assert {"seed", "swarm.size", "propose.kl_weight"} <= set(names) and len(names) == len(set(names))
    assert "swarm" not in names


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"swarm": {"sizee": 3}}, "no field `swarm.sizee`; the nearest is `swarm.size`"),
        ({"trian": {}}, "no field `trian`; the nearest is `train"),
        ({"swarm": {"size": "many"}}, "`swarm.size` must be int | None, not 'many'"),
        ({"swarm": {"size": 3.5}}, "`swarm.size` must be"),
        ({"swarm": {"strength": (1.0, "x")}}, r"`swarm.strength\[1\]` must be float, not 'x'"),
        ({"swarm": {"strength": "0.1"}}, "`swarm.strength` must be two numbers such as 1,2, not '0.1'"),
        ({"fit": {"drop_metrics": "[a"}}, "`fit.drop_metrics` must be a list of names such as a,b or"),
        ({"fit": {"drop_metrics": 3}}, "`fit.drop_metrics` must be a list of names such as a,b or"),
        ({"train": {"common": 1}}, "`train.common` must be bool, not 1"),
        ({"train": {"steps": True}}, "`train.steps` must be int | None, not True"),
        ({"olmix_yaml": 3}, "`olmix_yaml` must be str, not 3"),
    ],
)
def test_unknown_or_ill_typed_field_is_an_error_that_names_it(content, message):
    with pytest.raises(UserError, match=message.replace("|", r"\|")):
        config.from_dict(content)
