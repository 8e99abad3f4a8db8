"""Tasks are read or refused by file and line, packed without loss, and scored by the exact number of bytes."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
from hypothesis import strategies as st

from olmix_jax import config as configs
from olmix_jax.corpus import prepare, task_makers, task_set, tasks, tokenizer
from olmix_jax.corpus.examples import Example
from olmix_jax.corpus.store import heldout_path, tokenizer_path
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.utils.errors import UserError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def config_with(**changes) -> configs.Config:
    return configs.Config(tasks=dataclasses.replace(configs.Tasks(), **changes))


def write(path: pathlib.Path, rows: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")


def rows(count: int) -> list[dict]:
    return [{"prompt": f"question {i}: ", "answer": f"answer {i}"} for i in range(count)]


def prepared_workdir(workdir: pathlib.Path, documents: dict[str, list[str]]) -> configs.Config:
    """Write what tasks need of a prepared workdir with the user's domains. Return its config."""
    for name, texts in documents.items():
        write(heldout_path(workdir, name), [{"text": t, "source": f"{name}/{i}"} for i, t in enumerate(texts)])
    DomainSet(tuple(documents), (1000,) * len(documents), (3000,) * len(documents)).write(workdir / "domains.json")
    return dataclasses.replace(config_with(max_examples=16), corpus=configs.Corpus(path="somewhere"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"prompt": "a", "answer": "b"}\n{"prompt": "a"}\n', "line 2: no field `answer`"),
        (b'{"answer": "b"}\n', "line 1: no field `prompt`"),
        (b'["a", "b"]\n', "line 1: no field `prompt`"),
        (b'\n\n{"prompt": "a", "answer": 3}\n', "line 3: `answer` must be a string, not int"),
        (b'{"prompt": null, "answer": "b"}\n', "line 1: `prompt` must be a string, not NoneType"),
        (b'{"prompt": "a", "answer": ""}\n', "line 1: `answer` is empty"),
        (b'{"prompt": "a", "answer": "\\ud800"}\n', "line 1: `answer` has an unpaired surrogate"),
        (b'{"prompt": "a", "answ\n', "line 1: not valid JSON"),
        (b'{"prompt": "a", "answer": "b"}\n{"prompt": "\xff"}\n', "line 2: not UTF-8"),
        (b"", "has no examples"),
        (b"\n \n", "has no examples"),
    ],
)
def test_invalid_line_is_named_with_its_file(tmp_path, content, message):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError) as e:
        tasks.read_task(path)
    assert "mine.jsonl" in str(e.value) and message in str(e.value)


def test_missing_task_file_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere.jsonl.*[Nn]o such file"):
        tasks.read_task(tmp_path / "nowhere.jsonl")


def test_byte_order_mark_and_line_separators_are_accepted(tmp_path):
    path = tmp_path / "mine.jsonl"
    row = {"prompt": "line\u2028separator", "answer": "é", "comment": 1}
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(row, ensure_ascii=False).encode() + b"\r\n\r\n")
    assert tasks.read_task(path) == [Example("line\u2028separator", "é")]


def test_written_tasks_are_read_back_sorted_by_name(tmp_path):
    written = {
        "continue:web/news é": [Example("a\u2028\n", "b\r\n")],
        "Z": [Example("", "x")],
        "a%3Ab": [Example("p", "q"), Example("p", "r")],
        "a:b": [Example("s", "t")],
    }
    assert tasks.write_tasks(tmp_path, written) == ("Z", "a%3Ab", "a:b", "continue:web/news é")
    assert tasks.read_examples(tmp_path) == written
    assert list(tasks.read_examples(tmp_path)) == sorted(written)
    # Files of an earlier run are ignored.
    tasks.write_tasks(tmp_path, {"Z": [Example("", "x")]})
    assert list(tasks.read_examples(tmp_path)) == ["Z"]


