"""The built-in evaluation tasks: examples with gold answers, made from held-out documents of the built-in corpus.

They ask for what a model of code and documentation is for; several of one domain, some of several domains, so that what
is best for the tasks is not simply an equal share of every domain.
"""

import ast
import dataclasses
import functools
import hashlib
import re
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping

from olmix_jax.utils.progress import tracked

# Bytes, UTF-8. Shorter answers say little, longer ones do not fit a proxy's window.
ANSWER = (10, 400)
PARAGRAPH = 40
PROMPT, CONTEXT = 800, 400
# Examples from one document, unless a task would otherwise stay under the number wanted.
PER_SOURCE = 2


@dataclasses.dataclass(frozen=True)
class Example:
    """A prompt, and the gold answer that alone is scored: P(answer | prompt)."""

    prompt: str
    answer: str


def sample(examples: Iterable[Example], most: int) -> list[Example]:
    """The first ``most`` examples in the order of a hash of their content; repeated ones count once."""
    return sorted(set(examples), key=_hash)[:most]


def spread(by_source: list[list[Example]], most: int) -> list[Example]:
    """Examples from as many sources as possible: the first ``PER_SOURCE`` of every source; where that gives fewer than
    ``most``, the third of every source too, the fourth, … until it does."""
    depth, reachable = PER_SOURCE, min(most, sum(map(len, by_source)))
    while sum(min(depth, len(s)) for s in by_source) < reachable:
        depth += 1
    return list(dict.fromkeys(e for s in by_source for e in s[:depth]))


def _hash(example: Example) -> bytes:
    return hashlib.sha256(f"{example.prompt}\0{example.answer}".encode()).digest()


def make(documents: Mapping[str, Iterable[str]], most: int) -> dict[str, list[Example]]:
    """Task → examples made from ``documents`` (domain → held-out texts), ``most`` or more where there are so many.

    Answers have ``ANSWER`` bytes; prompts keep their last ``PROMPT``. A document's examples are taken in the order of
    their hash, so that no place in it is preferred. A task whose domains are absent has none.
    """
    found = {task: [] for task in TASKS}
    for domain, texts in tracked(documents.items(), "make tasks", "domains"):
        makers = {task: maker for task, (domains, maker) in TASKS.items() if domain in domains}
        for source in map(_Source, texts):
            for task, maker in makers.items():
                found[task].append(_fitting(maker(source), most))
    return {task: spread(by_source, most) for task, by_source in found.items()}


def continuations(texts: Iterable[str], most: int) -> list[Example]:
    """The next paragraph of any text: ``most`` examples or more where there are so many."""
    return spread([_fitting(continuation(text), most) for text in texts], most)


def _fitting(examples: Iterable[Example], most: int) -> list[Example]:
    fitting = (e for e in examples if e.answer.strip() and ANSWER[0] <= len(e.answer.encode()) <= ANSWER[1])
    return sample((Example(_last(e.prompt, PROMPT), e.answer) for e in fitting), most)


def _last(text: str, size: int) -> str:
    """The last ``size`` bytes, from the start of a line where there is one."""
    cut = text.encode()[-size:].decode(errors="ignore")
    line = 0 if cut == text else cut.find("\n") + 1
    return cut[line:] or cut


def _first(text: str, size: int) -> str:
    """The first ``size`` bytes, to the end of a word where there is one."""
    cut = text.encode()[:size].decode(errors="ignore")
    return cut if cut == text else re.sub(r"\s+\S*$", "", cut) or cut


class _Source:
    """A document, and the Python in it, whose nodes are found in its bytes."""

    def __init__(self, text: str):
        self.text = re.sub(r"\r\n?", "\n", text)
        self.data = self.text.encode()
        self.starts = [0, *(m.end() for m in re.finditer(b"\n", self.data))]

    @functools.cached_property
    def nodes(self) -> list[ast.AST]:
        """All nodes; none of what does not parse: Python 2, templates and the like are not what the tasks are about."""
        try:
            with warnings.catch_warnings():
                # Invalid escapes are the file's affair.
                warnings.simplefilter("ignore")
                nodes = [ast.parse(self.text)]
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return []
        for node in nodes:
            # Python 3.11 does not know the places of what is inside f-strings.
            nodes.extend(n for n in ast.iter_child_nodes(node) if not isinstance(n, ast.JoinedStr))
        return nodes

    def all(self, *kinds: type) -> Iterator[ast.AST]:
        return (n for n in self.nodes if isinstance(n, kinds))

    def functions(self) -> Iterator[ast.FunctionDef]:
        # Not those on one line.
        return (f for f in self.all(ast.FunctionDef, ast.AsyncFunctionDef) if f.body[0].lineno > f.lineno)

    def start(self, node: ast.AST) -> int:
        return self.starts[node.lineno - 1] + node.col_offset

    def end(self, node: ast.AST) -> int:
        return self.starts[node.end_lineno - 1] + node.end_col_offset

    def part(self, start: int, end: int) -> str:
        return self.data[start:end].decode(errors="ignore")

    def before(self, end: int) -> str:
        return _last(self.part(max(0, end - PROMPT - 1), end), PROMPT)

    def header(self, f: ast.FunctionDef) -> str:
        return self.part(self.start(f), self.starts[f.body[0].lineno - 1]).rstrip()


