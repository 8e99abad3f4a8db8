"""What each file below ``corpus.path`` is, by its name: text, tokens, documentation, or something that is not read.

The rule: a file is read, or it is no data (documentation beside the data, bookkeeping of programs, images), or it is an
error that names it. So no text is missing from a domain without a message.
"""

import enum
import os
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from olmix_jax.utils.errors import UserError

JSON_LINES = (".jsonl", ".json", ".ndjson")
SUFFIXES = (".txt", ".md", *JSON_LINES)
COMPRESSED = ("", ".gz", ".zst")
# How a pointer begins that Git LFS leaves in place of a file.
GIT_LFS = b"version https://git-lfs.github.com/spec/"
TOKENS = (".npy", ".ds", ".bin")
# Files that programs write beside token files, and the endings of the token files that they describe.
SIDECARS = (
    *((".npy.csv.gz", ".npy"), (".csv.gz", ".npy"), (".idx", ".bin")),
    *((".ds.index", ".ds"), (".ds.metadata", ".ds"), (".ds.loss", ".ds")),
)

# Documentation beside the domains or directly in a domain's folder. Deeper, a README.md is a text like others.
_DOCUMENTATION = re.compile(
    r"(readme|licen[cs]e|copying|notice|changelog|authors|contributing|citation|version)(\.[a-z]+)*", re.I
)
# Variants such as LICENSE-MIT, which may be the texts of a domain if they have the ending of a text.
_VARIANT = re.compile(r"(readme|licen[cs]e)([._-][a-z]+)*", re.I)
_BOOKKEEPING = re.compile(
    r"\._.*|\.ds_store|thumbs\.db|desktop\.ini|\.git(attributes|ignore|keep|modules)|\.keep|\.dvcignore|_(success|"
    r"started|committed.*|temporary)|.*\.(md5|sha\d+|crc|crc32|checksum|sig|asc|lock)|(md5|sha\d+)sums?(\..*)?|"
    r"checksums?(\..*)?|\.nfs.*|dataset_(info|infos|dict)\.json|state\.json|metadata\.json|stats\.json|"
    r"(tokenizer|tokenizer_config|special_tokens_map|vocab|added_tokens)\.json|merges\.txt",
    re.I,
)
_MEDIA = re.compile(
    r".*\.(png|jpe?g|gif|webp|svg|ico|bmp|tiff?|mp3|wav|flac|ogg|mp4|mkv|mov|avi|webm|woff2?|ttf)", re.I
)
# Scripts and settings beside the domains. Inside a domain they may be its data.
_SCRIPTS = re.compile(r".*\.(py|sh|ipynb|ya?ml|toml|cfg|ini|log)|makefile|dockerfile", re.I)
# Names of hidden files that may be data, such as copies that were interrupted (``.a.jsonl.Xy12``).
_HIDDEN_DATA = re.compile(r"\.(txt|md|json|jsonl|ndjson|npy|ds|bin|parquet|arrow|csv|tsv)(\.|$)", re.I)
# Folders of programs.
_PROGRAM_FOLDERS = re.compile(
    r"\.(git|svn|hg|dvc|cache|huggingface|ipynb_checkpoints|snapshot|venv|idea|vscode|trash.*|spotlight.*|fseventsd)|"
    r"__macosx|__pycache__|lost\+found|@eadir|_temporary",
    re.I,
)
_TO_JSON = "python -c \"import pandas; pandas.read_{0}('{1}').to_json('{2}.jsonl', orient='records', lines=True)\""
# How to convert files that are not read, by the last part of their name.
_CONVERT = (
    (r".*\.(npy|ds|bin)\.\w+", "decompress it"),
    (r".*\.(parquet|parq|pq)", "convert it: " + _TO_JSON.format("parquet", "{name}", "{stem}")),
    (r".*\.feather", "convert it: " + _TO_JSON.format("feather", "{name}", "{stem}")),
    (
        r".*\.arrow",
        "convert it: python -c \"import datasets; datasets.Dataset.from_file('{name}').to_json('{stem}.jsonl')\"",
    ),
    (r".*\.[ct]sv(\.gz)?", "convert it: " + _TO_JSON.format("csv", "{name}", "{stem}")),
    (r".*\.(zip|tar|tgz|tbz2?|txz|7z|rar)|.*\.tar\.\w+", "unpack it"),
    (r".*\.(bz2|xz|lz4|lzma|br|snappy|z)", "decompress it, or compress it with gzip or zstd"),
    (r".*\.(html?|xhtml|xml|pdf|docx?|epub|odt|rtf|tex|rst|warc|wet|wat)(\.gz)?", "extract its text to .txt or .jsonl"),
    (r".*\.(part|partial|tmp|temp|incomplete|crdownload|aria2|download)", "finish its download, or delete it"),
    (r".*\.(orc|avro|pkl|pickle|npz|pt|h5|hdf5|db|sqlite3?|lmdb|mds|tfrecord|msgpack|xlsx?)", "convert it to .jsonl"),
    (r"[^.]+", "if it is text, give its name the ending .txt or .jsonl"),
    (r".*", "if it is text, append .txt to its name"),
)


