"""Byte-level BPE: lossless for every text, with the exact number of bytes behind every token."""

import json
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError

END_TEXT = "<|endoftext|>"
# What separates documents is named like this in the tokenizers that people have; the first that there is.
ENDS = ("endoftext|end.of.(text|sentence|document)", "^</s>$", "eos|eot")
SMALLEST = 257
# What pre-tokenisation may lose or change.
_PROBE = " A  b\n\n\tç\r\n'll 12345 日本 e\u0301 🙂 _-- "
# Characters encoded at once: an encoding takes some hundred times the memory of its text.
_CHUNK = 1 << 20


class Tokenizer:
    """Text to token ids and back. ``decode(encode(t)) == t`` and ``Σ token_bytes_V[encode(t)] == len(t.encode())``.

    Ours (:func:`train`), or any byte-level BPE of the `tokenizers` library, as GPT-2, GPT-NeoX, dolma2, Llama 3 and
    Qwen have. Special tokens are in the vocabulary but no text encodes to them: where a document spells one out, it is
    encoded as the ordinary bytes it is. Nothing is normalised, and nothing put around a text.

    Attributes:
      size: V, one more than the largest token id.
      end: the id that separates documents: 0 in ours.
      token_bytes_V: int32 [V], UTF-8 bytes of each token; 0 for special ones and ids that no token has.
      digest: a name for its content.
    """

    def __init__(self, text: str):
        """Takes the content of a ``tokenizer.json``; what is not a byte-level BPE is a ValueError."""
        self._text, self.digest = text, files.digest(json.loads(text))
        content = _lossless(json.loads(text))
        special = {t["content"]: t["id"] for t in json.loads(text)["added_tokens"] if t["special"]}
        plain = {t["content"] for t in content["added_tokens"]}
        self._bpe = tokenizers.Tokenizer.from_str(json.dumps(content))
        vocabulary = content["model"]["vocab"] | special
        names = [name for name in (END_TEXT, *special) if name in vocabulary]
        ends = [vocabulary[name] for like in ENDS for name in names if re.search(like, name, re.IGNORECASE)]
        if not ends:
            raise ValueError(
                f"no special token is named like the end of a text; there are {', '.join(names) or 'none'}"
            )
        self.end, self.size = ends[0], max(vocabulary.values()) + 1
        byte_of = {char: byte for byte, char in enumerate(_alphabet())}
        self._bytes = [b""] * self.size
        for token, index in vocabulary.items():
            if token in plain:
                self._bytes[index] = token.encode()
            elif token not in special and index != self.end:
                self._bytes[index] = bytes(byte_of[c] for c in token)
        self.token_bytes_V = np.array([len(b) for b in self._bytes], np.int32)
        if self.decode(self.encode(_PROBE)) != _PROBE:
            raise ValueError("it does not give a text back as it was")

    @classmethod
    def read(cls, path: str | pathlib.Path) -> "Tokenizer":
        """Reads what :meth:`write` wrote, or another program's ``tokenizer.json``.

        Raises:
          UserError: the file is missing, torn or not a byte-level BPE.
        """
        content = files.read_json(path)
        try:
            return cls(json.dumps(content, ensure_ascii=False))
        except Exception as e:  # the library raises bare Exceptions
            raise UserError(
                f"{path}: not a byte-level BPE tokenizer ({e!r}); give another corpus.tokenizer, or, where it is in a "
                "workdir, run --stages=prepare again"
            ) from e

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


def _lossless(content: dict) -> dict:
    """A ``tokenizer.json`` without what would lose bytes, add tokens or take text for a special token.

    Raises:
      ValueError: it is not a byte-level BPE.
    """
    if content["model"]["type"] != "BPE" or content["model"].get("byte_fallback") or not _byte_level(content):
        raise ValueError("its model is not BPE over bytes")
    kept = [{**t, "lstrip": False, "rstrip": False, "single_word": False} for t in content["added_tokens"]]
    content["added_tokens"] = [{**t, "normalized": False} for t in kept if not t["special"]]
    # The library numbers added tokens anew where the model does not know them.
    content["model"]["vocab"] |= {t["content"]: t["id"] for t in content["added_tokens"]}
    for step in _steps(content):
        if step["type"] == "ByteLevel":
            step["add_prefix_space"] = False
    # Padding and truncation are the caller's; a normaliser would count other bytes than the text has.
    return content | dict.fromkeys(("normalizer", "post_processor", "truncation", "padding"))


def _steps(content: dict) -> list[dict]:
    before = content["pre_tokenizer"] or {"type": "none"}
    return before.get("pretokenizers", [before])


def _byte_level(content: dict) -> bool:
    return any(step["type"] == "ByteLevel" for step in _steps(content))


def _alphabet() -> list[str]:
    """The printable character that stands for each byte in byte-level BPE (GPT-2): itself where it is visible, else the
    next free one from U+0100."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [b for b in range(256) if b not in visible]
    return [chr(b) if b in visible else chr(0x100 + hidden.index(b)) for b in range(256)]
