"""The domains of a mixture: their names, sizes and content."""

import dataclasses
import pathlib

import numpy as np

from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError

# A domain's content hash is the sum of its documents' hashes modulo this number.
CONTENT_MODULUS = 2**128


@dataclasses.dataclass(frozen=True)
class DomainSet:
    """Named domains and their sizes, in the order of the columns of every mixture.

    Attributes:
      names: M names.
      tokens: unique training tokens per domain (N_j in METHOD).
      bytes: bytes of text per domain.
      content: a hash of each domain's text, independent of its name: the sum of the hashes of its documents, in
        hexadecimal. If a domain is split, the hashes of the parts sum to its hash. Empty if not known.
      skipped: documents of each domain that ``corpus.skip_bad`` left out. Empty for none.

    Raises:
      UserError: there is no domain, a name is repeated, or a domain has no tokens.
    """

    names: tuple[str, ...]
    tokens: tuple[int, ...]
    bytes: tuple[int, ...] = ()
    content: tuple[str, ...] = ()
    skipped: tuple[int, ...] = ()

    def __post_init__(self):
        if not self.names:
            raise UserError("no domains: a mixture needs at least one domain")
        repeated = sorted({n for n in self.names if self.names.count(n) > 1})
        if repeated:
            raise UserError(f"repeated domain: {', '.join(repeated)}; give every domain a different name")
        if len(self.tokens) != len(self.names):
            raise UserError(f"{len(self.names)} domains but {len(self.tokens)} token counts; give one per domain")
        object.__setattr__(self, "skipped", self.skipped if any(self.skipped) else ())
        empty = [n for n, t in zip(self.names, self.tokens) if not t > 0]
        if empty:
            raise UserError(f"domain without tokens: {', '.join(empty)}; remove it, or check its source")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def tokens_M(self) -> np.ndarray:
        """Return the unique tokens per domain, float64."""
        return np.asarray(self.tokens, np.float64)

    @property
    def natural_M(self) -> np.ndarray:
        """Return the natural distribution p0_j ∝ N_j."""
        return self.tokens_M / self.tokens_M.sum()

    def write(self, path: str | pathlib.Path) -> None:
        """Write ``domains.json``."""
        sizes, content = self.bytes or (0,) * len(self), self.content or ("",) * len(self)
        rows = [{"name": n, "tokens": t, "bytes": b} for n, t, b in zip(self.names, self.tokens, sizes)]
        rows = [{**row, "content": c} if c else row for row, c in zip(rows, content)]
        rows = [{**row, "skipped": s} if s else row for row, s in zip(rows, self.skipped or (0,) * len(self))]
        files.write_json(path, {"domains": rows})

    @classmethod
    def read(cls, path: str | pathlib.Path) -> "DomainSet":
        """Read ``domains.json``.

        Raises:
          UserError: the file cannot be read, or a domain lacks its name, tokens or bytes.
        """
        content = files.read_json(path)
        try:
            rows = content["domains"]
            return cls(
                tuple(str(r["name"]) for r in rows),
                tuple(int(r["tokens"]) for r in rows),
                tuple(int(r["bytes"]) for r in rows),
                tuple(str(r.get("content", "")) for r in rows) if any("content" in r for r in rows) else (),
                tuple(int(r.get("skipped", 0)) for r in rows) if any("skipped" in r for r in rows) else (),
            )
        except (KeyError, TypeError, ValueError) as e:
            raise UserError(f"{path}: every entry of `domains` needs name, tokens and bytes ({e})") from e
