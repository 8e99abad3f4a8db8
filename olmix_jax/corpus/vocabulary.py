"""Smaller vocabularies: a tokenizer with only the first merges of another one, and the mapping of tokens to it.

Byte-level BPE encodes a pre-token by joining, at each step, the leftmost pair whose merge is the first in the list. So
it uses no later merge before the first k are exhausted, and then it has the encoding by the first k merges alone. The
other steps only join tokens of this encoding. No step joins across an end of a token of the result, so the steps inside
are those of the token's text alone. Hence, for every text,

    encoding by the first k merges = the encodings by the first k merges of each token of the full encoding, joined.

This holds for merges in any order, several merges to one token, entries without a merge, and tokenizers that look whole
pre-tokens up first (``ignore_merges``), as long as the smaller tokenizer does not.
"""

import collections
import dataclasses
import functools
import itertools
import json
import pathlib

import numpy as np

from olmix_jax.corpus.tokenizer import SMALLEST, Tokenizer
from olmix_jax.corpus.tokenizer_checks import PROBES, alphabet
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError

_FIELD = "config field `proxy.vocabulary`"


def truncate(full: Tokenizer, size: int) -> Tokenizer:
    """Return the tokenizer with the 256 bytes, the added tokens, the end token and the first merges of another one.

    Entries keep their order and are numbered from 0 on. The file of the result has no post-processor, padding and
    truncation, which name ids.

    Args:
      full: the other tokenizer.
      size: number of entries V. If the merges make fewer, the result has fewer.

    Raises:
      UserError: ``size`` is too small for bytes and added tokens or larger than the tokenizer, or its tokens cannot be
        mapped exactly.
    """
    content = json.loads(full.to_json())
    model, merges = content["model"], _merges(content["model"])
    id_of, base = _ids(content), _base(content, full.end)
    _check_exact(model, merges, id_of, base)
    _check_size(size, len(base), full.size)
    kept, used = _first_merges(merges, base, size)
    new_id = {name: n for n, name in enumerate(sorted(kept, key=id_of.__getitem__))}
    unknown = model.get("unk_token")
    model |= {
        "vocab": {name: n for name, n in new_id.items() if name in model["vocab"]},
        "merges": [model["merges"][n] for n in used],
        "unk_token": unknown if unknown in kept else None,
        # A pre-token in the vocabulary would be looked up without its merges.
        "ignore_merges": False,
    }
    added = [{**token, "id": new_id[token["content"]]} for token in content["added_tokens"]]
    content |= {"added_tokens": added} | dict.fromkeys(("post_processor", "truncation", "padding"))
    return Tokenizer(json.dumps(content, ensure_ascii=False))


def _first_merges(merges: list[tuple[str, str]], base: set[str], size: int) -> tuple[set[str], list[int]]:
    """Return the entries that the first merges make, at most ``size`` with ``base``, and the numbers of these merges.

    A merge of tokens that no merge has made is left out, since it is never used. It waits for them, because merges may
    be in any order.
    """
    kept, used, waiting = set(base), [], collections.defaultdict(list)
    for number in range(len(merges)):
        made, more, todo = set[str](), [], [number]
        while todo:
            n = todo.pop()
            missing = next((token for token in merges[n] if token not in kept and token not in made), None)
            if missing is not None:
                waiting[missing].append(n)
                continue
            more.append(n)
            if (joined := "".join(merges[n])) not in kept and joined not in made:
                made.add(joined)
                todo += waiting.pop(joined, [])
        if len(kept) + len(made) > size:
            break
        kept |= made
        used += more
    return kept, sorted(used)


def size(wanted: int | None, full: Tokenizer | None, trained: int) -> int:
    """Return the entries of the proxies' vocabulary.

    Args:
      wanted: ``proxy.vocabulary``; None for all entries.
      full: the corpus' tokenizer; None if it will be trained.
      trained: the entries that are asked for then.

    Raises:
      UserError: as for :func:`truncate`.
    """
    if wanted is None:
        return trained if full is None else full.size
    if full is not None:
        return truncate(full, wanted).size
    _check_size(wanted, SMALLEST, trained)
    return wanted


def _check_size(size: int, least: int, most: int) -> None:
    if size < least:
        raise UserError(
            f"{_FIELD} is {size:,}; must be {least:,} or more for this tokenizer: 256 bytes and {least - 256} special "
            "and added tokens"
        )
    if size > most:
        raise UserError(f"{_FIELD} is {size:,}, but the tokenizer has {most:,} entries; lower it, or leave it None")


def _ids(content: dict) -> dict[str, int]:
    """Return the id of each token of a ``tokenizer.json``."""
    return content["model"]["vocab"] | {token["content"]: token["id"] for token in content["added_tokens"]}


