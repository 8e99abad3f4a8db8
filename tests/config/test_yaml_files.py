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
        ("a: [", "not valid YAML: line 1, column 5: expected the node content"),
        ("a: &x [*x]", "line 1: `\\*x` contains itself"),
        ("? [a]\n: 1", "line 1: a key must be text, not a list"),
        ("a: 1\n---\nb: 2", "line 2, column 1: expected a single document in the stream, but found another"),
        ("a: !!binary aGk=", "the tag .* is not supported"),
        ('a: "\x01"', "the character U\\+0001 is not allowed"),
        ("[" * 500, "too many brackets"),
    ],
)
def test_invalid_yaml_is_an_error_that_names_the_file(tmp_path, text, message):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match=f"a.yaml: .*{message}"):
        yaml_files.read(tmp_path / "a.yaml")


def test_keys_are_text_as_written_and_values_have_few_types(tmp_path):
    """YAML 1.1 reads these as booleans, floats, hexadecimal and base-60 numbers and dates."""
    keys = ("no", "on", "1.10", "0x10", "1e3", "2020-01-01", "12:30:00", "true", "null", "~", "010", "1_000")
    (tmp_path / "a.yaml").write_text("".join(f"{key}: {key}\n" for key in keys))
    values = ("no", "on", 1.1, "0x10", 1000.0, "2020-01-01", "12:30:00", True, None, None, "010", 1000)
    assert yaml_files.read(tmp_path / "a.yaml") == dict(zip(keys, values))
    assert yaml_files.read(tmp_path / "a.yaml", names=True) == dict(zip(keys, keys)) | {"null": None, "~": None}
    (tmp_path / "b.yaml").write_text("a: &x {b: .5, c: '1'}\nd: {<<: *x, c: -2e-1}\ne: .nan\nf: 1e999\n")
    assert yaml_files.read(tmp_path / "b.yaml") == {
        "a": {"b": 0.5, "c": "1"},
        "d": {"b": 0.5, "c": -0.2},
        "e": ".nan",
        "f": "1e999",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "the key a appears twice"),
        ('{"a": {"b": 1, "b": 1}}', "the key b appears twice"),
        ('{"a": NaN}', "NaN is not a finite number"),
        ('{"a": [-Infinity]}', "-Infinity is not a finite number"),
        ('{"a": 1e999}', "1e999 is not a finite number"),
        ('{"a": 1' + "0" * 5000 + "}", "a whole number is too long"),
        ("[" * 100_000, "too many brackets"),
    ],
)
def test_invalid_json_is_an_error_that_names_the_file(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=f"a.json: .*{message}"):
        yaml_files.read(tmp_path / "a.json")


def test_missing_file_is_an_error(tmp_path):
    with pytest.raises(UserError, match="b.yaml: cannot be read"):
        yaml_files.read(tmp_path / "b.yaml")
