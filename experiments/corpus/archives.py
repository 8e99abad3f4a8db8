"""Read the files of a source distribution in memory. Nothing is written under the names that it contains."""

import dataclasses
import gzip
import pathlib
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO

from experiments.corpus.packages import Package
from olmix_jax.utils import os_errors
from olmix_jax.utils.errors import UserError

_CHUNK = 1 << 20
# Bytes that the headers of an archive may have, besides as much again as its files.
_HEADERS = 8 << 20
# What tarfile and zlib raise for content that they do not expect.
_DAMAGE = (tarfile.TarError, EOFError, zlib.error, ValueError, TypeError, OverflowError, LookupError)


@dataclasses.dataclass(frozen=True)
class File:
    """A file of a distribution: its path below the distribution's folder, and its content."""

    path: pathlib.PurePosixPath
    content: bytes


def read(path: pathlib.Path, package: Package) -> Iterator[File]:
    """Yield the regular files of a ``.tar.gz``, in their order, one in memory at a time.

    Raises:
      UserError: the archive cannot be read or is damaged; has a link, a device, or a path that leaves its folder; or
        unpacks to another number of bytes than ``package`` states.
    """
    unpacked = 0
    try:
        with gzip.open(path) as content, tarfile.open(fileobj=_Limited(content, package), mode="r|") as archive:
            for member in archive:
                archive.members.clear()  # or they would be kept in memory
                _check_member(member, package)
                if not member.isfile():
                    continue
                unpacked += member.size
                if unpacked > package.unpacked:
                    raise _refused(package, _too_much(package))
                file = archive.extractfile(member)
                assert file is not None
                yield File(pathlib.PurePosixPath(*pathlib.PurePosixPath(member.name).parts[1:]), file.read())
            while content.read(_CHUNK):  # its end has a checksum
                pass
    except OSError as e:
        if not isinstance(e, gzip.BadGzipFile):
            raise UserError(f"{package.name}: {path} cannot be read: {os_errors.reading(e)}") from e
        raise _damaged(path, package, str(e)) from e
    except _DAMAGE as e:
        raise _damaged(path, package, str(e)) from e
    if unpacked != package.unpacked:
        raise _damaged(path, package, f"it has {unpacked:,} bytes of files, not {package.unpacked:,}")


class _Limited:
    """Reads an archive up to a size, so that no header or long name fills the memory."""

    def __init__(self, content: IO[bytes], package: Package):
        self._content, self._package, self._left = content, package, 2 * package.unpacked + _HEADERS

    def read(self, size: int) -> bytes:
        data = self._content.read(min(size, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise _refused(self._package, _too_much(self._package))
        return data


def _too_much(package: Package) -> str:
    return f"unpacks to more than the {package.unpacked:,} bytes that are stated"


def _damaged(path: pathlib.Path, package: Package, problem: str) -> UserError:
    return UserError(f"{package.name}: {path} is damaged ({problem}); remove it, and run `make corpus` again")


def _check_member(member: tarfile.TarInfo, package: Package) -> None:
    parts = pathlib.PurePosixPath(member.name).parts
    if member.name.startswith("/") or ".." in parts:
        raise _refused(package, f"has the path {member.name!r}, which leaves its folder")
    if member.issym() or member.islnk():
        raise _refused(package, f"has the link {member.name!r} to {member.linkname!r}")
    if not (member.isfile() or member.isdir()):
        raise _refused(package, f"has {member.name!r}, which is neither a file nor a folder")


def _refused(package: Package, problem: str) -> UserError:
    return UserError(
        f"{package.name}: {package.file} {problem}; no text is read from such an archive: pin another release in "
        "experiments/corpus/packages.toml"
    )
