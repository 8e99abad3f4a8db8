"""The built-in evaluation tasks: prompts with gold answers, made from held-out documents of the built-in corpus.

They test typical uses of models of code and documentation. Some domains have several tasks, and some tasks draw on
several domains, so that the best mixture is not simply an equal share of every domain. The docstring of a maker reads
"prompt → answer".
"""

import ast
import functools
import re
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar

from olmix_jax.corpus.examples import (
    ANSWER,
    CONTEXT,
    PARAGRAPH,
    PROMPT,
    Example,
    first_bytes,
    last_bytes,
    select,
    spread,
)
from olmix_jax.utils.progress import tracked

Function = ast.FunctionDef | ast.AsyncFunctionDef
Node = TypeVar("Node", bound=ast.AST)


def make(
    documents: Mapping[str, Iterable[str]], wanted: int, tasks: Mapping[str, "BuiltinTask"] | None = None
) -> dict[str, list[Example]]:
    """Make the examples of every task from ``documents``: held-out texts by domain.

    ``tasks`` are those of the built-in corpus, or the same for other domains.

    A task has ``wanted`` examples or more if its documents contain that many, and none if its domains are absent.
    Answers have ``ANSWER`` bytes, and prompts are cut to their last ``PROMPT`` bytes. The examples of a document are
    chosen by hash, so that no part of it is preferred.
    """
    tasks = tasks or TASKS
    by_source: dict[str, list[list[Example]]] = {task: [] for task in tasks}
    for domain, texts in tracked(documents.items(), "make tasks", "domains"):
        of_domain = {name: task for name, task in tasks.items() if domain in task.domains}
        for source in map(Source, texts):
            for name, task in of_domain.items():
                by_source[name].append(select(task.make_examples(source), wanted))
    return {task: spread(examples, wanted) for task, examples in by_source.items()}


def continuations(texts: Iterable[str], wanted: int) -> list[Example]:
    """Make examples that ask for the next paragraph of any text: ``wanted`` or more, or all if there are fewer."""
    return spread([select(continuation(text), wanted) for text in texts], wanted)


class Source:
    """A document and, if it is Python, the nodes of its syntax tree. Positions are byte offsets in ``data``."""

    def __init__(self, text: str):
        self.text = re.sub(r"\r\n?", "\n", text)
        self.data = self.text.encode()
        self.starts = [0, *(m.end() for m in re.finditer(b"\n", self.data))]

    @functools.cached_property
    def nodes(self) -> list[ast.AST]:
        """All nodes; empty if the text does not parse, for example Python 2 and templates."""
        try:
            with warnings.catch_warnings():
                # Other people's code may contain invalid escapes.
                warnings.simplefilter("ignore")
                # The grammar of the oldest version, so that all versions make the same tasks, f-strings aside.
                nodes: list[ast.AST] = [ast.parse(self.text, feature_version=(3, 11))]
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return []
        for node in nodes:
            # Python 3.11 does not record the positions of nodes inside f-strings.
            nodes.extend(n for n in ast.iter_child_nodes(node) if not isinstance(n, ast.JoinedStr))
        return nodes

    def all(self, kind: type[Node]) -> Iterator[Node]:
        return (n for n in self.nodes if isinstance(n, kind))

    def functions(self) -> Iterator[Function]:
        """Yield all functions whose body begins on a new line."""
        return (f for f in self.nodes if isinstance(f, Function) and f.body[0].lineno > f.lineno)

    def start(self, node: ast.stmt | ast.expr) -> int:
        return self.starts[node.lineno - 1] + node.col_offset

    def end(self, node: ast.stmt | ast.expr) -> int:
        # ast.parse sets the end of every statement and expression.
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self.starts[node.end_lineno - 1] + node.end_col_offset

    def part(self, start: int, end: int) -> str:
        return self.data[start:end].decode(errors="ignore")

    def before(self, end: int) -> str:
        return last_bytes(self.part(max(0, end - PROMPT - 1), end), PROMPT)

    def header(self, f: Function) -> str:
        return self.part(self.start(f), self.starts[f.body[0].lineno - 1]).rstrip()


def _summary(f: Function) -> str:
    """Return the first paragraph of the docstring; empty if there is none, or if it is not valid Unicode."""
    summary = (ast.get_docstring(f) or "").split("\n\n")[0].strip()
    return "" if re.search("[\ud800-\udfff]", summary) else summary


