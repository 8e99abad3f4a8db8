"""Tasks: what they are made of, how they are packed, and that bits per byte divide by the right bytes."""

import dataclasses
import json
import math
import pathlib
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix_jax import config as configs
from olmix_jax.corpus import prepare, task_makers, tasks, tokenizer
from olmix_jax.corpus.store import heldout_path, tokenizer_path
from olmix_jax.corpus.task_makers import Example
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.utils.errors import UserError

BPE = tokenizer.train(
    [f"def function_{i}(argument):\n    return argument + {i}  # añadir 変数\n" for i in range(200)], 300
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def config(**changes) -> configs.Config:
    return configs.Config(tasks=dataclasses.replace(configs.Tasks(), **changes))


def write(path: pathlib.Path, rows: list) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
    return path


def rows(count: int, word: str = "answer") -> list[dict]:
    return [{"prompt": f"question {i}: ", "answer": f"{word} {i}"} for i in range(count)]


def own_corpus(workdir: pathlib.Path, documents: dict[str, list[str]]) -> configs.Config:
    """A prepared workdir of a user's own domains, as far as tasks need it."""
    for name, texts in documents.items():
        write(heldout_path(workdir, name), [{"text": t, "source": f"{name}/{i}"} for i, t in enumerate(texts)])
    DomainSet(tuple(documents), (1000,) * len(documents), (3000,) * len(documents)).write(workdir / "domains.json")
    return dataclasses.replace(config(max_examples=16), corpus=configs.Corpus(path="somewhere"))


# Files


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"prompt": "a", "answer": "b"}\n{"prompt": "a"}\n', "line 2: no field `answer`"),
        (b'{"answer": "b"}\n', "line 1: no field `prompt`"),
        (b'["a", "b"]\n', "line 1: no field `prompt`"),
        (b'\n\n{"prompt": "a", "answer": 3}\n', "line 3: `answer` must be a string, not int"),
        (b'{"prompt": null, "answer": "b"}\n', "line 1: `prompt` must be a string, not NoneType"),
        (b'{"prompt": "a", "answer": ""}\n', "line 1: `answer` is empty"),
        (b'{"prompt": "a", "answer": "\\ud800"}\n', "line 1: `answer` has half of a surrogate pair"),
        (b'{"prompt": "a", "answ\n', "line 1: not valid JSON"),
        (b'{"prompt": "a", "answer": "b"}\n{"prompt": "\xff"}\n', "line 2: not UTF-8"),
        (b"", "holds no example"),
        (b"\n \n", "holds no example"),
    ],
)
def test_bad_files_name_file_and_line(tmp_path, content, message):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError) as e:
        tasks.read_task(path)
    assert "mine.jsonl" in str(e.value) and message in str(e.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere.jsonl.*No such file"):
        tasks.read_task(tmp_path / "nowhere.jsonl")


def test_reads_what_editors_write(tmp_path):
    path = tmp_path / "mine.jsonl"
    row = {"prompt": "line\u2028separator", "answer": "é", "comment": 1}
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(row, ensure_ascii=False).encode() + b"\r\n\r\n")
    assert tasks.read_task(path) == [Example("line\u2028separator", "é")]


def test_written_tasks_are_read_back_in_the_order_of_their_names(tmp_path):
    written = {
        "continue:web/news é": [Example("a\u2028\n", "b\r\n")],
        "Z": [Example("", "x")],
        "a%3Ab": [Example("p", "q"), Example("p", "r")],
        "a:b": [Example("s", "t")],
    }
    assert tasks.write_tasks(tmp_path, written) == ("Z", "a%3Ab", "a:b", "continue:web/news é")
    assert tasks.read_written(tmp_path) == written
    assert list(tasks.read_written(tmp_path)) == sorted(written)
    # Tasks of an earlier run are none of this one's.
    tasks.write_tasks(tmp_path, {"Z": [Example("", "x")]})
    assert list(tasks.read_written(tmp_path)) == ["Z"]


