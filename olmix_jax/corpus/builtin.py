"""The built-in corpus: eight domains of real text that every Python installation contains.

Every file belongs to at most one domain, so no token is counted twice:

================== ===================================================================================
``code:library``    modules of the standard library
``code:tests``      test modules of packages
``code:numerics``   modules of NumPy, SciPy and JAX
``code:stubs``      type stubs (``.pyi``)
``code:headers``    C and C++ headers of Python and of packages
``text:docstrings`` docstrings of all other packages, one document per module
``text:reference``  the language reference: the sections of ``pydoc``'s topics
``text:packages``   descriptions, readmes and licences of packages
================== ===================================================================================

Four kinds of files are left out. Tests of the standard library: many distributions do not ship them. Copies of other
packages (``_vendor`` folders). Files that are not UTF-8. Code with a line longer than 1,000 characters: such files are
data (the filter of The Stack, arXiv 2211.15533).
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

from olmix_jax.corpus.readers import Document, hash64
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
# Documents shorter than this (in characters) are dropped, such as an empty `__init__.py`.
SMALLEST = 64
# Number of files that are parsed to estimate the share of docstrings in a module.
_SAMPLE = 150

_TEST = re.compile(r"(^|[/_])(conf)?tests?([/_.]|$)")
_HEADER = re.compile(r"\.(h|hh|hpp|hxx|cuh)$")
_HEADING = re.compile(r"^(?=\S[^\n]*\n(?:\*{3,}|={3,}|-{3,})\n)", re.M)
_PROSE = re.compile(r"\.dist-info/METADATA$|\.dist-info/.*(licen[cs]e|copying|notice)[^/]*$|(^|/)readme[^/]*$", re.I)


@dataclasses.dataclass(frozen=True)
class Installation:
    """The folders of a Python installation that contain text."""

    stdlib: pathlib.Path
    packages: tuple[pathlib.Path, ...]
    include: pathlib.Path

    @classmethod
    def running(cls) -> "Installation":
        """Return the folders of the running interpreter."""
        stdlib, include = (pathlib.Path(sysconfig.get_path(name)) for name in ("stdlib", "include"))
        packages = [pathlib.Path(p) for p in sys.path if pathlib.PurePath(p).name in ("site-packages", "dist-packages")]
        return cls(stdlib, tuple(packages), include)


@dataclasses.dataclass(frozen=True)
class _File:
    path: pathlib.Path
    name: str  # path relative to its root, the same on every machine
    size: int


class Skipped(Exception):
    """A file is left out. The message is the reason."""


def builtin_domains(max_bytes: int = 0, installation: Installation | None = None) -> dict[str, list[Document]]:
    """Return the documents of :func:`stream`."""
    return {name: list(documents) for name, documents in stream(max_bytes, installation)}


def stream(max_bytes: int = 0, installation: Installation | None = None) -> Iterator[tuple[str, Iterator[Document]]]:
    """Yield the eight domains of :data:`NAMES` and their documents, which are to be read before the next domain.

    A domain without any file has no documents.

    Args:
      max_bytes: if not 0, every domain is thinned by the same factor, to about this many bytes in total. Files are
        taken in the order of a hash of their relative names.
      installation: default: that of the running interpreter.
    """
    paths = _classify(installation or Installation.running())
    sizes: dict[str, float] = {name: sum(f.size for f in files) for name, files in paths.items()}
    for name in ("text:docstrings", "text:reference"):
        sizes[name] *= _text_share(paths[name][:_SAMPLE], READERS[name])
    share = min(1.0, max_bytes / max(1.0, sum(sizes.values()))) if max_bytes else 1.0
    skipped: collections.Counter[str] = collections.Counter()
    for name in tracked(NAMES, "read", "domains"):
        documents = _documents(paths[name], READERS.get(name, _code), skipped)
        yield name, _take(documents, sizes[name] * share) if share < 1 else documents
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items())) or "none"
    log.info("built-in corpus: kept a share of %.3g of the installation's text; files left out: %s", share, reasons)


def _classify(installation: Installation) -> dict[str, list[_File]]:
    """Return the files of each domain, sorted by a hash of their names. Of two equal names, the first is kept."""
    paths: dict[str, dict[str, pathlib.Path]] = {name: {} for name in NAMES}
    roots = [(installation.stdlib, "code:library"), (installation.include, None)]
    roots += [(packages, "text:docstrings") for packages in installation.packages]
    for root, modules in roots:
        for path, name in _walk(root):
            domain = _domain_of(name, modules)
            if domain:
                paths[domain].setdefault(name, path)
    result = {}
    for domain, files in paths.items():
        ordered = sorted(files.items(), key=lambda item: (hash64(item[0]), item[0]))
        result[domain] = [_File(path, name, path.stat().st_size) for name, path in ordered]
    return result


def _walk(root: pathlib.Path) -> Iterator[tuple[pathlib.Path, str]]:
    for folder, inside, files in os.walk(root):
        inside[:] = [d for d in inside if d not in ("__pycache__", "_vendor", "site-packages", "dist-packages")]
        for file in files:
            path = pathlib.Path(folder, file)
            if path.is_file():  # excludes broken links
                yield path, path.relative_to(root).as_posix()


def _domain_of(name: str, modules: str | None) -> str | None:
    """Return the domain of a file, or None. ``modules`` is the domain of ordinary modules under its root, or None."""
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


def _documents(
    files: list[_File], read: Callable[[_File], Iterator[Document]], skipped: collections.Counter[str]
) -> Iterator[Document]:
    """Yield the documents of files. Files left out are counted in ``skipped``, by reason."""
    for file in files:
        try:
            for document in read(file):
                if len(document.text) >= SMALLEST:
                    yield document
        except Skipped as e:
            skipped[str(e)] += 1
        except OSError:
            skipped["unreadable"] += 1


def _take(documents: Iterator[Document], budget: float) -> Iterator[Document]:
    """Yield the first documents, with a total size as close to ``budget`` as possible; at least one document."""
    total = 0
    for document in documents:
        size = len(document.text.encode())
        if total and total + size - budget > budget - total:
            break
        yield document
        total += size


def _text(file: _File) -> str:
    try:
        return file.path.read_bytes().decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as e:
        raise Skipped("not UTF-8") from e


def _code(file: _File) -> Iterator[Document]:
    text = _text(file)
    if max(map(len, text.split("\n"))) > LONGEST_LINE:
        raise Skipped("data rather than code")
    yield Document(text, file.name)


def _parse(text: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's code may contain invalid escapes
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
        raise Skipped("not parsed") from e


def docstrings(text: str) -> list[str]:
    """Return all docstrings of a module in the order of the source, unindented.

    Raises:
      Skipped: ``text`` is not valid in this version of Python.
    """
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = sorted((n for n in ast.walk(_parse(text)) if isinstance(n, kinds)), key=lambda n: getattr(n, "lineno", 0))
    return [docstring for node in nodes if (docstring := ast.get_docstring(node))]


def _docstrings(file: _File) -> Iterator[Document]:
    text = "\n\n".join(docstrings(_text(file)))
    if re.search("[\ud800-\udfff]", text):
        raise Skipped("not UTF-8")
    yield Document(text, file.name)


def _text_share(files: list[_File], read: Callable[[_File], Iterator[Document]]) -> float:
    """Return the bytes of text that ``read`` extracts per byte of file."""
    documents = _documents(files, read, collections.Counter())
    return sum(len(d.text.encode()) for d in documents) / max(1, sum(f.size for f in files))


def _topics(file: _File) -> Iterator[Document]:
    """Yield the sections of all topics. A paragraph that several topics share (a fifth of the text) is kept once."""
    tables = [node for node in ast.walk(_parse(_text(file))) if isinstance(node, ast.Dict)]
    topics = ast.literal_eval(tables[0]) if tables else {}
    sections = {f"{file.name}:{t}:{i}": s for t in topics for i, s in enumerate(_HEADING.split(topics[t]))}
    seen: set[str] = set()
    for name in sorted(sections, key=hash64):
        paragraphs = [p for p in sections[name].split("\n\n") if p.strip() not in seen]
        seen.update(p.strip() for p in paragraphs if len(p) >= SMALLEST)
        yield Document("\n\n".join(paragraphs), name)


def _package(file: _File) -> Iterator[Document]:
    text = _text(file)
    if file.path.name == "METADATA":
        text = text.partition("\n\n")[2]  # drop the header fields, which are not prose
    yield Document(text, file.name)


# {domain: reader of its files}. Files of all other domains are read as code.
READERS = {"text:docstrings": _docstrings, "text:reference": _topics, "text:packages": _package}
