"""Encoding by words: text is cut into words, each of which is encoded once and then looked up.

Byte-level BPE encodes the pre-tokens of a text one by one. A text repeats its words, so looking them up is several
times faster than encoding them again (benchmarks/prepare.md).
"""

import array
import functools
import re
import sys
import unicodedata
from collections.abc import Callable

import numpy as np
import tokenizers

# A table is emptied above this many entries or characters, so that the two need about 100 MB.
_ENTRIES, _CHARACTERS = 1 << 18, 1 << 23
# Marks a cut. Texts with this control character are not cut.
_MARK = "\x1f"


class WordEncoder:
    """Encodes texts word by word, with the result of encoding the whole texts.

    There are two tables: of words, which are cut at white space, and of pre-tokens, into which new words are cut.

    Args:
      bpe: a tokenizer whose only pre-tokenisation is GPT-2's pattern, and which finds no added tokens in text.
    """

    def __init__(self, bpe: tokenizers.Tokenizer):
        self._bpe = bpe
        self._pretokens = _Table(self._encode_pretokens)
        self._words = _Table(self._encode_words)

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        """Return the token ids of each text, int32."""
        words = [_cut(text) for text in texts]
        return [np.frombuffer(ids, np.int32) for ids in self._words.joined(words)]

    def _encode_words(self, words: list[str]) -> list[bytes]:
        return self._pretokens.joined([_split(word) for word in words])

    def _encode_pretokens(self, pretokens: list[str]) -> list[bytes]:
        return [array.array("i", encoding.ids).tobytes() for encoding in self._bpe.encode_batch_fast(pretokens)]


class _Table:
    """Looks up the ids of parts of text, and computes those of new parts."""

    def __init__(self, compute: Callable[[list[str]], list[bytes]]):
        self._compute = compute
        self._ids: dict[str, bytes] = {}
        self._characters = 0

    def joined(self, rows: list[list[str]]) -> list[bytes]:
        """Return the ids of the parts of each row, one after another."""
        parts = set().union(*rows)
        new = list(parts.difference(self._ids))
        if len(self._ids) + len(new) > _ENTRIES or self._characters > _CHARACTERS:
            # Parts of this call are likely to come again.
            self._ids = {part: self._ids[part] for part in parts if part in self._ids}
            self._characters = sum(map(len, self._ids))
        self._characters += sum(map(len, new))
        self._ids.update(zip(new, self._compute(new)))
        return [b"".join(map(self._ids.__getitem__, row)) for row in rows]


def splits_like_gpt2(content: dict) -> bool:
    """Whether the content of a ``tokenizer.json`` pre-tokenises by GPT-2's pattern alone and has no added tokens."""
    step = content["pre_tokenizer"] or {}
    return (
        not content["added_tokens"]
        and step.get("type") == "ByteLevel"
        and step.get("use_regex", True)
        and not step.get("add_prefix_space")
    )


def _cut(text: str) -> list[str]:
    """Cut a text before every blank or line end that follows a character other than white space.

    No match of GPT-2's pattern contains white space after another character, so none is cut.
    """
    if _MARK in text:
        return [text]
    marked = text.replace(" ", _MARK + " ").replace("\n", _MARK + "\n")
    for space in " \n\t\r\v\f" if text.isascii() else _spaces():
        if space in text:
            marked = marked.replace(space + _MARK, space)
    return marked.split(_MARK)


@functools.cache
def _spaces() -> str:
    """Return all characters that Python or any version of Unicode counts as white space."""
    return "".join(filter(str.isspace, map(chr, range(sys.maxunicode + 1)))) + "\u180e"


def _split(text: str) -> list[str]:
    """Return the pre-tokens of a text."""
    if text.isascii():
        return _ASCII.findall(text)
    return [text] if _unknown().search(text) else _unicode().findall(text)


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