def _summary(f: ast.FunctionDef) -> str:
    """The first paragraph of the docstring; nothing where there is none, or one that UTF-8 cannot hold."""
    summary = (ast.get_docstring(f) or "").split("\n\n")[0].strip()
    return "" if re.search("[\ud800-\udfff]", summary) else summary


def _documented(source: _Source) -> Iterator[tuple[ast.FunctionDef, int]]:
    """Functions with a docstring and more, and where the line after the docstring's begins."""
    for f in source.functions():
        documented = _summary(f) and source.header(f).endswith(":")
        if documented and len(f.body) > 1 and f.body[1].lineno > f.body[0].end_lineno:
            yield f, source.starts[f.body[1].lineno - 1]


def function_body(source: _Source) -> Iterator[Example]:
    """Signature and summary → the statements, as many whole ones as fit."""
    for f, start in _documented(source):
        ends = [end for end in map(source.end, f.body[1:]) if end - start <= ANSWER[1]]
        body = source.part(start, ends[-1]) if ends else _first(source.part(start, source.end(f)), ANSWER[1])
        summary = textwrap.indent(f'"""{_summary(f)}"""', " " * f.body[0].col_offset)
        yield Example(f"{source.header(f)}\n{summary}\n", body)


def docstring(source: _Source) -> Iterator[Example]:
    """The code, then its signature → the docstring's summary."""
    for f, start in _documented(source):
        header, indent = source.header(f), " " * f.body[0].col_offset
        code = _first(source.part(start, source.end(f)), CONTEXT)
        yield Example(f'{header}\n{code}\n\n{header}\n{indent}"""', _summary(f) + '"""')


def signature(source: _Source) -> Iterator[Example]:
    """What the function is for, and its name → its arguments."""
    for f in source.functions():
        name, _, rest = source.header(f).partition("(")
        if _summary(f) and rest.endswith(":"):
            yield Example(textwrap.indent(_summary(f), "# ") + f"\n{name}(", rest)


def _arguments(source: _Source, call: ast.Call) -> Example:
    start = source.end(call.func)
    start += source.part(start, source.end(call)).index("(") + 1
    return Example(source.before(start), source.part(start, source.end(call)))


def call_arguments(source: _Source) -> Iterator[Example]:
    """The code before, to the bracket of a call → the arguments."""
    raised = {node.exc for node in source.all(ast.Raise)}
    for call in source.all(ast.Call):
        if call not in raised and isinstance(call.func, (ast.Name, ast.Attribute)):
            yield _arguments(source, call)


def error_message(source: _Source) -> Iterator[Example]:
    """The code before, to ``raise SomeError(`` → what it says."""
    for node in source.all(ast.Raise):
        call = node.exc
        if isinstance(call, ast.Call) and call.args and isinstance(call.args[0], (ast.Constant, ast.JoinedStr)):
            yield _arguments(source, call)


def assertion(source: _Source) -> Iterator[Example]:
    """The test so far → what it asserts."""
    for f in source.functions():
        for node in f.body[1:]:
            start = source.start(node)
            statement = source.part(start, source.end(node))
            if re.match(r"assert\b|(self|np\.testing|npt)\.assert", statement):
                yield Example(_last(source.part(source.start(f), start), PROMPT), statement)


def numeric_expression(source: _Source) -> Iterator[Example]:
    """The numerical code before, to ``name =`` → an expression with arithmetic in it."""
    for node in source.all(ast.Assign):
        if any(isinstance(n, ast.BinOp) for n in ast.walk(node.value)):
            start = source.start(node.value)
            yield Example(source.before(start), source.part(start, source.end(node.value)))


def stub_signature(source: _Source) -> Iterator[Example]:
    """A stub file up to a function's name → its typed arguments and result."""
    for f in source.all(ast.FunctionDef, ast.AsyncFunctionDef):
        name, _, rest = source.part(source.start(f), source.end(f)).partition("(")
        if rest and f.returns is not None:
            yield Example(source.before(source.start(f)) + name + "(", rest)


