"""Encoding by pre-tokens: text is cut into pre-tokens, each of which is encoded once and then looked up.

Byte-level BPE encodes the pre-tokens of a text one by one. A text repeats its pre-tokens, so looking them up is several
times faster than encoding them again (docs/log.md). Cutting and looking up are array operations over the
bytes of many texts. GPT-2's pattern, as the library writes it, is

    's|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+

For ASCII it says: a run of letters, of digits or of other characters is one pre-token, together with one blank before
it; the rest of the white space is another one, and its last character alone if that is no blank and text follows. An
apostrophe that follows a letter, a digit or white space other than a blank begins a contraction. A word with any other
character is left to the library. Words are cut before blanks and line ends that follow other characters: no match of
the pattern contains white space after another character.
"""

import array
import os
from collections.abc import Sequence

import numpy as np
import tokenizers

from olmix_jax.corpus.minhash import mix
from olmix_jax.corpus.tokenizer_checks import alphabet

# Texts are encoded in blocks of about this many bytes, whose arrays fit into a core's cache.
_BLOCK = 1 << 18
# Longer pre-tokens are encoded each time. Rows of the table, which is emptied when it is full; its slots; and the slots
# that are tried for a pre-token.
_LONGEST, _ROWS, _SLOTS, _TRIES = 32, 1 << 18, 1 << 20, 4
# The letters that stand for bytes in a vocabulary.
_LETTERS = dict(enumerate(alphabet()))
# Not a byte of UTF-8. It separates texts.
_END = b"\xff"
_LETTER, _DIGIT, _OTHER, _BLANK, _SPACE, _WIDE, _BORDER = range(7)
# Different in every process, so that no text can be made whose units have the same key.
_SECRET, _OF_SIZE = np.frombuffer(os.urandom(8), np.uint64)[0], np.uint64(0x9E3779B97F4A7C15)


def _classes() -> np.ndarray:
    """Return the class of each byte."""
    class_B = np.full(256, _OTHER, np.uint8)
    for low, high, kind in (("A", "Z", _LETTER), ("a", "z", _LETTER), ("0", "9", _DIGIT), ("\t", "\r", _SPACE)):
        class_B[ord(low) : ord(high) + 1] = kind
    class_B[ord(" ")], class_B[128:], class_B[255] = _BLANK, _WIDE, _BORDER
    return class_B


_CLASS = _classes()
# Last bytes of characters that are white space in some version of Unicode, in UTF-8.
_MAYBE_SPACE = np.zeros(256, bool)
_MAYBE_SPACE[[char.encode()[-1] for char in "\x85\xa0\u1680\u180e\u2028\u2029\u202f\u205f\u3000"]] = True
_MAYBE_SPACE[0x80:0x8B] = True  # U+2000 to U+200A


