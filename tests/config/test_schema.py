"""schema.py: the settings are frozen, documented, and of types that configs and flags support."""

import ast
import dataclasses
import inspect

import pytest

from olmix_jax import config
from olmix_jax.config import schema, schema_decision


def test_defaults_are_read_back_from_plain_values():
    assert config.from_dict(dataclasses.asdict(config.Config())) == config.Config()


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.Config().swarm.size = 3


def test_every_field_has_a_comment_or_shares_the_one_above():
    """At most three fields share the comment above the first of them."""
    source = inspect.getsource(schema) + inspect.getsource(schema_decision)
    lines = source.splitlines()
    for section in (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)):
        assert ast.get_docstring(section), section.name
        fields = [node for node in section.body if isinstance(node, ast.AnnAssign)]
        without_comment = 3
        for field in fields if section.name != "Config" else ():
            has_comment = lines[field.lineno - 2].strip().startswith("#")
            without_comment = 0 if has_comment else without_comment + 1
            assert without_comment < 3, f"{section.name}.{field.target.id}"