def test_changed_or_missing_task_files_are_errors(tmp_path):
    tasks.write_tasks(tmp_path, {"a": [Example("p", "q"), Example("p", "r")]})
    file = tmp_path / "tasks" / "a.jsonl"
    file.write_text(file.read_text().split("\n")[0])
    with pytest.raises(UserError, match="a.jsonl: has 1 examples, but tasks.json lists 2"):
        tasks.read_examples(tmp_path)
    file.unlink()
    with pytest.raises(UserError, match="a.jsonl"):
        tasks.read_examples(tmp_path)
    for entry in ('{"name": "a"}', '{"name": "a", "examples": 2, "size": 3}', "3"):
        (tmp_path / "tasks" / "tasks.json").write_text(f'{{"tasks": [{entry}]}}')
        with pytest.raises(UserError, match="tasks.json: not a list of tasks"):
            tasks.read_examples(tmp_path)
    (tmp_path / "tasks" / "tasks.json").write_text('{"tasks": [{"name": "a", "examples": 2, "aggregate": "sum"}]}')
    with pytest.raises(UserError, match="tasks.json: task a has aggregate 'sum'"):
        tasks.read_examples(tmp_path)
    with pytest.raises(UserError, match="tasks.json: no such file"):
        tasks.read_examples(tmp_path / "elsewhere")


def test_cap_on_examples_does_not_depend_on_their_order(tmp_path):
    write(tmp_path / "one" / "qa.jsonl", rows(40) + rows(40))
    write(tmp_path / "two" / "qa.jsonl", rows(40)[::-1])
    for name in ("one", "two"):
        assert tasks.make_tasks(
            config_with(builtin=False, path=str(tmp_path / name), max_examples=10), tmp_path / "work" / name
        ) == ("qa",)
    kept = tasks.read_examples(tmp_path / "work" / "one")["qa"]
    assert kept == tasks.read_examples(tmp_path / "work" / "two")["qa"] and len(set(kept)) == 10
    # A larger cap keeps all examples of a smaller one.
    tasks.make_tasks(config_with(builtin=False, path=str(tmp_path / "one"), max_examples=20), tmp_path / "work" / "one")
    assert set(kept) < set(tasks.read_examples(tmp_path / "work" / "one")["qa"])


def test_aggregate_is_pooled_by_default_and_kept_by_an_update(tmp_path):
    write(tmp_path / "mine" / "qa.jsonl", rows(9))
    write(tmp_path / "more" / "new.jsonl", rows(9))
    own = config_with(builtin=False, path=str(tmp_path / "mine"))
    for aggregate, expected in ((None, set()), ("pooled", set()), ("document", {"qa"})):
        setting = dataclasses.replace(own, tasks=dataclasses.replace(own.tasks, aggregate=aggregate))
        tasks.make_tasks(setting, tmp_path / "parent")
        assert tasks.tasks_by_document(tmp_path / "parent") == expected
    update = configs.Config(
        tasks=configs.Tasks(path=str(tmp_path / "more")), update=configs.Update(parent=str(tmp_path / "parent"))
    )
    assert tasks.make_tasks(update, tmp_path / "child") == ("new", "qa")
    assert tasks.tasks_by_document(tmp_path / "child") == {"qa"}


def test_config_without_tasks_is_an_error(tmp_path):
    """PITFALLS 11: an empty choice of tasks must not pass as an evaluation."""
    with pytest.raises(UserError, match="no tasks.*tasks.builtin, tasks.path or tasks.olmes"):
        tasks.make_tasks(config_with(builtin=False), tmp_path)


@pytest.mark.parametrize("content", [None, "file", "empty"])
def test_wrong_task_folder_is_named(tmp_path, content):
    folder = tmp_path / "mine"
    if content == "file":
        folder.write_text("")
    if content == "empty":
        folder.mkdir()
    with pytest.raises(UserError, match=r"tasks\.path=.*mine"):
        tasks.make_tasks(config_with(builtin=False, path=str(folder)), tmp_path)


def test_task_with_too_few_different_examples_is_an_error(tmp_path):
    write(tmp_path / "mine" / "qa.jsonl", rows(7) + rows(7))
    with pytest.raises(UserError, match=r"8 or more different examples, but qa \(tasks.path\) has 7"):
        tasks.make_tasks(config_with(builtin=False, path=str(tmp_path / "mine")), tmp_path)
    with pytest.raises(UserError, match=r"tasks\.max_examples"):
        tasks.make_tasks(config_with(builtin=False, path=str(tmp_path / "mine"), max_examples=3), tmp_path)
    assert not (tmp_path / "tasks").exists()


def test_user_tasks_replace_continuations_of_user_text(tmp_path):
    setting = prepared_workdir(tmp_path, {"web": ["Too little text for a task."]})
    write(tmp_path / "mine" / "qa.jsonl", rows(9))
    both = dataclasses.replace(setting, tasks=dataclasses.replace(setting.tasks, path=str(tmp_path / "mine")))
    assert tasks.make_tasks(both, tmp_path) == ("qa",)


