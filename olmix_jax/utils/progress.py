"""What a run says while it works: bars on a terminal, plain lines elsewhere, all of it in the workdir's log."""

import contextlib
import logging
import pathlib
import sys
import time
from collections.abc import Iterable, Iterator

import tqdm

from olmix_jax.utils.errors import UserError

log = logging.getLogger("olmix_jax")


def counted(number: int, noun: str) -> str:
    """As "1 member", "1,200 members"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


class _AboveTheBar(logging.Handler):
    def emit(self, record):
        tqdm.tqdm.write(self.format(record), file=sys.stderr)


class _File(logging.FileHandler):
    def handleError(self, record):
        # A full disk is told once by the stage that needs it, not with a traceback for every line.
        log.removeHandler(self)


def start_log(workdir: str | pathlib.Path | None, process: int = 0) -> None:
    """Sends ``log`` to the terminal and, where a workdir is given, to its ``log.txt``; that of a process other than the
    first to ``log-‹process›.txt``."""
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    log.setLevel(logging.INFO)
    log.propagate = False
    screen = _AboveTheBar()
    screen.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(screen)
    if workdir is not None:
        try:
            pathlib.Path(workdir).mkdir(parents=True, exist_ok=True)
            file = _File(pathlib.Path(workdir) / (f"log-{process:04d}.txt" if process else "log.txt"), encoding="utf-8")
        except OSError as e:
            raise UserError(f"--workdir={workdir} cannot be written: {e.strerror}; give another folder") from e
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.addHandler(file)


@contextlib.contextmanager
def quiet():
    """Warnings alone are said; of what another process says already."""
    before = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(before)


class Progress:
    """Counts work done, with rate and time left: a bar on a terminal, a line every ten seconds elsewhere.

    Use as a context manager; ``advance`` after each piece of work.
    """

    def __init__(self, what: str, total: int, unit: str, done: int = 0):
        self.what, self.total, self.unit, self.done, self.first = what, total, unit, done, done
        self.bar = None

    def __enter__(self) -> "Progress":
        self.start = self.said = time.monotonic()
        if sys.stderr.isatty() and log.level <= logging.INFO:
            self.bar = tqdm.tqdm(
                total=self.total, initial=self.done, desc=self.what, unit=self.unit, unit_scale=True, dynamic_ncols=True
            )
        return self

    def advance(self, amount: int = 1, note: str = "") -> None:
        self.done += amount
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(amount)
        elif time.monotonic() - self.said > 10:
            self.said = time.monotonic()
            log.info("%s", self._line(note))

    def _line(self, note: str) -> str:
        rate = (self.done - self.first) / max(time.monotonic() - self.start, 1e-9)
        left = (self.total - self.done) / rate if rate else float("inf")
        line = f"{self.what}: {self.done:,} of {self.total:,} {self.unit}, {rate:,.0f} {self.unit}/s, {left:.0f} s left"
        return f"{line}, {note}" if note else line

    def __exit__(self, *exc) -> None:
        if self.bar is not None:
            self.bar.close()
        seconds = time.monotonic() - self.start
        if exc[0] is None:
            log.info("%s: %s %s in %.1f s", self.what, f"{self.done:,}", self.unit, seconds)


def tracked(items: Iterable, what: str, unit: str, total: int | None = None) -> Iterator:
    """Yields ``items`` while showing progress."""
    with Progress(what, len(items) if total is None else total, unit) as progress:
        for item in items:
            yield item
            progress.advance()
