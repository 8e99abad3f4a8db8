"""Progress and log: bars on a terminal, plain lines elsewhere, and a copy of every line in the workdir's log file."""

import contextlib
import logging
import pathlib
import sys
import time
from collections.abc import Collection, Iterator
from typing import TypeVar

import tqdm

from olmix_jax.utils import os_errors
from olmix_jax.utils.errors import UserError

T = TypeVar("T")

log = logging.getLogger("olmix_jax")


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: "1 member", "1,200 members"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


class _TerminalHandler(logging.Handler):
    """Prints log lines above the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.tqdm.write(self.format(record), file=sys.stderr)


class _FileHandler(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        # The stage that writes to the full disk reports the error. The log must not repeat it for every line.
        log.removeHandler(self)
        with contextlib.suppress(OSError):
            self.close()


class _HoldingHandler(logging.Handler):
    """Keeps log lines until :func:`start_log` writes them."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def _close_handlers() -> None:
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()


def hold_log() -> None:
    """Keep the lines of ``log``, such as those about the config, until :func:`start_log` is called."""
    _close_handlers()
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(_HoldingHandler())


def start_log(workdir: str | pathlib.Path | None, process: int = 0) -> None:
    """Send ``log`` to the terminal and, if ``workdir`` is given, to a file in it, with the lines held until now.

    The first process writes ``log.txt``, the others ``log-‹process›.txt``.
    """
    held = [record for handler in log.handlers if isinstance(handler, _HoldingHandler) for record in handler.records]
    _close_handlers()
    log.setLevel(logging.INFO)
    log.propagate = False
    terminal = _TerminalHandler()
    terminal.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(terminal)
    if workdir is not None:
        name = f"log-{process:04d}.txt" if process else "log.txt"
        try:
            pathlib.Path(workdir).mkdir(parents=True, exist_ok=True)
            file = _FileHandler(pathlib.Path(workdir) / name, encoding="utf-8")
        except OSError as e:
            raise UserError(f"--workdir={workdir} is not writable: {os_errors.writing(e, workdir)}") from e
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.addHandler(file)
    for record in held if process == 0 else []:
        log.handle(record)


@contextlib.contextmanager
def warnings_only() -> Iterator[None]:
    """Log warnings only, for work that another process already logs."""
    with _at_least(logging.WARNING):
        yield


@contextlib.contextmanager
def errors_only() -> Iterator[None]:
    """Log errors only, for work whose warnings do not concern the user."""
    with _at_least(logging.ERROR):
        yield


@contextlib.contextmanager
def _at_least(level: int) -> Iterator[None]:
    before = log.level
    log.setLevel(level)
    try:
        yield
    finally:
        log.setLevel(before)


class Progress:
    """Counts finished work and shows its rate and the time left.

    A bar on a terminal; elsewhere a log line every ten seconds. Use it as a context manager and call ``advance`` after
    each piece of work.

    Args:
      title: the name of the work, such as "tokenize".
      total: the amount of work, in ``unit``.
      unit: what is counted, a plural noun such as "bytes".
      done: the amount already done by an earlier run.
    """

    def __init__(self, title: str, total: int, unit: str, done: int = 0):
        self.title, self.total, self.unit, self.done, self.done_at_start = title, total, unit, done, done
        self.bar: tqdm.tqdm | None = None

    def __enter__(self) -> "Progress":
        self.start = self.last_line = time.monotonic()
        if sys.stderr.isatty() and log.level <= logging.INFO:
            self.bar = tqdm.tqdm(
                total=self.total,
                initial=self.done,
                desc=self.title,
                unit=self.unit,
                unit_scale=True,
                dynamic_ncols=True,
            )
        return self

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Add ``amount`` to the finished work. ``note`` is shown after the figures."""
        self.done += amount
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(amount)
        elif time.monotonic() - self.last_line > 10:
            self.last_line = time.monotonic()
            log.info("%s", self._line(note))

    def _line(self, note: str) -> str:
        rate = (self.done - self.done_at_start) / max(time.monotonic() - self.start, 1e-9)
        left = (self.total - self.done) / rate if rate else float("inf")
        line = (
            f"{self.title}: {self.done:,} of {self.total:,} {self.unit}, {rate:,.0f} {self.unit}/s, {left:.0f} s left"
        )
        return f"{line}, {note}" if note else line

    def __exit__(self, *exc: object) -> None:
        if self.bar is not None:
            self.bar.close()
        seconds = time.monotonic() - self.start
        if exc[0] is None:
            log.info("%s: %s %s in %.1f s", self.title, f"{self.done:,}", self.unit, seconds)


def tracked(items: Collection[T], title: str, unit: str) -> Iterator[T]:
    """Yield ``items`` and show progress."""
    with Progress(title, len(items), unit) as progress:
        for item in items:
            yield item
            progress.advance()
