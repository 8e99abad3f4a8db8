"""Paths in settings: the home folder and URLs."""

import pathlib

import pytest

import olmix_jax
from olmix_jax import config as configs
from olmix_jax.config import paths, validation
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError


def nested(name, value):
    section, _, field = name.rpartition(".")
    return {section: {field: value}} if section else {field: value}


@pytest.mark.parametrize("name", paths.LOCAL)
def test_url_is_refused_and_names_the_field(name):
    with pytest.raises(UserError, match=rf"`{name}`: gs://bucket/file.json is a URL.*mount the bucket"):
        configs.from_dict(nested(name, "gs://bucket/file.json"))


@pytest.mark.parametrize("url", ["gs://bucket/run", "s3://b", "hf://datasets/x", "file:///tmp/x", "gs:/bucket"])
def test_workdir_must_not_be_a_url(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="is a URL"):
        olmix_jax.run(configs.from_dict({}), url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["runs/a:b", "C:x", "a.b/c", '{"web": 1}', "/tmp/x", "x:1/2"])
def test_local_paths_stay(text):
    assert str(files.local_path(text, "x")) == text


def test_tilde_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    config = configs.from_dict({"tasks": {"path": "~/tasks"}, "propose": {"anchor": ' {"web": "~/x"}'}})
    assert validation.get(config, "tasks.path") == "/home/ada/tasks"
    assert config.propose.anchor == ' {"web": "~/x"}'


@pytest.mark.parametrize("text, path", [("~/text", "/home/ada/text"), ("s3://bucket/~/tokens", "s3://bucket/~/tokens")])
def test_text_lies_in_the_home_folder_or_at_a_url(text, path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    assert configs.from_dict({"corpus": {"path": text}}).corpus.path == path


@pytest.mark.parametrize("workdir", ["", " "])
def test_workdir_must_not_be_empty(workdir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="workdir is empty; give a path, or . for the current folder"):
        olmix_jax.run(configs.from_dict({}), workdir)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "field, text, workdir, message",
    [
        ("tasks.path", "tasks", ".", "`tasks.path`: tasks lies in tasks, which the run replaces"),
        ("corpus.path", "run/corpus", "run", "`corpus.path`: run/corpus lies in run/corpus"),
        ("corpus.tokenizer", "run/corpus/tokenizer.json", "./run", "`corpus.tokenizer`: .* lies in run/corpus"),
        ("corpus.path", ".", "runs/mine", r"--workdir=runs/mine lies in \. \(config field `corpus.path`\)"),
        ("tasks.olmes", "data", "data", r"--workdir=data lies in data \(config field `tasks.olmes`\)"),
    ],
)
def test_inputs_that_the_run_would_replace_or_read_as_its_own_are_refused(
    field, text, workdir, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        olmix_jax.run(configs.from_dict(nested(field, text)), workdir)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["text", "corpus", "run/text", "gs://corpus/run", '{"a": "run/corpus/*.npy"}', ""])
def test_inputs_beside_the_results_are_accepted(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths.check_workdir(configs.from_dict({"corpus": {"path": text, "tokenizer": "t.json"}}), pathlib.Path("run"))
