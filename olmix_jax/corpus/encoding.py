"""Encoding of large text in several processes."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from olmix_jax.corpus.tokenizer import Tokenizer, chunks
from olmix_jax.corpus.workers import Answer, Workers


def encode(tokenizer: Tokenizer, texts: Iterable[str], several: Workers | None) -> Iterator[np.ndarray]:
    """Yield the token ids of each text, int32, in order and in bounded memory.

    Args:
      tokenizer: encodes the texts.
      texts: the texts.
      several: the processes; None for this one.
    """
    if several is None:
        yield from tokenizer.encode_stream(texts)
        return
    for counts, content in several.map("encode", chunks(texts), tokenizer.to_json().encode()):
        ids, ends = np.frombuffer(content, np.int32), np.cumsum(np.frombuffer(counts, np.int64)).tolist()
        for start, end in zip([0, *ends], ends):
            yield ids[start:end]


def task(setting: bytes) -> Callable[[list[str]], Answer]:
    """Return a function that encodes texts with a tokenizer: their numbers of ids, int64, and their ids, int32."""
    tokenizer = Tokenizer(setting.decode())

    def encode(texts: list[str]) -> Answer:
        ids = tokenizer.encode_many(texts)
        return [np.array([len(x) for x in ids], np.int64).tobytes(), b"".join(map(bytes, ids))]

    return encode
