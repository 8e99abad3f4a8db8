import dataclasses

import pytest

from olmix_jax import config
from olmix_jax.propose.options import Options
from olmix_jax.utils.errors import UserError


def test_defaults_equal_those_of_the_config():
    section = config.Propose()
    for field in dataclasses.fields(Options):
        default = getattr(section, field.name)
        assert getattr(Options(), field.name) == (None if default == "" else default), field.name


@pytest.mark.parametrize("field, value", [("method", "magic"), ("guard_by", "domain")])
def test_unknown_choice_is_an_error_that_names_the_field(field, value):
    with pytest.raises(UserError, match=f"propose.{field} must be one of .*, not '{value}'"):
        Options(**{field: value})
