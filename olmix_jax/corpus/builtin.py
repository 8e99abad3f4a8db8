"""The built-in corpus: eight domains of real text that every Python installation has.

Every file is in at most one domain, so that a token is unique wherever it is counted:

================== ===================================================================================
``code:library``    modules of the standard library
``code:tests``      test modules of packages
``code:numerics``   modules of NumPy, SciPy and JAX
``code:stubs``      type stubs (``.pyi``)
``code:headers``    C and C++ headers, of Python itself and of packages
``text:docstrings`` prose: all docstrings of a module, of the packages whose code is in no other domain
``text:reference``  the language reference: the sections of ``pydoc``'s topics
``text:packages``   descriptions, readmes and licences of packages
================== ===================================================================================

Left out: the standard library's own tests, which many distributions do not ship; copies of other packages (``_vendor``
folders); files that are not UTF-8; and code with a line longer than 1,000 characters, which is data (the filter of The
Stack, arXiv 2211.15533).
"""

import ast
import collections
import dataclasses
import os
import pathlib
import re
import sys
import sysconfig
import warnings
from collections.abc import Callable, Iterator

from olmix_jax.corpus.readers import Document, hashed
from olmix_jax.utils.progress import log, tracked

NAMES = (
    "code:library",
    "code:tests",
    "code:numerics",
    "code:stubs",
    "code:headers",
    "text:docstrings",
    "text:reference",
    "text:packages",
)
NUMERICAL = ("jax", "numpy", "scipy")
LONGEST_LINE = 1000
# Bytes under which a file says nothing (an empty `__init__.py`).
SMALLEST = 64
# Files parsed to learn how much of a module is docstrings.
_SAMPLE = 150

_TEST = re.compile(r"(^|[/_])(conf)?tests?([/_.]|$)")
_HEADER = re.compile(r"\.(h|hh|hpp|hxx|cuh)$")
_HEADING = re.compile(r"^(?=\S[^\n]*\n(?:\*{3,}|={3,}|-{3,})\n)", re.M)
_PROSE = re.compile(r"\.dist-info/METADATA$|\.dist-info/.*(licen[cs]e|copying|notice)[^/]*$|(^|/)readme[^/]*$", re.I)


@dataclasses.dataclass(frozen=True)
class Installation:
    """Where a Python installation keeps its text."""

    stdlib: pathlib.Path
    packages: tuple[pathlib.Path, ...]
    include: pathlib.Path

    @classmethod
    def running(cls) -> "Installation":
        """That of the interpreter that runs this: what it can import, and its own headers."""
        found = [pathlib.Path(p) for p in sys.path if pathlib.PurePath(p).name in ("site-packages", "dist-packages")]
        return cls(
            pathlib.Path(sysconfig.get_path("stdlib")), tuple(found), pathlib.Path(sysconfig.get_path("include"))
        )


@dataclasses.dataclass(frozen=True)
class _File:
    path: pathlib.Path
    name: str  # relative to its root, the same on every machine
    size: int


class _Skipped(Exception):
    """Why a file is not used."""


def builtin_domains(max_bytes: int = 0, installation: Installation | None = None) -> dict[str, list[Document]]:
    """Reads the eight domains of :data:`NAMES`.

    Every domain is thinned by the same factor so that all together are about ``max_bytes`` of text (0: everything);
    files are taken in the order of a hash of their relative names. A domain that the installation has nothing for is
    an empty list.
    """
    places = _classify(installation or Installation.running())
    sizes = {name: sum(f.size for f in files) for name, files in places.items()}
    for name in ("text:docstrings", "text:reference"):
        sizes[name] *= _yield_of(places[name][:_SAMPLE], READ[name])
    share = min(1.0, max_bytes / max(1.0, sum(sizes.values()))) if max_bytes else 1.0
    skipped = collections.Counter()
    domains = {}
    for name in tracked(NAMES, "read", "domains"):
        documents = _documents(places[name], READ.get(name, _code), skipped)
        domains[name] = _take(documents, sizes[name] * share) if share < 1 else list(documents)
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items())) or "none"
    log.info("built-in corpus: %.3g of the installation's text; files left out: %s", share, reasons)
    return domains


def _classify(installation: Installation) -> dict[str, list[_File]]:
    """The files of each domain, in the order of their hashes; of two with the same name the first found counts."""
    found = {name: {} for name in NAMES}
    roots = [(installation.stdlib, "code:library"), (installation.include, None)]
    roots += [(packages, "text:docstrings") for packages in installation.packages]
    for root, modules in roots:
        for path, name in _walk(root):
            domain = _domain_of(name, modules)
            if domain:
                found[domain].setdefault(name, path)
    result = {}
    for domain, files in found.items():
        ordered = sorted(files.items(), key=lambda item: (hashed(item[0]), item[0]))
        result[domain] = [_File(path, name, path.stat().st_size) for name, path in ordered]
    return result