def test_changed_or_missing_files_are_found(tmp_path):
    tasks.write_tasks(tmp_path, {"a": [Example("p", "q"), Example("p", "r")]})
    file = tmp_path / "tasks" / "a.jsonl"
    file.write_text(file.read_text().split("\n")[0])
    with pytest.raises(UserError, match="a.jsonl: 1 examples where 2 were written"):
        tasks.read_written(tmp_path)
    file.unlink()
    with pytest.raises(UserError, match="a.jsonl"):
        tasks.read_written(tmp_path)
    (tmp_path / "tasks" / "tasks.json").write_text('{"tasks": [{"name": "a"}]}')
    with pytest.raises(UserError, match="tasks.json: not a list of tasks"):
        tasks.read_written(tmp_path)
    with pytest.raises(UserError, match="tasks.json: no such file"):
        tasks.read_written(tmp_path / "elsewhere")


# Gathering


def test_own_tasks_are_capped_by_hash_whatever_the_order(tmp_path):
    write(tmp_path / "one" / "qa.jsonl", rows(40) + rows(40))
    write(tmp_path / "two" / "qa.jsonl", rows(40)[::-1])
    for name in ("one", "two"):
        assert tasks.make_tasks(config(builtin=False, path=str(tmp_path / name), max_examples=10), tmp_path / name) == (
            "qa",
        )
    kept = tasks.read_written(tmp_path / "one")["qa"]
    assert kept == tasks.read_written(tmp_path / "two")["qa"] and len(set(kept)) == 10
    # A larger cap keeps what a smaller one did.
    tasks.make_tasks(config(builtin=False, path=str(tmp_path / "one"), max_examples=20), tmp_path / "one")
    assert set(kept) < set(tasks.read_written(tmp_path / "one")["qa"])


def test_no_tasks_is_an_error(tmp_path):
    """PITFALLS 11: nothing chosen must not evaluate nothing."""
    with pytest.raises(UserError, match="no tasks.*tasks.builtin, tasks.path or tasks.olmes"):
        tasks.make_tasks(config(builtin=False), tmp_path)


@pytest.mark.parametrize("content", [None, "file", "empty"])
def test_a_wrong_folder_is_named(tmp_path, content):
    folder = tmp_path / "mine"
    if content == "file":
        folder.write_text("")
    if content == "empty":
        folder.mkdir()
    with pytest.raises(UserError, match=r"tasks\.path=.*mine"):
        tasks.make_tasks(config(builtin=False, path=str(folder)), tmp_path)


def test_too_few_different_examples_is_an_error(tmp_path):
    write(tmp_path / "mine" / "qa.jsonl", rows(7) + rows(7))
    with pytest.raises(UserError, match=r"qa \(of tasks.path\) has 7"):
        tasks.make_tasks(config(builtin=False, path=str(tmp_path / "mine")), tmp_path)
    with pytest.raises(UserError, match=r"tasks\.max_examples"):
        tasks.make_tasks(config(builtin=False, path=str(tmp_path / "mine"), max_examples=3), tmp_path)
    assert not (tmp_path / "tasks").exists()


def test_a_name_in_two_places_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "_builtin", lambda *_: {"qa": [Example("q", "a")]})
    write(tmp_path / "mine" / "qa.jsonl", rows(9))
    with pytest.raises(UserError, match=r"task qa is in tasks\.builtin and in tasks\.path"):
        tasks.make_tasks(config(path=str(tmp_path / "mine")), tmp_path)


def test_own_tasks_stand_alone_for_own_text(tmp_path):
    setting = own_corpus(tmp_path, {"web": ["Too little text for a task of its own."]})
    write(tmp_path / "mine" / "qa.jsonl", rows(9))
    both = dataclasses.replace(setting, tasks=dataclasses.replace(setting.tasks, path=str(tmp_path / "mine")))
    assert tasks.make_tasks(both, tmp_path) == ("qa",)


@pytest.mark.parametrize("border", ["\n\n", "\r\n \r\n", "\n"])
def test_own_domains_are_judged_by_their_next_paragraph(tmp_path, border):
    texts = {
        f"web:{d}/x": [
            border.join(f"Paragraph {i} of text {j} in {d}, that goes on." for i in range(9)) for j in range(4)
        ]
        for d in "ab"
    }
    assert tasks.make_tasks(own_corpus(tmp_path, texts), tmp_path) == ("continue:web:a/x", "continue:web:b/x")
    for name, examples in tasks.read_written(tmp_path).items():
        assert len(examples) == 16
        for e in examples:
            text = next(t for t in texts[name.removeprefix("continue:")] if e.prompt + e.answer in t)
            following = text[text.index(e.prompt) + len(e.prompt) :]
            assert following.split(border)[0] == e.answer


