"""Whether token ids were made by a given tokenizer: decode a sample, encode it again, and compare."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from olmix_jax.corpus.store import Shard, TokenStore
from olmix_jax.corpus.tokenizer import Tokenizer
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import counted, log

# Blocks that are decoded, spread over the files, at least one of each; and tokens of a block.
_BLOCKS, _BLOCK = 16, 4096
# Bytes at the start and end of a document that are not compared, as it may be cut within a word.
_EDGE = 24
# Tokens of the tokenizer itself agree exactly. Those of other tokenizers, even of one trained on the same text with
# another vocabulary size, agree to 70 to 95 % (docs/log.md).
_ENOUGH, _ALWAYS_ALLOWED = 0.995, 8


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How much of a sample of tokens is encoded again in the same way.

    Attributes:
      same: number of tokens that end at the same byte in both encodings.
      tokens: number of tokens of the longer encoding.
      example: decoded text of the document that agrees least.
    """

    same: int
    tokens: int
    example: str

    @property
    def suffices(self) -> bool:
        """Whether the tokens may be of this tokenizer."""
        return self.tokens - self.same <= max(_ALWAYS_ALLOWED, (1 - _ENOUGH) * self.tokens)


def check(shards: Sequence[Shard], tokenizer: Tokenizer, domain: str) -> None:
    """Raise an error if a file was not made by the tokenizer.

    Raises:
      UserError: names the file, the share of tokens that agree, and a text.
    """
    for shard in shards:
        result = measure(TokenStore(domain, [shard], tokenizer.size), tokenizer, -(-_BLOCKS // len(shards)))
        if not result.suffices:
            raise UserError(
                f"{shard.path}: not written with corpus.tokenizer: decoded and encoded again, only "
                f"{result.same / result.tokens:.1%} of {result.tokens:,} tokens are the same; its text would read "
                f"{result.example!r}; set corpus.tokenizer to the tokenizer.json it was made with, or write it again"
            )


def warn_of_cut_documents(shards: Sequence[Shard], tokenizer: Tokenizer) -> None:
    """Log files of all domains that end within a document, if most files do not."""
    stores = [TokenStore(shard.path, [shard], tokenizer.size) for shard in shards]
    cut = [s.shards[0].path for s in stores if s.read(len(s) - 1, len(s))[0] != tokenizer.end]
    if 0 < len(cut) < len(shards) / 2:
        log.warning(
            "%s not end with the end-of-document token, as the others do, and may be cut short, such as %s",
            *(f"{counted(len(cut), 'token file')} {'does' if len(cut) == 1 else 'do'}", cut[0]),
        )


def measure(store: TokenStore, tokenizer: Tokenizer, blocks: int) -> Agreement:
    """Decode and encode the documents of some blocks of a store."""
    blocks = min(blocks, -(-len(store) // _BLOCK))
    starts = np.linspace(0, max(0, len(store) - _BLOCK), blocks + 2)[1:-1].astype(np.int64)
    same = tokens = 0
    worst, example = 1.0, ""
    for start in starts.tolist():
        ids = store.read(start, start + _BLOCK)
        # Special tokens have no bytes. Between them are documents.
        is_text = tokenizer.token_bytes_V[ids] > 0
        parts = [part[tokenizer.token_bytes_V[part] > 0] for part in np.split(ids, np.flatnonzero(~is_text))]
        for part in (part for part in parts if len(part)):
            common, longer, text = _compare(part, tokenizer)
            same, tokens = same + common, tokens + longer
            if longer and common / longer < worst:
                worst, example = common / longer, text[:60]
    return Agreement(same, tokens, example)


def _compare(ids: np.ndarray, tokenizer: Tokenizer) -> tuple[int, int, str]:
    """Return the numbers of common token ends and of tokens, and the text."""
    for first in range(4):  # a block may begin or end within a character, which has up to four bytes
        for last in range(4):
            part = ids[first : len(ids) - last]
            text = tokenizer.decode(part)
            data = text.encode()
            if len(part) and len(data) == tokenizer.token_bytes_V[part].sum() and "\ufffd" not in text:
                ends = [np.cumsum(tokenizer.token_bytes_V[p]) for p in (part, tokenizer.encode(text))]
                before, after = (e[(e > _EDGE) & (e < len(data) - _EDGE)] for e in ends)
                return len(np.intersect1d(before, after)), max(len(before), len(after)), text
    return 0, len(ids), tokenizer.decode(ids)