@pytest.mark.parametrize("border", ["\n\n", "\r\n \r\n", "\n"])
def test_user_domains_get_tasks_of_their_next_paragraph(tmp_path, border):
    texts = {
        f"web:{d}/x": [
            border.join(f"Paragraph {i} of text {j} in {d}, that goes on." for i in range(9)) for j in range(4)
        ]
        for d in "ab"
    }
    assert tasks.make_tasks(prepared_workdir(tmp_path, texts), tmp_path) == ("continue:web:a/x", "continue:web:b/x")
    for name, examples in tasks.read_examples(tmp_path).items():
        assert len(examples) == 16
        for e in examples:
            text = next(t for t in texts[name.removeprefix("continue:")] if e.prompt + e.answer in t)
            following = text[text.index(e.prompt) + len(e.prompt) :]
            assert following.split(border)[0] == e.answer


def test_user_text_of_one_line_is_continued_from_its_middle(tmp_path):
    texts = [" ".join(f"word{i}x{j}" for i in range(30)) for j in range(10)]
    tasks.make_tasks(prepared_workdir(tmp_path, {"web": texts}), tmp_path)
    assert all(e.prompt + e.answer in texts for e in tasks.read_examples(tmp_path)["continue:web"])


def test_user_domain_without_heldout_text_is_an_error_with_a_remedy(tmp_path):
    with pytest.raises(UserError, match=r"continue:web .* has 0.*corpus\.heldout"):
        tasks.make_tasks(prepared_workdir(tmp_path, {"web": []}), tmp_path)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A workdir with a small share of the built-in corpus, and its config."""
    setting = configs.Config(
        corpus=configs.Corpus(max_bytes=4_000_000, vocabulary=1024, min_tokens=64), proxy=configs.Proxy(length=64)
    )
    workdir = tmp_path_factory.mktemp("builtin")
    prepare.prepare(setting, workdir)
    return setting, workdir


def test_builtin_tasks_of_the_real_corpus(prepared):
    setting, workdir = prepared
    names = tasks.make_tasks(setting, workdir)
    assert names == tuple(sorted(task_makers.TASKS))
    written = {n: (workdir / "tasks" / f"{n.replace(':', '%3A')}.jsonl").read_bytes() for n in names}
    for name, examples in tasks.read_examples(workdir).items():
        assert 8 <= len(examples) <= setting.tasks.max_examples, name
    assert tasks.make_tasks(setting, workdir) == names
    assert written == {n: (workdir / "tasks" / f"{n.replace(':', '%3A')}.jsonl").read_bytes() for n in names}
    bpe = tokenizer.Tokenizer.read(tokenizer_path(workdir))
    packed = tasks.read_tasks(workdir, bpe, 128)
    assert packed.names == names and (np.diff(packed.task_E) >= 0).all() and (packed.bytes_E > 0).all()
    # The loss of a model that predicts all tokens with equal probability.
    nats_E = packed.answer_EL.sum(1) * np.log(bpe.size)
    assert (task_set.bits_per_byte_N(nats_E, packed) > 1).all()


def test_task_name_in_two_sources_is_an_error(prepared, tmp_path):
    setting, workdir = prepared
    write(tmp_path / "mine" / "c%3Aprototype.jsonl", rows(9))
    both = dataclasses.replace(setting, tasks=dataclasses.replace(setting.tasks, path=str(tmp_path / "mine")))
    with pytest.raises(UserError, match=r"task c:prototype is in tasks\.builtin and in tasks\.path"):
        tasks.make_tasks(both, workdir)


def test_too_small_corpus_is_an_error_that_names_the_task_and_a_remedy(prepared, tmp_path):
    setting, workdir = prepared
    DomainSet.read(workdir / "domains.json").write(tmp_path / "domains.json")
    for name in DomainSet.read(workdir / "domains.json").names:
        heldout_path(tmp_path, name).parent.mkdir(parents=True, exist_ok=True)
        heldout_path(tmp_path, name).write_bytes(
            b"" if name == "code:headers" else heldout_path(workdir, name).read_bytes()
        )
    with pytest.raises(UserError, match=r"c:prototype \(tasks.builtin\) has 0.*corpus\.max_bytes"):
        tasks.make_tasks(setting, tmp_path)
