"""Which domain a file of a package belongs to, and which part of it is text. Names are ``source:topic``."""

import json
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from experiments.corpus.archives import File
from experiments.corpus.packages import Package

# Shorter files say little, larger ones are generated or data; the same for code with longer lines (the filter of The
# Stack, arXiv 2211.15533).
SMALLEST, LARGEST, LONGEST_LINE = 64, 1_000_000, 1000
# Subjects with enough documentation for a domain. The code of the others is a domain, but not their documentation.
# Packages of further subjects are there for their other languages.
DOCUMENTED = (
    "astronomy",
    "cloud",
    "data",
    "graphics",
    "mathematics",
    "media",
    "operations",
    "statistics",
    "tools",
    "web",
)
SUBJECTS = tuple(sorted((*DOCUMENTED, "biology", "chemistry", "language", "quantum")))
TOPICS = (*(f"docs:{subject}" for subject in DOCUMENTED), *(f"python:{subject}" for subject in SUBJECTS))
# Languages by the endings of their files.
LANGUAGES = {
    "assembly": ("s",),
    "c": ("c", "h"),
    "c++": ("cc", "cpp", "cxx", "hh", "hpp"),
    "css": ("css", "less", "scss"),
    "cuda": ("cu", "cuh"),
    "cython": ("pxd", "pxi", "pyx"),
    "fortran": ("f", "f77", "f90", "for"),
    "html": ("htm", "html"),
    "javascript": ("js", "jsx", "mjs"),
    "json": ("json",),
    "rust": ("rs",),
    "shell": ("bash", "sh"),
    "typescript": ("ts", "tsx"),
    "xml": ("xml",),
    "yaml": ("yaml", "yml"),
}
_LANGUAGE_OF = {ending: f"code:{language}" for language, endings in LANGUAGES.items() for ending in endings}
_SOURCE_OF = {"csv": "data:tables", "ipynb": "text:notebooks", "po": "text:translations", "pyi": "python:stubs"}
SOURCES = ("data:tables", "python:stubs", "python:tests", "text:changelogs", "text:notebooks", "text:translations")

# Folders with copies of other packages, and what programs have written.
_COPIED = re.compile(
    r"(^|/)(_?vendor(ed)?([-_][^/]*)?|third[_-]?party|c?extern(als?)?|external_libs|node_modules|subprojects|_?cccl|highs|"
    r"unuran|_lib/boost[^/]*|dist|_build|_static|_sources|_modules|generated|site-packages|[^/]*\.(egg|dist)-info)/"
    r"|^build/|[.-]min\.(js|css)$|bundle\.js$|(^|/)docs?/.*\.html?$",
    re.I,
)
# In the first ten lines: a comment that begins with one of these.
_GENERATED = re.compile(
    r"\A(?:.*\n){0,9}\W*(?:this (?:file|code) )?(?:(?:was|is|has been) )?"
    r"(?:@generated|do not edit|automatically generated|auto-?generated|generated (?:by|from|using|with))",
    re.I,
)
# Some headers of published files still say so.
_CONFIDENTIAL = re.compile(r"\bconfidential\b", re.I)
_CPP = re.compile(r"^\s*(?:namespace\b|template\s*<|class\s+\w+|using\s+\w+|public:|private:)|\bstd::", re.M)
_TEST = re.compile(r"(^|[/_])(conf)?tests?([/_.]|$)|(^|/)testing/", re.I)
_CHANGES = re.compile(
    r"(^|[/_-])(changes?|change[_-]?logs?|history|news|releases?|release[_-]?notes?|whats[_-]?new|relnotes)"
    r"(/|[-_.]?[\d.x]*(\.(rst|md|txt))?$)",
    re.I,
)
_LICENCE = re.compile(
    r"(^|/)(licen[cs]es?|copying|notice|authors|contributors|thanks|credits|pkg-info)([._/-]|$)", re.I
)
_DOCUMENTATION = re.compile(r"(^|/)(docs?|documentation|examples?|tutorials?|guides?|manual)/", re.I)


