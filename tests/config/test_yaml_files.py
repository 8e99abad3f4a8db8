"""yaml_files.py: YAML and JSON are read; code, repeated keys and malformed files are errors."""

import pytest

from olmix_jax.config import yaml_files
from olmix_jax.utils.errors import UserError


def test_yaml_and_json_are_read(tmp_path):
    (tmp_path / "a.yaml").write_text("a: [1, x]\n")
    (tmp_path / "a.json").write_text('{"a": [1, "x"]}')
    assert yaml_files.read(tmp_path / "a.yaml") == yaml_files.read(tmp_path / "a.json") == {"a": [1, "x"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: `a` is already on line 1; keep one"),
        ("a: {b: 1, b: 2}", "`b` is already on line 1"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
        ("a: [", "not valid YAML"),
    ],
)
def test_invalid_yaml_is_an_error_that_names_the_file(tmp_path, text, message):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match=f"a.yaml: .*{message}"):
        yaml_files.read(tmp_path / "a.yaml")


def test_missing_file_is_an_error(tmp_path):
    with pytest.raises(UserError, match="b.yaml: cannot be read"):
        yaml_files.read(tmp_path / "b.yaml")