def test_own_texts_of_one_line_are_continued_in_the_middle(tmp_path):
    texts = [" ".join(f"word{i}x{j}" for i in range(30)) for j in range(10)]
    tasks.make_tasks(own_corpus(tmp_path, {"web": texts}), tmp_path)
    assert all(e.prompt + e.answer in texts for e in tasks.read_written(tmp_path)["continue:web"])


def test_own_domain_without_heldout_text_says_how_to_get_some(tmp_path):
    with pytest.raises(UserError, match=r"continue:web .* has 0.*corpus\.heldout"):
        tasks.make_tasks(own_corpus(tmp_path, {"web": []}), tmp_path)


# Built-in tasks

MODULE = '''import math


class Shape:
    def area(self, radius: float, *, unit: str = "métre") -> float:
        """Area of a circle.

        Longer.
        """
        # Negative ones are mistakes, not circles.
        if radius < 0:
            raise ValueError(f"radius must be positive, not {radius!r} é")
        squared = radius ** 2 + radius * 0
        return math.prod([math.pi, squared, 1.0])
'''


def made(maker, text: str) -> list[Example]:
    return list(maker(task_makers._Source(text)))


@pytest.mark.parametrize("text", [MODULE, MODULE.replace("\n", "\r\n")])
def test_makers_of_python(text):
    header = 'def area(self, radius: float, *, unit: str = "métre") -> float:'
    (body,) = made(task_makers.function_body, text)
    assert body.prompt == f'{header}\n        """Area of a circle."""\n'
    assert body.answer.startswith("        if radius < 0:") and body.answer.endswith("squared, 1.0])")
    (doc,) = made(task_makers.docstring, text)
    assert doc.prompt.endswith(f'1.0])\n\n{header}\n        """') and doc.answer == 'Area of a circle."""'
    (signature,) = made(task_makers.signature, text)
    assert signature == Example("# Area of a circle.\ndef area(", header.removeprefix("def area("))
    (error,) = made(task_makers.error_message, text)
    assert (
        error.prompt.endswith("raise ValueError(") and error.answer == 'f"radius must be positive, not {radius!r} é")'
    )
    (call,) = made(task_makers.call_arguments, text)
    assert call.prompt.endswith("return math.prod(") and call.answer == "[math.pi, squared, 1.0])"
    (sum_of,) = made(task_makers.numeric_expression, text)
    assert sum_of.prompt.endswith("        squared = ") and sum_of.answer == "radius ** 2 + radius * 0"
    (commented,) = made(task_makers.code_for_comment, text)
    assert commented.prompt.endswith("not circles.\n") and commented.answer.startswith("        if radius < 0:\n")
    (stub,) = made(task_makers.stub_of_definition, text)
    assert stub.prompt.endswith("# stub\ndef area(") and stub.answer.endswith("unit: str='métre') -> float: ...")


def test_makers_of_tests_stubs_headers_and_prose():
    test = "def test_sum():\n    total = sum([1, 2])\n    assert total == 3, total\n"
    assert made(task_makers.assertion, test) == [Example(test[: test.index("assert")], "assert total == 3, total")]
    stub = "class A:\n    x: int\n    def get(self, key: str) -> list[int]: ...\n"
    assert made(task_makers.stub_signature, stub) == [
        Example(stub[: stub.index("self")], "self, key: str) -> list[int]: ...")
    ]
    header = "/* Adds. */\nint add(int a, int (*f)(int));\nPyAPI_FUNC(int) PySet_Add(PyObject *set);\n  return g(a);\n"
    assert [e.answer for e in made(task_makers.prototype, header)] == ["int a, int (*f)(int))", "PyObject *set)"]
    reference = (
        'The "pass" statement\n********************\n\n"pass" is a null\noperation.\n\nNothing happens when it is '
    )
    (defined,) = made(task_makers.definition, reference)
    assert defined.prompt.endswith("****\n\n") and defined.answer == '"pass" is a null\noperation.'
    (following,) = made(task_makers.next_paragraph, reference + "executed, and that is all there is to it.")
    assert following.answer.startswith("Nothing happens") and following.answer.endswith("to it.")
    docs = "Args:\n  size: How many there\n    are.\n\nParameters\n-----\nx : int\n    Number.\n\n:param y: Other.\n\n"
    assert [e.answer for e in made(task_makers.parameter, docs)] == ["How many there\n    are.", "Number.", "Other."]
    shown = "Like this:\n\n>>> double(21)\n42\n>>> double('a')\n'aa'\n\nEnd."
    assert [e.answer for e in made(task_makers.example, shown)] == ["double(21)\n42", "double('a')\n'aa'"]


