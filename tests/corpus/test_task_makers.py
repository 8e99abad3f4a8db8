"""The makers of built-in tasks extract prompts and answers from code and prose."""

import warnings

import pytest

from olmix_jax.corpus import task_makers
from olmix_jax.corpus.examples import Example

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


def make(maker, text: str) -> list[Example]:
    return list(maker(task_makers.Source(text)))


@pytest.mark.parametrize("text", [MODULE, MODULE.replace("\n", "\r\n")])
def test_examples_of_python_code(text):
    header = 'def area(self, radius: float, *, unit: str = "métre") -> float:'
    (body,) = make(task_makers.function_body, text)
    assert body.prompt == f'{header}\n        """Area of a circle."""\n'
    assert body.answer.startswith("        if radius < 0:") and body.answer.endswith("squared, 1.0])")
    (doc,) = make(task_makers.docstring, text)
    assert doc.prompt.endswith(f'1.0])\n\n{header}\n        """') and doc.answer == 'Area of a circle."""'
    (signature,) = make(task_makers.signature, text)
    assert signature == Example("# Area of a circle.\ndef area(", header.removeprefix("def area("))
    (error,) = make(task_makers.error_message, text)
    assert (
        error.prompt.endswith("raise ValueError(") and error.answer == 'f"radius must be positive, not {radius!r} é")'
    )
    (call,) = make(task_makers.call_arguments, text)
    assert call.prompt.endswith("return math.prod(") and call.answer == "[math.pi, squared, 1.0])"
    (expression,) = make(task_makers.numeric_expression, text)
    assert expression.prompt.endswith("        squared = ") and expression.answer == "radius ** 2 + radius * 0"
    (commented,) = make(task_makers.code_for_comment, text)
    assert commented.prompt.endswith("not circles.\n") and commented.answer.startswith("        if radius < 0:\n")
    (stub,) = make(task_makers.stub_of_definition, text)
    assert stub.prompt.endswith("# stub\ndef area(") and stub.answer.endswith("unit: str='métre') -> float: ...")


def test_examples_of_tests_stubs_headers_and_prose():
    test = "def test_sum():\n    total = sum([1, 2])\n    assert total == 3, total\n"
    assert make(task_makers.assertion, test) == [Example(test[: test.index("assert")], "assert total == 3, total")]
    stub = "class A:\n    x: int\n    def get(self, key: str) -> list[int]: ...\n"
    assert make(task_makers.stub_signature, stub) == [
        Example(stub[: stub.index("self")], "self, key: str) -> list[int]: ...")
    ]
    header = "/* Adds. */\nint add(int a, int (*f)(int));\nPyAPI_FUNC(int) PySet_Add(PyObject *set);\n  return g(a);\n"
    assert [e.answer for e in make(task_makers.prototype, header)] == ["int a, int (*f)(int))", "PyObject *set)"]
    reference = (
        'The "pass" statement\n********************\n\n"pass" is a null\noperation.\n\nNothing happens when it is '
    )
    (defined,) = make(task_makers.definition, reference)
    assert defined.prompt.endswith("****\n\n") and defined.answer == '"pass" is a null\noperation.'
    (following,) = make(task_makers.next_paragraph, reference + "executed, and that is all there is to it.")
    assert following.answer.startswith("Nothing happens") and following.answer.endswith("to it.")
    docs = "Args:\n  size: How many there\n    are.\n\nParameters\n-----\nx : int\n    Number.\n\n:param y: Other.\n\n"
    assert [e.answer for e in make(task_makers.parameter, docs)] == ["How many there\n    are.", "Number.", "Other."]
    shown = "Like this:\n\n>>> double(21)\n42\n>>> double('a')\n'aa'\n\nEnd."
    assert [e.answer for e in make(task_makers.example, shown)] == ["double(21)\n42", "double('a')\n'aa'"]


@pytest.mark.parametrize(
    "text", ["", "\n", "def f(:\n", "x = '\0'\n", "\ufeff\x0c", "print 'two'\n", "(" * 3000, "é" * 3000]
)
def test_every_maker_accepts_any_text(text):
    for task in task_makers.TASKS.values():
        assert isinstance(make(task.make_examples, text), list)


def test_invalid_escapes_in_the_text_give_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert task_makers.Source("x = '\\d'\n").nodes


def test_answers_and_prompts_have_allowed_sizes():
    texts = [
        MODULE.replace("area", f"area{i}") + f"# {i}: " + "long " * 300 + "\nvalue = compute(a, b, c, d)\n"
        for i in range(3)
    ]
    tasks = task_makers.make({"code:library": texts, "code:numerics": texts}, 64)
    assert sum(map(len, tasks.values())) > 10
    for examples in tasks.values():
        for e in examples:
            assert 10 <= len(e.answer.encode()) <= 400 and 0 < len(e.prompt.encode()) <= 800


def test_domains_have_different_numbers_of_tasks():
    used = [task.domains for task in task_makers.TASKS.values()]
    counts = {d: sum(d in u for u in used) for u in used for d in u}
    assert len(task_makers.TASKS) >= 10 and max(counts.values()) >= 5 * min(counts.values())