def domain_of(package: Package, path: PurePosixPath) -> str | None:
    """Return the domain of a file by its path; None if it is left out."""
    name, ending = str(path), path.suffix[1:].lower()
    if _COPIED.search(name) or _LICENCE.search(name):
        return None
    is_prose = ending in ("rst", "md") or (ending == "txt" and _DOCUMENTATION.search(name) is not None)
    if package.older:
        return f"docs:{package.subject}" if is_prose and not _CHANGES.search(name) else None
    if ending in ("rst", "md", "txt", "") and _CHANGES.search(name):
        return "text:changelogs"
    if is_prose:
        return f"docs:{package.subject}" if package.subject in DOCUMENTED and not _TEST.search(name) else None
    if ending == "py":
        if _TEST.search(name):
            return "python:tests"
        return f"python:{package.subject}" if package.subject in SUBJECTS else None
    return _SOURCE_OF.get(ending) or _LANGUAGE_OF.get(ending)


def texts_of(file: File, domain: str) -> Iterator[tuple[str, str]]:
    """Yield (domain, text) of a file; nothing if it is binary, generated, empty or too large.

    A catalogue of translations is a document of its language: ``text:translations/‹language›``; those of English repeat
    the messages. Headers with C++ are C++.
    """
    if not SMALLEST <= len(file.content) <= LARGEST:
        return
    try:
        text = file.content.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n")
    except UnicodeDecodeError:
        return
    if "\0" in text or (not domain.startswith(("docs:", "text:")) and _GENERATED.search(text[:2000])):
        return
    if domain.startswith("code:") and _CONFIDENTIAL.search(text[:600]):
        return
    if domain == "text:translations":
        language, text = _language(file.path), _translations(text)
        if language in ("", "en"):
            return
        domain = f"{domain}/{language}"
    elif domain == "text:notebooks":
        text = _cells(text)
    elif domain == "code:c" and file.path.suffix.lower() == ".h" and _CPP.search(text):
        domain = "code:c++"
    if len(text) >= SMALLEST and max(map(len, text.split("\n"))) <= LONGEST_LINE:
        yield domain, text


def _language(path: PurePosixPath) -> str:
    """Return the code of a catalogue's language: of ``locale/de/LC_MESSAGES/x.po``, ``i18n/de.po`` and ``x-pt-BR.po``.

    Empty if there is none.
    """
    names = [path.stem, *(part for part in path.parts[:-1][::-1] if part != "LC_MESSAGES")]
    if "LC_MESSAGES" in path.parts:
        names = names[1:2]
    for name in names[:2]:
        if match := re.search(r"(?:^|[-._])([a-z]{2,3})([-_]([A-Z]{2}|[A-Z][a-z]{3}|\d{3}))?(@\w+)?$", name):
            return match[1]
    return ""


_STRING = re.compile(r'^(msgid|msgid_plural|msgstr(?:\[\d+\])?)? *"(.*)"$')
_ESCAPED = {"n": "\n", "t": "\t"}


def _translations(text: str) -> str:
    """Return the translated messages of a catalogue, one paragraph each, without its header and what is empty."""
    messages: list[tuple[str, str]] = []
    key = ""
    kind = ""
    for line in text.split("\n"):
        match = _STRING.match(line)
        if match is None:
            kind = ""
        elif match[1] == "msgid":
            kind, key = "msgid", match[2]
        elif match[1] == "msgid_plural":
            kind = "msgid_plural"
        elif match[1]:
            kind = "msgstr"
            messages.append((key, match[2]))
        elif kind == "msgid":
            key += match[2]
        elif kind == "msgstr":
            key, before = messages.pop()
            messages.append((key, before + match[2]))
    plain = (re.sub(r"\\(.)", lambda m: _ESCAPED.get(m[1], m[1]), message) for key, message in messages if key)
    return "\n\n".join(stripped for message in plain if (stripped := message.strip()))


def _cells(text: str) -> str:
    """Return the sources of a notebook's cells, without outputs; empty if it is not a valid notebook."""
    try:
        cells = json.loads(text)["cells"]
        result = "\n\n".join("".join(cell["source"]) for cell in cells)
        result.encode()
        return result
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
