"""Token files with the same tokens as another file, whatever their names and formats."""

import hashlib
from collections.abc import Sequence

import numpy as np

from olmix_jax.corpus.store import Shard, TokenStore
from olmix_jax.utils.errors import UserError

# Tokens at both ends of a file by which candidates are found, and blocks between them that are compared then.
_EDGE, _BLOCKS = 4096, 64


class TokenContents:
    """The contents of the token files read so far, by which a file that repeats another one is detected.

    Args:
      vocabulary: the number of token ids.
    """

    def __init__(self, vocabulary: int):
        self._vocabulary = vocabulary
        self._shards: dict[tuple[int, bytes], list[Shard]] = {}

    def add(self, shards: Sequence[Shard]) -> None:
        """Add the files of a domain.

        Raises:
          UserError: a file has the same tokens as an earlier one, or cannot be read.
        """
        for shard in shards:
            key = (shard.tokens, self._digest(shard, [0, max(0, shard.tokens - _EDGE)]))
            earlier = self._shards.setdefault(key, [])
            between = np.linspace(0, max(0, shard.tokens - _EDGE), _BLOCKS).astype(np.int64).tolist()
            for other in earlier:
                if self._digest(shard, between) == self._digest(other, between):
                    raise UserError(
                        f"{shard.path} repeats {other.path}: both have the same {shard.tokens:,} tokens, which would "
                        "count twice; remove one of them"
                    )
            earlier.append(shard)

    def _digest(self, shard: Shard, starts: Sequence[int]) -> bytes:
        store, result = TokenStore(shard.path, [shard], self._vocabulary), hashlib.blake2b(digest_size=16)
        for start in starts:
            result.update(store.read(start, start + _EDGE).tobytes())
        return result.digest()
