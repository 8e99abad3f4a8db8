"""Build a corpus of pinned source distributions, the same on every machine: about 340 M tokens in 45 domains.

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
import fcntl
import pathlib
import shutil
import sys
from collections.abc import Iterator

from experiments.corpus import build, fetch, heldout, packages, stages, tasks
from olmix_jax.utils import files, progress
from olmix_jax.utils.errors import UserError

HERE = pathlib.Path(__file__).parent
# What is written; the record of it, which is written last; and the mark of a folder that this program writes to.
PARTS = ("packages", "revised", "tasks", "stages")
RECORD, MARK = "corpus.json", ".corpus"
# The files that decide the text and the tasks.
MAKES_TEXT = (
    "packages.toml",
    *(f"{name}.py" for name in ("packages", "archives", "build", "domains", "heldout", "stages", "tasks")),
)
MAKES_TASKS = ("task_makers.py", "examples.py", "duplicates.py", "minhash.py", "holdout.py")


def main() -> None:
    """Fetch the archives and write the text, unless it is up to date."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.corpus", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", default="data", help="where to write; default: %(default)s")
    folder = files.local_path(parser.parse_args().folder, "--folder")
    progress.start_log(None)
    if is_current(folder):
        progress.log.info("%s is up to date; remove %s to write it again", folder, folder / RECORD)
        return
    table = packages.read_table()
    with ours(folder):
        fetch.fetch(table, folder / "archives")
        with replaced(folder) as new:
            build.build([p for p in table if not p.older], folder / "archives", new / "packages")
            build.build([p for p in table if p.older], folder / "archives", new / "revised")
            texts = heldout.hold_out(new / "packages")
            for name in ("packages", "revised"):
                heldout.drop_repeats(new / name, texts)
            tasks.write(new / "tasks", texts, (new / "packages", new / "revised"))
            stages.write(new / "stages", new / "packages", new / "revised")
    sizes = count(folder / "packages")
    files.write_json(folder / RECORD, {"source": source(), "domains": sizes})
    for domain, size in sizes.items():
        progress.log.info("%-24s %12d bytes %8d documents", domain, size["bytes"], size["documents"])
    total = sum(size["bytes"] for size in sizes.values())
    progress.log.info("%d domains, %d bytes of text in %s", len(sizes), total, folder / "packages")


def source() -> str:
    """Return a digest of the table of packages and of the code that makes text of them."""
    paths = [HERE / name for name in MAKES_TEXT] + [HERE.parents[1] / "olmix_jax/corpus" / name for name in MAKES_TASKS]
    return files.digest([path.read_text(encoding="utf-8") for path in paths])


def is_current(folder: pathlib.Path) -> bool:
    """Return whether a folder has everything that this version of the program writes."""
    try:
        record = files.read_json(folder / RECORD)
    except UserError:
        return False
    domains = record.get("domains") if record.get("source") == source() else None
    return isinstance(domains, dict) and all(
        path.is_dir()
        for path in (*(folder / part for part in PARTS), *(folder / "packages" / name for name in domains))
    )


@contextlib.contextmanager
def ours(folder: pathlib.Path) -> Iterator[None]:
    """Lock a folder, and mark it as one whose parts this program replaces.

    Raises:
      UserError: the folder has such parts that this program did not write, or another run uses it.
    """
    mark = folder / MARK
    foreign = [folder / part for part in PARTS if (folder / part).is_symlink() or (folder / part).is_file()]
    if not mark.exists():
        foreign += [folder / part for part in PARTS if (folder / part).is_dir()]
    if foreign:
        raise UserError(
            f"{foreign[0]} was not written by `make corpus`, which would replace it; move it away, or give another "
            "--folder"
        )
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            opened = stack.enter_context(open(mark, "a", encoding="utf-8"))
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise UserError(f"{folder} is in use by another `make corpus`; wait until it ends") from e
        except OSError as e:
            raise UserError(f"--folder={folder}: cannot write there: {e.strerror or e}") from e
        yield


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
        (folder / RECORD).unlink(missing_ok=True)
        for part in PARTS:
            shutil.rmtree(folder / part, ignore_errors=True)
            (new / part).rename(folder / part)
    except OSError as e:
        raise UserError(f"--folder={folder}: cannot write there: {e.strerror or e}") from e
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
    except KeyboardInterrupt:
        print("stopped; the same command goes on: archives are kept", file=sys.stderr)
        sys.exit(130)
