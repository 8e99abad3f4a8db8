"""Processes that work on batches of text, because Python keeps one core busy with text.

``python -m olmix_jax.corpus.workers`` is such a process: it reads batches of texts, each with the name of a task, and
writes an answer to each.
"""

import collections
import contextlib
import gc
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import IO

import numpy as np

import olmix_jax
from olmix_jax.utils import devices
from olmix_jax.utils.errors import UserError

# For less text, starting processes takes longer than the work.
SMALLEST = 1 << 24
_MOST = 8
# What a process does with text, for messages.
_DOES = {"encode": "encodes", "fingerprint": "compares", "lines": "compares lines of"}
# The answer to a batch.
Answer = list[bytes]


class Workers:
    """Processes that end with the ``with`` block."""

    def __init__(self) -> None:
        package = str(pathlib.Path(olmix_jax.__file__).parents[1])
        path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = os.environ | {"PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false"}
        command, pipe = [sys.executable, "-m", "olmix_jax.corpus.workers"], subprocess.PIPE
        # In groups of their own, an interruption reaches this process alone, which ends them.
        self.processes = [
            subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment, process_group=0) for _ in range(count())
        ]

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *exc: object) -> None:
        self._kill()
        for process in self.processes:
            process.communicate()

    def _kill(self) -> None:
        for process in self.processes:
            process.kill()

    def map(self, task: str, batches: Iterable[list[str]], setting: bytes = b"") -> Iterator[Answer]:
        """Yield the answer to each batch, in order and in bounded memory.

        If the caller stops before the last answer, or an answer is an error, the processes end, because they still have
        batches to answer.

        Args:
          task: a key of :func:`tasks`.
          batches: texts that are worked on at once.
          setting: what the task needs besides texts.

        Raises:
          UserError: the task raised it, or a process ended.
        """
        idle, busy = collections.deque(self.processes), collections.deque[subprocess.Popen[bytes]]()
        ready = set[int]()
        # A process gets a batch when its last answer is read, so that neither side waits for the other to read.
        done = False
        try:
            for batch in batches:
                if not idle:
                    idle.append(busy.popleft())
                    yield _receive(idle[0], task)
                process = idle.popleft()
                busy.append(process)
                _send(process, task, b"" if process.pid in ready else setting, *_packed(batch))
                ready.add(process.pid)
            while busy:
                yield _receive(busy.popleft(), task)
            done = True
        finally:
            if not done:
                self._kill()


@contextlib.contextmanager
def for_size(size: int) -> Iterator[Workers | None]:
    """Provide workers for ``size`` bytes of text; None if this process is as fast alone."""
    if size < SMALLEST or count() == 1:
        yield None
    else:
        with Workers() as several:
            yield several


def count() -> int:
    """Return the number of processes."""
    return min(_MOST, devices.count_cpus())


def tasks() -> dict[str, Callable[[bytes], Callable[[list[str]], Answer]]]:
    """Return the tasks: functions of a setting that return functions of a batch of texts."""
    from olmix_jax.corpus import duplicates, encoding, shared_lines  # they use this module

    return {"encode": encoding.task, "fingerprint": duplicates.task, "lines": shared_lines.task}


def _packed(texts: list[str]) -> tuple[bytes, bytes]:
    """Return the sizes of texts, int64, and the texts, UTF-8."""
    content = [text.encode() for text in texts]
    return np.array([len(text) for text in content], np.int64).tobytes(), b"".join(content)


def _unpacked(sizes: bytes, content: bytes) -> list[str]:
    ends = np.cumsum(np.frombuffer(sizes, np.int64)).tolist()
    return [content[start:end].decode() for start, end in zip([0, *ends], ends)]


def _send(process: subprocess.Popen[bytes], task: str, *messages: bytes) -> None:
    assert process.stdin is not None
    try:
        _write(process.stdin, task.encode(), *messages)
    except OSError as e:
        raise _ended(process, task) from e


def _receive(process: subprocess.Popen[bytes], task: str) -> Answer:
    assert process.stdout is not None
    try:
        error, number = _read(process.stdout).decode(), int(_read(process.stdout))
        answer = [_read(process.stdout) for _ in range(number)]
    except (OSError, EOFError) as e:
        raise _ended(process, task) from e
    if error:
        raise UserError(error)
    return answer


def _write(target: IO[bytes], *messages: bytes) -> None:
    """Write messages: the size of each in 8 bytes, and its content."""
    for message in messages:
        target.write(len(message).to_bytes(8, "little"))
        target.write(message)
    target.flush()


def _read(source: IO[bytes]) -> bytes:
    """Read a message of :func:`_write`. Raises EOFError if it is incomplete."""
    size = source.read(8)
    content = source.read(int.from_bytes(size, "little"))
    if len(size) < 8 or len(content) < int.from_bytes(size, "little"):
        raise EOFError
    return content


def _ended(process: subprocess.Popen[bytes], task: str) -> UserError:
    return UserError(
        f"a process that {_DOES[task]} text ended with status {process.wait()}; if it was killed for its memory, free "
        "some; finished domains are kept: run the same command again"
    )


def main(source: IO[bytes], target: IO[bytes]) -> None:
    """Read tasks, their settings and batches of texts until the end, and write the answer to each batch."""
    known, functions = tasks(), dict[str, Callable[[list[str]], Answer]]()
    with contextlib.suppress(EOFError):
        while True:
            task, setting = _read(source).decode(), _read(source)
            texts = _unpacked(_read(source), _read(source))
            answer, error = Answer(), ""
            try:
                if setting or task not in functions:
                    functions[task] = known[task](setting)
                answer = functions[task](texts)
            except UserError as e:
                error = str(e)
            _write(target, error.encode(), str(len(answer)).encode(), *answer)


if __name__ == "__main__":
    # Nothing here forms reference cycles, and looking for them takes a sixth of the time.
    gc.disable()
    with contextlib.suppress(BrokenPipeError):
        main(sys.stdin.buffer, sys.stdout.buffer)
