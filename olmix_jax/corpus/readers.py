"""Read the documents of text and JSON-lines files, plain or compressed."""

import dataclasses
import functools
import hashlib
import json
import pathlib
import shlex
from collections.abc import Iterable, Iterator

import numpy as np

from olmix_jax.corpus.file_types import JSON_LINES, split_name
from olmix_jax.corpus.text_streams import LONGEST_PIECE, blocks, lines, pieces
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.folders import shown
from olmix_jax.utils.names import composed
from olmix_jax.utils.progress import counted, log


@dataclasses.dataclass(frozen=True)
class Document:
    """One text.

    Attributes:
      text: the text.
      source: name of the document in messages and hashes, unique in the domain.
    """

    text: str
    source: str

    @functools.cached_property
    def encoded(self) -> bytes:
        """The text in UTF-8."""
        return self.text.encode()

    @functools.cached_property
    def digest(self) -> int:
        """A 128-bit hash of the text."""
        return int.from_bytes(hashlib.blake2b(self.encoded, digest_size=16).digest(), "big")


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


def read_documents(path: pathlib.Path, source: str, skipped: "Skipped | None" = None) -> Iterator[Document]:
    """Yield the documents of a file one by one; blank ones are left out. Memory does not grow with the file.

    Each text file and each line of a JSON file (its ``text`` field) is a document. Texts longer than
    :data:`text_streams.LONGEST_PIECE` are cut into documents at blank lines.

    Args:
      path: the file.
      source: its name in messages and hashes.
      skipped: counts documents that are not valid, which are left out; None: they are errors.

    Raises:
      UserError: the file cannot be read or is truncated; or a document is not valid and ``skipped`` is None; or the
        file has several documents, none of them valid.
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
    if invalid > 1 and not valid:
        raise UserError(
            f"{first}; none of its {invalid:,} documents is valid, so the format may be another one, and "
            "corpus.skip_bad does not leave them out; correct the file, or move it away"
        )
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
        return sum(count for count, _ in self._of(domain))

    def describe(self, domain: str) -> str:
        """Return the number of documents left out of a domain and the first problem, in brackets; empty for none."""
        first = next((first for _, first in self._of(domain)), "")
        return f" (corpus.skip_bad left out {self.count(domain):,}; the first: {first})" if first else ""

    def _of(self, domain: str) -> list[tuple[int, str]]:
        return [item for source, item in self.by_file.items() if domain_of(source) == domain]


@dataclasses.dataclass(frozen=True)
class _Invalid:
    """A document that is not valid: what is wrong, and where."""

    problem: str


def domain_of(source: str) -> str:
    """Return the domain of a file by its path relative to ``corpus.path``: "web" of ``web/a.txt`` and ``web.jsonl``."""
    folder, inside, _ = source.partition("/")
    return composed(folder if inside else split_name(source).stem)


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
    return Document(text if start else text.removeprefix("\ufeff"), name)


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
            yield Document(text, name)
        else:
            for n, piece in enumerate(pieces([text.encode()], LONGEST_PIECE)):
                yield Document(piece.decode(), f"{name}#{n}")


def _check_first_line(line: bytes, path: pathlib.Path) -> None:
    """Raise an error for a JSON file that is not JSON lines: an array, or an object over several lines."""
    text = line.strip().removeprefix(b"\xef\xbb\xbf")
    if text.startswith(b"["):
        kind, program = "an array", "'.[]'"
    elif text == b"{":
        kind, program = "an object over several lines", "."
    else:
        return
    name, tool = shlex.quote(shown(path.name)), {".gz": "gzip", ".zst": "zstd"}.get(split_name(path.name).compression)
    convert = f"{tool} -dc {name} | jq -c {program} | {tool}" if tool else f"jq -c {program} {name}"
    raise UserError(
        f"{shown(path)}: has {kind} instead of one object per line; convert it: {convert} > new && mv new {name}"
    )


# Integers may have more digits than Python converts. Their values are not used.
_DECODER = json.JSONDecoder(parse_int=float)


def _text_of_line(line: bytes | None) -> str | _Invalid:
    """Return the text of a line of a JSON file, or what is wrong with it."""
    if line is None:
        return _Invalid("too long to be read (64 MiB); split its text")
    if line.strip(b"\0 \r") != line.strip():
        return _Invalid("has NUL bytes: the file was not written completely; copy it again or remove the line")
    try:
        row = _DECODER.decode(line.decode("utf-8-sig"))
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