class WordEncoder:
    """Encodes texts pre-token by pre-token, with the result of encoding the whole texts.

    Args:
      bpe: a tokenizer whose only pre-tokenisation is GPT-2's pattern, and which finds no added tokens in text.
    """

    def __init__(self, bpe: tokenizers.Tokenizer):
        self._bpe, self._model = bpe, bpe.model
        self._table = _Table()

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the token ids of each text, int32."""
        result, block, size = [], [], 0
        for text in texts:
            block.append(text.encode())
            size += len(block[-1])
            if size >= _BLOCK:
                result += self._encode(block)
                block, size = [], 0
        return result + self._encode(block) if block else result

    def _encode(self, block: list[bytes]) -> list[np.ndarray]:
        # Zeros at the end, so that eight bytes can be read anywhere.
        content = _END + _END.join(block) + _END
        data = np.frombuffer(content + bytes(_LONGEST), np.uint8)
        start_U = np.flatnonzero(_starts(data[: len(content)]))
        end_U = np.append(start_U[1:], len(content))
        table = self._table
        key_U = _keys(data, start_U, end_U)
        row_U = table.find(key_U)
        is_border_U = data[start_U] == _END[0]
        row_U[is_border_U] = 0
        missing = np.flatnonzero(row_U < 0)
        if len(missing):
            row_U[missing] = self._add(content, start_U[missing], end_U[missing], key_U[missing])
        ids, count_U = table.ids_of(row_U)
        ends = np.cumsum(count_U)[is_border_U]
        table.forget()
        return [ids[start:end] for start, end in zip(ends[:-1], ends[1:])]

    def _add(self, content: bytes, start_U: np.ndarray, end_U: np.ndarray, key_U: np.ndarray) -> np.ndarray:
        """Encode pre-tokens, keep the short ones in the table, and return their rows."""
        units = [content[start:end] for start, end in zip(start_U.tolist(), end_U.tolist())]
        first = {unit: number for number, unit in reversed(list(enumerate(units)))}
        plain = [unit for unit in first if unit.isascii()]
        wide = [unit for unit in first if not unit.isascii()]
        # The model alone, without pre-tokenisation, takes a third of the time.
        texts = (unit.decode().translate(_LETTERS) for unit in plain)
        ids = [array.array("i", [token.id for token in self._model.tokenize(text)]) for text in texts]
        ids += [array.array("i", e.ids) for e in self._bpe.encode_batch_fast([unit.decode() for unit in wide])]
        row_of = dict(zip(plain + wide, self._table.append(ids)))
        short = [number for unit, number in first.items() if len(unit) <= _LONGEST]
        self._table.keep(key_U[short], np.array([row_of[units[number]] for number in short], np.int32))
        return np.array([row_of[unit] for unit in units])


class _Table:
    """The ids of pre-tokens, one row each, found by a key of 64 bits through a hash table with several tries."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._key_T, self._row_T = np.zeros(_SLOTS, np.uint64), np.full(_SLOTS, -1, np.int32)
        self._ids, self._start_R, self._count_R = array.array("i"), array.array("i", [0]), array.array("i", [0])
        # Row 0 has no ids: it is that of borders.

    def find(self, key_U: np.ndarray) -> np.ndarray:
        """Return the row of each key; -1 if there is none."""
        row_U, left = np.full(len(key_U), -1, np.int32), np.arange(len(key_U))
        for number in range(_TRIES):
            slot = _slots(key_U[left], number)
            row_U[left] = np.where(self._key_T[slot] == key_U[left], self._row_T[slot], -1)
            left = left[row_U[left] < 0]
        return row_U

    def append(self, ids: Sequence[array.array]) -> range:
        """Add rows and return their numbers."""
        first = len(self._start_R)
        for row in ids:
            self._start_R.append(len(self._ids))
            self._count_R.append(len(row))
            self._ids.extend(row)
        return range(first, len(self._start_R))

    def keep(self, key_U: np.ndarray, row_U: np.ndarray) -> None:
        """Let :meth:`find` return a row for each key, except where all slots of a key are taken."""
        for number in range(_TRIES):
            slot_U = _slots(key_U, number)
            free = np.flatnonzero(self._row_T[slot_U] < 0)
            slot, first = np.unique(slot_U[free], return_index=True)
            self._key_T[slot], self._row_T[slot] = key_U[free[first]], row_U[free[first]]
            left = self._key_T[slot_U] != key_U
            key_U, row_U = key_U[left], row_U[left]

    def ids_of(self, row_U: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids of rows one after another, int32, and the number of each row."""
        start_U, count_U = np.frombuffer(self._start_R, np.int32)[row_U], np.frombuffer(self._count_R, np.int32)[row_U]
        return np.frombuffer(self._ids, np.int32)[_ranges(start_U, count_U)], count_U

    def forget(self) -> None:
        """Empty the table if it is full."""
        if len(self._start_R) > _ROWS:
            self._clear()


def _ranges(start_U: np.ndarray, size_U: np.ndarray) -> np.ndarray:
    """Return the numbers from each start on, ``size`` of them, one range after another."""
    end_U = np.cumsum(size_U, dtype=np.int64)
    return np.repeat(start_U - (end_U - size_U), size_U) + np.arange(end_U[-1] if len(end_U) else 0)


def _slots(key_U: np.ndarray, number: int) -> np.ndarray:
    """Return the slot to try for each key after ``number`` others."""
    return ((key_U >> np.uint64(32)) + np.uint64(number)) % np.uint64(_SLOTS)


def splits_like_gpt2(content: dict) -> bool:
    """Whether the content of a ``tokenizer.json`` pre-tokenises by GPT-2's pattern alone and has no added tokens."""
    step = content["pre_tokenizer"] or {}
    return (
        not content["added_tokens"]
        and step.get("type") == "ByteLevel"
        and step.get("use_regex", True)
        and not step.get("add_prefix_space")
    )


def _starts(data: np.ndarray) -> np.ndarray:
    """Return whether each byte begins a pre-token, or a word that is left to the library. Borders are alone."""
    kind = _CLASS[data]
    space = (kind == _BLANK) | (kind == _SPACE)
    start = np.empty(len(data), bool)
    start[0] = True
    before, here = kind[:-1], kind[1:]
    # A run begins, unless a blank before it belongs to it.
    start[1:] = (here != before) & ((before != _BLANK) | space[1:]) | (here == _BORDER)
    # White space is one run. Its last character is apart if text follows.
    inner = space[1:-1] & space[:-2]
    start[1:-1][inner] = (~space[2:] & (kind[2:] != _BORDER))[inner]
    _contract(data, start)
    if (kind == _WIDE).any():
        _join_words(data, kind, space, start)
    return start


def _contract(data: np.ndarray, start: np.ndarray) -> None:
    """Let contractions end after one or two letters, in place."""
    apostrophe = np.flatnonzero((data[:-2] == ord("'")) & start[:-2])
    one, two = data[apostrophe + 1], data[apostrophe + 2]
    short = np.isin(one, np.frombuffer(b"stmd", np.uint8))
    pairs = [(one == pair[0]) & (two == pair[1]) for pair in (b"re", b"ve", b"ll")]
    for chosen, length in ((short, 2), (np.any(pairs, axis=0), 3)):
        at = apostrophe[chosen]
        start[at + 1] = False
        start[at + length] = True


def _join_words(data: np.ndarray, kind: np.ndarray, space: np.ndarray, start: np.ndarray) -> None:
    """Make every word with a character other than ASCII one unit, in place."""
    word = kind == _BORDER
    word[1:] |= word[:-1]
    cuttable = (data[1:] == ord(" ")) | (data[1:] == ord("\n"))
    word[1:] |= cuttable & ~space[:-1] & ~_MAYBE_SPACE[data[:-1]]
    begins = np.flatnonzero(word)
    chosen = np.unique(np.searchsorted(begins, np.flatnonzero(kind == _WIDE), side="right") - 1)
    first_W = begins[chosen]
    size_W = np.append(begins, len(data))[chosen + 1] - first_W
    start[_ranges(first_W, size_W)] = False
    start[first_W] = True


def _keys(data: np.ndarray, start_U: np.ndarray, end_U: np.ndarray) -> np.ndarray:
    """Return a 64-bit key of each unit: its bytes mixed with its length; 0 if it is longer than _LONGEST.

    Units of up to eight bytes with the same length have the same key only if they are equal. Others with one chance in
    2⁶⁴.
    """
    # Eight bytes from every place on.
    eight = np.ndarray((len(data) - 7,), "<u8", data, 0, (1,))
    size_U = end_U - start_U
    mask_S = np.array([2 ** (8 * n) - 1 for n in range(9)], np.uint64)
    first_U = eight[start_U] & mask_S[np.minimum(size_U, 8)]
    key_U = mix(first_U ^ _SECRET) + size_U.astype(np.uint64) * _OF_SIZE
    for begin in range(8, _LONGEST, 8):
        longer = np.flatnonzero((size_U > begin) & (size_U <= _LONGEST))
        if not len(longer):
            break
        part = eight[start_U[longer] + begin] & mask_S[np.minimum(size_U[longer] - begin, 8)]
        key_U[longer] = mix(key_U[longer] ^ part ^ _SECRET)
    key_U[size_U > _LONGEST] = 0
    return key_U
