"""The source distributions that the corpus is made of: pinned by version and SHA-256 in ``packages.toml``."""

import dataclasses
import pathlib
import tomllib

TABLE = pathlib.Path(__file__).with_name("packages.toml")


@dataclasses.dataclass(frozen=True)
class Package:
    """A source distribution.

    Attributes:
      name: its name in the package index.
      file: name of its archive, with the version.
      sha256: of the archive.
      size: bytes of the archive.
      unpacked: bytes of all its files.
      licence: as the package states it.
      subject: what it is about; part of the names of domains.
      older: whether it is an earlier release, which only the revision of a domain reads.
    """

    name: str
    file: str
    sha256: str
    size: int
    unpacked: int
    licence: str
    subject: str
    older: bool = False


def read_table(path: pathlib.Path = TABLE) -> tuple[Package, ...]:
    """Return all packages, sorted by name."""
    with open(path, "rb") as f:
        rows = tomllib.load(f)
    return tuple(Package(**row) for row in sorted(rows["package"], key=lambda row: (row["name"], row["file"])))
