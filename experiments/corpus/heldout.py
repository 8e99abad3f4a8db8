"""Hold documents out for tasks, keep one of near-identical documents, and find held-out text that others repeat."""

import functools
import itertools
import json
import pathlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence, Set

import numpy as np

from olmix_jax.corpus import holdout, workers
from olmix_jax.corpus.duplicates import Fingerprints
from olmix_jax.corpus.readers import hash64
from olmix_jax.utils.progress import Progress, tracked

# Bytes of a domain that are held out: this share, but enough for its tasks and not more than that, and at most half.
SHARE, LEAST, MOST = 0.02, 200_000, 1_000_000


def hold_out(folder: pathlib.Path) -> dict[str, list[str]]:
    """Remove whole documents from ``folder/‹domain›/‹package›.jsonl``, chosen by hashes of their content.

    Returns:
      The texts of each domain.
    """
    heldout = {}
    paths = sorted(folder.glob("*/*.jsonl"))
    for domain, group in itertools.groupby(paths, lambda path: path.parent.name):
        files = list(group)
        lines = [line for path in files for line in _lines(path)]
        sizes_D = np.array([len(line) for line in lines])
        hashes_D = np.array([hash64(line.decode()) for line in lines], np.uint64)
        size = min(float(np.clip(SHARE * sizes_D.sum(), LEAST, MOST)), sizes_D.sum() / 2)
        chosen_D = holdout.choose(sizes_D, hashes_D, size / sizes_D.sum())
        heldout[domain] = [json.loads(line)["text"] for line, chosen in zip(lines, chosen_D) if chosen]
        _keep(files, ~chosen_D)
    return heldout


def drop_repeats(folder: pathlib.Path, heldout: Mapping[str, Sequence[str]]) -> None:
    """Remove documents that are near-identical to held-out or earlier ones (:mod:`olmix_jax.corpus.duplicates`)."""
    paths = sorted(folder.glob("*/*.jsonl"))
    size = sum(path.stat().st_size for path in paths)
    with (
        tempfile.TemporaryDirectory(dir=folder.parent) as scratch,
        workers.for_size(size) as several,
        Progress("compare", size, "bytes") as progress,
    ):
        prints = Fingerprints(pathlib.Path(scratch))
        try:
            prints.add(itertools.chain.from_iterable(heldout.values()), several)
            start = prints.documents
            texts = (json.loads(line)["text"] for path in paths for line in _lines(path))
            prints.add(texts, several, functools.partial(progress.advance, note=folder.name))
            first_D = prints.firsts()
        finally:
            prints.close()
    _keep(paths, first_D[start:] == np.arange(start, len(first_D)))


def repeated_lines(folders: Sequence[pathlib.Path], lines: Set[str]) -> set[str]:
    """Return those of ``lines`` that occur in the texts of folders, apart from white space at both ends."""
    found: set[str] = set()
    paths = [path for folder in folders for path in sorted(folder.glob("*/*.jsonl"))]
    for path in tracked(paths, "look for answers", "files"):
        for line in _lines(path):
            found |= lines & {part.strip() for part in json.loads(line)["text"].split("\n")}
    return found


def _lines(path: pathlib.Path) -> Iterator[bytes]:
    with open(path, "rb") as f:
        yield from f


def _keep(paths: Sequence[pathlib.Path], kept_D: np.ndarray) -> None:
    """Rewrite files with the lines that are kept, of all files one after another; remove empty ones."""
    kept = iter(kept_D)
    for path in paths:
        content = b"".join(line for line, chosen in zip(list(_lines(path)), kept) if chosen)
        if content:
            path.write_bytes(content)
        else:
            path.unlink()
