"""Build a corpus of pinned source distributions, the same on every machine: about 200 M tokens in 45 domains.

    make corpus        # = python -m experiments.corpus --folder=data

It fetches archives (590 MB) from the package index that pip is set to use, and writes to FOLDER:

    archives/                 the archives, which are not fetched again
    packages/‹domain›/        the text, JSON lines
    revised/‹domain›/         an older release, for the update that revises a domain
    tasks/‹task›.jsonl        tasks made from documents that are in none of these
    stages/‹n›/, ‹n›.json     the domain sets and updates of the five updates (experiments/corpus/stages.py)
    corpus.json               bytes and documents of every domain; written last
"""

import argparse
import contextlib
import pathlib
import shutil
import sys
from collections.abc import Iterator

from experiments.corpus import build, fetch, packages, split, stages, tasks
from olmix_jax.utils import files, os_errors, progress
from olmix_jax.utils.errors import UserError

HERE = pathlib.Path(__file__).parent
PARTS = ("packages", "revised", "tasks", "stages")
# What decides the text.
DECIDES = ("packages.toml", "archives.py", "build.py", "domains.py", "split.py", "stages.py", "tasks.py")


def main() -> None:
    """Fetch the archives and write the text, unless it is up to date."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.corpus", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", default="data", type=pathlib.Path, help="where to write; default: %(default)s")
    folder = parser.parse_args().folder
    progress.start_log(None)
    if is_current(folder):
        progress.log.info("%s is up to date; remove %s to write it again", folder, folder / "corpus.json")
        return
    table = packages.read_table()
    fetch.fetch(table, folder / "archives")
    with replaced(folder) as new:
        build.build([p for p in table if not p.older], folder / "archives", new / "packages")
        build.build([p for p in table if p.older], folder / "archives", new / "revised")
        heldout = split.hold_out(new / "packages")
        for name in ("packages", "revised"):
            split.drop_repeats(new / name, heldout)
        tasks.write(new / "tasks", heldout)
        stages.write(new / "stages", new / "packages", new / "revised")
    sizes = count(folder / "packages")
    files.write_json(folder / "corpus.json", {"source": source(), "domains": sizes})
    for domain, size in sizes.items():
        progress.log.info("%-24s %12d bytes %8d documents", domain, size["bytes"], size["documents"])
    total = sum(size["bytes"] for size in sizes.values())
    progress.log.info("%d domains, %d bytes of text in %s", len(sizes), total, folder / "packages")


def source() -> str:
    """Return a digest of the table of packages and of the code that makes text of them."""
    return files.digest([(HERE / name).read_text(encoding="utf-8") for name in DECIDES])


def is_current(folder: pathlib.Path) -> bool:
    """Return whether a folder has everything that this version of the program writes."""
    record = folder / "corpus.json"
    present = record.is_file() and all((folder / part).is_dir() for part in PARTS)
    return present and files.read_json(record).get("source") == source()


@contextlib.contextmanager
def replaced(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Provide a temporary folder whose parts replace those of ``folder`` at the end.

    Raises:
      UserError: something cannot be written.
    """
    new = folder / ".new"
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        yield new
        (folder / "corpus.json").unlink(missing_ok=True)
        for part in PARTS:
            shutil.rmtree(folder / part, ignore_errors=True)
            (new / part).rename(folder / part)
    except OSError as e:
        raise UserError(f"cannot write in {folder}: {os_errors.writing(e, folder)}") from e
    finally:
        shutil.rmtree(new, ignore_errors=True)


def count(folder: pathlib.Path) -> dict[str, dict[str, int]]:
    """Return the bytes of text files and the number of documents of each domain."""
    result = {}
    for domain in sorted(folder.iterdir()):
        parts = [path.read_bytes() for path in sorted(domain.iterdir())]
        result[domain.name] = {"bytes": sum(map(len, parts)), "documents": sum(part.count(b"\n") for part in parts)}
    return result


if __name__ == "__main__":
    try:
        main()
    except UserError as e:
        sys.exit(f"error: {e}")
