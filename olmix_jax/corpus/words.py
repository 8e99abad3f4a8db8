"""Encoding by words: the pre-tokens of GPT-2's pattern, each of which is encoded once and then looked up.

Byte-level BPE encodes every pre-token by itself. A text repeats its words, so looking them up is several times faster
than encoding them again (benchmarks/prepare.md).
"""

import functools
import re
import sys
import unicodedata

import numpy as np
import tokenizers

# The table is emptied above this many entries or characters, so its memory is bounded by about 150 MB.
_ENTRIES, _CHARACTERS = 400_000, 1 << 23


class WordEncoder:
    """Encodes texts word by word, with the result of encoding the whole texts.

    Args:
      bpe: a tokenizer whose only pre-tokenisation is GPT-2's pattern, and which finds no added tokens in text.
    """

    def __init__(self, bpe: tokenizers.Tokenizer):
        self._bpe = bpe
        self._ids: dict[str, bytes] = {}
        self._characters = 0

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        """Return the token ids of each text, int32."""
        words = [_split(text) for text in texts]
        new = list(set().union(*words).difference(self._ids))
        if len(self._ids) + len(new) > _ENTRIES or self._characters > _CHARACTERS:
            self._ids.clear()
            self._characters, new = 0, list(set().union(*words))
        self._characters += sum(map(len, new))
        for word, encoding in zip(new, self._bpe.encode_batch_fast(new)):
            self._ids[word] = np.array(encoding.ids, np.int32).tobytes()
        return [np.frombuffer(b"".join(map(self._ids.__getitem__, row)), np.int32) for row in words]


def _split(text: str) -> list[str]:
    if text.isascii():
        return _ASCII.findall(text)
    return [text] if _unknown().search(text) else _unicode().findall(text)


def splits_like_gpt2(content: dict) -> bool:
    """Whether the content of a ``tokenizer.json`` pre-tokenises by GPT-2's pattern alone and has no added tokens."""
    step = content["pre_tokenizer"] or {}
    return (
        not content["added_tokens"]
        and step.get("type") == "ByteLevel"
        and step.get("use_regex", True)
        and not step.get("add_prefix_space")
    )


# GPT-2's pattern for text of ASCII characters. The library writes the pattern as
#   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
_ASCII = re.compile(
    r" ?[A-Za-z]+|'(?:s|t|re|ve|m|ll|d)| ?[0-9]+| ?[^ \t-\rA-Za-z0-9]+|[ \t-\r]+(?![^ \t-\r])|[ \t-\r]+"
)


@functools.cache
def _unicode() -> re.Pattern[str]:
    """Return GPT-2's pattern for all text without characters of :func:`_unknown`.

    Python's ``\\w`` is a letter, a number or ``_``, and its ``\\d`` a number of the category Nd. ASCII characters are
    matched first, which is faster.
    """
    numbers = _ranges("Nl", "No")
    letter, other = rf"[^\W\d_{numbers}]", r"(?:[^\w\s]|_)"
    return re.compile(
        rf" ?[A-Za-z]+{letter}*| ?{letter}+|'(?:s|t|re|ve|m|ll|d)| ?[!-/:-@\[-`{{-~]+{other}*| ?{other}+"
        rf"| ?[\d{numbers}]+|\s+(?!\S)|\s+"
    )


@functools.cache
def _unknown() -> re.Pattern[str]:
    """Return a pattern for the characters that Python and the library may classify differently.

    They are the characters that Python's version of Unicode lacks, and four that only Python counts as white space.
    """
    return re.compile(rf"[\x1c-\x1f{_ranges('Cn')}]")


def _ranges(*categories: str) -> str:
    """Return the characters of Unicode categories as ranges for a character class."""
    ranges: list[list[int]] = []
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code)) in categories:
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)
