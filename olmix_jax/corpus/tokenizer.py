"""Byte-level BPE tokenizers: lossless for every text, with the exact number of bytes of every token."""

import json
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from olmix_jax.corpus import words
from olmix_jax.corpus.text_streams import batches
from olmix_jax.corpus.tokenizer_checks import alphabet, check_bytes, check_probes, describe_change, normalisers
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError

END_TEXT = "<|endoftext|>"
# Patterns for the name of the end-of-document token. The first pattern that matches a special token decides.
END_PATTERNS = ("endoftext|end.of.(text|sentence|document)", "^</s>$", "eos|eot")
# The smallest vocabulary: 256 bytes and the end-of-document token.
SMALLEST = 257
# Characters encoded at once. An encoding takes about a hundred times the memory of its text.
_CHUNK = 1 << 20


class Tokenizer:
    """Converts text to token ids and back.

    ``decode(encode(t)) == t`` and ``Σ token_bytes_V[encode(t)] == len(t.encode())`` for every text t.

    It may be trained by :func:`train`, or be any byte-level BPE of the `tokenizers` library, such as those of GPT-2,
    GPT-NeoX, dolma2, Llama 3 and Qwen. Special tokens are in the vocabulary, but text is never encoded to them: if a
    document contains the name of one, it is encoded as ordinary bytes. Text is not normalised, and no tokens are added
    before or after it.

    Attributes:
      size: V, one more than the largest token id.
      end: the id that separates documents; 0 after :func:`train`.
      token_bytes_V: int32 [V], UTF-8 bytes of each token; 0 for special tokens and unused ids.
      digest: a hash of its content.
      ignored: normalisers in its file, which are not applied, because they change text.
    """

    def __init__(self, text: str):
        """Parse the content of a ``tokenizer.json``. Raises ValueError if it is not a lossless byte-level BPE."""
        self._text, self.digest = text, files.digest(json.loads(text))
        content = _lossless(json.loads(text))
        special = {t["content"]: t["id"] for t in json.loads(text)["added_tokens"] if t["special"]}
        plain = {t["content"] for t in content["added_tokens"]}
        self._bpe = tokenizers.Tokenizer.from_str(json.dumps(content))
        self._words = words.WordEncoder(self._bpe) if words.splits_like_gpt2(content) else None
        vocabulary = content["model"]["vocab"] | special
        check_bytes(vocabulary)
        names = [name for name in (END_TEXT, *special) if name in vocabulary]
        ends = [vocabulary[name] for like in END_PATTERNS for name in names if re.search(like, name, re.IGNORECASE)]
        if not ends:
            raise ValueError(f"no special token has the name of an end of text; it has {', '.join(names) or 'none'}")
        self.end, self.size = ends[0], max(vocabulary.values()) + 1
        byte_of = {char: byte for byte, char in enumerate(alphabet())}
        self._bytes = [b""] * self.size
        for token, index in vocabulary.items():
            if token in plain:
                self._bytes[index] = token.encode()
            elif token not in special and index != self.end:
                self._bytes[index] = bytes(byte_of[c] for c in token)
        self.token_bytes_V = np.array([len(b) for b in self._bytes], np.int32)
        check_probes(lambda text: self._join(self._bpe.encode(text).ids))
        self.ignored = tuple(normalisers(json.loads(text)))

    @classmethod
    def read(cls, path: str | pathlib.Path) -> "Tokenizer":
        """Read a file of :meth:`write`, or the ``tokenizer.json`` of another program.

        Raises:
          UserError: the file is missing, damaged, or not a lossless byte-level BPE.
        """
        is_other = pathlib.Path(path).suffix.lower() not in ("", ".json") and pathlib.Path(path).is_file()
        content = {} if is_other else files.read_json(path)
        if "model" not in content:
            problem = "it is of another format" if is_other else "it has no `model`"
            raise UserError(
                f"{path}: not the tokenizer.json of a tokenizer: {problem}; give that file, or write it with "
                "transformers: AutoTokenizer.from_pretrained(…).save_pretrained(…)"
            )
        try:
            return cls(json.dumps(content, ensure_ascii=False))
        except Exception as e:  # the library raises plain Exceptions
            reason = str(e) if isinstance(e, ValueError) else repr(e)
            raise UserError(
                f"{path}: not a lossless byte-level BPE tokenizer: {reason}; choose another corpus.tokenizer, or, if "
                "the file is in a workdir, rerun --stages=prepare"
            ) from e

    def to_json(self) -> str:
        """Return the content of ``tokenizer.json``."""
        return self._text

    def write(self, path: str | pathlib.Path) -> None:
        """Write ``tokenizer.json``, which the `tokenizers` library can read."""
        files.write_text(path, self._text)

    def encode(self, text: str) -> np.ndarray:
        """Return the token ids of ``text``, int32, without ``end``."""
        return np.array(self._bpe.encode(text).ids, np.int32)

    def encode_many(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Encode all texts on all cores.

        Raises:
          UserError: a text does not come back exactly.
        """
        return list(self.encode_stream(texts))

    def encode_stream(self, texts: Iterable[str]) -> Iterator[np.ndarray]:
        """Encode texts in order, on all cores and in bounded memory.

        Raises:
          UserError: a text does not come back exactly.
        """
        for chunk in chunks(texts):
            yield from self._encode_chunk(chunk)

    def _encode_chunk(self, texts: list[str]) -> Iterator[np.ndarray]:
        if self._words is not None:
            encoded: Iterable[np.ndarray] = self._words.encode(texts)
        else:
            encoded = (np.array(encoding.ids, np.int32) for encoding in self._bpe.encode_batch_fast(texts))
        for text, ids in zip(texts, encoded):
            if self.token_bytes_V[ids].sum(dtype=np.int64) != len(text.encode()):
                raise UserError(
                    "the tokenizer does not return a text of the corpus exactly: "
                    f"{describe_change(text, self._join(ids))}; choose another corpus.tokenizer"
                )
            yield ids

    def merge(self, symbols: str) -> list[int]:
        """Return the ids that the merges make of a pre-token, given in the characters of ``alphabet``."""
        return [token.id for token in self._bpe.model.tokenize(symbols)]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ``ids``. Incomplete characters become U+FFFD, ``end`` becomes nothing."""
        return self._join(ids).decode("utf-8", errors="replace")

    def _join(self, ids: Iterable[int]) -> bytes:
        return b"".join(map(self._bytes.__getitem__, ids))


def check_size(vocabulary: int) -> None:
    """Raise a UserError if a vocabulary is too small for the bytes and the end token."""
    if vocabulary < SMALLEST:
        raise UserError(
            f"config field `corpus.vocabulary` is {vocabulary}; must be {SMALLEST} or more (256 bytes and an end token)"
        )


def chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yield lists of texts that are encoded at once."""
    return batches(texts, _CHUNK)


def train(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Train a byte-level BPE with GPT-2's pre-tokenisation, without normalisation and prefix space.

    Args:
      vocabulary: number of ids, including ``end`` and the 256 bytes. Text with too few repeated pairs gives fewer.

    Raises:
      UserError: ``vocabulary`` is too small for ``end`` and the 256 bytes.
    """
    check_size(vocabulary)
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        show_progress=False,
        special_tokens=[END_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        # Longer runs of dashes or blanks are not worth a token.
        max_token_length=32,
    )
    bpe.train_from_iterator(texts, trainer)
    content = json.loads(bpe.to_str())
    # The library would find added tokens in text. Removed from that list, the end token keeps its id in the vocabulary,
    # and text never merges to it, because pre-tokenisation splits it at its brackets.
    content["added_tokens"] = []
    return Tokenizer(json.dumps(content, ensure_ascii=False))


def _lossless(content: dict) -> dict:
    """Change a ``tokenizer.json`` so that encoding loses no bytes, adds no tokens and finds no special tokens in text.

    Raises:
      ValueError: it is not a byte-level BPE.
    """
    if content["model"]["type"] != "BPE" or content["model"].get("byte_fallback") or not _is_byte_level(content):
        raise ValueError("its model is not BPE over bytes")
    added = [{**t, "lstrip": False, "rstrip": False, "single_word": False} for t in content["added_tokens"]]
    content["added_tokens"] = [{**t, "normalized": False} for t in added if not t["special"]]
    # The library renumbers added tokens that the model does not contain.
    content["model"]["vocab"] |= {t["content"]: t["id"] for t in content["added_tokens"]}
    for step in _pre_tokenizers(content):
        if step["type"] == "ByteLevel":
            step["add_prefix_space"] = False
    # Dropout splits words at random.
    content["model"]["dropout"] = None
    # The caller pads and truncates. A normaliser would change the number of bytes.
    return content | dict.fromkeys(("normalizer", "post_processor", "truncation", "padding"))


def _pre_tokenizers(content: dict) -> list[dict]:
    outer = content["pre_tokenizer"] or {"type": "none"}
    return outer.get("pretokenizers", [outer])


def _is_byte_level(content: dict) -> bool:
    return any(step["type"] == "ByteLevel" for step in _pre_tokenizers(content))
