"""The set of domains that a mixture is over."""

import dataclasses
import pathlib

import numpy as np

from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError

# The content hash of a domain is the sum of its documents' hashes modulo this.
CONTENT = 2**128


@dataclasses.dataclass(frozen=True)
class DomainSet:
    """Named domains with their unique training tokens (N_j in METHOD) and bytes. The order is the column order.

    ``content`` says what text they are of, whatever their names: the sum over documents of a hash of each, in
    hexadecimal, so that parts of a domain add up to it; empty where it is not known.

    Raises:
      UserError: no domain, a name twice, or a domain without tokens.
    """

    names: tuple[str, ...]
    tokens: tuple[int, ...]
    bytes: tuple[int, ...] = ()
    content: tuple[str, ...] = ()

    def __post_init__(self):
        if not self.names:
            raise UserError("no domains: a mixture needs at least one")
        twice = sorted({n for n in self.names if self.names.count(n) > 1})
        if twice:
            raise UserError(f"domain named more than once: {', '.join(twice)}")
        if len(self.tokens) != len(self.names):
            raise UserError(f"{len(self.names)} domains but {len(self.tokens)} token counts")
        empty = [n for n, t in zip(self.names, self.tokens) if not t > 0]
        if empty:
            raise UserError(f"domain without tokens: {', '.join(empty)}; remove it or check where it is read from")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def tokens_M(self) -> np.ndarray:
        """Unique tokens per domain, float64."""
        return np.asarray(self.tokens, np.float64)

    @property
    def natural_M(self) -> np.ndarray:
        """The natural distribution p0_j ∝ N_j."""
        return self.tokens_M / self.tokens_M.sum()

    def write(self, path: str | pathlib.Path) -> None:
        """Writes ``domains.json``."""
        sizes, content = self.bytes or (0,) * len(self), self.content or ("",) * len(self)
        rows = [{"name": n, "tokens": t, "bytes": b} for n, t, b in zip(self.names, self.tokens, sizes)]
        rows = [{**row, "content": c} if c else row for row, c in zip(rows, content)]
        files.write_json(path, {"domains": rows})

    @classmethod
    def read(cls, path: str | pathlib.Path) -> "DomainSet":
        """Reads ``domains.json``; a missing count is an error, never a zero."""
        content = files.read_json(path)
        try:
            rows = content["domains"]
            return cls(
                tuple(str(r["name"]) for r in rows),
                tuple(int(r["tokens"]) for r in rows),
                tuple(int(r["bytes"]) for r in rows),
                tuple(str(r.get("content", "")) for r in rows) if any("content" in r for r in rows) else (),
            )
        except (KeyError, TypeError, ValueError) as e:
            raise UserError(f"{path}: every entry of `domains` needs name, tokens and bytes ({e})") from e
