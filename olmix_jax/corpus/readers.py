"""The user's own domains: folders of text, JSONL, plain or compressed; and how any domain is thinned."""

import dataclasses
import hashlib
import json
import pathlib
import re
import zlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from olmix_jax.swarm.domains import CONTENT_MODULUS
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.files import list_files
from olmix_jax.utils.progress import log, tracked

KINDS = (".txt", ".md", ".jsonl")
PACKED = ("", ".gz", ".zst")
LAYOUT = "one sub-folder, or one .txt, .md or .jsonl file (optionally .gz or .zst), per domain"
_BLOCK = 1 << 20
# Characters of a document cut from a domain that is one single text: long enough for a prompt and its answer, short
# enough that a tenth of the smallest domain allowed (some 16 kB) can be held out.
_CUT = 4096


@dataclasses.dataclass(frozen=True)
class Document:
    """One text; ``source`` names it in messages, ``group`` is what it came from: a group is held out whole."""

    text: str
    source: str
    group: str


def hashed(name: str) -> int:
    """64 bits that depend on ``name`` alone: the same order of documents on every machine."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def cutoff(hashes: Iterable[int], sizes: Iterable[int], budget: float) -> int:
    """The hash up to which documents are kept, so that their sizes add up as near to ``budget`` as can be; at least one
    document is kept."""
    hashes, sizes = np.asarray(hashes, np.uint64), np.asarray(sizes, np.float64)
    order = np.argsort(hashes, kind="stable")
    return int(hashes[order][np.argmin(np.abs(np.cumsum(sizes[order]) - budget))])


def content_of(documents: Iterable[Document]) -> str:
    """The sum of a hash of each text: the same for the same texts under any name and in any order."""
    hashes = (hashlib.blake2b(d.text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for d in documents)
    return f"{sum(int.from_bytes(h, 'big') for h in hashes) % CONTENT_MODULUS:032x}"


def read_domains(path: str | pathlib.Path, max_bytes: int = 0) -> tuple[dict[str, list[Document]], dict[str, str]]:
    """Reads every domain under ``path``, in the order of their names; and the :func:`content_of` each, before thinning.

    A text file is a document, a line of JSONL (its ``text`` field) is a document, and a domain that is one single text
    is cut at blank lines into documents. With ``max_bytes`` everything is read three times and only what is kept, by
    the hash of its name, is held in memory: every domain is thinned by the same factor.

    Raises:
      UserError: nothing there, no known file in a domain, a file torn or not UTF-8, a line without ``text``.
    """
    root = pathlib.Path(path)
    readers = {name: _reader(root, files) for name, files in _domain_files(root).items()}
    shares, content = {}, {}
    if max_bytes:
        content = {name: content_of(read()) for name, read in readers.items()}
        sizes = {n: _sizes(read, n) for n, read in readers.items()}
        total = sum(size for rows in sizes.values() for _, size in rows)
        if total > max_bytes:
            shares = {n: _share_cutoff(rows, max_bytes / total) for n, rows in sizes.items()}
    domains = {}
    for name, read in tracked(readers.items(), "read", "domains"):
        limit = shares.get(name)
        domains[name] = [d for d in read() if limit is None or hashed(d.source) <= limit]
        if not domains[name]:
            raise UserError(f"domain {name}: no text in its files under {root}; add text to it or remove it")
    return domains, content or {name: content_of(documents) for name, documents in domains.items()}


def _sizes(read: Callable[[], Iterator[Document]], name: str) -> list[tuple[int, int]]:
    rows = [(hashed(d.source), len(d.text.encode())) for d in read()]
    if not rows:
        raise UserError(f"domain {name}: no text in its files; add text to it or remove it")
    return rows


def _share_cutoff(rows: list[tuple[int, int]], share: float) -> int:
    hashes, sizes = zip(*rows)
    return cutoff(hashes, sizes, share * sum(sizes))


def _domain_files(root: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Domain names, sorted, with their files, sorted."""
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise UserError(f"corpus.path={root} {what}; it must be a folder with {LAYOUT}")
    found, ignored = {}, []
    for entry in sorted(root.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            name, inside = entry.name, list_files(entry)
            known = [p for p in inside if _kind(p) and not p.name.startswith(".")]
            others = [p for p in inside if not _kind(p)]
            ignored += others
            if not known:
                seen = ", ".join(sorted({p.suffix or p.name for p in others})[:5]) or "nothing"
                raise UserError(f"domain {name}: {entry} holds {seen} and no {', '.join(KINDS)}; add some or move it")
        elif _kind(entry):
            name, known = _stem(entry), [entry]
        else:
            ignored.append(entry)
            continue
        if name in found:
            raise UserError(f"domain {name} is in {root} twice, as {found[name][0]} and as {entry}; rename one of them")
        found[name] = known
    if not found:
        raise UserError(f"corpus.path={root} holds no domain; it must hold {LAYOUT}")
    if ignored:
        log.info("corpus: %d files of other kinds are not read, the first is %s", len(ignored), ignored[0])
    return dict(sorted(found.items()))


def _split_name(path: pathlib.Path) -> tuple[str, str, str]:
    packed = path.suffix if path.suffix in PACKED else ""
    inner = path.name.removesuffix(packed)
    kind = pathlib.PurePath(inner).suffix
    return inner.removesuffix(kind), kind, packed


def is_text(path: str) -> bool:
    """Whether a file is of a kind that is read as text, by its name."""
    return _kind(pathlib.Path(path))


def _kind(path: pathlib.Path) -> bool:
    return _split_name(path)[1] in KINDS


def _stem(path: pathlib.Path) -> str:
    return _split_name(path)[0]


def _reader(root: pathlib.Path, paths: list[pathlib.Path]) -> Callable[[], Iterator[Document]]:
    """A function that reads the documents of ``paths`` one by one, each time it is called."""

    def documents() -> Iterator[Document]:
        for path in paths:
            source = path.relative_to(root).as_posix()
            if _split_name(path)[1] == ".jsonl":
                yield from _read_jsonl(path, source)
            else:
                yield Document(_read_text(path), source, source)

    def cut_if_alone() -> Iterator[Document]:
        stream = documents()
        head = [d for _, d in zip(range(2), stream)]
        yield from _cut(head[0]) if len(head) == 1 else head
        yield from stream

    return cut_if_alone


def _cut(document: Document) -> Iterator[Document]:
    """Pieces of some ``_CUT`` characters that end at a blank line, or at any line where there is none."""
    text, start, number = document.text, 0, 0
    paragraph, line = re.compile(r"\n[ \t\r]*\n"), re.compile(r"\n")
    while start < len(text):
        at = paragraph.search(text, start + _CUT, start + 2 * _CUT) or line.search(text, start + _CUT)
        end = at.end() if at else len(text)
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
            raise UserError(f"{where}: not JSON ({e}); every line must be an object with a `text` field") from e
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise UserError(f"{where}: no `text` field with a string; every line must be an object that has one")
        if re.search("[\ud800-\udfff]", row["text"]):
            raise UserError(
                f"{where}: `text` has half of a surrogate pair, which is not Unicode; mend or drop the line"
            )
        name = f"{source}:{number}"
        yield Document(row["text"], name, name)


def _decode(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as e:
        raise UserError(
            f"{where}: not UTF-8 at byte {e.start}; convert the file (iconv -f LATIN1 -t UTF-8) or remove it"
        ) from e


def _lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for block in blocks:
        *whole, rest = (rest + block).split(b"\n")
        yield from whole
    yield rest


def _blocks(path: pathlib.Path) -> Iterator[bytes]:
    """The content of a file, decompressed, in blocks.

    Raises:
      UserError: the file cannot be read, or is torn.
    """
    start = {".gz": lambda: zlib.decompressobj(wbits=31), ".zst": _zstd}.get(path.suffix)
    try:
        with open(path, "rb") as f:
            blocks = iter(lambda: f.read(_BLOCK), b"")
            yield from blocks if start is None else _unpacked(blocks, start, path)
    except OSError as e:
        raise UserError(f"{path}: cannot be read: {e.strerror or e}") from e


def _zstd():
    try:
        import zstandard
    except ImportError as e:
        raise UserError("reading .zst files needs the package `zstandard`: pip install zstandard") from e
    return zstandard.ZstdDecompressor().decompressobj()


def _unpacked(blocks: Iterable[bytes], start: Callable, path: pathlib.Path) -> Iterator[bytes]:
    """Decompresses a stream of one or more frames; ``start`` makes a decompressor for the next frame."""
    torn = UserError(f"{path}: torn or not a {path.suffix[1:]} file; copy or compress it again")
    frame = None
    for block in blocks:
        while block:
            frame = frame or start()
            try:
                yield frame.decompress(block)
            except Exception as e:  # zlib.error, or zstandard's own, which cannot be named without that package
                raise torn from e
            block = frame.unused_data.lstrip(b"\0") if frame.eof else b""
            frame = None if frame.eof else frame
    if frame is not None:
        raise torn
