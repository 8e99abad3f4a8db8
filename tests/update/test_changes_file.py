"""Update files: the steps of a change as YAML or JSON."""

import json

import pytest

from olmix_jax.config import yaml_files
from olmix_jax.update import changes, changes_file
from olmix_jax.utils.errors import UserError

STEPS = [
    changes.add("a", "b"),
    changes.remove("web"),
    changes.revise("code"),
    changes.partition("pdfs", "x", "y"),
    changes.rename("a", "c"),
]


@pytest.mark.parametrize("name", ["update.json", "update.yaml"])
def test_written_steps_are_read_back(tmp_path, name):
    path = tmp_path / name
    path.write_text(json.dumps({"updates": [step.plain() for step in STEPS]}))
    assert changes_file.parse(path, yaml_files.read(path)) == STEPS


def test_names_are_text_as_written(tmp_path):
    path = tmp_path / "update.yaml"
    path.write_text("updates:\n- rename: {no: norwegian, 1.10: 2.0}\n- add: [on, 1e3, 2020-01-01, 12:30:00]\n")
    assert changes_file.parse(path, yaml_files.read(path, names=True)) == [
        changes.rename("no", "norwegian"),
        changes.rename("1.10", "2.0"),
        changes.add("on", "1e3", "2020-01-01", "12:30:00"),
    ]


def test_rename_and_partition_of_several_domains_are_one_step_each():
    assert changes_file.parse_step("here", {"rename": {"a": "x", "b": "y"}}) == [
        changes.rename("a", "x"),
        changes.rename("b", "y"),
    ]
    assert changes_file.parse_step("here", {"partition": {"a": ["x", "y"], "b": ["u", "v"]}}) == [
        changes.partition("a", "x", "y"),
        changes.partition("b", "u", "v"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("updates: [", "not valid YAML"),
        ("- add: [a]", "needs a list `updates` of steps"),
        (
            "updates: [{grow: [a]}]",
            r"updates\[0\]: must be .* one of add, remove, revise, partition, rename; it is",
        ),
        ("updates: [{add: []}]", r"updates\[0\]: must be a list of domain names"),
        ("updates: [{partition: [a]}]", r"partition must be \{domain: \[parts\]\}"),
        ("updates: [{rename: a}]", r"rename must be \{domain: new name\}"),
        ("updates: [{add: a}]\nsteps: 3", "unknown field `steps`; the only field is `updates`"),
        (None, "cannot be read"),
    ],
)
def test_bad_file_is_an_error_that_names_it(tmp_path, text, message):
    path = tmp_path / "update.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=f"update.yaml.*{message}"):
        changes_file.parse(path, yaml_files.read(path))