@pytest.mark.parametrize(
    "text", ["", "\n", "def f(:\n", "x = '\0'\n", "\ufeff\x0c", "print 'two'\n", "(" * 3000, "é" * 3000]
)
def test_makers_take_any_text(text):
    for _, maker in task_makers.TASKS.values():
        assert isinstance(made(maker, text), list)


def test_makers_keep_quiet_about_other_peoples_escapes():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert task_makers._Source("x = '\\d'\n").nodes


def test_built_in_answers_and_prompts_are_of_the_sizes_said():
    texts = [
        MODULE.replace("area", f"area{i}") + f"# {i}: " + "long " * 300 + "\nvalue = compute(a, b, c, d)\n"
        for i in range(3)
    ]
    for examples in task_makers.make({"code:library": texts, "code:numerics": texts}, 64).values():
        for e in examples:
            assert 10 <= len(e.answer.encode()) <= 400 and 0 < len(e.prompt.encode()) <= 800


def test_two_examples_of_each_document_unless_more_are_needed():
    examples = [[Example(str(s), f"{s} {i}") for i in range(9)] for s in range(10)]
    assert len(task_makers.spread(examples, 20)) == 20
    assert len(task_makers.spread(examples, 31)) == 40
    assert len(task_makers.spread(examples, 1000)) == 90
    assert task_makers.spread([], 5) == []