def _base(content: dict, end: int) -> set[str]:
    """Return the entries of every size: bytes, special and added tokens, and the end token."""
    ends = {name for name, n in content["model"]["vocab"].items() if n == end}
    return {*alphabet(), *(token["content"] for token in content["added_tokens"]), *ends}


def _merges(model: dict) -> list[tuple[str, str]]:
    """Return the pairs that are merged, first to last. A file has them as pairs or as text."""
    pairs = (pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"])
    return [(a, b) for a, b in pairs]


def _check_exact(model: dict, merges: list[tuple[str, str]], id_of: dict[str, int], base: set[str]) -> None:
    """Raise an error for a tokenizer for which the derivation above does not hold."""
    joined = sorted({a + b for a, b in merges} & base)
    twice = [pair for pair, count in collections.Counter(merges).items() if count > 1]
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        problem = "it marks the beginning or end of words"
    elif joined:
        problem = f"its merges make {joined[0]}, which is a special or added token"
    elif twice:
        problem = f"it has the merge of {' and '.join(twice[0])} twice"
    elif len(set(id_of.values())) < len(id_of):
        problem = "two of its tokens have the same id"
    else:
        return
    raise UserError(f"{_FIELD}: the tokens of this tokenizer cannot be mapped exactly: {problem}; leave it None")


@dataclasses.dataclass(frozen=True)
class Mapping:
    """What each token of a tokenizer is in a smaller vocabulary.

    Attributes:
      count_V: int32 [V], number of smaller tokens of each token; 0 for ids without a token.
      ids: int32, the smaller tokens of all tokens, one token after another.
    """

    count_V: np.ndarray
    ids: np.ndarray

    @classmethod
    def between(cls, full: Tokenizer, small: Tokenizer) -> "Mapping":
        """Return the mapping of a tokenizer's tokens to one that :func:`truncate` made of it.

        Raises:
          UserError: a text is not mapped exactly.
        """
        content, small_content = (json.loads(tokenizer.to_json()) for tokenizer in (full, small))
        base, small_id = _base(content, full.end) - set(alphabet()), _ids(small_content)
        parts: list[list[int]] = [[] for _ in range(full.size)]
        for name, n in _ids(content).items():
            parts[n] = [small_id[name]] if name in base else small.merge(name)
        ids = np.fromiter(itertools.chain.from_iterable(parts), np.int32)
        result = cls(np.array([len(part) for part in parts], np.int32), ids)
        result._check(full, small)
        return result

    def _check(self, full: Tokenizer, small: Tokenizer) -> None:
        """Compare the bytes of all tokens, and the encodings of texts with unusual characters."""
        owner = np.repeat(np.arange(len(self.count_V)), self.count_V)
        bytes_V = np.bincount(owner, small.token_bytes_V[self.ids], len(self.count_V))
        texts_differ = (name for name, text in PROBES.items() if not self._agrees(full, small, text))
        if not (bytes_V == full.token_bytes_V).all():
            token = int(np.argmax(bytes_V != full.token_bytes_V))
            raise UserError(f"{_FIELD}: token {token} has other bytes in the smaller vocabulary; leave it None")
        if (name := next(texts_differ, None)) is not None:
            raise UserError(f"{_FIELD}: text ({name}) is not mapped exactly with this tokenizer; leave it None")

    def _agrees(self, full: Tokenizer, small: Tokenizer, text: str) -> bool:
        return np.array_equal(self.map(full.encode(text)), small.encode(text))

    def map(self, ids: np.ndarray) -> np.ndarray:
        """Return the smaller tokens of tokens, one after another, int32.

        Raises:
          ValueError: an id has no token.
        """
        count_n = self.count_V[ids]
        if not count_n.all():
            raise ValueError(f"id {ids[np.argmin(count_n)]} is not a token of the tokenizer")
        # Place n of the result is in the token that owns it, at the distance from that token's first place.
        first_n = self._start_V[ids] - (np.cumsum(count_n) - count_n)
        return self.ids[np.repeat(first_n, count_n) + np.arange(count_n.sum())]

    @functools.cached_property
    def _start_V(self) -> np.ndarray:
        return np.cumsum(self.count_V) - self.count_V

    def write(self, path: str | pathlib.Path) -> None:
        """Write an ``.npz`` file."""
        with files.atomic_write(path, "wb") as f:
            np.savez(f, count_V=self.count_V, ids=self.ids)

    @classmethod
    def read(cls, path: str | pathlib.Path) -> "Mapping":
        """Read a file of :meth:`write`.

        Raises:
          UserError: the file is missing or damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as content:
                return cls(content["count_V"], content["ids"])
        except (OSError, ValueError, KeyError) as e:
            raise UserError(f"{path}: cannot be read: {e}; delete domains.json and rerun --stages=prepare") from e
