"""Read the text of all domains into spools: the user's, thinned to a given size, or the built-in corpus."""

import array
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from olmix_jax.config.schema import Corpus
from olmix_jax.corpus import builtin, readers
from olmix_jax.corpus.domain_folder import text_files
from olmix_jax.corpus.readers import Document, cutoff, hash64
from olmix_jax.corpus.repeated import FileContents
from olmix_jax.corpus.shared_lines import SharedLines
from olmix_jax.corpus.spool import Spool, content_of
from olmix_jax.corpus.workers import Workers
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.folders import shown
from olmix_jax.utils.progress import Progress


def read_builtin(corpus: Corpus, folder: pathlib.Path, seed: int) -> list[Spool]:
    """Write the documents of the built-in corpus to spools in ``folder``."""
    spools: list[Spool] = []
    for name, documents in builtin.stream(corpus.max_bytes):
        spools.append(Spool(name, folder / str(len(spools)), seed))
        spools[-1].write(documents)
    return spools


def read_user_text(
    corpus: Corpus,
    folder: pathlib.Path,
    seed: int,
    skipped: readers.Skipped,
    lines: SharedLines | None = None,
    several: Workers | None = None,
) -> list[Spool]:
    """Write the documents of every domain under ``corpus.path`` to spools in ``folder``, sorted by name.

    :func:`readers.read_documents` says what a document is. With ``corpus.max_bytes``, every domain is thinned by the
    same factor, to about this many bytes in total, and the files are read twice: documents are chosen by the hashes of
    their sources.

    Args:
      skipped: counts documents that are not valid, if ``corpus.skip_bad`` leaves them out.
      lines: collects lines of the documents that are kept.
      several: processes that compare these lines; None for this one.

    Raises:
      UserError: see :func:`text_files` and :func:`readers.read_documents`; a file repeats another one; or a domain has
        no text.
    """
    reader = _Reader(pathlib.Path(corpus.path), skipped if corpus.skip_bad else None)
    sizes: dict[str, _Sizes] = {}
    if corpus.max_bytes:
        sizes = {name: _Sizes(documents) for name, documents in reader.domains("measure")}
    total = sum(domain.total for domain in sizes.values())
    spools: list[Spool] = []
    for name, documents in reader.domains("read"):
        spool = Spool(name, folder / str(len(spools)), seed)
        if total > corpus.max_bytes:
            documents = _thinned(documents, sizes[name].limit(corpus.max_bytes / total))
        if lines is None:
            spool.write(documents)
        else:
            lines.add_texts(name, spool.writing(documents), several)
        if total > corpus.max_bytes:
            spool.content = sizes[name].content
        spools.append(spool)
    return spools


def _thinned(documents: Iterable[Document], limit: int) -> Iterator[Document]:
    """Yield the documents whose hashes are at most ``limit``."""
    return (document for document in documents if hash64(document.source) <= limit)


class _Sizes:
    """The sizes of a domain's documents, the hashes by which it is thinned, and its content hash."""

    def __init__(self, documents: Iterator[Document]):
        hashes, sizes = array.array("Q"), array.array("L")

        def texts() -> Iterator[bytes]:
            for document in documents:
                text = document.text.encode()
                hashes.append(hash64(document.source))
                sizes.append(len(text))
                yield text

        self.content = content_of(texts())
        self._hashes_D, self._sizes_D = np.array(hashes), np.array(sizes, np.int64)
        self.total = int(self._sizes_D.sum())

    def limit(self, share: float) -> int:
        """Return the largest hash to keep."""
        return cutoff(self._hashes_D, self._sizes_D, share * self.total)


class _Reader:
    """Reads the user's domains, more than once if need be."""

    def __init__(self, root: pathlib.Path, skipped: readers.Skipped | None):
        self.root, self.skipped = root, skipped
        self.paths = text_files(root)
        self.total = sum(path.stat().st_size for paths in self.paths.values() for path in paths)

    def domains(self, title: str) -> Iterator[tuple[str, Iterator[Document]]]:
        """Yield the name of every domain and its documents, which are to be read before the next domain.

        Raises:
          UserError: a file repeats another one, or a domain has no text.
        """
        contents = FileContents()
        with Progress(title, self.total, "bytes") as progress:
            for name, paths in self.paths.items():
                number = 0

                def documents(paths: Sequence[pathlib.Path] = paths) -> Iterator[Document]:
                    nonlocal number
                    for path in paths:
                        for document in self._documents(path, contents, progress):
                            number += 1
                            yield document

                yield name, documents()
                if not number:
                    left_out = self.skipped.describe(name) if self.skipped else ""
                    problem = f"no text in its files{left_out}; add text or remove the domain"
                    raise UserError(f"domain {shown(name)}: {problem}")

    def _documents(self, path: pathlib.Path, contents: FileContents, progress: Progress) -> Iterator[Document]:
        source = shown(path.relative_to(self.root).as_posix())
        left = path.stat().st_size
        for document in readers.read_documents(path, source, self.skipped):
            contents.add(document)
            # The size of the file is what counts; its text may be larger, if it is compressed.
            part = min(left, len(document.text))
            left -= part
            progress.advance(part, note=document.source)
            yield document
        progress.advance(left)
        contents.end_file(shown(path))
