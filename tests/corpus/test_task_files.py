"""Every file of tasks is read, or is an error that names it."""

import gzip
import json

import pytest

from olmix_jax.corpus import task_files
from olmix_jax.corpus.examples import Example
from olmix_jax.utils.errors import UserError

LINE = json.dumps({"prompt": "a", "answer": "b"}) + "\n"


@pytest.fixture
def folder(tmp_path):
    for name in ("one.jsonl", "Two.JSON", "a%2Fb.ndjson", "README.md", "tasks.json"):
        (tmp_path / name).write_text(LINE)
    (tmp_path / "three.jsonl.gz").write_bytes(gzip.compress(LINE.encode()))
    return tmp_path


def test_tasks_are_read_from_plain_and_compressed_files(folder):
    tasks = task_files.read_folder(str(folder))
    assert tasks == dict.fromkeys(("Two", "a/b", "one", "three"), [Example("a", "b")])


@pytest.mark.parametrize(
    "name, message",
    [
        ("four.csv", "four.csv: not read, .* convert it"),
        ("four.txt", "four.txt: not read as a task; put a ‹task›.jsonl directly into"),
        ("four.jsonl.bz2", "four.jsonl.bz2: not read"),
        ("deep/four.jsonl", "deep/four.jsonl: not read as a task"),
        ("one.jsonl.gz", "task one is in .* twice"),
        ("ONE.jsonl", "differ only in case"),
        ("_step.jsonl", "task '_step' has a name that a table takes for another column .a leading underscore"),
    ],
)
def test_file_that_is_not_read_is_an_error(folder, name, message):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(LINE)
    with pytest.raises(UserError, match=message):
        task_files.read_folder(str(folder))


def test_broken_link_is_an_error(folder):
    (folder / "four.jsonl").symlink_to("/mnt/missing")
    with pytest.raises(UserError, match="four.jsonl: a broken link"):
        task_files.read_folder(str(folder))


def test_line_that_python_cannot_parse_is_named(folder):
    deep = "[" * 100_000 + "]" * 100_000
    (folder / "one.jsonl").write_text(LINE + '{"prompt": "a", "answer": "b", "n": ' + "9" * 5000 + "}\n" + deep)
    with pytest.raises(UserError, match="one.jsonl, line 3: not valid JSON: nested too deeply"):
        task_files.read_folder(str(folder))