def stub_of_definition(source: _Source) -> Iterator[Example]:
    """A definition → its stub."""
    for f in source.functions():
        code = _first(source.part(source.start(f), source.end(f)), CONTEXT)
        result = f" -> {ast.unparse(f.returns)}" if f.returns else ""
        yield Example(f"{code}\n\n# stub\ndef {f.name}(", f"{ast.unparse(f.args)}){result}: ...")


def continuation(text: str) -> Iterator[Example]:
    """Text → its next paragraph; its next line where it has no paragraphs, its second half where it has no lines."""
    paragraphs, lines = ([m.end() for m in re.finditer(b, text.rstrip())] for b in (r"\n(?:[ \t\r]*\n)+", r"\n"))
    starts = paragraphs or lines or [len(text) // 2]
    for start, end in zip(starts, [*starts[1:], len(text)]):
        answer = _first(text[start:end].rstrip(), ANSWER[1])
        if len(answer.encode()) >= PARAGRAPH and text[:start].strip():
            yield Example(text[max(0, start - PROMPT - 1) : start], answer)


def next_paragraph(source: _Source) -> Iterator[Example]:
    """Prose of a manual → its next paragraph."""
    for e in continuation(source.text):
        if e.prompt.endswith("\n\n") and not e.answer.lstrip().startswith((">>>", "$", "::")):
            yield e


def _matching(pattern: str, context: int) -> Callable[[_Source], Iterator[Example]]:
    """A maker: ``context`` bytes before ``answer`` → what that group of ``pattern`` matches."""

    def maker(source: _Source) -> Iterator[Example]:
        for m in re.finditer(pattern, source.text + "\n", re.M):
            before = source.text[max(0, m.start("answer") - context - 1) : m.start("answer")]
            yield Example(_last(before, context), _first(m["answer"], ANSWER[1]))

    return maker


# A comment, and the code before it → the lines it announces.
code_for_comment = _matching(r"^([ \t]*)# .+\n(?:\1# .*\n)*(?P<answer>(?:\1(?![ \t]*[#\n]).+\n){1,4})", CONTEXT)
# C or C++ up to the name of a function declared or defined → its parameters.
prototype = _matching(
    r"^[ \t]*(?!(?:return|else|typedef|delete|throw|new|case|using)\b)[A-Za-z_][\w:<>, ]*(?:\([^()\n]*\))?[\s*&]+\w+"
    r"[ \t]*\((?P<answer>(?:[^(){};]|\([^(){};]*\))*\))(?=[\w\s]*[;{])",
    CONTEXT,
)
# The heading of a section of a manual → what its first paragraph says.
definition = _matching(
    r"^(?:#{1,4} +\S.*|[ \t]*\S.{2,60}\n[ \t]*([=*~^+-])\1{2,})\n+(?P<answer>.*\w.*(?:\n.*\w.*)*)", CONTEXT // 2
)
# A docstring up to a parameter's name and type → its description: numpydoc, Sphinx and Google styles.
parameter = _matching(
    r"^([ \t]*)(?:[\w*, ]+ : .+\n\1[ \t]+|:param [\w ]+: |\w+(?: \([^)\n]*\))?: )(?P<answer>\S.+(?:\n\1[ \t]+\S.*)*)",
    CONTEXT,
)
# Documentation up to `>>>` → the example and what it prints.
example = _matching(r">>> (?P<answer>.+(?:\n[ \t]*(?!>>>)\S.*)*)", CONTEXT)


_CODE = ("code:library", "code:numerics")
_PROSE = ("text:docstrings", "text:reference", "text:packages")
# Task: the domains whose held-out documents it is made from, and how.
TASKS = {
    "python:function_body": (_CODE, function_body),
    "python:docstring": (_CODE, docstring),
    "python:signature": (_CODE, signature),
    "python:call_arguments": (_CODE, call_arguments),
    "python:error_message": (_CODE, error_message),
    "python:code_for_comment": (_CODE, code_for_comment),
    "python:numeric_expression": (("code:numerics",), numeric_expression),
    "python:test_assertion": (("code:tests",), assertion),
    "types:stub_signature": (("code:stubs",), stub_signature),
    "types:stub_of_definition": (_CODE, stub_of_definition),
    "c:prototype": (("code:headers",), prototype),
    "docs:next_paragraph": (_PROSE, next_paragraph),
    "docs:definition": (_PROSE, definition),
    "docs:parameter": (("text:docstrings",), parameter),
    "docs:example": (("text:docstrings", "text:reference", *_CODE), example),
}
