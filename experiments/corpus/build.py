"""Write the text of archives as JSON lines, one folder per domain."""

import collections
import hashlib
import json
import pathlib
from collections.abc import Sequence

from experiments.corpus import archives, domains
from experiments.corpus.packages import Package
from olmix_jax.utils.progress import Progress


def build(packages: Sequence[Package], source: pathlib.Path, target: pathlib.Path) -> None:
    """Write ``target/‹domain›/‹package›.jsonl`` for every domain and package that has text for it.

    A line has ``text`` and ``path``. A text that occurs twice, in any package or domain, is written once, where it
    occurs first. The same archives give the same files, whatever the version of Python.

    Args:
      packages: what to read, in this order.
      source: the folder of the archives.
      target: the folder to write.

    Raises:
      UserError: an archive is damaged or refused (:func:`archives.read`).
      OSError: the folder cannot be written.
    """
    seen: set[bytes] = set()
    with Progress("unpack", sum(package.unpacked for package in packages), "bytes") as progress:
        for package in packages:
            lines = _lines(package, source / package.file, seen, progress)
            for name, rows in lines.items():
                domain, _, part = name.partition("/")
                path = target / domain / f"{package.name}{'.' if part else ''}{part}.jsonl"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("".join(rows), encoding="utf-8", newline="\n")


def _lines(package: Package, archive: pathlib.Path, seen: set[bytes], progress: Progress) -> dict[str, list[str]]:
    """Return the text of a package that is not yet ``seen``, as lines of JSON by domain or ``domain/part``."""
    lines = collections.defaultdict[str, list[str]](list)
    for file in archives.read(archive, package):
        progress.advance(len(file.content), note=package.name)
        domain = domains.domain_of(package, file.path)
        for name, text in domains.texts_of(file, domain) if domain else ():
            digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
            if digest not in seen:
                seen.add(digest)
                row = {"text": text, "path": f"{package.name}/{file.path}"}
                lines[name].append(json.dumps(row, ensure_ascii=False) + "\n")
    return lines
