"""Measure speed and memory of ``prepare``, compared with an earlier commit in the same run: benchmarks/prepare.md.

    python -m benchmarks.prepare [--old=COMMIT]

The text is made of paragraphs of the built-in corpus. Every measurement is a new process; old and new take turns.
"""

import dataclasses
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import time

from absl import app, flags

from benchmarks import laws_page
from olmix_jax.corpus import builtin
from olmix_jax.utils.progress import log

HERE = pathlib.Path(__file__).parent
# The last commit that kept all text in memory.
OLD = flags.DEFINE_string("old", "117a7a9", "The commit to compare with.")
MEGABYTES = flags.DEFINE_integer("megabytes", 300, "Text for the comparison.")
LARGE = flags.DEFINE_integer("large", 2000, "Text for the measurement of memory.")
WRITE = flags.DEFINE_string("write", "", "Only write the texts, to this folder.")
TURNS = flags.DEFINE_integer("turns", 2, "Measurements of each; the fastest counts.")
LIBRARIES = "tokenizers", "numpy"
# Bytes of each of two text files; the old commit needs 170 times as much memory.
FILE = 8_000_000
TARGET_RATIO, TARGET_MEGABYTES = 3, 1000
# Measures the stage in a new process: seconds, and the peak of its memory [MB].
CHILD = """
import json, resource, sys, time
from olmix_jax import config as configs
from olmix_jax.corpus.prepare import prepare
corpus = configs.Corpus(path=sys.argv[1], vocabulary=2048)
begun = time.perf_counter()
prepare(configs.Config(corpus=corpus, proxy=configs.Proxy(length=128)), sys.argv[2])
seconds = time.perf_counter() - begun
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3]))
"""


@dataclasses.dataclass(frozen=True)
class Measured:
    """Speed [MB/s], and the peak of memory [MB]: of the process, and with the processes that it started."""

    speed: float
    peak: float
    total: float


def paragraphs() -> list[str]:
    """Return the paragraphs of the built-in corpus."""
    texts = (document.text.replace("\0", "") for _, documents in builtin.stream(60_000_000) for document in documents)
    return [paragraph for text in texts for paragraph in text.split("\n\n") if paragraph.strip("\0 \n")]


def write_jsonl(path: pathlib.Path, source: list[str], size: int, seed: int) -> None:
    """Write documents of 5 to 40 random paragraphs, until they have ``size`` bytes."""
    draw, written = random.Random(seed), 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        while written < size:
            text = "\n\n".join(draw.choices(source, k=draw.randint(5, 40)))
            f.write(json.dumps({"text": text}) + "\n")
            written += len(text.encode())


def write_text(path: pathlib.Path, source: list[str], size: int, seed: int) -> None:
    """Write one text of random paragraphs of ``size`` bytes."""
    draw, written = random.Random(seed), 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        while written < size:
            text = draw.choice(source) + "\n\n"
            f.write(text)
            written += len(text.encode())


