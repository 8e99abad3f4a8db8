"""Byte-level BPE: lossless for every text, with the exact number of bytes behind every token."""

import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from olmix_jax import files
from olmix_jax.corpus.store import END
from olmix_jax.errors import UserError

END_TEXT = "<|endoftext|>"
SMALLEST = 257
# Characters encoded at once: an encoding takes some hundred times the memory of its text.
_CHUNK = 1 << 20


class Tokenizer:
    """Text to token ids and back. ``decode(encode(t)) == t`` and ``Σ token_bytes_V[encode(t)] == len(t.encode())``.

    The end-of-document token is in the vocabulary as id 0 but no text encodes to it: where a document spells it out,
    it is encoded as the ordinary bytes it is.

    Attributes:
      size: V, the number of token ids.
      end: 0, the id that separates documents.
      token_bytes_V: int32 [V], UTF-8 bytes of each token; 0 for ``end``.
    """

    end = END

    def __init__(self, text: str):
        """Takes the content of a ``tokenizer.json``."""
        self._text = text
        self._bpe = tokenizers.Tokenizer.from_str(text)
        vocabulary = self._bpe.get_vocab(with_added_tokens=True)
        self.size = len(vocabulary)
        if sorted(vocabulary.values()) != list(range(self.size)) or vocabulary.get(END_TEXT) != END:
            raise ValueError(f"ids are not 0..{self.size - 1} with {END_TEXT} as {END}")
        byte_of = {char: byte for byte, char in enumerate(_alphabet())}
        self._bytes = [b""] * self.size
        for token, index in vocabulary.items():
            if index != END:
                self._bytes[index] = bytes(byte_of[c] for c in token)
        self.token_bytes_V = np.array([len(b) for b in self._bytes], np.int32)

    @classmethod
    def read(cls, path: str | pathlib.Path) -> "Tokenizer":
        """Reads what :meth:`write` wrote.

        Raises:
          UserError: the file is missing, torn or not a byte-level BPE of ours.
        """
        content = files.read_json(path)
        try:
            return cls(json.dumps(content))
        except Exception as e:  # the library raises bare Exceptions
            raise UserError(f"{path}: not a tokenizer of this program ({e}); run --stages=prepare again") from e

    def write(self, path: str | pathlib.Path) -> None:
        """Writes ``tokenizer.json``, which the `tokenizers` library reads too."""
        files.write_text(path, self._text)

    def encode(self, text: str) -> np.ndarray:
        """Token ids of ``text``: int32, without ``end``."""
        return np.array(self._bpe.encode(text).ids, np.int32)

    def encode_many(self, texts: Sequence[str]) -> list[np.ndarray]:
        """:meth:`encode` of every text, on all cores."""
        return list(self.encode_stream(texts))

    def encode_stream(self, texts: Iterable[str]) -> Iterator[np.ndarray]:
        """:meth:`encode` of every text, in order, on all cores and in bounded memory."""
        chunk, size = [], 0
        for text in texts:
            chunk.append(text)
            size += len(text)
            if size >= _CHUNK:
                yield from self._encode_chunk(chunk)
                chunk, size = [], 0
        yield from self._encode_chunk(chunk)

    def _encode_chunk(self, texts: list[str]) -> Iterator[np.ndarray]:
        for encoding in self._bpe.encode_batch_fast(texts):
            yield np.array(encoding.ids, np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ``ids``; bytes cut out of the middle of a character become U+FFFD, ``end`` nothing."""
        return b"".join(self._bytes[i] for i in ids).decode("utf-8", errors="replace")


def train(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Byte-level BPE (GPT-2's pre-tokenisation, no normalisation, no prefix space) trained on ``texts``.

    Args:
      vocabulary: number of ids wanted, ``end`` and the 256 bytes included; text with too few repeated pairs gives
        fewer.

    Raises:
      UserError: the vocabulary cannot hold ``end`` and the 256 bytes.
    """
    if vocabulary < SMALLEST:
        raise UserError(
            f"config field `corpus.vocabulary` is {vocabulary}; a byte-level vocabulary needs {SMALLEST} or more"
        )
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        show_progress=False,
        special_tokens=[END_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        # A run of dashes or blanks longer than this is better spelled in several tokens.
        max_token_length=32,
    )
    bpe.train_from_iterator(texts, trainer)
    content = json.loads(bpe.to_str())
    # Out of the added tokens, which the library cuts out of the text before BPE; the id stays in the vocabulary, and
    # no merge makes it because pre-tokenisation splits it at its brackets.
    content["added_tokens"] = []
    return Tokenizer(json.dumps(content, ensure_ascii=False))


def _alphabet() -> list[str]:
    """The printable character that stands for each byte in byte-level BPE (GPT-2): itself where it is visible, else the
    next free one from U+0100."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [b for b in range(256) if b not in visible]
    return [chr(b) if b in visible else chr(0x100 + hidden.index(b)) for b in range(256)]