def _documented(source: Source) -> Iterator[tuple[Function, int]]:
    """Yield functions with a docstring and statements, each with the start of the line after the docstring."""
    for f in source.functions():
        documented = _summary(f) and source.header(f).endswith(":")
        if documented and len(f.body) > 1 and f.body[1].lineno > (f.body[0].end_lineno or 0):
            yield f, source.starts[f.body[1].lineno - 1]


def function_body(source: Source) -> Iterator[Example]:
    """Signature and summary of a function → its statements, as many complete ones as fit."""
    for f, start in _documented(source):
        ends = [end for end in map(source.end, f.body[1:]) if end - start <= ANSWER[1]]
        body = source.part(start, ends[-1]) if ends else first_bytes(source.part(start, source.end(f)), ANSWER[1])
        summary = textwrap.indent(f'"""{_summary(f)}"""', " " * f.body[0].col_offset)
        yield Example(f"{source.header(f)}\n{summary}\n", body)


def docstring(source: Source) -> Iterator[Example]:
    """Code of a function, then its signature again → the summary of its docstring."""
    for f, start in _documented(source):
        header, indent = source.header(f), " " * f.body[0].col_offset
        code = first_bytes(source.part(start, source.end(f)), CONTEXT)
        yield Example(f'{header}\n{code}\n\n{header}\n{indent}"""', _summary(f) + '"""')


def signature(source: Source) -> Iterator[Example]:
    """Summary and name of a function → its parameters."""
    for f in source.functions():
        name, _, rest = source.header(f).partition("(")
        if _summary(f) and rest.endswith(":"):
            yield Example(textwrap.indent(_summary(f), "# ") + f"\n{name}(", rest)


def _arguments(source: Source, call: ast.Call) -> Example:
    start = source.end(call.func)
    start += source.part(start, source.end(call)).index("(") + 1
    return Example(source.before(start), source.part(start, source.end(call)))


def call_arguments(source: Source) -> Iterator[Example]:
    """Code up to the opening bracket of a call → the arguments. Calls in ``raise`` statements are left out."""
    raised = {node.exc for node in source.all(ast.Raise)}
    for call in source.all(ast.Call):
        if call not in raised and isinstance(call.func, (ast.Name, ast.Attribute)):
            yield _arguments(source, call)


def error_message(source: Source) -> Iterator[Example]:
    """Code up to ``raise SomeError(`` → the message."""
    for node in source.all(ast.Raise):
        call = node.exc
        if isinstance(call, ast.Call) and call.args and isinstance(call.args[0], (ast.Constant, ast.JoinedStr)):
            yield _arguments(source, call)


def assertion(source: Source) -> Iterator[Example]:
    """A test function up to an assertion → the assertion."""
    for f in source.functions():
        for node in f.body[1:]:
            start = source.start(node)
            statement = source.part(start, source.end(node))
            if re.match(r"assert\b|(self|np\.testing|npt)\.assert", statement):
                yield Example(last_bytes(source.part(source.start(f), start), PROMPT), statement)


def numeric_expression(source: Source) -> Iterator[Example]:
    """Numerical code up to ``name =`` → an arithmetic expression."""
    for node in source.all(ast.Assign):
        if any(isinstance(n, ast.BinOp) for n in ast.walk(node.value)):
            start = source.start(node.value)
            yield Example(source.before(start), source.part(start, source.end(node.value)))


def stub_signature(source: Source) -> Iterator[Example]:
    """A stub file up to a function's name → its parameters and result with their types."""
    for f in source.nodes:
        if not isinstance(f, Function):
            continue
        name, _, rest = source.part(source.start(f), source.end(f)).partition("(")
        if rest and f.returns is not None:
            yield Example(source.before(source.start(f)) + name + "(", rest)


def stub_of_definition(source: Source) -> Iterator[Example]:
    """Code of a function → its type stub."""
    for f in source.functions():
        code = first_bytes(source.part(source.start(f), source.end(f)), CONTEXT)
        result = f" -> {ast.unparse(f.returns)}" if f.returns else ""
        yield Example(f"{code}\n\n# stub\ndef {f.name}(", f"{ast.unparse(f.args)}){result}: ...")


