"""Documents of a domain on disk, which are read back in any order."""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np

from olmix_jax.corpus.readers import Document, hash64
from olmix_jax.corpus.text_streams import pieces
from olmix_jax.swarm.domains import CONTENT_MODULUS

# A document in the index: where its text begins and its size in bytes; its characters; where its name lies, counted
# backwards from the text, and its size; the number of the passage, -1 for a whole document; hashes for the order of the
# training text, for the held-out split and for the sample that trains the tokenizer; and a hash of the text.
ROW = np.dtype(
    [
        ("start", "<i8"),
        ("size", "<u4"),
        ("characters", "<u4"),
        ("back", "<u4"),
        ("name_size", "<u4"),
        ("passage", "<i4"),
    ]
    + [(name, "<u8") for name in ("order", "group", "sample", "content")]
)

# Rows of the index that are converted at once.
_ROWS = 1 << 10


@dataclasses.dataclass(frozen=True)
class Stored:
    """A document of a spool."""

    name: str
    text: bytes


class Spool:
    """The documents of a domain: their texts in one file, their index in another.

    Attributes:
      name: the domain.
      content: its content hash: the sum of the hashes of its texts. Names and order of texts do not matter.

    Args:
      path: the file of the texts. The index is beside it.
      seed: decides the hashes of the index.
    """

    def __init__(self, name: str, path: pathlib.Path, seed: int):
        self.name, self.path, self.seed = name, path, seed
        self.content = ""

    def write(self, documents: Iterable[Document]) -> None:
        """Write documents, and set ``content``."""
        for _ in self.writing(documents):
            pass

    def writing(self, documents: Iterable[Document]) -> Iterator[str]:
        """Write documents and yield the text of each; at the end, set ``content``."""
        start, content = 0, 0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "wb") as texts, open(self._index, "wb") as index:
            for document in documents:
                name, text = document.source.encode("utf-8", "surrogatepass"), document.encoded
                start += len(name)
                texts.write(name)
                texts.write(text)
                content += document.digest
                hashes = self._hashes(document.source)
                row = (start, len(text), len(document.text), len(name), len(name), -1, *hashes, document.digest >> 64)
                index.write(np.array(row, ROW).tobytes())
                start += len(text)
                yield document.text
        self.content = f"{content % CONTENT_MODULUS:032x}"

    def rows(self) -> np.ndarray:
        """Return the index, with fields ``ROW``."""
        return np.fromfile(self._index, ROW)

    def cut(self, rows: np.ndarray, longest: int) -> np.ndarray:
        """Return rows in which every document larger than ``longest`` bytes is replaced by passages."""
        result = []
        for row in rows:
            if row["size"] <= longest:
                result.append(row[None])
                continue
            stored = next(self.read(row[None]))
            start = 0
            for number, text in enumerate(pieces([stored.text], longest)):
                passage = row[None].copy()
                digest = hashlib.blake2b(text, digest_size=16).digest()
                hashes = self._hashes(f"{stored.name}#{number}")
                values = {"size": len(text), "characters": len(text.decode()), "passage": number}
                values |= dict(zip(("order", "group", "sample"), hashes)) | {"content": _half(digest)}
                values |= {"start": row["start"] + start, "back": row["back"] + start}
                for field, value in values.items():
                    passage[field] = value
                result.append(passage)
                start += len(text)
        return np.concatenate(result)

    def read(self, rows: np.ndarray) -> Iterator[Stored]:
        """Yield the documents of ``rows``, in their order."""
        fields = "start", "size", "back", "name_size", "passage"
        with open(self.path, "rb") as f:
            for first in range(0, len(rows), _ROWS):
                columns = (rows[field][first : first + _ROWS].tolist() for field in fields)
                for start, size, back, name_size, passage in zip(*columns):
                    if passage < 0:  # the text follows its name
                        content = os.pread(f.fileno(), name_size + size, start - back)
                        yield Stored(content[:name_size].decode("utf-8", "surrogatepass"), content[name_size:])
                    else:
                        name = os.pread(f.fileno(), name_size, start - back).decode("utf-8", "surrogatepass")
                        yield Stored(f"{name}#{passage}", os.pread(f.fileno(), size, start))

    def digest(self, rows: np.ndarray) -> str:
        """Return a digest of the names and texts of ``rows``, and of their order."""
        result = hashlib.blake2b(digest_size=16)
        for field in ("order", "content"):
            result.update(np.ascontiguousarray(rows[field]).tobytes())
        return result.hexdigest()

    @property
    def _index(self) -> pathlib.Path:
        return self.path.with_name(self.path.name + ".index")

    def _hashes(self, name: str) -> tuple[int, int, int]:
        seed = self.seed
        return hash64(f"{seed}:order:{name}"), hash64(f"{seed}:{name}"), hash64(f"{seed}:tokenizer:{name}")


def content_of(texts: Iterable[bytes]) -> str:
    """Return the content hash of texts, as :meth:`Spool.write` computes it."""
    hashes = (hashlib.blake2b(text, digest_size=16).digest() for text in texts)
    return f"{sum(int.from_bytes(h, 'big') for h in hashes) % CONTENT_MODULUS:032x}"


def _half(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big")