def _walk(root: pathlib.Path) -> Iterator[tuple[pathlib.Path, str]]:
    for folder, inside, files in os.walk(root):
        inside[:] = [d for d in inside if d not in ("__pycache__", "_vendor", "site-packages", "dist-packages")]
        for file in files:
            path = pathlib.Path(folder, file)
            if path.is_file():  # not a dangling link
                yield path, path.relative_to(root).as_posix()


def _domain_of(name: str, modules: str | None) -> str | None:
    """The domain of a file; ``modules`` is that of plain modules under its root, None where there are none."""
    if name.endswith(".pyi"):
        return "code:stubs"
    if _HEADER.search(name):
        return "code:headers"
    if name.endswith(".py") and modules:
        if name == "pydoc_data/topics.py":
            return "text:reference"
        if _TEST.search(name):
            return "code:tests" if modules == "text:docstrings" else None
        return "code:numerics" if name.split("/")[0] in NUMERICAL else modules
    return "text:packages" if _PROSE.search(name) and modules == "text:docstrings" else None


def _documents(files: list[_File], read: Callable[[_File], Iterator[Document]], skipped) -> Iterator[Document]:
    for file in files:
        try:
            for document in read(file):
                if len(document.text) >= SMALLEST:
                    yield document
        except _Skipped as e:
            skipped[str(e)] += 1
        except OSError:
            skipped["unreadable"] += 1


def _take(documents: Iterator[Document], budget: float) -> list[Document]:
    """The first documents whose sizes come nearest to ``budget``; at least one, where there is one."""
    kept, total = [], 0
    for document in documents:
        size = len(document.text.encode())
        if kept and total + size - budget > budget - total:
            break
        kept.append(document)
        total += size
    return kept


def _text(file: _File) -> str:
    try:
        return file.path.read_bytes().decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as e:
        raise _Skipped("not UTF-8") from e


def _code(file: _File) -> Iterator[Document]:
    text = _text(file)
    if max(map(len, text.split("\n"))) > LONGEST_LINE:
        raise _Skipped("data rather than code")
    yield Document(text, file.name, file.name)


def _parse(text: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other people's escapes
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
        raise _Skipped("not parsed") from e


def docstrings(text: str) -> list[str]:
    """All docstrings of a module in the order of the source, unindented.

    Raises:
      _Skipped: ``text`` is not Python of this version.
    """
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = sorted((n for n in ast.walk(_parse(text)) if isinstance(n, kinds)), key=lambda n: getattr(n, "lineno", 0))
    return [found for node in nodes if (found := ast.get_docstring(node))]


def _docstring(file: _File) -> Iterator[Document]:
    found = "\n\n".join(docstrings(_text(file)))
    if re.search("[\ud800-\udfff]", found):
        raise _Skipped("not UTF-8")
    yield Document(found, file.name, file.name)


def _yield_of(files: list[_File], read: Callable[[_File], Iterator[Document]]) -> float:
    """Bytes of text that ``read`` finds per byte of file."""
    found = _documents(files, read, collections.Counter())
    return sum(len(d.text.encode()) for d in found) / max(1, sum(f.size for f in files))


def _topics(file: _File) -> Iterator[Document]:
    """The sections of all topics; of a paragraph that topics share, which a fifth of the text is, the first counts."""
    tables = [node for node in ast.walk(_parse(_text(file))) if isinstance(node, ast.Dict)]
    topics = ast.literal_eval(tables[0]) if tables else {}
    sections = {f"{file.name}:{t}:{i}": s for t in topics for i, s in enumerate(_HEADING.split(topics[t]))}
    seen = set()
    for name in sorted(sections, key=hashed):
        paragraphs = [p for p in sections[name].split("\n\n") if p.strip() not in seen]
        seen.update(p.strip() for p in paragraphs if len(p) >= SMALLEST)
        yield Document("\n\n".join(paragraphs), name, name)


def _package(file: _File) -> Iterator[Document]:
    text = _text(file)
    if file.path.name == "METADATA":
        text = text.partition("\n\n")[2]  # without the headers, which say little
    yield Document(text, file.name, file.name)


READ = {"text:docstrings": _docstring, "text:reference": _topics, "text:packages": _package}