def continuation(text: str) -> Iterator[Example]:
    """Text → its next paragraph; without paragraphs its next line; without line breaks its second half."""
    paragraphs, lines = ([m.end() for m in re.finditer(b, text.rstrip())] for b in (r"\n(?:[ \t\r]*\n)+", r"\n"))
    starts = paragraphs or lines or [len(text) // 2]
    for start, end in zip(starts, [*starts[1:], len(text)]):
        answer = first_bytes(text[start:end].rstrip(), ANSWER[1])
        if len(answer.encode()) >= PARAGRAPH and text[:start].strip():
            yield Example(text[max(0, start - PROMPT - 1) : start], answer)


def next_paragraph(source: Source) -> Iterator[Example]:
    """Documentation → its next paragraph of prose."""
    for e in continuation(source.text):
        if e.prompt.endswith("\n\n") and not e.answer.lstrip().startswith((">>>", "$", "::")):
            yield e


def _pattern_maker(pattern: str, context: int) -> Callable[[Source], Iterator[Example]]:
    """Return a task maker: the ``context`` bytes before the group ``answer`` of ``pattern`` → that group's match."""

    def maker(source: Source) -> Iterator[Example]:
        for m in re.finditer(pattern, source.text + "\n", re.M):
            before = source.text[max(0, m.start("answer") - context - 1) : m.start("answer")]
            yield Example(last_bytes(before, context), first_bytes(m["answer"], ANSWER[1]))

    return maker


# Code up to the end of a comment → the lines that the comment describes.
code_for_comment = _pattern_maker(r"^([ \t]*)# .+\n(?:\1# .*\n)*(?P<answer>(?:\1(?![ \t]*[#\n]).+\n){1,4})", CONTEXT)
# C or C++ up to the name of a function in a declaration or definition → its parameters.
prototype = _pattern_maker(
    r"^[ \t]*(?!(?:return|else|typedef|delete|throw|new|case|using)\b)[A-Za-z_][\w:<>, ]*(?:\([^()\n]*\))?[\s*&]+\w+"
    r"[ \t]*\((?P<answer>(?:[^(){};]|\([^(){};]*\))*\))(?=[\w\s]*[;{])",
    CONTEXT,
)
# The heading of a section of documentation → its first paragraph.
definition = _pattern_maker(
    r"^(?:#{1,4} +\S.*|[ \t]*\S.{2,60}\n[ \t]*([=*~^+-])\1{2,})\n+(?P<answer>.*\w.*(?:\n.*\w.*)*)", CONTEXT // 2
)
# A docstring up to a parameter's name and type → the parameter's description (styles: numpydoc, Sphinx, Google).
parameter = _pattern_maker(
    r"^([ \t]*)(?:[\w*, ]+ : .+\n\1[ \t]+|:param [\w ]+: |\w+(?: \([^)\n]*\))?: )(?P<answer>\S.+(?:\n\1[ \t]+\S.*)*)",
    CONTEXT,
)
# Documentation up to `>>>` → the example's code and its output.
example = _pattern_maker(r">>> (?P<answer>.+(?:\n[ \t]*(?!>>>)\S.*)*)", CONTEXT)


_CODE = ("code:library", "code:numerics")
_PROSE = ("text:docstrings", "text:reference", "text:packages")


class BuiltinTask(NamedTuple):
    """The domains whose held-out documents a task uses, and the function that makes its examples from a document."""

    domains: tuple[str, ...]
    make_examples: Callable[[Source], Iterator[Example]]


TASKS = {
    "python:function_body": BuiltinTask(_CODE, function_body),
    "python:docstring": BuiltinTask(_CODE, docstring),
    "python:signature": BuiltinTask(_CODE, signature),
    "python:call_arguments": BuiltinTask(_CODE, call_arguments),
    "python:error_message": BuiltinTask(_CODE, error_message),
    "python:code_for_comment": BuiltinTask(_CODE, code_for_comment),
    "python:numeric_expression": BuiltinTask(("code:numerics",), numeric_expression),
    "python:test_assertion": BuiltinTask(("code:tests",), assertion),
    "types:stub_signature": BuiltinTask(("code:stubs",), stub_signature),
    "types:stub_of_definition": BuiltinTask(_CODE, stub_of_definition),
    "c:prototype": BuiltinTask(("code:headers",), prototype),
    "docs:next_paragraph": BuiltinTask(_PROSE, next_paragraph),
    "docs:definition": BuiltinTask(_PROSE, definition),
    "docs:parameter": BuiltinTask(("text:docstrings",), parameter),
    "docs:example": BuiltinTask(("text:docstrings", "text:reference", *_CODE), example),
}