# How advice begins after which the file is still there.
_STAYS = ("convert", "unpack", "extract")


class Kind(enum.Enum):
    """What a file is."""

    TEXT = "text"
    TOKENS = "token file"
    SIDECAR = "description of a token file"
    NO_DATA = "documentation or bookkeeping"
    UNREAD = "not read"


class Name(NamedTuple):
    """The parts of a file name, as "a", ".jsonl" and ".gz" of ``a.jsonl.gz``. Endings are in lower case."""

    stem: str
    suffix: str
    compression: str


def split_name(name: str) -> Name:
    """Split the name of a file. Upper-case endings count as lower-case ones."""
    stem, compression = os.path.splitext(name)
    if compression.lower() not in COMPRESSED:
        stem, compression = name, ""
    stem, suffix = os.path.splitext(stem)
    return Name(stem, suffix.lower(), compression.lower())


def is_text(path: str | os.PathLike) -> bool:
    """Whether the file's name has an ending that is read as text."""
    return split_name(os.path.basename(path)).suffix in SUFFIXES


def kind_of(parts: Sequence[str]) -> Kind:
    """Return what a file is.

    Args:
      parts: its path relative to ``corpus.path``, as the names of its folders and of the file.
    """
    name, suffix = parts[-1], split_name(parts[-1]).suffix
    if _BOOKKEEPING.fullmatch(name) or _MEDIA.fullmatch(name):
        return Kind.NO_DATA
    if any(_PROGRAM_FOLDERS.fullmatch(part) for part in parts[:-1]):
        return Kind.NO_DATA
    if any(part.startswith(".") for part in parts):
        return Kind.UNREAD if _HIDDEN_DATA.search(name) else Kind.NO_DATA
    if suffix not in JSON_LINES and any(
        pattern.fullmatch(name) and (suffix not in SUFFIXES or len(parts) <= levels)
        for pattern, levels in ((_DOCUMENTATION, 2), (_VARIANT, 1))
    ):
        return Kind.NO_DATA
    if suffix in SUFFIXES:
        return Kind.TEXT
    if name.lower().endswith(TOKENS):
        return Kind.TOKENS
    if name.lower().endswith(tuple(ending for ending, _ in SIDECARS)):
        return Kind.SIDECAR
    return Kind.NO_DATA if len(parts) == 1 and _SCRIPTS.fullmatch(name) else Kind.UNREAD


def described_by(name: str) -> list[str]:
    """Return the token files that a sidecar may describe: ``a.npy`` for ``a.csv.gz``."""
    return [name[: -len(ending)] + suffix for ending, suffix in SIDECARS if name.lower().endswith(ending)]


def refuse_unread(unread: Iterable[str | os.PathLike], root: str | os.PathLike) -> None:
    """Raise an error for files that may be data but are not read.

    Raises:
      UserError: ``unread`` is not empty. Names the first file, how to convert it, and the number of others.
    """
    paths = [os.fspath(path) for path in unread]
    if not paths:
        return
    name = os.path.basename(paths[0])
    if name.startswith(".") or "/." in paths[0][len(os.fspath(root)) :]:
        advice = "hidden files are not read: delete it, or rename it without the leading dot"
    else:
        stem = pathlib.PurePath(name).stem
        advice = next(text for pattern, text in _CONVERT if re.fullmatch(pattern, name, re.I))
        advice = advice.replace("{name}", name).replace("{stem}", stem)
    more = f" (and {len(paths) - 1:,} more such files)" if len(paths) > 1 else ""
    move = f"{'and' if advice.startswith(_STAYS) else 'or'} move it out of {root}"
    raise UserError(f"{paths[0]}: not read, so its content would be missing{more}; {advice}, {move}")
