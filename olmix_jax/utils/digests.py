"""Digests of files by their content. A file is read again only if its size or modification time has changed."""

import hashlib
import pathlib
from collections.abc import Iterable

from olmix_jax.utils import files, folders, os_errors
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import tracked

# Blocks that stand for a file of more than 64 MiB. Token files can have terabytes.
BLOCKS, BLOCK_BYTES = 1024, 1 << 16
# Folders with more files show progress.
SHOW_PROGRESS = 100


class Digests:
    """Digests of files, kept in a JSON file: {path: [bytes, modification time in ns, digest]}."""

    def __init__(self, cache: pathlib.Path):
        self.cache = cache
        self.known: dict[str, list] = files.read_json(cache) if cache.is_file() else {}

    def of(self, path: pathlib.Path) -> str:
        """Return a digest of a file, or of the names and contents of all files in a folder; "missing" if none exists.

        Raises:
          UserError: a file cannot be read.
        """
        if path.is_dir():
            members = [entry.path for entry in folders.walk(path)]
            return files.digest([[str(f.relative_to(path)), d] for f, d in zip(members, self._of_files(members))])
        return next(iter(self._of_files([path]))) if path.exists() else "missing"

    def _of_files(self, paths: Iterable[pathlib.Path]) -> list[str]:
        keys = {path: str(path.resolve()) for path in paths}
        try:
            stats = {path: path.stat() for path in keys}
            stamps = {path: [stat.st_size, stat.st_mtime_ns] for path, stat in stats.items()}
            new = [path for path in keys if self.known.get(keys[path], [])[:2] != stamps[path]]
            for path in tracked(new, "compare files", "files") if len(new) > SHOW_PROGRESS else new:
                self.known[keys[path]] = [*stamps[path], _content(path)]
        except OSError as e:
            raise UserError(f"{e.filename}: cannot be read: {os_errors.reading(e)}") from e
        if new:
            files.write_json(self.cache, self.known)
        return [self.known[keys[path]][2] for path in keys]


def _content(path: pathlib.Path) -> str:
    """Return a digest of a file's content; of a large file, of its size and of blocks spread over it."""
    size = path.stat().st_size
    with path.open("rb") as f:
        if size <= BLOCKS * BLOCK_BYTES:
            return hashlib.file_digest(f, "sha256").hexdigest()[:16]
        content = hashlib.sha256(str(size).encode())
        for i in range(BLOCKS):
            f.seek(i * (size - BLOCK_BYTES) // (BLOCKS - 1))
            content.update(f.read(BLOCK_BYTES))
        return content.hexdigest()[:16]