def test_tasks_are_no_mirror_of_the_domains():
    used = [domains for domains, _ in task_makers.TASKS.values()]
    counts = {d: sum(d in u for u in used) for u in used for d in u}
    assert len(task_makers.TASKS) >= 10 and max(counts.values()) >= 5 * min(counts.values())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The built-in corpus, a small share of it."""
    setting = configs.Config(
        corpus=configs.Corpus(max_bytes=4_000_000, vocabulary=1024, min_tokens=64), proxy=configs.Proxy(length=64)
    )
    workdir = tmp_path_factory.mktemp("builtin")
    prepare.prepare(setting, workdir)
    return setting, workdir


def test_built_in_tasks_from_the_real_corpus(prepared):
    setting, workdir = prepared
    names = tasks.make_tasks(setting, workdir)
    assert names == tuple(sorted(task_makers.TASKS))
    written = {n: (workdir / "tasks" / f"{n.replace(':', '%3A')}.jsonl").read_bytes() for n in names}
    for name, examples in tasks.read_written(workdir).items():
        assert 8 <= len(examples) <= setting.tasks.max_examples, name
    assert tasks.make_tasks(setting, workdir) == names
    assert written == {n: (workdir / "tasks" / f"{n.replace(':', '%3A')}.jsonl").read_bytes() for n in names}
    bpe = tokenizer.Tokenizer.read(tokenizer_path(workdir))
    packed = tasks.read_tasks(workdir, bpe, 128)
    assert packed.names == names and (np.diff(packed.task_E) >= 0).all() and (packed.bytes_E > 0).all()
    # A model that knows nothing but the number of tokens.
    nats_E = packed.answer_EL.sum(1) * np.log(bpe.size)
    assert (tasks.bits_per_byte_N(nats_E, packed) > 1).all()


def test_too_small_a_corpus_says_which_task_and_what_to_do(prepared, tmp_path):
    setting, workdir = prepared
    DomainSet.read(workdir / "domains.json").write(tmp_path / "domains.json")
    for name in DomainSet.read(workdir / "domains.json").names:
        heldout_path(tmp_path, name).parent.mkdir(parents=True, exist_ok=True)
        heldout_path(tmp_path, name).write_bytes(
            b"" if name == "code:headers" else heldout_path(workdir, name).read_bytes()
        )
    with pytest.raises(UserError, match=r"c:prototype \(of tasks.builtin\) has 0.*corpus\.max_bytes"):
        tasks.make_tasks(setting, tmp_path)


# Packing


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(TEXT, TEXT.filter(bool)), min_size=1, max_size=4), st.integers(2, 40))
def test_packed_sequences_hold_the_end_of_the_prompt_and_the_answer(pairs, length):
    packed = tasks.pack({"a": [Example(*p) for p in pairs]}, BPE, length)
    assert packed.tokens_EL.shape == (len(pairs), length + 1) and packed.tokens_EL.dtype == np.int32
    assert packed.answer_EL.shape == (len(pairs), length) and packed.answer_EL.dtype == bool
    assert packed.bytes_E.dtype == np.int64 and packed.task_E.dtype == np.int32
    for (prompt, answer), tokens, scored, size in zip(pairs, packed.tokens_EL, packed.answer_EL, packed.bytes_E):
        prompt_ids, answer_ids = list(BPE.encode(prompt)), list(BPE.encode(answer))
        kept = list(tokens[1:][scored])
        first = int(np.argmax(scored))
        assert tokens[0] == BPE.end and scored[first : first + len(kept)].all()
        assert kept == answer_ids[: len(kept)] and size == BPE.token_bytes_V[kept].sum()
        assert list(tokens[1 : 1 + first]) == prompt_ids[len(prompt_ids) - first :]
        assert (tokens[1 + first + len(kept) :] == BPE.end).all()
        if len(prompt_ids) + len(answer_ids) <= length:
            assert kept == answer_ids and first == len(prompt_ids) and size == len(answer.encode())
        else:
            # Nothing is lost that there was room for; the prompt goes first, down to half of the window.
            assert first + len(kept) == length
            assert first == len(prompt_ids) or len(kept) == len(answer_ids) or len(kept) == length // 2


def test_prompt_loses_its_beginning_first_then_the_answer_its_end(caplog, monkeypatch):
    monkeypatch.setattr(tasks.log, "propagate", True)
    ids = BPE.encode("0123456789")
    assert len(ids) == 10
    with caplog.at_level("INFO", "olmix_jax"):
        packed = tasks.pack(
            {"a": [Example("9876543210", "012"), Example("56", "0123456789"), Example("9876543210", "0123456789")]},
            BPE,
            8,
        )
    assert [BPE.decode(row) for row in packed.tokens_EL] == ["43210012", "56012345", "32100123"]
    assert packed.bytes_E.tolist() == [3, 6, 4]
    assert "2 of 3 prompts lost their beginning and 2 answers their end" in caplog.text


def test_a_window_too_short_is_refused():
    with pytest.raises(UserError, match="tasks.length"):
        tasks.pack({"a": [Example("a", "b")]}, BPE, 1)


def test_bits_per_byte_by_hand():
    """PITFALLS 21. "é" has 2 bytes, "変" 3, "🙂" 4: bytes, not characters and not tokens; sums, not means of ratios."""
    rows = {"one": [Example("q", "é"), Example("q", "ab変")], "two": [Example("", "🙂")]}
    packed = tasks.pack(rows, BPE, 16)
    assert packed.bytes_E.tolist() == [2, 5, 4] and packed.task_E.tolist() == [0, 0, 1]
    bpb_N = tasks.bits_per_byte_N(np.array([3.0, 4.0, 8.0]) * math.log(2), packed)
    assert bpb_N.dtype == np.float64
    np.testing.assert_allclose(bpb_N, [(3 + 4) / 7, 8 / 4], rtol=1e-15)


def test_bits_per_byte_of_an_answer_cut_inside_a_character():
    packed = tasks.pack({"a": [Example("", "🙂🙂")]}, BPE, 3)
    assert len(BPE.encode("🙂")) == 4
    np.testing.assert_allclose(tasks.bits_per_byte_N(np.array([6 * math.log(2)]), packed), [2.0])


def test_no_bits_per_byte_without_finite_nats_or_of_another_set():
    packed = tasks.pack({"a": [Example("", "ab")]}, BPE, 4)
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="not finite"):
            tasks.bits_per_byte_N(np.array([bad]), packed)
    with pytest.raises(ValueError, match="shape|examples"):
        tasks.bits_per_byte_N(np.ones(2), packed)
