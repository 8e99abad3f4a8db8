"""Read the user's text: folders of text and JSONL files, plain or compressed, thinned to a given size."""

import dataclasses
import hashlib
import json
import pathlib
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from olmix_jax.swarm.domains import CONTENT_MODULUS
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.files import list_files
from olmix_jax.utils.progress import log, tracked

SUFFIXES = (".txt", ".md", ".jsonl")
COMPRESSED = ("", ".gz", ".zst")
LAYOUT = "one sub-folder, or one .txt, .md or .jsonl file (optionally .gz or .zst), per domain"
_BLOCK = 1 << 20
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


def read_domains(path: str | pathlib.Path, max_bytes: int = 0) -> Corpus:
    """Read every domain under ``path``, sorted by name.

    Each text file and each JSONL line (its ``text`` field) is a document. A domain that is one single text is cut into
    documents at blank lines.

    Args:
      max_bytes: if not 0, every domain is thinned by the same factor, to about this many bytes in total. The files are
        then read three times, and only the kept documents, chosen by the hash of their source, are held in memory.

    Raises:
      UserError: there is no domain, a domain has no file of a known type, a file is truncated or not UTF-8, or a JSONL
        line has no ``text``.
    """
    root = pathlib.Path(path)
    readers = {name: _reader(root, paths) for name, paths in _domain_files(root).items()}
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


def _domain_files(root: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Return the files of each domain. Domains and files are sorted."""
    if not root.is_dir():
        problem = "is a file" if root.exists() else "does not exist"
        raise UserError(f"corpus.path={root} {problem}; it must be a folder with {LAYOUT}")
    domains: dict[str, list[pathlib.Path]] = {}
    ignored = []
    for entry in sorted(root.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            name, inside = entry.name, list_files(entry)
            text_files = [p for p in inside if is_text(p) and not p.name.startswith(".")]
            others = [p for p in inside if not is_text(p)]
            ignored += others
            if not text_files:
                suffixes = ", ".join(sorted({p.suffix or p.name for p in others})[:5])
                problem = f"has only {suffixes} files" if suffixes else "is empty"
                raise UserError(f"domain {name}: {entry} {problem}; add {', '.join(SUFFIXES)} files or move it away")
        elif is_text(entry):
            name, text_files = _split_name(entry).stem, [entry]
        else:
            ignored.append(entry)
            continue
        if name in domains:
            raise UserError(f"domain {name} is in {root} twice, as {domains[name][0]} and as {entry}; rename one")
        domains[name] = text_files
    if not domains:
        raise UserError(f"corpus.path={root} has no domain; it must have {LAYOUT}")
    if ignored:
        log.info("corpus: ignored %d files of other types, such as %s", len(ignored), ignored[0])
    return dict(sorted(domains.items()))


class _Name(NamedTuple):
    """The parts of a file name, as "a", ".jsonl" and ".gz" of ``a.jsonl.gz``."""

    stem: str
    suffix: str
    compression: str


def _split_name(path: pathlib.Path) -> _Name:
    compression = path.suffix if path.suffix in COMPRESSED else ""
    inner = path.name.removesuffix(compression)
    suffix = pathlib.PurePath(inner).suffix
    return _Name(inner.removesuffix(suffix), suffix, compression)


def is_text(path: str | pathlib.Path) -> bool:
    """Whether the file's name has a suffix that is read as text."""
    return _split_name(pathlib.Path(path)).suffix in SUFFIXES


def _reader(root: pathlib.Path, paths: list[pathlib.Path]) -> Callable[[], Iterator[Document]]:
    """Return a function that yields the documents of ``paths``. It can be called several times."""

    def documents() -> Iterator[Document]:
        for path in paths:
            source = path.relative_to(root).as_posix()
            if _split_name(path).suffix == ".jsonl":
                yield from _read_jsonl(path, source)
            else:
                yield Document(_read_text(path), source, source)

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


def _read_text(path: pathlib.Path) -> str:
    return _decode(b"".join(_blocks(path)), str(path)).removeprefix("\ufeff")


def _read_jsonl(path: pathlib.Path, source: str) -> Iterator[Document]:
    for number, line in enumerate(_lines(_blocks(path)), 1):
        where = f"{path}, line {number}"
        text = _decode(line, where).removeprefix("\ufeff").strip()
        if not text:
            continue
        try:
            row = json.loads(text)
        except json.JSONDecodeError as e:
            raise UserError(f"{where}: not valid JSON ({e}); every line must be an object with a `text` field") from e
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise UserError(f"{where}: no `text` field that is a string; every line must be an object with one")
        if re.search("[\ud800-\udfff]", row["text"]):
            raise UserError(f"{where}: `text` has an unpaired surrogate, which is not valid Unicode; fix the line")
        name = f"{source}:{number}"
        yield Document(row["text"], name, name)


def _decode(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as e:
        raise UserError(
            f"{where}: not UTF-8 at byte {e.start}; convert it, for example with iconv -f LATIN1 -t UTF-8, or remove it"
        ) from e


def _lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for block in blocks:
        *whole, rest = (rest + block).split(b"\n")
        yield from whole
    yield rest


def _blocks(path: pathlib.Path) -> Iterator[bytes]:
    """Yield the decompressed content of a file in blocks.

    Raises:
      UserError: the file cannot be read, or is truncated.
    """
    decompressors: dict[str, Callable[[], Any]] = {".gz": lambda: zlib.decompressobj(wbits=31), ".zst": _zstd}
    new_decompressor = decompressors.get(path.suffix)
    try:
        with open(path, "rb") as f:
            blocks = iter(lambda: f.read(_BLOCK), b"")
            yield from blocks if new_decompressor is None else _decompress(blocks, new_decompressor, path)
    except OSError as e:
        raise UserError(f"{path}: cannot be read: {e.strerror or e}") from e


def _zstd() -> Any:
    try:
        import zstandard
    except ImportError as e:
        raise UserError("reading .zst files needs the package `zstandard`: pip install zstandard") from e
    return zstandard.ZstdDecompressor().decompressobj()


def _decompress(blocks: Iterable[bytes], new_decompressor: Callable[[], Any], path: pathlib.Path) -> Iterator[bytes]:
    """Decompress a stream of one or more frames, each with a new decompressor."""
    damaged = UserError(f"{path}: truncated or not a {path.suffix[1:]} file; copy or compress it again")
    frame = None
    for block in blocks:
        while block:
            frame = frame or new_decompressor()
            try:
                yield frame.decompress(block)
            except Exception as e:  # zlib.error or zstandard.ZstdError; zstandard may not be installed
                raise damaged from e
            block = frame.unused_data.lstrip(b"\0") if frame.eof else b""
            frame = None if frame.eof else frame
    if frame is not None:
        raise damaged
