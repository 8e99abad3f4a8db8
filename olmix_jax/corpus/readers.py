"""Read the user's text: folders of text and JSON-lines files, plain or compressed, thinned to a given size."""

import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from olmix_jax.corpus.domain_folder import shown, text_files
from olmix_jax.corpus.file_types import JSON_LINES, split_name
from olmix_jax.corpus.text_streams import LONGEST_PIECE, blocks, lines, pieces
from olmix_jax.swarm.domains import CONTENT_MODULUS
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.names import composed
from olmix_jax.utils.progress import counted, log, tracked

# A domain that is one single text is cut into documents of about this many characters. That is long enough for a prompt
# and its answer, and short enough to hold out a tenth of the smallest domain allowed (about 16 kB).
_PIECE = 4096


@dataclasses.dataclass(frozen=True)
class Document:
    """One text.

    Attributes:
      text: the text.
      source: name of the document in messages and hashes, unique in the domain.
      group: the unit of the held-out split: all documents of a group are on the same side.
    """

    text: str
    source: str
    group: str


@dataclasses.dataclass(frozen=True)
class Corpus:
    """The documents of each domain, and the content hash of each domain before thinning."""

    documents: dict[str, list[Document]]
    content: dict[str, str]


def hash64(name: str) -> int:
    """Return a 64-bit hash of ``name``. It gives documents the same pseudo-random order on every machine."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def cutoff(hashes: Iterable[int], sizes: Iterable[int], budget: float) -> int:
    """Return the largest hash to keep.

    Documents with hashes up to it have a total size as close to ``budget`` as possible. At least one is kept.
    """
    hashes_D, sizes_D = np.asarray(hashes, np.uint64), np.asarray(sizes, np.float64)
    order_D = np.argsort(hashes_D, kind="stable")
    return int(hashes_D[order_D][np.argmin(np.abs(np.cumsum(sizes_D[order_D]) - budget))])


def content_of(documents: Iterable[Document]) -> str:
    """Return the content hash of a domain: the sum of its texts' hashes. Names and order of texts do not matter."""
    hashes = (hashlib.blake2b(d.text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for d in documents)
    return f"{sum(int.from_bytes(h, 'big') for h in hashes) % CONTENT_MODULUS:032x}"


def read_domains(path: str | pathlib.Path, max_bytes: int = 0, skipped: "Skipped | None" = None) -> Corpus:
    """Read every domain under ``path``, sorted by name.

    :func:`read_documents` says what a document is. A domain that is one single text is cut into documents at blank
    lines.

    Args:
      max_bytes: if not 0, every domain is thinned by the same factor, to about this many bytes in total. The files are
        then read three times, and only the kept documents, chosen by the hash of their source, are held in memory.
      skipped: see :func:`read_documents`.

    Raises:
      UserError: see :func:`domain_folder.text_files` and :func:`read_documents`; or a domain has no text.
    """
    root = pathlib.Path(path)
    readers = {name: _reader(root, paths, skipped) for name, paths in text_files(root).items()}
    cutoffs: dict[str, int] = {}
    content: dict[str, str] = {}
    if max_bytes:
        content = {name: content_of(read()) for name, read in readers.items()}
        sizes = {name: _hashes_and_sizes(read, name) for name, read in readers.items()}
        total = sum(size for rows in sizes.values() for _, size in rows)
        if total > max_bytes:
            cutoffs = {name: _share_cutoff(rows, max_bytes / total) for name, rows in sizes.items()}
    documents = {}
    for name, read in tracked(readers.items(), "read", "domains"):
        limit = cutoffs.get(name)
        documents[name] = [d for d in read() if limit is None or hash64(d.source) <= limit]
        if not documents[name]:
            raise UserError(f"domain {name}: no text in its files under {root}; add text or remove the domain")
    return Corpus(documents, content or {name: content_of(rows) for name, rows in documents.items()})


def _hashes_and_sizes(read: Callable[[], Iterator[Document]], name: str) -> list[tuple[int, int]]:
    rows = [(hash64(d.source), len(d.text.encode())) for d in read()]
    if not rows:
        raise UserError(f"domain {name}: no text in its files; add text or remove the domain")
    return rows


def _share_cutoff(rows: list[tuple[int, int]], share: float) -> int:
    hashes, sizes = zip(*rows)
    return cutoff(hashes, sizes, share * sum(sizes))


def read_documents(path: pathlib.Path, source: str, skipped: "Skipped | None" = None) -> Iterator[Document]:
    """Yield the documents of a file one by one; blank ones are left out. Memory does not grow with the file.

    Each text file and each line of a JSON file (its ``text`` field) is a document. Texts longer than
    :data:`text_streams.LONGEST_PIECE` are cut into documents at blank lines.

    Args:
      path: the file.
      source: its name in messages and hashes.
      skipped: counts documents that are not valid, which are left out; None: they are errors.

    Raises:
      UserError: the file cannot be read or is truncated; or a document is not valid and ``skipped`` is None, or none
        is valid.
    """
    is_json = split_name(path.name).suffix in JSON_LINES
    invalid, valid, first = 0, 0, ""
    for item in _parse_lines(path, source) if is_json else _parse_text(path, source):
        if isinstance(item, Document):
            valid += 1
            if item.text.strip():
                yield item
            continue
        if skipped is None:
            what = "lines" if is_json else "text"
            raise UserError(f"{item.problem}; corpus.skip_bad=True leaves out such {what}")
        invalid, first = invalid + 1, first or item.problem
    if invalid and not valid:
        raise UserError(f"{first}; nothing in this file is valid, so corpus.skip_bad does not leave it out")
    if skipped is not None and invalid:
        skipped.by_file[source] = (invalid, first)


@dataclasses.dataclass(frozen=True)
class Skipped:
    """Documents that were left out because they are not valid: their number and the first problem, by source file."""

    by_file: dict[str, tuple[int, str]] = dataclasses.field(default_factory=dict)

    def log(self) -> None:
        """Log the number of each file."""
        for count, first in self.by_file.values():
            log.warning("corpus.skip_bad: left out %s; the first: %s", counted(count, "document"), first)

    def count(self, domain: str) -> int:
        """Return the number of documents left out of a domain."""
        by_domain = ((domain_of(source), count) for source, (count, _) in self.by_file.items())
        return sum(count for name, count in by_domain if name == domain)


@dataclasses.dataclass(frozen=True)
class _Invalid:
    """A document that is not valid: what is wrong, and where."""

    problem: str


def domain_of(source: str) -> str:
    """Return the domain of a file by its path relative to ``corpus.path``: "web" of ``web/a.txt`` and ``web.jsonl``."""
    folder, inside, _ = source.partition("/")
    return composed(folder if inside else split_name(source).stem)


def _reader(root: pathlib.Path, paths: list[pathlib.Path], skipped: Skipped | None) -> Callable[[], Iterator[Document]]:
    """Return a function that yields the documents of ``paths``. It can be called several times."""

    def documents() -> Iterator[Document]:
        for path in paths:
            yield from read_documents(path, shown(path.relative_to(root).as_posix()), skipped)

    def pieces_or_documents() -> Iterator[Document]:
        stream = documents()
        first_two = [d for _, d in zip(range(2), stream)]
        yield from _cut(first_two[0]) if len(first_two) == 1 else first_two
        yield from stream

    return pieces_or_documents


def _cut(document: Document) -> Iterator[Document]:
    """Cut a text into pieces of about ``_PIECE`` characters, at blank lines if possible, else at line breaks."""
    text, start, number = document.text, 0, 0
    paragraph, line = re.compile(r"\n[ \t\r]*\n"), re.compile(r"\n")
    while start < len(text):
        border = paragraph.search(text, start + _PIECE, start + 2 * _PIECE) or line.search(text, start + _PIECE)
        end = border.end() if border else len(text)
        name = f"{document.source}#{number}"
        yield Document(text[start:end], name, name)
        start, number = end, number + 1


def _parse_text(path: pathlib.Path, source: str) -> Iterator[Document | _Invalid]:
    start, number, previous = 0, 0, b""
    for piece in pieces(blocks(path), LONGEST_PIECE):
        if previous:
            yield _text(previous, f"{source}#{number}", start, path)
            start, number = start + len(previous), number + 1
        previous = piece
    if previous:
        yield _text(previous, f"{source}#{number}" if number else source, start, path)


def _text(data: bytes, name: str, start: int, path: pathlib.Path) -> Document | _Invalid:
    if b"\0" in data:
        return _Invalid(
            f"{shown(path)}: has a NUL byte at byte {start + data.index(0)}, so it is binary or UTF-16; "
            "convert it, for example with iconv -f UTF-16 -t UTF-8, or remove it"
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as e:
        return _Invalid(f"{shown(path)}: {_not_utf8(start + e.start)}")
    return Document(text if start else text.removeprefix("\ufeff"), name, name)


def _not_utf8(position: int) -> str:
    return f"not UTF-8 at byte {position}; convert it, for example with iconv -f LATIN1 -t UTF-8, or remove it"


def _parse_lines(path: pathlib.Path, source: str) -> Iterator[Document | _Invalid]:
    is_first = True
    for number, line in enumerate(lines(blocks(path)), 1):
        if line is not None and not line.strip():
            continue
        if is_first and line is not None:
            _check_first_line(line, path)
        is_first = False
        name = f"{source}:{number}"
        text = _text_of_line(line)
        if isinstance(text, _Invalid):
            yield _Invalid(f"{shown(path)}, line {number}: {text.problem}")
        elif len(text) <= LONGEST_PIECE // 4:  # at most four bytes per character
            yield Document(text, name, name)
        else:
            for n, piece in enumerate(pieces([text.encode()], LONGEST_PIECE)):
                yield Document(piece.decode(), f"{name}#{n}", f"{name}#{n}")


def _check_first_line(line: bytes, path: pathlib.Path) -> None:
    """Raise an error for a JSON file that is not JSON lines: an array, or an object over several lines."""
    text = line.strip().removeprefix(b"\xef\xbb\xbf")
    if text.startswith(b"["):
        kind, program = "an array", "'.[]'"
    elif text == b"{":
        kind, program = "an object over several lines", "."
    else:
        return
    raise UserError(
        f"{shown(path)}: has {kind} instead of one object per line; convert it: jq -c {program} {shown(path.name)} > "
        f"{split_name(shown(path.name)).stem}.jsonl"
    )


def _text_of_line(line: bytes | None) -> str | _Invalid:
    """Return the text of a line of a JSON file, or what is wrong with it."""
    if line is None:
        return _Invalid("too long to be read (64 MiB); split its text")
    if line.strip(b"\0 \r") != line.strip():
        return _Invalid("has NUL bytes: the file was not written completely; copy it again or remove the line")
    try:
        # Integers may have more digits than Python converts. Their values are not used.
        row = json.loads(line.decode("utf-8-sig"), parse_int=float)
    except UnicodeDecodeError as e:
        return _Invalid(_not_utf8(e.start))
    except (ValueError, RecursionError) as e:
        reason = "nested too deeply" if isinstance(e, RecursionError) else str(e)
        return _Invalid(f"not valid JSON ({reason}); every line must be an object with a `text` field")
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        fields = f"; its fields are {', '.join(map(repr, list(row)[:8]))}" if isinstance(row, dict) else ""
        return _Invalid(f"no `text` field that is a string; every line must be an object with one{fields}")
    try:
        row["text"].encode()
    except UnicodeEncodeError:
        return _Invalid("`text` has an unpaired surrogate, which is not valid Unicode; fix the line")
    return row["text"]