def size_of(folder: pathlib.Path) -> float:
    """Return the size of all files of a folder [MB]."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def measure(code: pathlib.Path, text: pathlib.Path) -> Measured:
    """Run ``prepare`` of a checkout on a text, in a new process."""
    with tempfile.TemporaryDirectory(dir=text.parent) as workdir:
        command = [sys.executable, "-c", CHILD, str(text), workdir]
        environment = os.environ | {"PYTHONPATH": str(code)}
        process = subprocess.Popen(command, cwd=code, env=environment, stdout=subprocess.PIPE, text=True)
        total = 0.0
        while process.poll() is None:
            total = max(total, resident(process.pid))
            time.sleep(0.1)
        output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"prepare of {code} failed with status {process.returncode}")
    seconds, peak = json.loads(output.strip().splitlines()[-1])
    log.info("%s, %s: %.0f s, %.0f MB", code.name, text.name, seconds, peak)
    return Measured(size_of(text) / seconds, peak, max(peak, total))


def resident(pid: int) -> float:
    """Return the memory [MB] of a process and its children; 0 if it has ended."""
    place = pathlib.Path("/proc", str(pid))
    try:
        own = int(re.findall(r"VmRSS:\s+(\d+)", (place / "status").read_text())[0]) / 1e3
        return own + sum(map(resident, map(int, (place / "task" / str(pid) / "children").read_text().split())))
    except (OSError, IndexError):
        return 0.0


def checkout(commit: str, folder: pathlib.Path) -> pathlib.Path:
    """Write the package of a commit to a folder."""
    folder.mkdir()
    archive = subprocess.run(
        ["git", "archive", commit, "olmix_jax"], cwd=HERE.parent, stdout=subprocess.PIPE, check=True
    )
    subprocess.run(["tar", "-x"], cwd=folder, input=archive.stdout, check=True)
    return folder


def compare(folder: pathlib.Path, text: pathlib.Path) -> tuple[Measured, Measured]:
    """Return the fastest of the old and of the new commit; they take turns."""
    turns = [[measure(code, text) for code in (folder / "old", HERE.parent)] for _ in range(TURNS.value)]
    old, new = (max(side, key=lambda m: m.speed) for side in zip(*turns))
    return old, new


def write_texts(folder: pathlib.Path) -> None:
    """Write all texts."""
    source = paragraphs()
    # A domain that repeats the lines of another is refused, so that domains have different paragraphs.
    halves = source[::2], source[1::2]
    for number, (share, half) in enumerate(zip((0.7, 0.3), halves)):
        write_jsonl(folder / f"jsonl/{number}.jsonl", half, int(share * 1e6 * MEGABYTES.value), number)
        write_text(folder / f"files/web/{number}.txt", half, FILE, number)
    write_jsonl(folder / "large/lines.jsonl", halves[0], LARGE.value * 500_000, 2)
    write_text(folder / "large/book.txt", halves[1], LARGE.value * 500_000, 3)


def main(_: list[str]) -> None:
    if WRITE.value:
        write_texts(pathlib.Path(WRITE.value))
        return
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        checkout(OLD.value, folder / "old")
        # In another process, because a new process inherits the peak of this one's memory.
        subprocess.run([sys.executable, "-m", "benchmarks.prepare", *sys.argv[1:], f"--write={folder}"], check=True)
        many, few = compare(folder, folder / "jsonl"), compare(folder, folder / "files")
        large = measure(HERE.parent, folder / "large")
    reached = {True: "reached", False: "missed"}
    ratio = many[1].speed / many[0].speed
    rows = [
        ("JSON lines", f"{MEGABYTES.value} MB", *figures(*many)),
        ("two `.txt` files", f"{2 * FILE / 1e6:.0f} MB", *figures(*few)),
        (
            "JSON lines and one `.txt` file",
            f"{LARGE.value} MB",
            "",
            f"{large.speed:.2f}",
            "",
            "",
            f"{large.peak:.0f}",
            f"{large.total:.0f}",
        ),
    ]
    header = ("text", "size", "old, MB/s", "new, MB/s", "ratio", "old, peak MB", "new, peak MB", "with its processes")
    verdicts = [
        f"Target: ≥ {TARGET_RATIO} times the speed on JSON lines: {ratio:.1f}, {reached[ratio >= TARGET_RATIO]}.",
        f"Target: < {TARGET_MEGABYTES} MB for {LARGE.value} MB of text: {large.total:.0f} MB, "
        f"{reached[large.total < TARGET_MEGABYTES]}.",
    ]
    page = [
        "# Preparing text: speed and memory",
        laws_page.provenance("`python -m benchmarks.prepare`", LIBRARIES),
        laws_page.table(header, rows),
        " ".join(verdicts),
        f"Old is commit {OLD.value}, the last one that kept all text in memory. Speed is bytes of the files per second "
        f"of `prepare`, the fastest of {TURNS.value}; old and new take turns. The load of the machine before the run "
        f"was {load:.1f}. Peak memory is `ru_maxrss` of the process. With its processes, it is the sum over it and "
        "those that encode and compare text, sampled ten times a second. The text is made of random paragraphs of the "
        "built-in corpus, mostly code, in documents of 5 to 40. Both train a tokenizer on the same 16 MB, which takes "
        "most of the time for the two files.",
    ]
    (HERE / "prepare.md").write_text("\n\n".join(page) + "\n", encoding="utf-8")
    print("\n".join(verdicts))


def figures(old: Measured, new: Measured) -> tuple[str, ...]:
    """Return speeds, their ratio, and peaks of memory."""
    speeds = f"{old.speed:.2f}", f"{new.speed:.2f}", f"{new.speed / old.speed:.1f}"
    return *speeds, f"{old.peak:.0f}", f"{new.peak:.0f}", f"{new.total:.0f}"


if __name__ == "__main__":
    app.run(main)
